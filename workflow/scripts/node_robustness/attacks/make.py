"""From the settings of a cell to the attack that they describe."""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from importlib import import_module
from typing import Any

from torch import nn

from node_robustness.attacks.method import Method
from node_robustness.perturbations.norms import Norm


def make(
    settings: Mapping[str, Any], norm: str, epsilon: float, source: nn.Module | None = None
) -> Method:
    """The attack that settings describe.

    A method takes what its fields name: settings, the norm, epsilon, the source, the attack `by`
    that is made on it, and the bounds `low` and `high` of drawn tolerances.

    Args:
        settings: of `grid.attack_settings`.
        norm: `linf`, `l2` or `l2_rms`.
        epsilon: largest norm of a perturbation.
        source: for method `transfer`: the model on which the adversarial examples are made; for
            `eot_pgd`, where tolerances are `drawn`: the classifier that gives the gradients.
    """
    given = {**settings, **settings.get("drawn", {})}
    given |= {"norm": Norm(norm), "epsilon": epsilon, "source": source}
    if "by" in settings:
        given["by"] = make(settings["by"], norm, epsilon)
    method = method_class(settings["method"])
    made: Method = method(
        **{item.name: given[item.name] for item in fields(method) if item.name in given}
    )
    return made


def method_class(name: str) -> Any:
    """The one class with a function `search` that the file of a method defines.

    The file is found by the method's name. No import of this module leads to it, so the param
    `code` of a rule whose script makes attacks names it (`code_of` in `common.smk`).
    """
    module = import_module(f"node_robustness.attacks.{name}")
    (found,) = (
        value
        for value in vars(module).values()
        if is_dataclass(value) and hasattr(value, "search") and value.__module__ == module.__name__
    )
    return found
