"""Adversarials in the ball and the box, to the last bit."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from node_robustness.perturbations.ball import into_ball, is_inside
from node_robustness.perturbations.norms import Norm

pytestmark = pytest.mark.numerical


@settings(deadline=None, max_examples=100)
@given(
    st.sampled_from(["linf", "l2", "l2_rms"]),
    st.floats(1e-5, 1),
    st.floats(0.5, 50),
    st.sampled_from([torch.float32, torch.float64]),
    st.integers(0, 10_000),
)
def test_what_comes_back_is_in_the_ball_and_in_the_box(norm, epsilon, far, dtype, seed):
    generator = torch.Generator().manual_seed(seed)
    images = (1.4 * torch.rand(8, 3, 8, 8, generator=generator) - 0.2).clamp(0, 1).to(dtype)
    change = torch.randn(8, 3, 8, 8, generator=generator).to(dtype)
    moved = images + far * epsilon * change
    inside = into_ball(images, moved, Norm(norm), epsilon)
    assert bool(((inside >= 0) & (inside <= 1)).all())
    assert bool(is_inside(Norm(norm).size(inside - images), epsilon).all())
    again = into_ball(images, inside, Norm(norm), epsilon)
    torch.testing.assert_close(again, inside, rtol=0, atol=2e-7)


@pytest.mark.parametrize("epsilon", [1e-4, 3e-3])
def test_rounding_alone_would_leave_the_ball(epsilon):
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(100, 1, 8, 8, generator=generator)
    plain = (images + epsilon).clamp(0, 1)
    assert not bool(is_inside(Norm("linf").size(plain - images), epsilon).all())
    inside = into_ball(images, images + 2 * epsilon, Norm("linf"), epsilon)
    assert bool(is_inside(Norm("linf").size(inside - images), epsilon).all())
    torch.testing.assert_close(inside, plain, rtol=0, atol=1.3e-7)


def test_points_inside_stay_where_they_are():
    images = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(1)).double()
    nearby = (images + 1e-3).clamp(0, 1)
    torch.testing.assert_close(into_ball(images, nearby, Norm("linf"), 0.1), nearby)
