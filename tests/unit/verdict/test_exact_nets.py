"""Verdicts on neural ODEs whose robust accuracy is known exactly, from real attacks and audits.

What each attack breaks is compared image by image with the closed form (`tests/exact.py`); the
distances keep clear of epsilon, so that no rounding decides an image.
"""

import numpy as np
import pytest
import torch

import exact
import known
from node_robustness.config.loading import load
from node_robustness.verdict.verdicts import LEVEL

pytestmark = pytest.mark.numerical

EPSILON = 0.1
PAPER = ["bim_adjoint", "bim_direct"]
DIRECT = ["apgd_ce", "apgd_t"]
SQUARES = {"squares": {"method": "square", "queries": 1000}}
SURROGATE = {"apgd_surrogate": {"method": "apgd", "loss": "ce", "gradient": "surrogate"}}
SURROGATE["apgd_surrogate"]["surrogate"] = {"tolerance": 1e-4}
SHORT_SQUARES = {"squares": {"method": "square", "queries": 200}}
STRONG = SQUARES | SURROGATE
AUDIT = {"images": 120}


def planted(near, far, marked=0.0):
    """Images that can be broken, as many that cannot, and which share of either is marked."""
    distances = np.concatenate([np.linspace(0.02, 0.07, near), np.linspace(0.13, 0.3, far)])
    marks = np.concatenate([np.arange(n) < round(marked * n) for n in (near, far)])
    return torch.tensor(distances), torch.tensor(marks)


def decide(folder, nets, images, labels, attacks, own, **changes):
    """All tables of nets by name and seed, under attacks of which some are this test's own."""
    names = list(dict.fromkeys(name for name, _ in nets))
    experiment = {
        "datasets": ["digits"],
        "models": names,
        "seeds": list(dict.fromkeys(seed for _, seed in nets)),
        "tolerances": [exact.TOLERANCE],
        "attacks": [*attacks, *own, "noise"],
        "norms": ["linf"],
        "epsilons": [EPSILON],
        "skip_broken": False,
        "audit": None,
    }
    config = load(
        {
            "experiments": {"e": experiment | changes},
            "datasets": {"digits": {"source": "digits"}},
            "models": {name: {"downsampling": "convolution", "body": "ode"} for name in names},
            "attacks": own,
        }
    )
    return known.evaluated(folder, config, nets, images, labels)


def group(found, model, seed=0):
    (own,) = [g for g in found.attacked if (g.where["model"], g.where["seed"]) == (model, seed)]
    return own


def broken(found, model, attack, seed=0):
    own = group(found, model, seed)
    (attempt,) = [a for a in own.attempts if a.attack == attack]
    return attempt.success


def row_of(table, model, **where):
    (row,) = table.loc[
        (table[["model", *where]] == [model, *where.values()]).all(axis=1)
    ].itertuples()
    return row


def breakable(images, labels, shift=0.0):
    return (exact.distances(images, labels, "linf", shift) < EPSILON).numpy()


@pytest.fixture(scope="module")
def masked(tmp_path_factory):
    """Nets with a defect in the gradients of half of the images."""
    distances, marks = planted(120, 80, marked=0.5)
    images, labels = exact.images(distances, marks)
    nets = {(name, 0): exact.turning(adjoint=factor) for name, factor in exact.WRONG.items()}
    nets["loud", 0] = exact.turning(loudness=1e6)
    nets["rounded", 0] = exact.turning(levels=4096)
    nets["sound", 0] = exact.turning()
    found = decide(tmp_path_factory.mktemp("masked"), nets, images, labels, PAPER, SHORT_SQUARES)
    return found, breakable(images, labels), marks.numpy()


@pytest.mark.parametrize("model", [*exact.WRONG, "loud", "rounded"])
def test_masking_is_found_on_the_images_where_it_is_planted(masked, model):
    found, within, marks = masked
    own = group(found, model)
    assert own.correct.all()
    assert np.array_equal(broken(found, model, "bim_adjoint"), within & ~marks)
    assert np.array_equal(own.strongest(EPSILON), ~within)


@pytest.mark.parametrize("model", [*exact.WRONG, "loud", "rounded"])
def test_planted_masking_is_masked_by_its_planted_share(masked, model):
    found, within, marks = masked
    row = row_of(found.verdicts, model)
    assert (row.verdict, row.procedure) == ("masked", "hides"), row.reason
    assert row.masked == np.mean(within & marks) == 0.3
    assert row.weak == 0
    assert (row.paper, row.strongest) == (0.7, 0.4)
    # By the corrected gradient, or as images that the paper's attack could not move.
    corrected = group(found, model).corrected("bim_adjoint", EPSILON)
    assert np.array_equal(corrected, ~within)


def test_a_net_without_a_defect_is_not_masked(masked):
    found, within, _ = masked
    row = row_of(found.verdicts, "sound")
    assert (row.masked, row.gap, row.procedure) == (0, 0, "shows")
    assert np.array_equal(group(found, "sound").strongest(EPSILON), ~within)
    assert (row.verdict, row.because) == ("undecided", "attacks"), row.reason


@pytest.mark.parametrize("model", exact.WRONG)
def test_a_right_gradient_breaks_what_a_wrong_adjoint_leaves(masked, model):
    found, within, _ = masked
    assert np.array_equal(broken(found, model, "bim_direct"), within)


@pytest.mark.parametrize("model", ["loud", "rounded"])
def test_no_gradient_of_the_cross_entropy_moves_the_marked_images(masked, model):
    found, within, marks = masked
    assert np.array_equal(broken(found, model, "bim_direct"), within & ~marks)


@pytest.fixture(scope="module")
def strongly_attacked(tmp_path_factory):
    """Nets without a defect, of which the one leaves nothing and the other most images."""
    found = {}
    for name, (near, far) in {"broken": (195, 5), "robust": (80, 120)}.items():
        images, labels = exact.images(*planted(near, far))
        nets = {("OON", 0): exact.turning()}
        folder = tmp_path_factory.mktemp(name)
        found[name] = (
            decide(folder, nets, images, labels, [*PAPER, *DIRECT], STRONG, audit=AUDIT),
            breakable(images, labels),
        )
    return found


@pytest.mark.parametrize("name", ["broken", "robust"])
def test_no_attack_breaks_more_than_there_is_and_the_strong_ones_all_of_it(strongly_attacked, name):
    found, within = strongly_attacked[name]
    for attack in (*PAPER, *DIRECT, *STRONG):
        assert np.array_equal(broken(found, "OON", attack), within), attack


def test_a_net_without_a_defence_is_broken_and_the_procedure_shows_it(strongly_attacked):
    row = row_of(strongly_attacked["broken"][0].verdicts, "OON")
    assert (row.verdict, row.procedure) == ("broken", "shows"), row.reason
    assert (row.clean, row.paper, row.strongest) == (1, 0.025, 0.025)


def test_robustness_by_construction_survives(strongly_attacked):
    row = row_of(strongly_attacked["robust"][0].verdicts, "OON")
    assert (row.verdict, row.procedure, row.lacks) == ("survives", "shows", ""), row.reason
    assert (row.paper, row.corrected, row.strongest, row.added) == (0.6, 0.6, 0.6, 0)


def test_no_attack_breaks_a_certified_image(tmp_path):
    images, _ = exact.images(*planted(60, 160))
    model = exact.shrinking()
    with torch.no_grad():
        labels = model(images).argmax(1)
    # Next to the boundary predictions are not stable, which is a check.
    clear = exact.certified(model, images, labels) > 0.1
    images, labels = images[clear][-200:], labels[clear][-200:]
    radius = exact.certified(model, images, labels).numpy()
    epsilon = 0.4
    found = decide(
        tmp_path,
        {("OON", 0): model},
        *(images, labels, [*PAPER, *DIRECT], STRONG),
        norms=["l2"],
        epsilons=[epsilon],
        audit=AUDIT,
    )
    robust = group(found, "OON").strongest(epsilon)
    assert robust[radius > epsilon].all()
    # The bound says something: hardly more images are robust than have the certificate.
    assert 0.5 < (radius > epsilon).mean() < robust.mean() < (radius > epsilon).mean() + 0.15
    row = row_of(found.verdicts, "OON")
    assert row.verdict == "survives", row.reason
    assert row.strongest >= (radius > epsilon).mean()


SHORT = {"too few": {"iterations": 2, "relative_step": 0.2}}
SHORT["too short"] = {"iterations": 10, "relative_step": 0.04}
REACH = 0.4
"""Of epsilon: how far these steps lead."""


@pytest.fixture(scope="module", params=SHORT)
def searched(tmp_path_factory, request):
    """A net without a defect, and the paper's attack with too few steps or with too short ones."""
    distances = np.concatenate(
        [np.linspace(0.02, 0.035, 60), np.linspace(0.05, 0.07, 60), np.linspace(0.13, 0.3, 80)]
    )
    distances = torch.tensor(distances)
    images, labels = exact.images(distances, torch.zeros(200, dtype=torch.bool))
    steps = {"method": "bim", **SHORT[request.param]}
    papers = {"short_adjoint": steps | {"gradient": "adjoint"}, "short_direct": steps}
    found = decide(
        tmp_path_factory.mktemp("searched"),
        {("OON", 0): exact.turning()},
        *(images, labels, ["bim_direct"], papers | SHORT_SQUARES),
        paper_attack="short_adjoint",
    )
    return found, exact.distances(images, labels, "linf").numpy()


def test_a_weak_search_leaves_the_images_that_it_cannot_reach(searched):
    found, distances = searched
    for attack in ("short_adjoint", "short_direct"):
        assert np.array_equal(broken(found, "OON", attack), distances < REACH * EPSILON)
    assert np.array_equal(group(found, "OON").strongest(EPSILON), distances > EPSILON)


def test_a_weak_search_is_under_searched_by_its_planted_share(searched):
    found, distances = searched
    row = row_of(found.verdicts, "OON")
    assert (row.verdict, row.procedure) == ("under-searched", "hides"), row.reason
    missed = (distances > REACH * EPSILON) & (distances < EPSILON)
    assert (row.masked, row.weak) == (0, np.mean(missed)) == (0, 0.3)


def _of_images(folder, n):
    """A net that leaves six of ten of n images, strongly attacked."""
    near = round(0.4 * n)
    images, labels = exact.images(*planted(near, n - near))
    nets = {("OON", 0): exact.turning()}
    found = decide(folder, nets, images, labels, [*PAPER, *DIRECT], STRONG, audit=AUDIT)
    assert group(found, "OON").strongest(EPSILON).sum() == n - near
    return found


def test_too_few_images_are_undecided_and_the_number_that_is_named_decides(tmp_path):
    few = row_of(_of_images(tmp_path / "few", 20).verdicts, "OON")
    assert (few.verdict, few.because) == ("undecided", "images"), few.reason
    assert few.needed > 20
    enough = row_of(_of_images(tmp_path / "enough", int(few.needed)).verdicts, "OON")
    assert few.p_survives > LEVEL > enough.p_survives
    assert enough.verdict == "survives", enough.reason


SHIFTS = [0.0, 0.01, -0.01, 0.02, -0.02]


def networks(folder, adjoints):
    """Nets of as many seeds, each with its boundary and with its adjoint."""
    distances, marks = planted(100, 80, marked=0.5)
    # Images that one net leaves and another breaks.
    between = torch.linspace(0.084, 0.116, 20, dtype=torch.float64)
    between = between[(between - EPSILON).abs() > 0.002]
    marks = torch.cat([marks, torch.arange(len(between)) % 2 == 0])
    images, labels = exact.images(torch.cat([distances, between]), marks)
    nets = {
        ("OON", seed): exact.turning(seed, shift=SHIFTS[seed], adjoint=adjoint)
        for seed, adjoint in enumerate(adjoints)
    }
    found = decide(folder, nets, images, labels, PAPER, {})
    for seed, adjoint in enumerate(adjoints):
        within = breakable(images, labels, SHIFTS[seed])
        left = marks.numpy() & (adjoint != 1)
        assert np.array_equal(broken(found, "OON", "bim_adjoint", seed), within & ~left)
        assert np.array_equal(broken(found, "OON", "bim_direct", seed), within)
    return found


def test_networks_that_disagree(tmp_path):
    found = networks(tmp_path, [-1.0, 1.0])
    row = row_of(found.verdicts, "OON")
    assert (row.verdict, row.networks, row.level) == ("undecided", 2, "these 2 networks")
    assert row.p_masked == 1
    # What is true of the first is not hidden by the second.
    alone = found.protocols.set_index("seed")
    assert (alone.masked_low[0] > 0.05, alone.masked[1]) == (True, 0)
    assert row.masked_low <= alone.masked_low.min()
    assert row.masked_high >= alone.masked_high.max()


def test_two_networks_that_agree(tmp_path):
    row = row_of(networks(tmp_path, [-1.0, 0.0]).verdicts, "OON")
    assert (row.verdict, row.networks, row.agree) == ("masked", 2, 2), row.reason
    assert np.isnan(row.agree_low)


def test_five_networks(tmp_path):
    row = row_of(networks(tmp_path, [-1.0, 0.0, -1.0, 0.0, -1.0]).verdicts, "OON")
    assert (row.verdict, row.networks, row.agree) == ("masked", 5, 5), row.reason
    assert row.agree_low == pytest.approx(0.025 ** (1 / 5))


LOOSE = 1e-2


@pytest.fixture(scope="module")
def tolerances(tmp_path_factory):
    """A net whose adjoint is wrong at a loose tolerance, and one without a defect."""
    distances, marks = planted(120, 80, marked=0.5)
    images, labels = exact.images(distances, marks)
    nets = {("masked", 0): exact.turning(adjoint=-1.0, loose=LOOSE), ("none", 0): exact.turning()}
    found = decide(
        tmp_path_factory.mktemp("tolerances"),
        *(nets, images, labels, PAPER, {}),
        tolerances=[1e-3, LOOSE],
    )
    return found, breakable(images, labels), marks.numpy()


def test_a_loose_tolerance_hides_what_it_does_not_protect(tolerances):
    found, within, marks = tolerances
    for own in found.attacked:
        hidden = marks & (own.where["tolerance"] == LOOSE) & (own.where["model"] == "masked")
        paper = own.paper("bim_adjoint", EPSILON)
        assert np.array_equal(paper, ~within | hidden), own.where
        assert np.array_equal(own.strongest(EPSILON), ~within), own.where


def test_a_gain_by_a_wrong_adjoint_is_masked_and_an_honest_net_gains_none(tolerances):
    found, within, marks = tolerances
    row = row_of(found.tolerances, "masked")
    assert row.claim == "masked", row.reason
    assert row.paper == row.masked == np.mean(within & marks)
    assert row.strongest == row.corrected == 0
    row = row_of(found.tolerances, "none")
    assert row.claim == "none", row.reason
    assert (row.paper, row.strongest, row.masked) == (0, 0, 0)
