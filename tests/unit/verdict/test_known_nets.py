"""Verdicts on small nets of which the truth is known, from real attacks and audits.

Their weights are fixed (`tests/nets/train.py`).
`benchmarks/reference.py` does the same with all standard attacks, and with other
implementations.
"""

import functools
from pathlib import Path

import pytest
from safetensors.torch import load_file

import known
from node_robustness.config.loading import load
from node_robustness.models.classifier import Classifier

pytestmark = pytest.mark.numerical

EPSILON = 0.1
IMAGES = 120
AUDIT = {"images": 120}
SUITE = {
    "steps": {"method": "pgd", "iterations": 50, "restarts": 2, "relative_step": 0.1}
    | {"loss": "margin"},
    "squares": {"method": "square", "queries": 150},
}
QUICK = SUITE | {"steps": SUITE["steps"] | {"iterations": 20, "restarts": 1}}
STRONG = {"squares": {"method": "square", "queries": 1000}}
MOVED = {"moved": {"method": "transfer", "by": "pgd", "source": "RES"}}


@functools.cache
def net(name):
    model = Classifier(known.spec("residual"))
    model.load_state_dict(load_file(Path(__file__).parents[2] / "nets" / f"{name}.safetensors"))
    return model.eval().requires_grad_(False)


def undefended(seed=0):
    return net(f"undefended-{seed}")


def hardened():
    return net("hardened-0")


def decide(
    folder, nets, *, epsilon=EPSILON, seeds=(0,), attacks=(), own=SUITE, n=IMAGES, audit=AUDIT
):
    """All tables of nets by name and seed."""
    names = list(dict.fromkeys(name for name, _ in nets))
    # From RES alone there is nowhere to go.
    suite = own | (MOVED if "squares" in own and len(names) > 1 else {})
    plain = {"downsampling": "convolution", "body": "residual", "filters": 16}
    config = load(
        {
            "experiments": {
                "e": {
                    "datasets": ["digits"],
                    "models": names,
                    "seeds": list(seeds),
                    "tolerances": [1],
                    "attacks": ["bim_adjoint", *attacks, *suite, "noise"],
                    "norms": ["linf"],
                    "epsilons": [epsilon],
                    "audit": audit,
                }
            },
            "datasets": {"digits": {"source": "digits"}},
            "models": dict.fromkeys(names, plain),
            "attacks": suite,
        }
    )
    _, (images, labels) = known.digits()
    return known.evaluated(folder, config, nets, images[:n], labels[:n])


def verdict(found, model):
    """The row of a model that has one cell."""
    (row,) = found.verdicts[found.verdicts.model == model].itertuples()
    return row


def outcomes(found, model):
    own = found.checks[found.checks.model == model]
    return dict(zip(own.check, own.outcome, strict=True))


def test_planted_masking_is_masked(tmp_path):
    plain = undefended()
    nets = {("RES", 0): plain, ("SATURATED", 0): known.saturated(plain)}
    nets["QUANTISED", 0] = known.Quantised.of(plain)
    found = decide(tmp_path, nets)
    for name in ("SATURATED", "QUANTISED"):
        row = verdict(found, name)
        assert (row.verdict, row.because) == ("masked", "masked"), row.reason
        # All of the gap is masked, but for what the strongest attack leaves of other images.
        assert row.masked > row.gap - 0.03
        # The paper's attack has no gradient to follow and breaks nothing.
        assert row.paper > row.clean - 0.03
        assert outcomes(found, name)["unavailable_gradients"] == "failed"
    # No gradient at all against one that only the cross-entropy loses.
    assert outcomes(found, "QUANTISED")["white_box_stronger"] == "failed"
    assert verdict(found, "RES").verdict != "masked"
    assert outcomes(found, "RES")["unavailable_gradients"] == "passed"


def test_a_net_without_a_defence_is_broken_and_not_masked(tmp_path):
    found = decide(tmp_path, {("RES", 0): undefended()}, epsilon=0.3)
    row = verdict(found, "RES")
    assert (row.verdict, row.procedure) == ("broken", "shows"), row.reason
    assert row.clean > 0.9
    assert row.strongest == 0
    assert row.paper < 0.05


def test_adversarial_training_survives(tmp_path):
    found = decide(
        tmp_path / "hardened",
        {("HARDENED", 0): hardened()},
        attacks=["apgd_ce", "apgd_t"],
        own=STRONG,
        n=160,
    )
    # Stronger attacks would leave even less of it.
    plain = decide(tmp_path / "plain", {("RES", 0): undefended()}, own={}, n=160, audit=None)
    row = verdict(found, "HARDENED")
    assert (row.verdict, row.procedure) == ("survives", "shows"), row.reason
    assert row.strongest > verdict(plain, "RES").strongest + 0.1
    not_passed = {name for name, it in outcomes(found, "HARDENED").items() if it != "passed"}
    # How far the losses of the audit's short attacks rise is no fault of the net.
    assert not_passed <= {"paper_incomplete", "incomplete_optimisation"}


def test_several_seeds_are_one_verdict(tmp_path):
    """Files of two seeds, each attacked by transfer from the source of the same seed."""
    plain = {seed: undefended(seed) for seed in (0, 1)}
    nets = {("RES", seed): net for seed, net in plain.items()}
    nets |= {("SATURATED", seed): known.saturated(net) for seed, net in plain.items()}
    nets |= {("MIXED", 0): nets["SATURATED", 0], ("MIXED", 1): nets["RES", 1]}
    found = decide(tmp_path, nets, seeds=(0, 1), own=QUICK, audit=None)
    masked, mixed = verdict(found, "SATURATED"), verdict(found, "MIXED")
    assert (masked.networks, masked.n, masked.verdict) == (2, IMAGES, "masked")
    # What is true of one net only is not true of such nets.
    assert (mixed.networks, mixed.verdict) == (2, "undecided")
    rows = found.protocols[found.protocols.model == "SATURATED"]
    assert rows.seed.tolist() == [0, 1]
    assert masked.strongest == pytest.approx(rows.strongest.mean())
    sources = {
        group.where["seed"]: attempt.settings["source"]["seed"]
        for group in found.attacked
        for attempt in group.attempts
        if attempt.method == "transfer"
    }
    assert sources == {0: 0, 1: 1}
