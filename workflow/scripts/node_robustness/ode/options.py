"""torchdiffeq's options of a solve, with their meaning there."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from node_robustness.ode.rows import Function, State
from node_robustness.ode.step_control import StepSizes

_SIZES = {"first_step": "first", "safety": "safety", "ifactor": "growth", "dfactor": "shrinkage"}
ADAPTIVE = ("max_num_steps", *_SIZES)
"""Options of methods with adaptive steps that the solver has."""
FIXED = ("step_size", "grid_constructor")
"""Options of methods with fixed steps."""


def step_sizes(options: Mapping[str, Any]) -> StepSizes:
    """How adaptive steps are sized."""
    return StepSizes(**{_SIZES[key]: float(options[key]) for key in _SIZES.keys() & options})


def fixed_grid(function: Function, initial: State, t: Tensor, options: Mapping[str, Any]) -> Tensor:
    """The times between which a method of fixed steps steps.

    Args:
        function: the right-hand side, for a `grid_constructor`.
        initial: the initial state, for a `grid_constructor`.
        t: output times, [T], increasing or decreasing.
        options: `grid_constructor` or `step_size`; with neither, the steps are between the times.
    """
    constructor, step = options.get("grid_constructor"), options.get("step_size")
    if constructor is not None:
        grid: Tensor = constructor(function, initial, t)
        return grid
    if step is None:
        return t
    sign = -1 if t[0] > t[-1] else 1
    first, last = sign * t[0], sign * t[-1]
    count = int(torch.ceil((last - first) / step + 1).item())
    grid = torch.arange(count, dtype=t.dtype, device=t.device) * step + first
    grid[-1] = last
    return sign * grid
