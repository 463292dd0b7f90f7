"""Perturbations along the hidden state, and where the margin of a decision is lost."""
