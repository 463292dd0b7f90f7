"""The detectors' scores in closed form, and what attacks that know more about them must do."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from node_robustness.attacks.bim import BasicIterativeMethod
from node_robustness.attacks.engine import attack
from node_robustness.audits import detection
from node_robustness.audits.detection import (
    ATTACKERS,
    DETECTORS,
    Search,
    detect,
    disagreement,
    uncertainty,
)
from node_robustness.perturbations.norms import Norm
from victims import random_images, small_ode

pytestmark = pytest.mark.numerical

TAUS = [1e-3, 0.1, 10.0]
PLAIN, CONFIDENT, ADAPTIVE = range(len(ATTACKERS))
DISAGREEMENT, CONFIDENCE = range(len(DETECTORS))
METHOD = BasicIterativeMethod(Norm("linf"), 0.04, 0.01, 6)
SEARCH = Search(3, 4)


def sure_network():
    """Whose logits are five times as far apart."""
    model = small_ode()
    model.head.linear.weight *= 5
    model.head.linear.bias *= 5
    return model.requires_grad_()


def detected(model, count=12, tau=0.1, search=SEARCH, **changes):
    x = random_images(count)
    with torch.no_grad():
        y = model.at(tolerance=tau)(x).argmax(1)
    settings = {"tolerance": tau, "tolerances": TAUS, "batch_size": 128}
    return x, y, detect(model, x, y, METHOD, search, **(settings | changes))


def at_all(model, shown):
    """The probabilities at all tolerances, each solved by itself."""
    with torch.no_grad():
        return torch.stack([model.at(tolerance=tau)(shown).softmax(1) for tau in TAUS], dim=1)


def test_scores_in_closed_form():
    same, opposite = [[0.2, 0.8]] * 3, [[1.0, 0.0], [0.5, 0.5], [0.0, 1.0]]
    some = [[0.5, 0.5], [0.6, 0.4], [0.25, 0.75]]
    failed = [[0.5, 0.5], [torch.nan, torch.nan], [0.5, 0.5]]
    scores = disagreement(torch.tensor([same, opposite, some, failed]))
    assert scores.tolist() == pytest.approx([0, 1, 0.35, 1])


def test_a_classifier_is_unsure_in_closed_form():
    scores = uncertainty(torch.tensor([[0.1, 0.9], [0.5, 0.5], [torch.nan, torch.nan]]))
    assert scores.tolist() == pytest.approx([0.1, 0.5, 1])


@given(st.integers(0, 10**6), st.permutations(range(3)))
def test_scores_treat_all_tolerances_alike(seed, order):
    generator = torch.Generator().manual_seed(seed)
    probabilities = torch.randn(5, 3, 4, generator=generator).softmax(2)
    scores = disagreement(probabilities)
    assert ((scores >= 0) & (scores <= 1)).all()
    torch.testing.assert_close(disagreement(probabilities[:, order]), scores)


def test_clean_and_plain_scores_are_those_of_the_images():
    model = sure_network()
    x, y, found = detected(model)
    plain = attack(model.at(tolerance=0.1), x, y, METHOD)
    assert torch.equal(found.success[:, PLAIN], plain.success)
    assert torch.equal(found.correct, plain.attacked)
    assert plain.success.any()
    for scores, shown in ((found.clean, x), (found.scores[:, PLAIN], plain.adversarials)):
        probabilities = at_all(model, shown)
        expected = torch.stack(
            [disagreement(probabilities), 1 - probabilities[:, TAUS.index(0.1)].amax(1)], 1
        )
        torch.testing.assert_close(scores, expected, rtol=1e-4, atol=1e-5)
    change = plain.adversarials - x
    torch.testing.assert_close(found.linf[:, PLAIN], change.abs().flatten(1).amax(1))
    torch.testing.assert_close(found.l2[:, PLAIN], change.flatten(1).norm(dim=1))


@pytest.mark.parametrize("norm", ["linf", "l2", "l2_rms"])
def test_all_attackers_stay_within_epsilon(norm):
    method = replace(METHOD, norm=Norm(norm))
    x = random_images(6)
    y = torch.arange(6) % 4
    settings = {"tolerance": 0.1, "tolerances": TAUS, "batch_size": 128}
    found = detect(sure_network(), x, y, method, Search(2, 3), **settings)
    size = found.linf if norm == "linf" else found.l2
    if norm == "l2_rms":
        size = size / x[0].numel() ** 0.5
    assert found.correct.any()
    assert (size <= method.epsilon * (1 + 1e-4)).all()
    assert (size[found.success] > 0).all()


def test_an_attack_that_goes_on_is_surer_than_one_that_stops():
    _, _, found = detected(sure_network())
    plain, confident = found.success[:, PLAIN], found.success[:, CONFIDENT]
    assert (confident | ~plain).all()
    before, after = (found.scores[plain, who, CONFIDENCE] for who in (PLAIN, CONFIDENT))
    assert (after < before).all()


def test_knowing_the_detector_never_harms_and_helps():
    _, _, found = detected(sure_network())
    for other in (PLAIN, CONFIDENT):
        fooled = found.success[:, other]
        assert (found.success[:, ADAPTIVE] | ~fooled).all()
        before, after = (found.scores[fooled, who, DISAGREEMENT] for who in (other, ADAPTIVE))
        assert (after <= before).all()
        assert after.mean() < 0.7 * before.mean()


def test_every_search_lowers_the_score_of_what_is_found():
    found = [detected(sure_network(), search=Search(n, 4))[2] for n in (1, 2, 4)]
    everywhere = torch.stack([one.success[:, ADAPTIVE] for one in found]).all(0)
    means = [one.scores[everywhere, ADAPTIVE, DISAGREEMENT].mean() for one in found]
    assert means[2] < 0.9 * means[1] < 0.9**2 * means[0]


def test_searching_the_penalty_beats_a_fixed_one(monkeypatch):
    """With as many steps from the same images."""
    *_, searched = detected(sure_network())
    monkeypatch.setattr(detection, "_FACTOR", 1.0)
    *_, fixed = detected(sure_network())
    both = searched.success[:, ADAPTIVE] & fixed.success[:, ADAPTIVE]
    ours, theirs = (one.scores[both, ADAPTIVE, DISAGREEMENT] for one in (searched, fixed))
    assert ours.mean() < theirs.mean()


def test_only_correct_images_are_attacked_and_batches_change_nothing():
    model, done = sure_network(), []
    x, y, whole = detected(model)
    wrong = y.clone()
    wrong[::3] = (wrong[::3] + 1) % 4
    found = detect(
        model,
        x,
        wrong,
        METHOD,
        SEARCH,
        tolerance=0.1,
        tolerances=TAUS,
        batch_size=15,
        progress=done.append,
    )
    assert done == [5, 5, 2]
    assert not found.correct[::3].any()
    assert not found.success[::3].any()
    assert not found.linf[::3].any()
    rest = wrong == y
    for ours, theirs in ((found.clean, whole.clean), (found.scores, whole.scores)):
        torch.testing.assert_close(ours[rest], theirs[rest], rtol=1e-3, atol=1e-4)


def test_images_that_are_all_wrong_are_not_attacked():
    model = sure_network()
    x, y, _ = detected(model, 3)
    settings = {"tolerance": 0.1, "tolerances": TAUS, "batch_size": 128}
    found = detect(model, x, (y + 1) % 4, METHOD, Search(2, 2), **settings)
    assert not found.success.any()
    assert not found.l2.any()
    torch.testing.assert_close(found.scores, found.clean[:, None].expand(-1, 3, -1))
