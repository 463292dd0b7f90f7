"""The settings of the basic iterative method."""

from typing import ClassVar, Literal

from pydantic import Field

from node_robustness.config.attack import SteppedAttack

_TEN_STEPS = {"method": "bim", "iterations": 10, "relative_step": 0.25}

BUILT_IN = {
    # The paper's, but for its steps, which are absolute.
    "bim_adjoint": {**_TEN_STEPS, "gradient": "adjoint"},
    "bim_direct": _TEN_STEPS,
    "bim_surrogate": {
        **_TEN_STEPS,
        "gradient": "surrogate",
        "surrogate": {"tolerance": 1e-4},
    },
}


class BIMSettings(SteppedAttack):
    """Basic iterative method, the paper's: no random start, any iterate counts."""

    IN_STEPS: ClassVar[bool] = True

    method: Literal["bim"] = Field(description="bim")
