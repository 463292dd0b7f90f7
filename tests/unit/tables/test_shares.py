"""The tables of shares and of patches."""

import numpy as np
import pytest

from node_robustness.statistics import proportions, ratios
from node_robustness.tables import shares
from samples import INTERVALS, cell, shares_of, write_trajectory


def written(folder, success, settings=None, **changes):
    changes = {name.replace("/", "__"): values for name, values in changes.items()}
    return write_trajectory(folder, settings or cell(), success, **changes)


def test_a_row_a_perturbation_and_player(tmp_path):
    table = shares.share_table([written(tmp_path, [True] * 5)])
    assert table.perturbation.tolist() == ["strong"] * 5 + ["noise"] * 5 + ["swapped"] * 5
    own = table[table.perturbation == "strong"]
    assert own.player.tolist() == ["h(0)"] + ["part"] * 4
    assert own.start.tolist() == [0, 0, 0.25, 0.5, 0.75]
    assert own.end.tolist() == [0, 0.25, 0.5, 0.75, 1]
    assert (table.n == 5).all()


def test_shares_are_of_the_misled_images(tmp_path):
    n = 12
    arrays = shares_of(np.arange(n) != 4)
    table = shares.share_table([written(tmp_path, [True] * n, **arrays)])
    third = table[(table.perturbation == "strong") & (table.start == 0.5)].iloc[0]
    kept = np.flatnonzero(arrays["strong/success"])
    own, loss = arrays["shares/strong/parts"][kept, 2], arrays["shares/strong/loss"][kept]
    assert third.n == n - 1
    assert (third.share, third.share_low, third.share_high) == pytest.approx(ratios.mean(own))
    found = (third.fraction, third.fraction_low, third.fraction_high)
    assert found == pytest.approx(ratios.fraction(own, loss))
    assert third.fraction == pytest.approx(0.6, abs=0.03)
    even = kept % 2 == 0
    assert third.half_a == pytest.approx(own[even].sum() / loss[even].sum())
    assert third.half_b == pytest.approx(own[~even].sum() / loss[~even].sum())
    assert third.loss == pytest.approx(loss.mean())
    errors = np.abs(arrays["shares/strong/error"][kept]) / loss
    assert third.error == pytest.approx(np.median(errors))
    # The controls are of the same images.
    noise = table[(table.perturbation == "noise") & (table.player == "h(0)")].iloc[0]
    assert (noise.n, noise.fraction) == (n - 1, pytest.approx(0.2, abs=0.03))


def test_a_gain_of_margin_and_none_at_all(tmp_path):
    """A fraction of what is not told from 0 is unknown; the shares are not."""
    arrays = shares_of(np.ones(6, bool))
    zero = {name: np.zeros_like(v) for name, v in arrays.items() if "/noise/" in name}
    both = np.array([1, -1, 1, -1, 1, -1.0])
    swapped = {"shares/swapped/loss": both, "shares/swapped/start": both / 2}
    table = shares.share_table([written(tmp_path, [True] * 6, **arrays | zero | swapped)])
    noise = table[table.perturbation == "noise"]
    assert (noise.share == 0).all()
    assert noise[["fraction", "error"]].isna().all(axis=None)
    swapped = table[table.perturbation == "swapped"]
    assert swapped.fraction.isna().all()
    assert swapped.share.notna().all()
    gains = {name: -values for name, values in arrays.items() if "/strong/" in name}
    table = shares.share_table([written(tmp_path, [True] * 6, **arrays | gains)])
    third = table[(table.perturbation == "strong") & (table.start == 0.5)].iloc[0]
    assert third.loss < 0
    assert third.fraction == pytest.approx(0.6, abs=0.03)


@pytest.mark.parametrize("success", [[], [False] * 3, [True]], ids=["no image", "none", "one"])
def test_too_few_images_have_no_fractions(success, tmp_path):
    table = shares.share_table([written(tmp_path, success)])
    assert len(table) == 15
    assert (table.n == sum(success)).all()
    assert table[["fraction", "fraction_low", "half_a", "half_b"]].isna().all(axis=None)
    assert table.share.notna().all() == (table.n > 0).all()


def test_of_one_image_alone_nothing_is_swapped(tmp_path):
    arrays = shares_of([True])
    gone = {name: np.full_like(v, np.nan) for name, v in arrays.items() if "/swapped/" in name}
    table = shares.share_table([written(tmp_path, [True], **arrays | gone)])
    assert table[table.perturbation == "swapped"][["share", "loss"]].isna().all(axis=None)


def test_images_whose_solve_failed_are_left_out(tmp_path):
    arrays = shares_of(np.ones(6, bool))
    arrays["shares/strong/start"][2] = np.nan
    row = shares.share_table([written(tmp_path, [True] * 6, **arrays)]).iloc[0]
    known = np.arange(6) != 2
    own, loss = (arrays[f"shares/strong/{name}"][known] for name in ("start", "loss"))
    assert row.fraction == pytest.approx(own.sum() / loss.sum())


def test_patches_have_a_row_an_interval(tmp_path):
    repaired, inserted = np.zeros((4, len(INTERVALS))), np.zeros((4, len(INTERVALS)))
    repaired[:, 0] = [1, 1, 0, -1]
    inserted[:, 1] = [1, -1, 0, -1]
    changes = {"causal/repaired": repaired, "causal/inserted": inserted}
    table = shares.patch_table([written(tmp_path, [True, True, True, False], **changes)])
    assert list(zip(table.start, table.end, strict=True)) == INTERVALS
    first, second = table.iloc[0], table.iloc[1]
    assert (first.repaired_of, first.repaired) == (3, 2)
    assert first.repaired_rate == pytest.approx(2 / 3)
    assert (first.repaired_low, first.repaired_high) == proportions.interval(2, 3)
    assert (second.inserted_of, second.inserted, second.inserted_rate) == (2, 1, 0.5)
    assert table.repaired[1:].tolist() == [0] * (len(INTERVALS) - 1)
    nothing = shares.patch_table([written(tmp_path, [])])
    assert (nothing.repaired_of == 0).all()
    assert nothing.repaired_rate.isna().all()
