"""The settings of Carlini and Wagner's attack."""

from typing import Literal

from pydantic import Field

from node_robustness.config.attack import GradientAttack
from node_robustness.config.values import Count, NonNegative, Positive

BUILT_IN = {"cw": {"method": "cw"}}


class CarliniWagnerSettings(GradientAttack):
    """Carlini and Wagner's attack: the smallest perturbation in L2."""

    method: Literal["cw"] = Field(description="cw")
    iterations: Count = Field(200, description="gradient steps for each weight of the loss")
    search_steps: Count = Field(6, description="weights tried by binary search")
    learning_rate: Positive = Field(0.01, description="of Adam")
    confidence: NonNegative = Field(
        0, description="by how much the wrong logit must exceed the right one"
    )

    @property
    def norms(self) -> tuple[str, ...]:
        """See `AnyAttack.norms`."""
        return ("l2", "l2_rms")

    @property
    def minimal(self) -> bool:
        """See `AnyAttack.minimal`."""
        return True

    @property
    def expensive(self) -> bool:
        """See `AnyAttack.expensive`."""
        return True
