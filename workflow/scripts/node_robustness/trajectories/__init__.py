"""Follow perturbations along the hidden state, and ask which part of their way is to blame."""
