"""Verdicts on small neural ODEs that were trained with and without a defence.

Their weights are fixed (`tests/nets/train.py`). The epsilons are far from where the verdicts
change, so that they hold on any processor.
"""

from pathlib import Path

import pytest
from safetensors.torch import load_file

import known
from node_robustness.config.loading import load
from node_robustness.models.classifier import Classifier

pytestmark = pytest.mark.numerical

IMAGES = 100
PAPER = ["bim_adjoint", "bim_direct"]
STRONG = {
    "targeted": {"method": "apgd", "loss": "dlr", "targets": 2, "iterations": 50},
    "surrogate": {"method": "apgd", "loss": "ce", "gradient": "surrogate"}
    | {"surrogate": {"tolerance": 1e-4}},
    "squares": {"method": "square", "queries": 1000},
}


def decide(folder, weights, epsilon, attacks, own, **changes):
    """The tables of a net, attacked at a tolerance that is looser than that of its training."""
    model = Classifier(known.spec("ode"))
    model.load_state_dict(load_file(Path(__file__).parents[2] / "nets" / f"{weights}.safetensors"))
    experiment = {
        "datasets": ["digits"],
        "models": ["OON"],
        "tolerances": [0.01],
        "attacks": [*attacks, *own, "noise"],
        "norms": ["linf"],
        "epsilons": [epsilon],
    }
    config = load(
        {
            "experiments": {"e": experiment | changes},
            "datasets": {"digits": {"source": "digits"}},
            "models": {"OON": {"downsampling": "convolution", "body": "ode", "filters": 16}},
            "attacks": own,
        }
    )
    _, (images, labels) = known.digits()
    nets = {("OON", 0): model.eval().requires_grad_(False)}
    return known.evaluated(folder, config, nets, images[:IMAGES], labels[:IMAGES])


def test_a_neural_ode_without_a_defence_is_broken(tmp_path):
    found = decide(tmp_path, "undefended-ode-0", 0.3, PAPER, {}, audit=None)
    (row,) = found.verdicts.itertuples()
    assert (row.verdict, row.procedure) == ("broken", "shows"), row.reason
    assert row.clean > 0.85
    assert row.strongest < 0.02


@pytest.mark.slow
def test_an_adversarially_trained_neural_ode_survives(tmp_path):
    attacks = [*PAPER, "apgd_ce"]
    found = decide(tmp_path, "hardened-ode-0", 0.05, attacks, STRONG, audit={"images": 100})
    (row,) = found.verdicts.itertuples()
    assert (row.verdict, row.procedure) == ("survives", "shows"), row.reason
    assert row.strongest > 0.85
