"""Runs of which little or nothing can be said: a verdict with its reason, and no claim."""

import functools

import numpy as np
import pytest

import samples
from node_robustness.report.reservations import obstacles, reservations

PLACES = [{"model": "RES", "tolerance": None}]
PLACES += [{"model": "OON", "tolerance": tau} for tau in (0.01, 1.0)]
NO_CLAIM = {"", "undecided"}


def tables(folder, n, left, *, wrong=0, without=(), audit=True, fails=()):
    """All tables of a residual network and an ODE at two tolerances.

    Args:
        folder: where its files go.
        n: images.
        left: robust shares of them under the paper's attack and under the strongest.
        wrong: how many are misclassified without an attack.
        without: attacks that did not run.
        audit: whether there is one.
        fails: models all of whose solves fail.
    """
    files = {"clean": [], "attacks": [], "audits": []}
    for where in PLACES:
        dead = where["model"] in fails
        missed = n if dead else wrong
        files["clean"].append(
            write_failed(folder, n, **where)
            if dead
            else samples.write_evaluation(folder, n, missed, **where)
        )
        for attack in sorted({*samples.SUITE} - {*without}):
            if attack != "apgd_surrogate" or where["tolerance"] is not None:
                files["attacks"].append(write_attack(folder, n, left, attack, missed, **where))
        if audit:
            correct = np.arange(n) < n - missed
            changes = {"correct": correct}
            files["audits"].append(samples.write_audit(folder, n, changes=changes, **where))
    return samples.tables_of(**files)


def write_failed(folder, n, **where):
    arrays = {"index": np.arange(n), "labels": np.zeros(n, int), "predictions": np.full(n, -1)}
    arrays |= {"nfe": np.full(n, 1000, np.int32), "status": np.ones(n, int)}
    settings = samples.solved(**where)
    return samples.write(folder / f"clean-{samples.name(settings)}.h5", "clean", settings, arrays)


def write_attack(folder, n, left, attack, missed, **where):
    paper, strongest = left
    share = {"bim_adjoint": paper, "bim_direct": paper, "noise": 1.0}.get(attack, strongest)
    settings = samples.cell(attack, **where) | samples.SUITE[attack]
    if where["tolerance"] is None and settings["gradient"]:
        settings["gradient"] = "direct"
    correct = np.arange(n) < n - missed
    return samples.write_attempt(folder, settings, samples.sizes_leaving(share, n), correct)


def opening(found):
    """What a report says before anything else: its reservations, and of what nothing is known."""
    return " ".join([*reservations(found, {}), *obstacles(found["verdicts"])])


CASES = {
    "without the paper's attack": (
        {"n": 100, "left": (0.6, 0.6), "without": ("bim_adjoint",)},
        "no_paper",
        "the paper's attack did not run",
    ),
    "without an audit": (
        {"n": 100, "left": (0.6, 0.6), "audit": False},
        "checks",
        "a check failed, was not measured",
    ),
    "one image, kept": ({"n": 1, "left": (1.0, 1.0)}, "no_accuracy", "too few images"),
    "one image, broken": ({"n": 1, "left": (1.0, 0.0)}, "no_accuracy", "too few images"),
    "three images": ({"n": 3, "left": (1.0, 0.0)}, "images", "too few images"),
    "no image is right": (
        {"n": 100, "left": (0.6, 0.6), "wrong": 100},
        "no_correct",
        "classifies no image correctly",
    ),
    "every image is broken": (
        {"n": 100, "left": (0.0, 0.0)},
        "broken",
        "break every image of OON on toy in every setting",
    ),
    "every image is broken, and the procedure hides it": (
        {"n": 100, "left": (0.6, 0.0)},
        "broken",
        "break every image of OON on toy in every setting",
    ),
}


@pytest.fixture(scope="module")
def found_in(tmp_path_factory):
    """From a case to its tables, each built once."""

    @functools.cache
    def of(name):
        return tables(tmp_path_factory.mktemp("case"), **CASES[name][0])

    return of


@pytest.mark.parametrize("name", CASES)
def test_a_verdict_has_its_reason_and_the_summary_begins_with_it(found_in, name):
    _, because, said = CASES[name]
    found = found_in(name)
    assert set(found["verdicts"].because) == {because}
    assert (found["verdicts"].verdict == ("broken" if because == "broken" else "undecided")).all()
    assert (found["verdicts"].reason != "").all()
    assert said in opening(found)


@pytest.mark.parametrize(
    "name",
    [
        *("one image, kept", "one image, broken", "three images", "no image is right"),
        *("every image is broken", "every image is broken, and the procedure hides it"),
    ],
)
def test_no_claim_is_made(found_in, name):
    found = found_in(name)
    assert set(found["models"].strongest_claim) <= NO_CLAIM
    assert set(found["tolerances"].claim) <= NO_CLAIM


def test_a_model_all_of_whose_solves_fail_is_neither_less_robust_nor_reversed(tmp_path):
    found = tables(tmp_path, 100, (0.6, 0.6), fails=["OON"])
    own = found["verdicts"].set_index("model")
    assert set(own.because["OON"]) == {"no_correct"}
    assert own.reason["OON"].str.contains("because the solver fails on every one").all()
    assert "OON on toy classifies no image correctly" in opening(found)
    assert set(found["models"].strongest_claim) <= NO_CLAIM
    assert set(found["models"].paper_claim) <= NO_CLAIM
    assert set(found["tolerances"].claim) <= NO_CLAIM


def test_without_the_papers_attack_nothing_is_claimed_of_the_procedure(found_in):
    found = found_in("without the paper's attack")
    assert set(found["models"].paper_claim) == {""}
    assert set(found["tolerances"].claim) == {"undecided"}
