"""The settings of adversarial examples made on another model."""

from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from node_robustness.config.attack import AnyAttack
from node_robustness.config.values import Name

BUILT_IN = {"transfer": {"method": "transfer", "by": "pgd"}}


class TransferSettings(AnyAttack):
    """Adversarial examples made on another model of the experiment."""

    method: Literal["transfer"] = Field(description="transfer")
    source: Name | None = Field(
        None,
        description="a model of the experiment; if unset RES, or the first model where there is "
        "none of that name",
    )
    by: Name = Field(
        description="the attack on the source, of method fgsm, bim or pgd, without early stop"
    )

    @property
    def made_by(self) -> str:
        """See `AnyAttack.made_by`."""
        return self.by

    @property
    def made_on(self) -> str | None:
        """See `AnyAttack.made_on`."""
        return self.source

    def steps(self, attacks: Mapping[str, AnyAttack]) -> int:
        """See `AnyAttack.steps`."""
        return attacks[self.by].steps(attacks) + 1
