"""Tests of what a strong attack suite must contain."""

from collections.abc import Mapping
from typing import Any

import pytest

from node_robustness.config.loading import load
from node_robustness.config.strength import missing
from node_robustness.grid.attack_settings import attack_settings
from node_robustness.grid.cells import cells

APGD: dict[str, Any] = {"method": "apgd", "iterations": 100, "restarts": 1}
STRONG: dict[str, dict[str, Any]] = {
    "apgd_ce": {**APGD, "loss": "ce", "targets": None, "gradient": "direct"},
    "apgd_t": {**APGD, "loss": "dlr", "targets": 9, "gradient": "direct"},
    "apgd_surrogate": {**APGD, "loss": "ce", "targets": None, "gradient": "surrogate"},
    "square": {"method": "square", "queries": 1000, "gradient": "none"},
}
OTHERS: list[dict[str, Any]] = [
    {"method": "bim", "iterations": 10, "gradient": "adjoint"},
    {"method": "pgd", "iterations": 1000, "restarts": 10, "loss": "ce", "gradient": "direct"},
    {"method": "transfer", "gradient": "none", "by": STRONG["apgd_ce"]},
    {"method": "noise", "draws": 5000, "gradient": "none"},
    {"method": "torchattacks", "name": "APGD", "gradient": "surrogate"},
]


def _with(name: str, **changes: object) -> list[Mapping[str, Any]]:
    return [*(STRONG | {name: {**STRONG[name], **changes}}).values()]


@pytest.mark.parametrize("ode", [False, True])
def test_nothing_is_missing_from_a_strong_suite(ode: bool) -> None:
    assert missing([*OTHERS, *STRONG.values()], ode) == []


@pytest.mark.parametrize("name", STRONG)
def test_every_attack_of_a_strong_suite_is_needed_and_named(name: str) -> None:
    others = [settings for attack, settings in STRONG.items() if attack != name]
    (lacks,) = missing([*OTHERS, *others], ode=True)
    assert lacks.endswith(f"({name})")


@pytest.mark.parametrize("preset", ["quick", "standard"])
@pytest.mark.parametrize("body", ["ode", "residual"])
def test_presets_for_verdicts_are_strong(preset: str, body: str) -> None:
    model = {"downsampling": "residual", "body": body}
    config = load(
        {
            "experiments": {
                "e": {
                    "datasets": ["digits"],
                    "models": ["M"],
                    "tolerances": [0.1],
                    "attacks": [preset],
                    "norms": ["linf"],
                    "epsilons": [0.1],
                }
            },
            "datasets": {"digits": {"source": "digits"}},
            "models": {"M": model},
        }
    )
    attacks = [attack_settings(config, cell) for cell in cells(config, "e")]
    assert missing(attacks, ode=body == "ode") == []


def test_a_net_without_an_ode_needs_no_surrogate() -> None:
    others = [settings for name, settings in STRONG.items() if name != "apgd_surrogate"]
    assert missing(others, ode=False) == []


def test_all_that_is_missing_is_said() -> None:
    assert [len(missing(OTHERS, ode)) for ode in (False, True)] == [3, 4]


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("apgd_ce", {"iterations": 99}),
        ("apgd_ce", {"loss": "dlr"}),
        ("apgd_ce", {"gradient": "adjoint"}),
        ("apgd_t", {"iterations": 11}),
        ("apgd_t", {"targets": None}),
        ("apgd_t", {"gradient": "adjoint"}),
        ("apgd_surrogate", {"iterations": 39}),
        ("apgd_surrogate", {"gradient": "adjoint"}),
        ("square", {"queries": 999}),
    ],
)
def test_too_little_of_an_attack_does_not_count(name: str, changes: Mapping[str, object]) -> None:
    (lacks,) = missing(_with(name, **changes), ode=True)
    assert lacks.endswith(f"({name})")


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("apgd_ce", {"iterations": 50, "restarts": 2}),
        ("apgd_t", {"iterations": 20}),
        ("apgd_surrogate", {"iterations": 40}),
        ("apgd_surrogate", {"loss": "dlr", "targets": 4, "iterations": 10}),
    ],
)
def test_restarts_and_targets_count_as_steps(name: str, changes: Mapping[str, object]) -> None:
    assert missing(_with(name, **changes), ode=True) == []
