"""The detector's score in closed form, and what an attack that knows it must do."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from node_robustness.attacks.bim import BasicIterativeMethod
from node_robustness.attacks.engine import attack
from node_robustness.audit.detection import detect, disagreement
from node_robustness.perturbations.norms import Norm
from victims import random_images, small_ode

pytestmark = pytest.mark.numerical

TAUS = [1e-3, 0.1, 10.0]
METHOD = BasicIterativeMethod(Norm("linf"), 0.04, 0.01, 6)


def sure_network():
    """Whose logits are five times as far apart."""
    model = small_ode()
    model.head.linear.weight *= 5
    model.head.linear.bias *= 5
    return model.requires_grad_()


def detected(model, count=12, tau=0.1, **changes):
    x = random_images(count)
    with torch.no_grad():
        y = model.at(tolerance=tau)(x).argmax(1)
    settings = {"tolerance": tau, "tolerances": TAUS, "penalty": 1.0, "batch_size": 128}
    return x, y, detect(model, x, y, METHOD, **(settings | changes))


def test_scores_in_closed_form():
    same, opposite = [[0.2, 0.8]] * 3, [[1.0, 0.0], [0.5, 0.5], [0.0, 1.0]]
    some = [[0.5, 0.5], [0.6, 0.4], [0.25, 0.75]]
    failed = [[0.5, 0.5], [torch.nan, torch.nan], [0.5, 0.5]]
    scores = disagreement(torch.tensor([same, opposite, some, failed]))
    assert scores.tolist() == pytest.approx([0, 1, 0.35, 1])


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
    assert torch.equal(found.success["adversarial"], plain.success)
    assert torch.equal(found.correct, plain.attacked)
    assert plain.success.any()
    for name, shown in (("clean", x), ("adversarial", plain.adversarials)):
        columns = []
        for tau in TAUS:
            with torch.no_grad():
                columns.append(model.at(tolerance=tau)(shown).softmax(1))
        expected = disagreement(torch.stack(columns, dim=1))
        torch.testing.assert_close(found.scores[name], expected, rtol=1e-4, atol=1e-5)


def test_knowing_the_detector_never_harms_and_helps():
    _, _, found = detected(sure_network())
    plain, adaptive = found.success["adversarial"], found.success["adaptive"]
    assert (adaptive | ~plain).all()
    before, after = found.scores["adversarial"][plain], found.scores["adaptive"][plain]
    assert (after <= before).all()
    assert after.mean() < 0.7 * before.mean()


def test_a_penalty_lowers_the_score_of_what_is_found():
    model = sure_network()
    *_, free = detected(model, penalty=0.0)
    *_, bound = detected(model, penalty=3.0)
    both = free.success["adaptive"] & bound.success["adaptive"]
    assert bound.scores["adaptive"][both].mean() < free.scores["adaptive"][both].mean()


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
        tolerance=0.1,
        tolerances=TAUS,
        penalty=1.0,
        batch_size=15,
        progress=done.append,
    )
    assert done == [5, 5, 2]
    assert not found.correct[::3].any()
    assert not any(success[::3].any() for success in found.success.values())
    rest = wrong == y
    for name, scores in found.scores.items():
        torch.testing.assert_close(scores[rest], whole.scores[name][rest], rtol=1e-3, atol=1e-4)
