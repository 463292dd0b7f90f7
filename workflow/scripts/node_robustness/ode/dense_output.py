"""Dense output: the state inside a step, as weights of the terms of the step.

Each function takes positions x in [0, 1] within the step, float64 [r], and returns weights
[terms, r]. The weighted terms, added to the state at the start of the step, give the state at x.
"""

import torch
from torch import Tensor

from node_robustness.ode.tableaus import Tableau


def linear(x: Tensor) -> Tensor:
    """Linear interpolation: weights of the old and the new state, [2, r]."""
    return torch.stack([-x, x])


def quartic(tableau: Tableau, x: Tensor, step: Tensor) -> Tensor:
    """The quartic through the states at start, middle and end, and the slopes at both ends.

    Args:
        tableau: of the method; the state at the middle is a combination of its stages.
        x: positions within the step, [r].
        step: signed step sizes, [r].

    Returns:
        Weights of the old state, the new state and the s stages, [2 + s, r].
    """
    powers = torch.stack([x**4, x**3, x**2, x])
    coefficients = torch.tensor(
        [
            [-8.0, 18.0, -11.0, 0.0],  # old state, minus the 1 that is there already
            [-8.0, 14.0, -5.0, 0.0],  # new state
            [16.0, -32.0, 16.0, 0.0],  # middle
            [-2.0, 5.0, -4.0, 1.0],  # first slope, times the step
            [2.0, -3.0, 1.0, 0.0],  # last slope, times the step
        ],
        dtype=x.dtype,
    )
    old, new, middle, first, last = coefficients @ powers
    slopes = torch.outer(torch.tensor(tableau.middle, dtype=x.dtype), step * middle)
    slopes[0] += step * first
    slopes[-1] += step * last
    # The middle is the old state plus slopes.
    return torch.cat([torch.stack([old + middle, new]), slopes])
