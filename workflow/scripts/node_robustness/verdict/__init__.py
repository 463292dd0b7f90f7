"""The verdict: protocols, checks, and what follows from them for settings, models, tolerances."""
