"""The settings of Auto-PGD."""

from typing import Literal, Self

from pydantic import Field, model_validator

from node_robustness.config.attack import GradientAttack
from node_robustness.config.values import Count

BUILT_IN = {
    "apgd_ce": {"method": "apgd", "loss": "ce", "iterations": 100},
    "apgd_t": {"method": "apgd", "loss": "dlr", "iterations": 100, "targets": 9},
    # All targets in few steps break more than few targets in many.
    "apgd_t_short": {"method": "apgd", "loss": "dlr", "iterations": 12, "targets": 9},
    "apgd_surrogate": {
        "method": "apgd",
        "loss": "ce",
        "iterations": 100,
        "gradient": "surrogate",
        "surrogate": {"tolerance": 1e-4},
    },
    "apgd_surrogate_short": {
        "method": "apgd",
        "loss": "ce",
        "iterations": 40,
        "gradient": "surrogate",
        "surrogate": {"tolerance": 1e-4},
    },
}


class APGDSettings(GradientAttack):
    """Auto-PGD: sets its step size itself."""

    method: Literal["apgd"] = Field(description="apgd")
    loss: Literal["ce", "dlr"] = Field(
        "ce", description="ce: cross-entropy; dlr: difference of logits ratio"
    )
    iterations: Count = Field(100, description="gradient steps of a run")
    restarts: Count = Field(1, description="runs, for each target where there are targets")
    targets: Count | None = Field(
        None,
        description="only for dlr: aim at this many classes in turn (at most all but the label); "
        "untargeted if unset",
    )

    @property
    def expensive(self) -> bool:
        """See `AnyAttack.expensive`: runs for many targets and accurate solves are."""
        return self.targets is not None or self.gradient == "surrogate"

    @model_validator(mode="after")
    def _targets_need_dlr(self) -> Self:
        if self.targets is not None and self.loss != "dlr":
            raise ValueError("targets needs loss: dlr")
        return self
