"""Measurements, run by hand: `python -m tests.bench NAME`. They are not tests and decide nothing."""
