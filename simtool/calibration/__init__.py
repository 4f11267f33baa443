"""Calibration: everything that touches measurements."""
