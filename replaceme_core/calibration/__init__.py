"""Calibration: from text or images to batches of tokens."""
