"""The Square attack against torchattacks' and against closed forms."""

import pytest
import torch
import torchattacks

from node_robustness.attacks import square
from node_robustness.attacks.square import Square, scheduled_share
from node_robustness.models.predictions import NO_CLASS
from node_robustness.perturbations.norms import Norm
from node_robustness.perturbations.streams import Streams
from rounding import rows_round_alike
from victims import Constant, Linear, Watched, digits, distances, grey_images, predicted

pytestmark = pytest.mark.numerical


@pytest.fixture
def one_query_a_pass(monkeypatch):
    monkeypatch.setattr(square, "_PIXELS", 0)


@pytest.mark.parametrize(("norm", "epsilon"), [("linf", 0.11), ("l2", 0.7)])
def test_is_as_strong_as_torchattacks_with_as_many_queries(norm, epsilon):
    model, x, y = digits()
    ours = Square(Norm(norm), epsilon, queries=151)
    broken = ours.search(model, x, y, Streams.of(0, range(len(x)))).success.sum().item()
    theirs = torchattacks.Square(
        model, {"linf": "Linf", "l2": "L2"}[norm], epsilon, n_queries=150, resc_schedule=True
    )
    their_broken = (predicted(model, theirs(x, y)) != y).sum().item()
    assert 0 < their_broken < len(x)
    assert broken >= their_broken - 3  # both are random


@pytest.mark.parametrize(("norm", "share"), [("linf", 1.01), ("l2", 2.0), ("l2_rms", 2.0)])
def test_breaks_a_linear_model_near_the_closed_form_distance(norm, share):
    model, x = Linear(2), grey_images(6)
    y, nearest = predicted(model, x), distances(model, x, norm)
    for image in range(len(x)):
        one = slice(image, image + 1)
        how = Square(Norm(norm), share * nearest[image].item(), queries=600)
        assert how.search(model, x[one], y[one], Streams.of(0, [image])).success.tolist() == [True]


@pytest.mark.usefixtures("one_query_a_pass")
@pytest.mark.parametrize("channels", [1, 3])
def test_starts_from_stripes_and_changes_squares_that_are_each_images_own(channels):
    model, x = Watched(Constant()), grey_images(5, side=10, channels=channels)
    y = torch.zeros(5, dtype=torch.int64)
    Square(Norm("linf"), 0.1, queries=1200).search(model, x, y, Streams.of(0, range(5)))
    signs = ((model.seen[0] - x) / 0.1).round()
    torch.testing.assert_close(x + 0.1 * signs, model.seen[0], rtol=0, atol=1e-12)
    assert bool((signs.abs() == 1).all())
    assert bool((signs == signs[:, :, :1]).all())
    # Queries 1, 2 and 7 of 1,200 stand for 8, 16 and 58 of 10,000: 0.8, 0.4 and 0.2 of 100 pixels.
    sides = {1: 9, 2: 6, 6: 6, 7: 4, 1199: 1}
    for query, side in sides.items():
        # The constant model's margin never rises, so that all proposals change the start.
        changed = (model.seen[query] != model.seen[0]).any(1)
        corners = set()
        for image in changed:
            rows, columns = image.any(1).nonzero().flatten(), image.any(0).nonzero().flatten()
            assert len(rows) > 0
            assert rows[-1] - rows[0] < side
            assert columns[-1] - columns[0] < side
            corners.add((int(rows[0]), int(columns[0])))
        assert len(corners) > 1


def test_squares_shrink_after_the_same_share_of_any_number_of_queries():
    # Section 3.1 of the paper, for 10,000 queries.
    for halvings, query in enumerate([10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000]):
        assert scheduled_share(query, 10_000) == 0.5**halvings
        assert scheduled_share(query + 1, 10_000) == 0.5 ** (halvings + 1)
    assert scheduled_share(9_999, 10_000) == 0.5**9
    for query in range(1, 200):
        shares = {scheduled_share(query * n // 200, n) for n in (200, 1000, 5000, 10_000)}
        assert len(shares) == 1


@pytest.mark.usefixtures("one_query_a_pass")
@pytest.mark.parametrize("norm", ["l2", "l2_rms"])
@pytest.mark.parametrize(("side", "channels"), [(3, 1), (8, 1), (9, 3), (14, 1)])
def test_candidates_in_l2_are_as_far_away_as_allowed(norm, side, channels):
    model, x = Watched(Constant()), grey_images(3, side=side, channels=channels)
    y = torch.zeros(3, dtype=torch.int64)
    epsilon = 0.5 if norm == "l2" else 0.02
    Square(Norm(norm), epsilon, queries=8).search(model, x, y, Streams.of(0, range(3)))
    for seen in model.seen:
        sizes = Norm(norm).size(seen - x)
        torch.testing.assert_close(sizes, torch.full_like(sizes, epsilon), rtol=1e-6, atol=0)
    assert all(bool((seen != model.seen[0]).flatten(1).any(1).all()) for seen in model.seen[1:])


@pytest.mark.usefixtures("one_query_a_pass")
def test_no_gradient_is_ever_asked_for_and_no_query_is_wasted():
    model, x = Watched(Constant()), grey_images(4)
    y = torch.zeros(4, dtype=torch.int64)
    found = Square(Norm("linf"), 0.1, queries=300).search(model, x, y, Streams.of(0, range(4)))
    assert model.with_gradient == [False] * 300
    assert found.iterations.tolist() == [300] * 4
    assert all(bool((seen != model.seen[0]).flatten(1).any(1).all()) for seen in model.seen[1:])


@pytest.mark.parametrize(("norm", "epsilon"), [("linf", 0.08), ("l2", 0.5), ("l2_rms", 0.06)])
def test_several_queries_in_a_pass_find_the_same_bits(norm, epsilon, monkeypatch):
    model, x, y = digits()
    how = Square(Norm(norm), epsilon, queries=150)
    streams = [Streams.of(0, range(len(x))) for _ in range(2)]
    many = Watched(model)
    together = how.search(many, x, y, streams[0])
    monkeypatch.setattr(square, "_PIXELS", 0)
    one = Watched(model)
    apart = how.search(one, x, y, streams[1])
    assert len(one.seen) == 150
    assert len(many.seen) < 100
    assert 0 < together.success.sum() < len(x)
    for name in ("success", "iterations", "predictions"):
        assert torch.equal(getattr(together, name), getattr(apart, name)), name
    # Projections are sums over the pixels of an image, and rounding adds up over the queries.
    margin = 0 if norm == "linf" or rows_round_alike() else 1e-4
    torch.testing.assert_close(together.adversarials, apart.adversarials, rtol=0, atol=margin)


def test_a_failed_solve_ends_the_search_of_its_image_alone():
    x = grey_images(6)
    y = torch.zeros(6, dtype=torch.int64)
    # No change of 0.1 takes an image brighter than the third below this mean.
    fails = x.mean((1, 2, 3)).sort().values[2] - 0.1

    class Fails(torch.nn.Module):
        def forward(self, images):
            bright = images.mean((1, 2, 3))
            logits = torch.stack([bright + 1, 0 * bright], dim=1)
            return torch.where(bright[:, None] < fails, torch.nan, logits)

    found = Square(Norm("linf"), 0.1, queries=60).search(Fails(), x, y, Streams.of(0, range(6)))
    assert 0 < found.success.sum() < 6
    assert (found.predictions[found.success] == NO_CLASS).all()
    assert (found.iterations[~found.success] == 60).all()
