"""Perturbations along the hidden state, and which part of the dynamics is responsible."""
