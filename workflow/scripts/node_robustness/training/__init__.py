"""Training of the classifiers."""
