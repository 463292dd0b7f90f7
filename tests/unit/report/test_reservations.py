"""Where numbers have nothing behind them, that is the first that a report says."""

import html
import re

import numpy as np
import pandas as pd
import pytest

from node_robustness.provenance.costs import job_costs
from node_robustness.report.html import render_report
from node_robustness.report.reservations import reservations
from samples import (
    MANIFEST,
    cell,
    masked_tables,
    solved,
    tables_of,
    write,
    write_attack,
    write_clean,
)

THREE = {"toy": {"source": "idx", "class_names": ["a", "b", "c"]}}
RIGHT, WRONG, FAILED = [0, 1, 2, 3], [1, 2, 3, 0], [-1] * 4


def run(folder, cells: dict, found=(True, False, False, False), skipped=None) -> dict:
    """Tables of OON: predictions for four images by tolerance and seed."""
    clean, attacks = [], []
    for (tolerance, seed), predictions in cells.items():
        where = {"tolerance": tolerance, "seed": seed}
        if predictions is FAILED:
            arrays = {"index": np.arange(4), "labels": np.arange(4), "predictions": FAILED}
            arrays |= {"nfe": np.full(4, 9, np.int32), "status": np.ones(4, int)}
            path = folder / f"clean-failed-{tolerance}-{seed}.h5"
            clean.append(write(path, "clean", solved(**where), arrays))
        else:
            clean.append(write_clean(folder, solved(**where), predictions, [8] * 4))
        attacked = [p == i for i, p in enumerate(predictions)]
        won = [a and f for a, f in zip(attacked, found, strict=True)]
        left = [a and not s for a, s in zip(attacked, skipped or [False] * 4, strict=True)]
        attacks.append(write_attack(folder, cell(**where), left, won, skipped=skipped))
    return tables_of(clean=clean, attacks=attacks)


def said(tables: dict, datasets=THREE) -> list[str]:
    return reservations(tables, datasets)


def test_nothing_is_said_of_models_that_learned_and_attacks_that_found(tmp_path):
    assert said(masked_tables()) == []
    assert said(run(tmp_path, {(0.1, 0): RIGHT})) == []


def test_no_image_is_right(tmp_path):
    assert said(run(tmp_path, {(0.1, 0): WRONG})) == [
        "OON on toy classifies no image correctly: nothing was attacked, and a robust accuracy of "
        "0 % does not measure robustness."
    ]


def test_it_is_said_of_which_tolerance_and_seed(tmp_path):
    cells = {(0.1, 0): RIGHT, (1.0, 0): RIGHT, (0.1, 1): RIGHT, (1.0, 1): WRONG}
    (sentence,) = said(run(tmp_path, cells))
    assert sentence.startswith("OON on toy classifies no image correctly at τ = 1 (seed 1): ")


def test_every_solve_failed(tmp_path):
    (sentence,) = said(run(tmp_path, {(0.1, 0): RIGHT, (1.0, 0): FAILED}))
    assert sentence.startswith("OON on toy classifies no image correctly at τ = 1: ")
    assert "The solver fails on every clean image there; `status` in clean.h5" in sentence


@pytest.mark.parametrize(
    ("predictions", "guess"), [([0, 0, 0, 0], True), ([0, 1, 0, 0], True), (RIGHT, False)]
)
def test_guesses(tmp_path, predictions, guess):
    tables = run(tmp_path, {(0.1, 0): predictions})
    warnings = said(tables)
    assert bool(warnings) == guess
    if guess:
        assert (
            "is not clearly better than guessing one of 3 classes: its accuracy is at most "
            in warnings[0]
        )
    assert said(tables, {}) == []  # of how many classes is not known


def test_no_attack_ran(tmp_path):
    tables = run(tmp_path, {(0.1, 0): RIGHT})
    (sentence,) = said(tables | {"attacks": tables["attacks"].iloc[:0]})
    assert sentence.startswith("No attack ran on OON on toy: ")


def test_no_attack_found_anything(tmp_path):
    (sentence,) = said(run(tmp_path, {(0.1, 0): RIGHT}, found=[False] * 4))
    assert sentence.startswith("No attack found an adversarial example of OON on toy. ")


def test_every_image_was_left_out(tmp_path):
    tables = run(tmp_path, {(0.1, 0): RIGHT}, found=[False] * 4, skipped=[True] * 4)
    both = pd.concat([tables["attacks"], tables["attacks"].assign(attack="apgd")])
    assert said(tables | {"attacks": both}) == [
        "bim and apgd had no image of OON on toy left to attack in 1 setting (L∞ ε = 0.1): cheaper "
        "attacks had broken all of them."
    ]


def test_it_is_the_first_sentence_of_the_report(tmp_path):
    tables = run(tmp_path, {(0.1, 0): FAILED})
    tables["costs"] = job_costs([], tables)
    render_report("tiny", tables, {}, MANIFEST, None, tmp_path / "report.html")
    page = html.unescape((tmp_path / "report.html").read_text())
    first = re.search(r"<li>(?!<a)(.*?)</li>", page)[1].replace("\u00a0", " ")
    assert first.startswith("OON on toy classifies no image correctly: nothing was attacked")
    verdicts = tables["verdicts"]
    assert set(verdicts.because) == {"no_correct"}
    assert "because the solver fails on every one" in verdicts.reason.iloc[0]
