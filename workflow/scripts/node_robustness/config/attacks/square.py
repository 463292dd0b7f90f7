"""The settings of the Square attack."""

from typing import Literal

from pydantic import Field

from node_robustness.config.attack import AnyAttack
from node_robustness.config.values import Count

BUILT_IN = {
    "square": {"method": "square", "queries": 5000},
    "square_short": {"method": "square", "queries": 1000},
}


class SquareSettings(AnyAttack):
    """Square attack: random squares, kept where they help; needs no gradient."""

    method: Literal["square"] = Field(description="square")
    queries: Count = Field(5000, description="passes of an image through the model at most")

    @property
    def expensive(self) -> bool:
        """See `AnyAttack.expensive`."""
        return True
