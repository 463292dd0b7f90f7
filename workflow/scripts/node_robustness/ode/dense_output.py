"""The state between the ends of a step, as weights of what the step has computed.

Each function takes the shares x of the step at which the state is wanted, float64 [r], and gives
weights [terms, r]; the weighted terms are to be added to the state at the start of the step.
"""

import torch
from torch import Tensor

from node_robustness.ode.tableaus import Tableau


def linear(x: Tensor) -> Tensor:
    """On the straight line between the states: weights of the old and the new one."""
    return torch.stack([-x, x])


def quartic(tableau: Tableau, x: Tensor, step: Tensor) -> Tensor:
    """On the quartic through the states at start, middle and end and the slopes at the ends.

    Args:
        tableau: of the method; the state at the middle is itself a combination of its stages.
        x: shares of the step.
        step: the step sizes, with their sign.

    Returns:
        Weights of the old state, the new state and the s stages.
    """
    powers = torch.stack([x**4, x**3, x**2, x])
    coefficients = torch.tensor(
        [
            [-8.0, 18.0, -11.0, 0.0],  # old state, less the 1 already there
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
