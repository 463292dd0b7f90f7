"""The settings of projected gradient descent."""

from typing import ClassVar, Literal

from pydantic import Field

from node_robustness.config.attack import RandomStart

BUILT_IN = {
    "pgd": {
        "method": "pgd",
        "iterations": 20,
        "restarts": 2,
        "relative_step": 0.125,
        "loss": "margin",
    },
    "pgd_surrogate": {
        "method": "pgd",
        "iterations": 40,
        "restarts": 2,
        "relative_step": 0.0625,
        "loss": "margin",
        "gradient": "surrogate",
        "surrogate": {"tolerance": 1e-4},
    },
}


class PGDSettings(RandomStart):
    """Projected gradient descent: BIM from random points of the ball."""

    IN_STEPS: ClassVar[bool] = True

    method: Literal["pgd"] = Field(description="pgd")
