import itertools
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from node_robustness.errors import UserError
from node_robustness.perturbations.sizes import within
from node_robustness.statistics.proportions import interval
from node_robustness.verdict import attack_tables, known, protocols
from node_robustness.verdict.checks import CHECKS
from node_robustness.verdict.measures import Evidence
from samples import (
    cell,
    sizes_leaving,
    solved,
    write,
    write_attempt,
    write_reevaluated,
    write_suite,
)

INF = np.inf


def attempt(attack: str, epsilon: float, sizes, correct, **settings) -> protocols.Attempt:
    sizes = np.where(np.asarray(sizes) <= epsilon, sizes, INF)
    success = np.isfinite(sizes) & correct
    return protocols.Attempt(
        attack,
        epsilon,
        {"method": "bim", "gradient": "direct"} | settings,
        success,
        np.where(success, sizes, INF),
        success.astype(int),
        ~success,
        success,
        np.zeros(len(sizes), bool),
        (np.where(success, sizes, epsilon), np.where(success, sizes, epsilon)),
    )


def attacked(correct, *attempts: protocols.Attempt) -> protocols.AttackedNetwork:
    where = {"experiment": "e", "dataset": "d", "model": "M", "seed": 0, "tolerance": 0.1}
    n = len(correct)
    return protocols.AttackedNetwork(
        where | {"norm": "linf"},
        True,
        True,
        np.arange(n),
        np.zeros(n, int),
        np.array(correct),
        attempts,
    )


@pytest.fixture
def written(tmp_path):
    """The paper's attack at two epsilons, a search for the smallest adversarial, and noise."""
    correct = [True, True, True, False]
    paths = [
        write_attempt(tmp_path, cell("paper", epsilon=0.1), [0.1, INF, INF, INF], correct),
        write_attempt(tmp_path, cell("paper", epsilon=0.3), [0.1, 0.2, INF, INF], correct),
        write_attempt(
            tmp_path, cell("fab", epsilon=0.3) | {"method": "fab"}, [0.15, 0.05, 0.25, INF], correct
        ),
        write_attempt(
            tmp_path, cell("noise", epsilon=0.1) | {"method": "noise"}, [INF] * 4, correct
        ),
    ]
    return protocols.read_attacked(paths)


def test_protocols_pair_the_images(written):
    small, large = protocols.protocol_table(written, "paper").itertuples()
    assert (small.epsilon, small.correct) == (0.1, 3)
    assert (small.paper, small.strongest, small.gap) == (0.5, 0.25, 0.25)
    assert (large.paper, large.strongest, large.gap) == (0.25, 0, 0.25)
    assert (small.gap_low, small.gap_high) == interval(1, 4)
    assert (large.strongest_low, large.strongest_high) == interval(0, 4)


def test_without_the_papers_attack_there_is_no_gap(written):
    for paper in (None, "other"):
        table = protocols.protocol_table(written, paper)
        assert table[["paper", "gap", "gap_low"]].isna().all(axis=None)
        assert table.strongest.notna().all()
        assert set(attack_tables.curve_table(written, paper).protocol) == {"strongest", "noise"}


def test_a_size_that_float32_rounds_up_counts_within_its_epsilon(tmp_path):
    settings = cell(epsilon=0.01)
    path = write_attempt(
        tmp_path, settings, [0.01, 0.01], perturbation_linf=np.float32([0.0100001, 0.02])
    )
    (group,) = protocols.read_attacked([path])
    # The second claims a success that is twice too large.
    np.testing.assert_array_equal(group.attempts[0].size, [0.01, INF])
    assert group.strongest(0.01).tolist() == [False, True]


def test_l2_rms_is_l2_over_the_root_of_the_pixels(tmp_path):
    path = write_attempt(tmp_path, cell(norm="l2_rms", epsilon=0.3), [0.2, INF])
    (group,) = protocols.read_attacked([path])
    np.testing.assert_allclose(group.attempts[0].size, [0.2, INF])


def test_cells_of_other_images_are_refused(tmp_path):
    sizes = sizes_leaving(0.5, 4)
    paths = [
        write_attempt(tmp_path, cell("a"), sizes),
        write_attempt(tmp_path, cell("b"), sizes, index=np.arange(4) + 1),
    ]
    with pytest.raises(UserError, match="other images"):
        protocols.read_attacked(paths)


EPSILONS = [0.1, 0.2, 0.3]
SIZES = st.lists(st.sampled_from([0.05, 0.1, 0.15, 0.2, 0.3, INF]), min_size=6, max_size=6)
CELLS = st.tuples(st.sampled_from(["paper", "a", "b"]), st.sampled_from(EPSILONS), SIZES)


@settings(deadline=None)
@given(
    st.lists(st.booleans(), min_size=6, max_size=6),
    st.lists(CELLS, min_size=1, max_size=6, unique_by=lambda c: c[:2]),
    CELLS,
)
def test_more_attacks_never_leave_more(correct, cells, another):
    group = attacked(correct, *(attempt(a, e, s, correct) for a, e, s in cells))
    more = attacked(correct, *group.attempts, attempt("c", *another[1:], correct))
    for epsilon in EPSILONS:
        strongest = group.strongest(epsilon)
        assert not (more.strongest(epsilon) & ~strongest).any()
        assert not (strongest & ~group.correct).any()
        paper = group.paper("paper", epsilon)
        if paper is not None:
            assert not (strongest & ~paper).any()
            assert not (paper & ~group.correct).any()
    for _, curve in attack_tables.curve_table([group], "paper").groupby("protocol"):
        assert curve.robust_accuracy.is_monotonic_decreasing
        assert curve.robust_accuracy.iloc[0] == np.mean(correct)


METHODS = {
    "bim": {"method": "bim"},
    "bisection": {"method": "bisection"},
    "transfer": {"method": "transfer", "gradient": None},
    "noise": {"method": "noise", "gradient": None},
    "apgd": {"method": "apgd", "loss": "ce"},
    "fab": {"method": "fab"},
    "square": {"method": "square", "gradient": None, "queries": 100},
}
CHEAP, EXPENSIVE = ("bim", "bisection"), ("apgd", "fab", "square")


def skipping(group, cheap, epsilon):
    """The same attacks, of which the expensive ones leave out what the cheap ones broke."""
    broken = within(group.smallest(lambda a: a.attack in cheap), epsilon) & group.correct
    attempts = [
        replace(
            one,
            settings=one.settings
            | {"skips": {"broken_by": dict.fromkeys(cheap, epsilon), "within": epsilon}},
            success=one.success & ~broken,
            claimed=one.claimed & ~broken,
            size=np.where(broken, INF, one.size),
            predictions=np.where(broken, 0, one.predictions),
            beyond=one.beyond & ~broken,
            skipped=broken,
        )
        if one.attack in EXPENSIVE
        else one
        for one in group.attempts
    ]
    return replace(group, attempts=tuple(attempts))


@settings(deadline=None)
@given(
    st.lists(st.booleans(), min_size=6, max_size=6),
    st.fixed_dictionaries({(name, e): SIZES for name in METHODS for e in EPSILONS}),
)
def test_skipping_what_cheaper_attacks_broke_changes_no_verdict(correct, sizes):
    """At the epsilons of the grid; whatever the expensive attacks would have found."""
    whole = attacked(
        correct,
        *(attempt(a, e, found, correct, **METHODS[a]) for (a, e), found in sizes.items()),
    )
    spared = skipping(whole, CHEAP, EPSILONS[0])
    for epsilon in EPSILONS:
        np.testing.assert_array_equal(spared.strongest(epsilon), whole.strongest(epsilon))
    tables = [protocols.protocol_table([group], "bim") for group in (whole, spared)]
    pd.testing.assert_frame_equal(*tables)
    for check in ("white_box_stronger", "noise_weaker"):
        measure = next(c.measure for c in CHECKS if c.name == check)
        before, after = (list(measure(Evidence([g], {}, None, []), "")) for g in (whole, spared))
        assert before == after != []


def leaving_out_at_the_own_epsilon(group):
    """The same attacks, of which `apgd` leaves out what `bim` broke within the same epsilon."""
    attempts = []
    for cheap, one in itertools.product(group.attempts, group.attempts):
        if (cheap.attack, one.attack) == ("bim", "apgd") and cheap.epsilon == one.epsilon:
            spared = skipping(attacked(group.correct, cheap, one), ["bim"], one.epsilon)
            attempts += spared.attempts
    return replace(group, attempts=tuple(attempts))


@settings(deadline=None)
@given(
    st.lists(st.booleans(), min_size=6, max_size=6),
    st.fixed_dictionaries({(name, e): SIZES for name in ("bim", "apgd") for e in EPSILONS}),
)
def test_skipping_what_is_broken_at_the_own_epsilon_misses_smaller_examples_alone(correct, sizes):
    whole = attacked(
        correct,
        *(attempt(a, e, found, correct, **METHODS[a]) for (a, e), found in sizes.items()),
    )
    spared = leaving_out_at_the_own_epsilon(whole)
    originals = {(one.attack, one.epsilon): one for one in whole.attempts}
    assert len(originals) == len(spared.attempts)
    for epsilon in EPSILONS:
        more = spared.strongest(epsilon) & ~whole.strongest(epsilon)
        missed = np.zeros(6, bool)
        for one in spared.attempts:
            if one.epsilon > epsilon:  # it could have found an example for a smaller epsilon
                before = originals[one.attack, one.epsilon]
                missed |= one.skipped & within(before.size, epsilon)
        assert not (more & ~missed).any()
        assert not (whole.strongest(epsilon) & ~spared.strongest(epsilon)).any()


def like_the_papers(folder, **shares):
    """Attacks on ten images which differ in their gradient alone, and the network."""
    paths = [
        write_attempt(folder, cell(f"bim_{gradient}", gradient=gradient), sizes_leaving(share, 10))
        for gradient, share in shares.items()
    ]
    return protocols.read_attacked(paths)[0]


def test_a_corrected_gradient_leaves_what_neither_attack_breaks(tmp_path):
    group = like_the_papers(tmp_path, adjoint=0.8, direct=0.5, surrogate=0.6)
    (row,) = protocols.protocol_table([group], "bim_adjoint").itertuples()
    assert (row.paper, row.corrected, row.strongest) == (0.8, 0.5, 0.5)
    assert (row.masked, row.weak, row.gradients) == (pytest.approx(0.3), 0, 2)


def test_another_budget_corrects_no_gradient(tmp_path):
    longer = cell("bim_direct") | {"iterations": 100}
    paths = [
        write_attempt(tmp_path, cell("bim_adjoint", "adjoint"), sizes_leaving(0.8, 10)),
        write_attempt(tmp_path, longer, sizes_leaving(0.5, 10)),
    ]
    (row,) = protocols.protocol_table(protocols.read_attacked(paths), "bim_adjoint").itertuples()
    # Of the adjoint nothing is known then: it may be masked, or the search short.
    assert row.gradients == 0
    assert np.isnan([row.corrected, row.masked, row.weak]).all()
    assert (row.paper, row.strongest) == (0.8, 0.5)


def test_a_backward_solve_at_another_tolerance_is_another_gradient(tmp_path):
    tight = cell("tight", "adjoint") | {"adjoint_tolerance": 1e-5}
    paths = [
        write_attempt(tmp_path, cell("bim_adjoint", "adjoint"), sizes_leaving(0.8, 10)),
        write_attempt(tmp_path, tight, sizes_leaving(0.5, 10)),
    ]
    (row,) = protocols.protocol_table(protocols.read_attacked(paths), "bim_adjoint").itertuples()
    assert (row.corrected, row.gradients) == (0.5, 1)


def test_images_that_a_zero_gradient_cannot_move_are_masked(tmp_path):
    """All ten are robust under the paper's attack, four of them because it did not move them."""
    still = np.where(np.arange(10) < 4, 0.0, 0.1).astype(np.float32)
    paths = [
        write_attempt(tmp_path, cell("bim"), sizes_leaving(1.0, 10), perturbation_linf=still),
        # Breaks all but the first three, so that one of the four is broken.
        write_attempt(
            tmp_path, cell("square") | {"method": "square", "queries": 100}, sizes_leaving(0.3, 10)
        ),
    ]
    (row,) = protocols.protocol_table(protocols.read_attacked(paths), "bim").itertuples()
    assert (row.paper, row.strongest) == (1.0, 0.3)
    assert (row.masked, row.weak) == (pytest.approx(0.1), pytest.approx(0.6))


def test_adversarial_examples_of_another_norm_count(tmp_path):
    """Found within 0.3 in L2, they may be small enough in L-infinity."""
    l2 = cell("cw", norm="l2", epsilon=0.3)
    paths = [
        write_attempt(tmp_path, cell("bim"), [INF, INF, INF, 0.1]),
        write_attempt(
            tmp_path,
            l2,
            [0.2, 0.2, INF, INF],
            perturbation_linf=np.float32([0.05, 0.2, 0.05, 0.05]),
        ),
    ]
    linf = next(g for g in protocols.read_attacked(paths) if g.where["norm"] == "linf")
    assert linf.strongest(0.1).tolist() == [False, True, True, False]
    assert linf.robust("paper", "bim", 0.1).tolist() == [True, True, True, False]


def test_adversarial_examples_of_another_tolerance_count_where_they_fool(tmp_path):
    paths = [
        write_attempt(tmp_path, cell("bim", tolerance=tau), sizes)
        for tau, sizes in ((0.1, [0.05, 0.08, INF, INF]), (1.0, [INF, INF, INF, 0.1]))
    ]
    again = write_reevaluated(
        tmp_path,
        cell("bim", tolerance=0.1),
        [0.1, 1.0],
        [True, True, False, False],
        [[0, 0]] * 4,
        # The first fools both, the second one, the third the other one alone.
        [[1, 1], [1, 0], [0, 2], [0, 0]],
    )
    tight, loose = protocols.read_attacked(paths, [again])
    assert tight.strongest(0.1).tolist() == [False, False, True, True]
    assert loose.strongest(0.1).tolist() == [False, True, False, False]
    (row,) = protocols.protocol_table([loose], "bim").itertuples()
    assert (row.paper, row.strongest) == (0.75, 0.25)


def test_what_measurements_record_counts(tmp_path):
    """The images of a measurement may be others, in another order, with several tries each."""
    (group,) = protocols.read_attacked(
        [write_attempt(tmp_path, cell("bim"), [INF] * 4, index=np.array([3, 7, 1, 9]))]
    )
    found = known.KnownExamples(
        group.where,
        "audit",
        np.array([7, 7, 9, 5]),
        np.array([True, True, False, True]),
        np.array([0.3, 0.1, 0.1, 0.1]),
        np.array([0.6, 0.2, 0.2, 0.2]),
    )
    np.testing.assert_array_equal(found.smallest(group.index, "linf", 4), [INF, 0.1, INF, INF])
    np.testing.assert_allclose(found.smallest(group.index, "l2_rms", 4), [INF, 0.1, INF, INF])
    path = write(
        tmp_path / "audit.h5",
        "audit",
        solved(),
        {
            "index": np.array([7, 9]),
            "success/a": np.array([True, False]),
            "success/b": np.array([[True, False], [False, True]]),
            "perturbation_linf/a": np.array([0.3, 0.1]),
            "perturbation_linf/b": np.array([[0.2, 0.1], [0.1, 0.05]]),
            "perturbation_l2/a": np.array([0.3, 0.1]),
            "perturbation_l2/b": np.array([[0.2, 0.1], [0.1, 0.05]]),
        },
    )
    found = known.recorded([path], "audit")
    assert [example.source for example in found] == ["audit a", "audit b"]
    sizes = [example.smallest(group.index, "linf", 4) for example in found]
    np.testing.assert_array_equal(sizes[0], [INF, 0.3, INF, INF])
    np.testing.assert_array_equal(sizes[1], [INF, 0.2, INF, 0.05])


def test_examples_of_full_strength_are_known(tmp_path):
    """One attack left image 9; the search that went on from there did not."""
    attempt = write_attempt(tmp_path, cell("bim"), np.array([INF, 0.1, INF, INF]))
    index = protocols.read_attacked([attempt])[0].index
    path = write(
        tmp_path / "trajectory.h5",
        "trajectory",
        cell("bim"),
        {
            "index": index[1:],
            "success": np.array([True, False, False]),
            "strong/success": np.array([True, True, False]),
            "strong/perturbation_linf": np.array([0.1, 0.1, np.nan]),
            "strong/perturbation_l2": np.array([0.2, 0.2, np.nan]),
        },
    )
    (found,) = known.recorded([path], "trajectory", "strong")
    assert found.source == "trajectory strong"
    np.testing.assert_array_equal(found.smallest(index, "linf", 4), [INF, 0.1, 0.1, INF])
    (row,) = protocols.protocol_table(protocols.read_attacked([attempt]), "bim").itertuples()
    assert row.strongest == 0.75
    attacked = protocols.read_attacked([attempt], others=[found])
    (row,) = protocols.protocol_table(attacked, "bim").itertuples()
    assert row.strongest == 0.5


def test_saturation_is_what_the_later_attacks_add(tmp_path):
    paths = write_suite(tmp_path, 100, 0.6, 0.6)
    (row,) = protocols.protocol_table(protocols.read_attacked(paths), "bim_adjoint").itertuples()
    assert (row.added, row.lacks) == (0, "")
    better = cell("square") | {"method": "square", "gradient": None, "queries": 5000}
    paths = [p for p in paths if "square" not in p.name]
    paths.append(write_attempt(tmp_path / "more", better, sizes_leaving(0.55, 100)))
    (row,) = protocols.protocol_table(protocols.read_attacked(paths), "bim_adjoint").itertuples()
    assert row.added == pytest.approx(0.05)


def test_what_is_hidden_is_chapmans_estimate(tmp_path):
    """Gradients break 6 of 10, squares 3 of these and one more."""
    order = np.array([0.1] * 6 + [INF] * 4), np.array([INF] * 3 + [0.1] * 4 + [INF] * 3)
    square = cell("square") | {"method": "square", "gradient": None, "queries": 1000}
    paths = [
        write_attempt(tmp_path, cell("bim"), order[0]),
        write_attempt(tmp_path, square, order[1]),
    ]
    (row,) = protocols.protocol_table(protocols.read_attacked(paths), "bim").itertuples()
    # 7 * 5 / 4 - 1 images in all, of which 7 are known.
    assert row.hidden == pytest.approx((7 * 5 / 4 - 1 - 7) / 10)
