"""The claims about models and about tolerances, on outcomes of which the truth is known."""

import math

import numpy as np
import pytest

from node_robustness.errors import UserError
from node_robustness.statistics import paired
from node_robustness.verdict import contrasts, pairs, populations, protocols
from node_robustness.verdict.checks import check_table
from node_robustness.verdict.models import model_table
from node_robustness.verdict.tolerances import tolerance_table
from node_robustness.verdict.verdicts import verdict_table
from samples import cell, sizes_leaving, write_attempt, write_suite

TRAINED = pairs.References({"OON": 0.1})
NO_CHECKS = check_table([], [], [], [])


def compared(paths):
    return pairs.pair_table(protocols.read_attacked(paths), "bim_adjoint", TRAINED)


def changed(folder, before, after, n=300, seeds=(0,), lacks=""):
    """The claim from tau 0.1 to 1; either end is (paper's, strongest, corrected)."""
    paths = []
    for seed in seeds:
        paths += write_suite(folder, n, *before, tolerance=0.1, seed=seed)
        paths += write_suite(folder, n, *after, tolerance=1.0, seed=seed)
    networks = protocols.read_attacked(paths)
    found = verdict_table(protocols.protocol_table(networks, "bim_adjoint"), NO_CHECKS)
    found["lacks"] = lacks
    (row,) = tolerance_table(
        pairs.pair_table(networks, "bim_adjoint", TRAINED), found, {}
    ).itertuples()
    return row


@pytest.mark.parametrize(
    ("before", "after", "claim"),
    [
        ((0.3, 0.3, 0.3), (0.8, 0.3, 0.3), "masked"),
        ((0.3, 0.3, 0.3), (0.8, 0.8, 0.8), "real"),
        ((0.8, 0.8, 0.8), (0.8, 0.8, 0.8), "none"),
        ((0.8, 0.8, 0.8), (0.3, 0.3, 0.3), "reversed"),
        # The procedure shows a gain, and the truth is a loss.
        ((0.5, 0.5, 0.5), (0.8, 0.3, 0.3), "reversed"),
        ((0.3, 0.3, 0.3), (0.8, 0.3, 0.8), "undecided"),
        ((0.3, 0.3, 0.3), (0.35, 0.34, 0.34), "undecided"),
    ],
)
def test_what_a_larger_tolerance_gains(tmp_path, before, after, claim):
    row = changed(tmp_path, before, after)
    assert row.claim == claim, row.reason
    assert (row.tolerance, row.reference, row.level) == (1.0, 0.1, "this network")
    assert row.paper == pytest.approx(after[0] - before[0])
    assert row.strongest == pytest.approx(after[1] - before[1])
    assert row.masked == pytest.approx((after[0] - after[2]) - (before[0] - before[2]))
    gained = round(300 * max(row.strongest, 0)), round(300 * max(-row.strongest, 0))
    assert (row.strongest_low, row.strongest_high) == pytest.approx(paired.interval(*gained, 300))


def test_a_gain_under_weak_attacks_is_not_real(tmp_path):
    row = changed(tmp_path, (0.3, 0.3, 0.3), (0.8, 0.8, 0.8), lacks="The attacks are too weak.")
    assert (row.claim, row.because) == ("undecided", "attacks")


def test_every_network_has_to_show_the_change(tmp_path):
    row = changed(tmp_path, (0.3, 0.3, 0.3), (0.8, 0.3, 0.3), seeds=(0, 1))
    assert (row.claim, row.networks, row.level) == ("masked", 2, "these 2 networks")
    paths = write_suite(tmp_path / "b", 300, 0.3, 0.3, tolerance=0.1, seed=0)
    paths += write_suite(tmp_path / "b", 300, 0.9, 0.9, tolerance=1.0, seed=0)
    for tau in (0.1, 1.0):
        paths += write_suite(tmp_path / "b", 300, 0.3, 0.3, tolerance=tau, seed=1)
    found = contrasts.contrasts(compared(paths), "strongest")
    assert found.value[0] == pytest.approx(0.3)
    assert found.more[0] == 1  # the second network shows no gain at all


def test_without_the_papers_attack_no_claim_is_made(tmp_path):
    paths = [
        write_attempt(
            tmp_path,
            cell("square", tolerance=tau) | {"method": "square", "queries": 9},
            sizes_leaving(share, 300),
        )
        for tau, share in ((0.1, 0.3), (1.0, 0.9))
    ]
    networks = protocols.read_attacked(paths)
    found = pairs.pair_table(networks, None, TRAINED)
    verdicts = verdict_table(protocols.protocol_table(networks, None), NO_CHECKS)
    (row,) = tolerance_table(found, verdicts, {}).itertuples()
    assert (row.claim, row.because) == ("undecided", "no_paper")
    assert row.strongest == pytest.approx(0.6)
    assert math.isnan(row.paper)


def models(folder, ode, plain, n=300, seeds=(0,), reference_seeds=(0,)):
    paths = [p for s in seeds for p in write_suite(folder, n, *ode, seed=s)]
    for seed in reference_seeds:
        paths += write_suite(folder, n, *plain, model="RES", tolerance=None, seed=seed)
    (row,) = model_table(compared(paths), {}).itertuples()
    return row


@pytest.mark.parametrize(
    ("ode", "plain", "paper", "strongest"),
    [
        ((0.9, 0.4), (0.5, 0.5), "more", "less"),
        ((0.9, 0.8), (0.5, 0.5), "more", "more"),
        ((0.5, 0.5), (0.5, 0.5), "equivalent", "equivalent"),
        ((0.55, 0.5), (0.5, 0.46), "more", "undecided"),
        ((0.53, 0.5), (0.5, 0.5), "undecided", "equivalent"),
    ],
)
def test_models_under_both_procedures(tmp_path, ode, plain, paper, strongest):
    row = models(tmp_path, ode, plain)
    assert (row.paper_claim, row.strongest_claim) == (paper, strongest), row.reason
    assert row.reversed == ({paper, strongest} == {"more", "less"})
    assert (row.paper, row.strongest) == pytest.approx((ode[0] - plain[0], ode[1] - plain[1]))
    assert (row.model, row.reference_model) == ("OON", "RES")


def test_less_than_five_points_are_no_direction(tmp_path):
    """A difference of four points of 10,000 images is certain, and no difference."""
    row = models(tmp_path, (0.54, 0.54), (0.5, 0.5), n=10_000)
    assert row.strongest_p_more < 1e-6
    assert row.strongest_claim == "equivalent"


def test_every_network_is_compared_with_every_network_of_the_other_model(tmp_path):
    row = models(tmp_path, (0.8, 0.8), (0.5, 0.5), seeds=(0, 1), reference_seeds=(0, 1, 7))
    assert (row.networks, row.reference_networks, row.level) == (2, 3, "these 5 networks")
    assert row.strongest_claim == "more"
    # One network of the other model that is as robust takes the claim away.
    paths = [p for s in (0, 1) for p in write_suite(tmp_path / "b", 300, 0.8, 0.8, seed=s)]
    for seed, share in ((0, 0.5), (1, 0.8)):
        paths += write_suite(
            tmp_path / "b", 300, share, share, model="RES", tolerance=None, seed=seed
        )
    table = compared(paths)
    assert len(table[(table.kind == "model") & (table.protocol == "strongest")]) == 4
    (row,) = model_table(table, {}).itertuples()
    assert row.strongest_claim == "undecided"
    assert row.strongest == pytest.approx(0.15)


def test_the_reference_is_the_training_tolerance_else_the_smallest(tmp_path):
    taus = (0.01, 0.1, 1.0)
    paths = [p for tau in taus for p in write_suite(tmp_path, 4, 0.5, 0.5, tolerance=tau)]
    networks = protocols.read_attacked(paths)
    for trained, reference in ((0.1, 0.1), (0.2, 0.01)):
        known = pairs.References({"OON": trained}).of("OON", taus)
        assert known == pairs.Reference(reference, reference)
    table = pairs.pair_table(networks, "bim_adjoint", TRAINED)
    assert (set(table.tolerance), set(table.reference_tolerance)) == ({1.0}, {0.1})
    smallest = pairs.pair_table(networks, "bim_adjoint", pairs.References({}))
    assert set(smallest.reference_tolerance) == {0.01}


def test_networks_on_other_images_are_refused(tmp_path):
    paths = [
        write_attempt(tmp_path, cell(model="RES", tolerance=None), sizes_leaving(0.5, 4)),
        write_attempt(tmp_path, cell(), sizes_leaving(0.5, 4), index=np.arange(4) + 1),
    ]
    with pytest.raises(UserError, match="different images"):
        compared(paths)


def test_the_primary_epsilon_is_tested_first(tmp_path):
    """The others are claimed only where it is: here the models are equal at 0.2."""
    paths = []
    for epsilon, ode, plain in ((0.1, 0.8, 0.4), (0.2, 0.1, 0.1), (0.3, 0.0, 0.0)):
        sizes = {"OON": sizes_leaving(ode, 300, epsilon), "RES": sizes_leaving(plain, 300, epsilon)}
        paths.append(write_attempt(tmp_path, cell("bim_adjoint", epsilon=epsilon), sizes["OON"]))
        paths.append(
            write_attempt(
                tmp_path,
                cell("bim_adjoint", epsilon=epsilon, model="RES", tolerance=None),
                sizes["RES"],
            )
        )
    table = model_table(compared(paths), {})
    assert table.primary.tolist() == [False, True, False]
    assert table.strongest_claim.tolist() == ["undecided", "equivalent", "undecided"]
    assert table.strongest[0] == pytest.approx(0.4)
    chosen = model_table(compared(paths), {"linf": 0.1})
    assert chosen.primary.tolist() == [True, False, False]
    assert chosen.strongest_claim.tolist() == ["more", "undecided", "undecided"]
    # At an epsilon that was not measured nothing can be tested first.
    assert model_table(compared(paths), {"linf": 0.5}).primary.tolist() == [False, True, False]


def test_networks_trained_like_these_need_five(tmp_path):
    networks = {}
    for count in (4, 5):
        folder = tmp_path / str(count)
        paths = [p for s in range(count) for p in write_suite(folder, 100, 0.8, 0.5, 0.6, seed=s)]
        for seed in range(5):
            paths += write_suite(folder, 100, 0.5, 0.5, model="RES", tolerance=None, seed=seed)
        networks[count] = populations.population_table(
            protocols.read_attacked(paths), "bim_adjoint", TRAINED
        )
    assert set(networks[4].model) == {"RES"}
    found = networks[5].set_index(["kind", "model", "protocol"]).value
    assert found["share", "OON", "paper"] == pytest.approx(0.8)
    assert found["share", "OON", "masked"] == pytest.approx(0.2)
    assert found["model", "OON", "paper"] == pytest.approx(0.3)
    assert found["model", "OON", "strongest"] == 0
    assert (networks[5].low <= networks[5].value).all()
    assert (networks[5].value <= networks[5].high).all()
    assert (networks[5].low < networks[5].high).all()


def test_an_experiment_without_attacks_makes_no_claims():
    none = pairs.pair_table([], None, pairs.References({}))
    assert none.empty
    assert model_table(none, {}).empty
    assert tolerance_table(
        none, verdict_table(protocols.protocol_table([], None), NO_CHECKS), {}
    ).empty
    assert populations.population_table([], None, pairs.References({})).empty
