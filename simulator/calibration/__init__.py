"""Measures a machine and a pair of models for the simulator; see docs/calibration.md."""
