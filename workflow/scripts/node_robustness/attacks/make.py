"""From the settings of a cell to the attack that they describe."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from torch import nn

from node_robustness.attacks.apgd import AutoPGD
from node_robustness.attacks.bim import BasicIterativeMethod, FastGradientSign
from node_robustness.attacks.bisection import Bisection
from node_robustness.attacks.carlini_wagner import CarliniWagner
from node_robustness.attacks.expectation import ExpectationOverTolerances, log_uniform
from node_robustness.attacks.fab import FAB
from node_robustness.attacks.method import Method
from node_robustness.attacks.noise import Noise
from node_robustness.attacks.pgd import ProjectedGradientDescent
from node_robustness.attacks.square import Square
from node_robustness.attacks.transfer import Transfer
from node_robustness.perturbations.norms import Norm

METHODS: dict[str, Any] = {
    "fgsm": FastGradientSign,
    "bim": BasicIterativeMethod,
    "pgd": ProjectedGradientDescent,
    "eot_pgd": ExpectationOverTolerances,
    "bisection": Bisection,
    "apgd": AutoPGD,
    "fab": FAB,
    "cw": CarliniWagner,
    "square": Square,
    "noise": Noise,
}
"""The methods by their names in the configuration, but for `transfer`, which takes another one."""


def make(
    settings: Mapping[str, Any], norm: str, epsilon: float, source: nn.Module | None = None
) -> Method:
    """The attack that settings describe.

    Args:
        settings: of `grid.attack_settings`.
        norm: `linf`, `l2` or `l2_rms`.
        epsilon: largest norm of a perturbation.
        source: for method `transfer`: the model that makes the adversarials; for `eot_pgd`, where
            tolerances are `drawn`: the classifier that gives the gradients.
    """
    if settings["method"] == "transfer":
        assert source is not None
        return Transfer(source, make(settings["by"], norm, epsilon))
    method = METHODS[settings["method"]]
    named = {item.name for item in fields(method)} & settings.keys()
    parameters = {name: settings[name] for name in named}
    if "drawn" in settings:
        low, high = (settings["drawn"][name] for name in ("low", "high"))
        parameters |= {"source": source, "draw": log_uniform(low, high)}
    made: Method = method(norm=Norm(norm), epsilon=epsilon, **parameters)
    return made
