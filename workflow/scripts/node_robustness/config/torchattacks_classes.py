"""The attacks of the library torchattacks that the workflow runs, and their parameters.

The library imports torch, so a configuration cannot ask it. A test compares this table with it.
"""

import reprlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from node_robustness.numbers import parse_number, parse_whole

_LINF = ("linf",)
_L2 = ("l2", "l2_rms")
_BOTH = (*_LINF, *_L2)

GIVEN = ("model", "eps", "max_epsilon", "norm", "seed", "n_classes", "verbose")
"""Arguments that the workflow gives: the model, the epsilon and norm of the cell, and the seed."""

_WIDTHS = ("batch_max", "max_batch_size", "len_kernel", "nsig")
"""Whole numbers that do not multiply the passes."""


@dataclass(frozen=True)
class LibraryAttack:
    """A class of the library.

    Attributes:
        norms: those in which it bounds or minimises the perturbation.
        parameters: the default of each of its arguments that a configuration may give; of a choice
            all values, the default first.
        by_gradient: whether it follows gradients of the model.
        minimal: whether it looks for the smallest perturbation and takes no epsilon.
        channels: the only number of channels that its images may have; any if None.
        passes: forward passes for one unit of the product of its whole numbers.
    """

    norms: tuple[str, ...]
    parameters: Mapping[str, Any]
    by_gradient: bool = True
    minimal: bool = False
    channels: int | None = None
    passes: int = 1

    def complete(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Its arguments: those that are given, checked, and the defaults of the others.

        Raises:
            ValueError: an argument is unknown, set by the workflow, or of another kind.
        """
        for name in given:
            if name in GIVEN:
                raise ValueError(
                    f"{name} is set by the workflow, which takes epsilons and norms from the "
                    "experiment: remove it"
                )
            if name not in self.parameters:
                known = ", ".join(self.parameters) or "none"
                # Whatever stands there in the file, a line break among it.
                shown = reprlib.repr(name)
                raise ValueError(f"{shown} is not a parameter of this attack (there is: {known})")
        complete = {name: _first(default) for name, default in self.parameters.items()}
        for name, value in given.items():
            try:
                complete[name] = _checked(value, self.parameters[name])
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from None
        return complete

    def steps(self, parameters: Mapping[str, Any]) -> int:
        """Forward passes on each image, about: for a scheduler."""
        steps = self.passes
        for name, value in parameters.items():
            if type(value) is int and name not in _WIDTHS:
                steps *= value
        return steps


def _first(default: Any) -> Any:
    return default[0] if isinstance(default, tuple) else default


def _checked(value: object, default: object) -> object:
    match default:
        case tuple():
            if value not in default:
                raise ValueError(f"{value!r} is not one of {', '.join(default)}")
            return value
        case bool():
            if not isinstance(value, bool):
                raise ValueError(f"must be true or false (given: {value!r})")
            return value
        case int():
            number: float = parse_whole(value)
            if number < 1:
                raise ValueError(f"{value} must be 1 or more")
        case _:
            number = parse_number(value)
            if number < 0:
                raise ValueError(f"{value} must be 0 or more")
    return number


_STEPS = {"alpha": 2 / 255, "steps": 10}
_ELASTIC_NET = {
    **{"kappa": 0.0, "lr": 0.01, "binary_search_steps": 9, "max_iterations": 100},
    **{"abort_early": True, "initial_const": 0.001, "beta": 0.001},
}
_DIVERSE = {"decay": 0.0, "resize_rate": 0.9, "diversity_prob": 0.5, "random_start": False}
_SMOOTHED = {
    **{"noise_type": ("guassian", "uniform"), "noise_sd": 0.5},
    **{"noise_batch_size": 5, "batch_max": 2048},
}
_PATCHES = {"num_iter_set": 10, "momentum": 1.0, "amplification": 10.0, "prob": 0.7}
_VARIANCE = {**_STEPS, "decay": 1.0, "N": 5, "beta": 1.5}
_APGD = {"steps": 10, "n_restarts": 1, "eot_iter": 1, "rho": 0.75}

CLASSES: dict[str, LibraryAttack] = {
    "APGD": LibraryAttack(_BOTH, {**_APGD, "loss": ("ce", "dlr")}),
    "APGDT": LibraryAttack(_BOTH, _APGD, passes=9),
    "AutoAttack": LibraryAttack(_BOTH, {"version": ("standard", "plus", "rand")}, passes=6000),
    "BIM": LibraryAttack(_LINF, _STEPS),
    "CW": LibraryAttack(_L2, {"c": 1.0, "kappa": 0.0, "steps": 50, "lr": 0.01}, minimal=True),
    "DIFGSM": LibraryAttack(_LINF, {**_STEPS, **_DIVERSE}),
    "DeepFool": LibraryAttack(_L2, {"steps": 50, "overshoot": 0.02}, minimal=True, passes=10),
    "EADEN": LibraryAttack(_L2, _ELASTIC_NET, minimal=True),
    "EOTPGD": LibraryAttack(_LINF, {**_STEPS, "eot_iter": 2, "random_start": True}),
    "FAB": LibraryAttack(
        _BOTH,
        {
            **{"steps": 10, "n_restarts": 1, "alpha_max": 0.1, "eta": 1.05, "beta": 0.9},
            "multi_targeted": False,
        },
        passes=10,
    ),
    "FFGSM": LibraryAttack(_LINF, {"alpha": 10 / 255}),
    "FGSM": LibraryAttack(_LINF, {}),
    "Jitter": LibraryAttack(_LINF, {**_STEPS, "scale": 10.0, "std": 0.1, "random_start": True}),
    "MIFGSM": LibraryAttack(_LINF, {**_STEPS, "decay": 1.0}),
    "NIFGSM": LibraryAttack(_LINF, {**_STEPS, "decay": 1.0}),
    "PGD": LibraryAttack(_LINF, {**_STEPS, "random_start": True}),
    "PGDL2": LibraryAttack(
        _L2, {"alpha": 0.2, "steps": 10, "random_start": True, "eps_for_division": 1e-10}
    ),
    "PGDRS": LibraryAttack(_LINF, {**_STEPS, **_SMOOTHED}),
    "PGDRSL2": LibraryAttack(
        _L2, {"alpha": 0.2, "steps": 10, **_SMOOTHED, "eps_for_division": 1e-10}
    ),
    "PIFGSM": LibraryAttack(_LINF, _PATCHES, channels=3),
    "PIFGSMPP": LibraryAttack(_LINF, {**_PATCHES, "project_factor": 0.8}, channels=3),
    "RFGSM": LibraryAttack(_LINF, _STEPS),
    "SINIFGSM": LibraryAttack(_LINF, {**_STEPS, "decay": 1.0, "m": 5}),
    "SPSA": LibraryAttack(
        _LINF,
        {"delta": 0.01, "lr": 0.01, "nb_iter": 1, "nb_sample": 128, "max_batch_size": 64},
        by_gradient=False,
        passes=2,
    ),
    "Square": LibraryAttack(
        _BOTH,
        {
            **{"n_queries": 5000, "n_restarts": 1, "p_init": 0.8},
            **{"loss": ("margin", "ce"), "resc_schedule": True},
        },
        by_gradient=False,
    ),
    "TIFGSM": LibraryAttack(
        _LINF,
        {
            **_STEPS,
            **{"kernel_name": ("gaussian", "linear", "uniform"), "len_kernel": 15, "nsig": 3},
            **_DIVERSE,
        },
        channels=3,
    ),
    "TPGD": LibraryAttack(_LINF, _STEPS),
    "UPGD": LibraryAttack(
        _LINF,
        {
            **_STEPS,
            **{"random_start": False, "loss": ("ce", "dlr", "margin"), "decay": 1.0},
            "eot_iter": 1,
        },
    ),
    "VMIFGSM": LibraryAttack(_LINF, _VARIANCE),
    "VNIFGSM": LibraryAttack(_LINF, _VARIANCE),
}

OTHERS = {
    "EADL1": "measures in L1",
    "GN": "bounds no norm",
    "JSMA": "measures in L0",
    "LGV": "trains networks",
    "MultiAttack": "takes other attacks: list each of them",
    "OnePixel": "measures in L0",
    "Pixle": "measures in L0",
    "SparseFool": "measures in L0",
    "VANILA": "changes no image",
}
"""The classes of the library that are not run, and why."""
