"""Norms against numpy: sizes, steepest steps, projections."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from node_robustness.perturbations.norms import Norm

pytestmark = pytest.mark.numerical

NAMES = ["linf", "l2", "l2_rms"]
norms = st.sampled_from([Norm(name) for name in NAMES])
shapes = st.tuples(*(st.integers(1, 3) for _ in range(4)))
tensors = hnp.arrays(np.float64, shapes, elements=st.floats(-4, 4).map(lambda v: round(v, 3)))


def reference_size(norm, values):
    flat = values.reshape(len(values), -1)
    match norm.name:
        case "linf":
            return np.abs(flat).max(1)
        case "l2":
            return np.sqrt((flat**2).sum(1))
        case "l2_rms":
            return np.sqrt((flat**2).mean(1))


def dual_size(norm, values):
    """The largest inner product with anything of norm one."""
    flat = values.reshape(len(values), -1)
    match norm.name:
        case "linf":
            return np.abs(flat).sum(1)
        case "l2":
            return np.sqrt((flat**2).sum(1))
        case "l2_rms":
            return np.sqrt((flat**2).sum(1) * flat.shape[1])


@given(norms, tensors)
def test_size(norm, values):
    np.testing.assert_allclose(norm.size(torch.tensor(values)), reference_size(norm, values))


def test_the_papers_l2_is_the_usual_one_over_the_root_of_the_number_of_values():
    values = torch.rand(2, 3, 4, 5)
    torch.testing.assert_close(Norm("l2").size(values), Norm("l2_rms").size(values) * 60**0.5)


@given(norms, tensors)
def test_direction_is_the_steepest_of_norm_one(norm, values):
    step = norm.direction(torch.tensor(values)).numpy()
    moved = (values != 0).reshape(len(values), -1).any(1)
    np.testing.assert_allclose(reference_size(norm, step), moved.astype(float))
    gain = (step * values).reshape(len(values), -1).sum(1)
    np.testing.assert_allclose(gain, dual_size(norm, values))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("scale", [1e-36, 1e-20, 1e-10, 1.0, 1e20, 1e36])
def test_direction_does_not_depend_on_the_scale_of_the_gradient(name, scale):
    gradient = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    norm = Norm(name)
    torch.testing.assert_close(norm.direction(scale * gradient), norm.direction(gradient))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_no_direction_for_a_gradient_that_is_not_finite(name, bad):
    gradient = torch.ones(2, 1, 2, 2)
    gradient[0, 0, 1, 0] = bad
    step = Norm(name).direction(gradient)
    assert torch.equal(step[0], torch.zeros(1, 2, 2))
    assert bool((step[1] > 0).all())


@given(norms, tensors, st.floats(0.001, 5))
def test_projection_is_the_nearest_point_of_the_ball(norm, values, epsilon):
    projected = norm.project(torch.tensor(values), epsilon).numpy()
    assert (reference_size(norm, projected) <= epsilon * (1 + 1e-12)).all()
    # On the surface itself rounding decides what is inside.
    inside = reference_size(norm, values) <= epsilon * (1 - 1e-12)
    np.testing.assert_array_equal(projected[inside], values[inside])
    if norm.name == "linf":
        np.testing.assert_array_equal(projected, np.clip(values, -epsilon, epsilon))
    else:
        # The nearest point of a round ball lies on the ray, on the surface.
        outside = ~inside
        factor = epsilon / reference_size(norm, values)[outside]
        expected = values[outside] * factor[:, None, None, None]
        np.testing.assert_allclose(projected[outside], expected)
    again = norm.project(torch.tensor(projected), epsilon).numpy()
    np.testing.assert_allclose(again, projected, rtol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_images_do_not_affect_each_other(name):
    norm, values = Norm(name), torch.randn(3, 2, 4, 4, generator=torch.Generator().manual_seed(1))
    for function in (norm.size, norm.direction, lambda v: norm.project(v, 0.3)):
        alone = torch.cat([function(values[i : i + 1]) for i in range(3)])
        assert torch.equal(function(values), alone)
