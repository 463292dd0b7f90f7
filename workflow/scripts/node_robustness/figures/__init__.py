"""Figures: pure functions from tables to Altair charts."""
