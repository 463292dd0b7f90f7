"""The solver: batches of initial value problems in which each sample has its own steps."""
