"""The settings of projected gradient descent over drawn tolerances."""

from typing import Literal, Self

from pydantic import Field, model_validator

from node_robustness.config.attack import RandomStart
from node_robustness.config.values import Count

BUILT_IN = {
    "eot_pgd": {
        "method": "eot_pgd",
        "iterations": 20,
        "relative_step": 0.125,
        "loss": "margin",
        "draws": 5,
    },
}


class EOTPGDSettings(RandomStart):
    """PGD by the mean gradient over drawn tolerances (expectation over transformation).

    The distribution is that of the experiment's `randomisation`. What is found is evaluated at the
    cell's tolerance.
    """

    method: Literal["eot_pgd"] = Field(description="eot_pgd")
    draws: Count = Field(5, description="draws over which the gradient of one step is averaged")

    @property
    def draws_tolerances(self) -> bool:
        """See `AnyAttack.draws_tolerances`."""
        return True

    @model_validator(mode="after")
    def _tolerances_are_drawn(self) -> Self:
        if self.gradient == "surrogate":
            raise ValueError(
                "method eot_pgd draws the tolerances of its gradients and takes no surrogate: "
                "give gradient direct or adjoint"
            )
        return self
