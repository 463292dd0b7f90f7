"""Results of an image do not depend on which other images it is computed with."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from node_robustness.attacks import BasicIterativeMethod, attack
from node_robustness.models import Classifier, Spec, solving
from node_robustness.norms import Norm
from node_robustness.small_batches import ROWS, at_least_some_rows, filled_up

IMAGES = {"direct": 260, "adjoint": 40}


def network(kind: str) -> Classifier:
    torch.manual_seed(0)
    downsampling, body = {
        "RES": ("residual", "residual"),
        "MIX": ("residual", "ode"),
        "OON": ("convolution", "ode"),
    }[kind]
    return Classifier(Spec(1, 10, (0.0,), (1.0,), downsampling, body, 8, 1)).eval()


@given(rows=st.integers(1, 9))
@settings(deadline=None)
def test_a_function_sees_some_rows_and_returns_as_many_as_it_was_given(rows):
    seen = []

    def function(x, y):
        seen.append((len(x), len(y)))
        return x + y

    x, y = torch.rand(rows, 2), torch.rand(rows, 2)
    assert torch.equal(at_least_some_rows(function, x, y), x + y)
    assert seen == [(max(rows, ROWS),) * 2]


def test_copies_have_no_part_in_the_gradient():
    x = torch.rand(2, 3, requires_grad=True)
    out = at_least_some_rows(lambda rows: rows**2, x)
    (gradient,) = torch.autograd.grad(out.sum(), x)
    assert torch.equal(gradient, 2 * x)
    (gradient,) = torch.autograd.grad(filled_up(x).sum(), x)
    assert torch.equal(gradient, torch.ones_like(x))


@pytest.mark.parametrize("kind", ["RES", "MIX", "OON"])
@pytest.mark.parametrize("gradient", ["direct", "adjoint"])
def test_an_attack_is_the_same_in_any_batch_and_order(kind, gradient, record_property):
    """Down to the bits on x86 with oneDNN; elsewhere perhaps to rounding, and that is asked for."""
    model = network(kind)
    torch.manual_seed(1)
    count = IMAGES[gradient]
    x = torch.rand(count, 1, 8, 8)
    method = BasicIterativeMethod(Norm("linf"), 0.05, 0.02, 2)
    order = torch.randperm(count)
    with solving(model, tolerance=0.1, gradient=gradient):
        y = model(x).argmax(1)
        whole = attack(model, x, y, method, batch_size=count)
        for size in (1, 7, 64):
            few = order[:12] if size == 1 else order
            found = attack(model, x[few], y[few], method, batch_size=size)
            assert torch.equal(found.success, whole.success[few])
            assert torch.equal(found.adversarial_predictions, whole.adversarial_predictions[few])
            assert torch.equal(found.iterations, whole.iterations[few])
            if whole.nfe_adversarial is not None:
                assert torch.equal(found.nfe_adversarial, whole.nfe_adversarial[few])
            torch.testing.assert_close(
                found.adversarials, whole.adversarials[few], rtol=0, atol=1e-5
            )
            equal = torch.equal(found.adversarials, whole.adversarials[few])
            record_property(f"bits equal in batches of {size}", equal)
