"""Sizes known before anything is read: of datasets, and of what a network makes of them."""
