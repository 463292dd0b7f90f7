"""Perturbations of images: norms, balls, noise and their random numbers."""
