"""The verdict: protocols, comparisons, checks, and what follows from them."""
