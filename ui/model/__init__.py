"""The Model page: which model, which calibration set."""
