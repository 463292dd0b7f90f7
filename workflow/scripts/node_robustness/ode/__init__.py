"""The solver: initial value problems in batches in which every sample has its own steps."""
