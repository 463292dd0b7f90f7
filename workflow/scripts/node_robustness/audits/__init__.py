"""The audit: gradients, checks of attacks, other tolerances, and defences by the tolerance."""
