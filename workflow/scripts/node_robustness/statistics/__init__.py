"""Statistics: intervals, tests and rounding."""
