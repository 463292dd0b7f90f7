"""Attacks: the engine, the protocol of its methods, and the methods."""
