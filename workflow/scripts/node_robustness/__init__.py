"""Measure how robust neural-ODE image classifiers are, and whether that robustness is real."""

__version__ = "0.1.0"
