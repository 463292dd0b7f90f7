"""The grid of an experiment: its cells, their settings, and where each file of a run lies."""
