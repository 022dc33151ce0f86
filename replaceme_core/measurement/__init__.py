"""The one pass over the calibration set: distances and moments."""
