import itertools
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from node_robustness.errors import UserError
from node_robustness.perturbations.sizes import within
from node_robustness.statistics import proportions
from node_robustness.verdict import protocols
from node_robustness.verdict.checks import CHECKS
from node_robustness.verdict.measures import Evidence
from samples import cell, sizes_leaving, write_attempt

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
    )


def attacked(correct, *attempts: protocols.Attempt) -> protocols.AttackedNetwork:
    where = {"experiment": "e", "dataset": "d", "model": "M", "seed": 0, "tolerance": 0.1}
    n = len(correct)
    return protocols.AttackedNetwork(
        where | {"norm": "linf"}, True, np.arange(n), np.zeros(n, int), np.array(correct), attempts
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


def test_examples_are_the_smallest_over_all_attacks_and_epsilons(written):
    table = protocols.example_sizes(written, "paper")
    assert table["index"].tolist() == [0, 1, 2, 3]
    assert table.correct.tolist() == [True, True, True, False]
    np.testing.assert_allclose(table["size"], [0.1, 0.05, 0.25, np.nan])
    assert table.attack.tolist() == ["paper", "fab", "fab", ""]
    np.testing.assert_allclose(table.paper_size, [0.1, 0.2, INF, np.nan])
    np.testing.assert_array_equal(table.noise_size, [INF, INF, INF, np.nan])


def test_the_suite_shows_a_minimal_attack_at_every_epsilon(written):
    table = protocols.suite_table(written)
    found = {(row.attack, row.epsilon): (row.broken, row.alone) for row in table.itertuples()}
    assert found == {
        ("paper", 0.1): (1, 1),
        ("paper", 0.3): (2, 0),
        ("fab", 0.1): (1, 1),
        ("fab", 0.3): (3, 1),
        ("noise", 0.1): (0, 0),
        ("noise", 0.3): (0, 0),
    }
    assert (table.robust == table.correct - table.broken).all()
    np.testing.assert_allclose(table.robust_accuracy, table.robust / 4)


def test_protocols_pair_the_images(written):
    small, large = protocols.protocol_table(written, "paper").itertuples()
    assert (small.epsilon, small.correct) == (0.1, 3)
    assert (small.paper, small.strongest, small.gap) == (0.5, 0.25, 0.25)
    assert (large.paper, large.strongest, large.gap) == (0.25, 0, 0.25)
    assert (small.gap_low, small.gap_high) == proportions.interval(1, 4)
    assert (large.strongest_low, large.strongest_high) == proportions.interval(0, 4)


def test_without_the_papers_attack_there_is_no_gap(written):
    for paper in (None, "other"):
        table = protocols.protocol_table(written, paper)
        assert table[["paper", "gap", "gap_low"]].isna().all(axis=None)
        assert table.strongest.notna().all()
        assert set(protocols.curve_table(written, paper).protocol) == {"strongest", "noise"}


def test_curves_are_steps_at_the_sizes(written):
    table = protocols.curve_table(written, "paper")
    strongest = table[table.protocol == "strongest"]
    np.testing.assert_allclose(strongest.epsilon, [0, 0.05, 0.1, 0.25, 0.3])
    np.testing.assert_allclose(strongest.robust_accuracy, [0.75, 0.5, 0.25, 0, 0])
    assert table[table.protocol == "noise"].robust_accuracy.tolist() == [0.75] * 3


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
    for _, curve in protocols.curve_table([group], "paper").groupby("protocol"):
        assert curve.robust_accuracy.is_monotonic_decreasing
        assert curve.robust_accuracy.iloc[0] == np.mean(correct)


METHODS = {
    "bim": {"method": "bim"},
    "bisection": {"method": "bisection"},
    "transfer": {"method": "transfer", "gradient": None},
    "noise": {"method": "noise", "gradient": None},
    "apgd": {"method": "apgd"},
    "fab": {"method": "fab"},
    "square": {"method": "square", "gradient": None},
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
    for check in ("white_box_stronger", "noise_weaker", "claims_agree"):
        measure = next(c.measure for c in CHECKS if c.name == check)
        before, after = (measure(Evidence([g], {}, None, [])) for g in (whole, spared))
        assert before == after


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


def test_the_suite_of_an_attack_that_skips_is_cumulative(tmp_path):
    correct = [True, True, True, False]
    expensive = cell("apgd", epsilon=0.3) | {"skips": {"broken_by": {"bim": 0.1}, "within": 0.1}}
    paths = [
        write_attempt(tmp_path, cell("bim", epsilon=0.1), [0.1, INF, INF, INF], correct),
        write_attempt(
            tmp_path,
            expensive,
            [INF, 0.2, INF, INF],
            correct,
            attacked=np.array([False, True, True, False]),
            skipped=np.array([True, False, False, False]),
        ),
    ]
    (group,) = protocols.read_attacked(paths)
    assert group.correct.tolist() == correct
    table = protocols.suite_table([group])
    found = {
        (row.attack, row.epsilon): (row.broken, row.alone, row.robust) for row in table.itertuples()
    }
    assert found == {
        ("apgd", 0.1): (1, 0, 2),
        ("apgd", 0.3): (2, 1, 1),
        ("bim", 0.1): (1, 1, 2),
        ("bim", 0.3): (1, 1, 2),
    }
