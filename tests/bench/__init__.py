"""Measurements, run by hand: `python -m tests.bench NAME`. Not tests: they decide nothing."""
