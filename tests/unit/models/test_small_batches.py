"""Results of an image do not depend on which other images it is computed with."""

from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.overrides import TorchFunctionMode

from node_robustness.attacks.bim import BasicIterativeMethod
from node_robustness.attacks.engine import attack
from node_robustness.models.classifier import Classifier, Head, Spec
from node_robustness.ode.small_batches import ROWS, at_least_some_rows, filled_up
from node_robustness.ode.step_control import Adaptive
from node_robustness.perturbations.norms import Norm
from rounding import rows_round_alike

pytestmark = pytest.mark.numerical


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
@pytest.mark.parametrize(("gradient", "count"), [("direct", 260), ("adjoint", 40)])
def test_an_attack_is_the_same_bits_in_any_batch_and_order(kind, gradient, count):
    """In float32, where rows round alike, as on x86 with oneDNN."""
    if not rows_round_alike():
        pytest.skip(
            "rows round differently: a value may cross the edge of a ReLU, and gradients jump"
        )
    for found, whole in attacks_of_batches(network(kind), gradient, count, 8, "linf"):
        assert torch.equal(found, whole)


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("kind", ["RES", "MIX", "OON"])
@pytest.mark.parametrize("gradient", ["direct", "adjoint"])
def test_an_attack_is_the_same_up_to_rounding_in_any_batch_and_order(kind, gradient, norm):
    """In float64, where no value is so close to an edge, on any processor.

    Of 12 × 12 pixels: normalisations over what 8 × 8 leave enlarge rounding ten thousandfold.
    """
    for found, whole in attacks_of_batches(network(kind).double(), gradient, 40, 12, norm):
        torch.testing.assert_close(found, whole, rtol=0, atol=1e-7)


def attacks_of_batches(
    model: Classifier, gradient: str, count: int, side: int, norm: str
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Adversarial images of batches of some images, and the same of one batch of all."""
    torch.manual_seed(1)
    x = torch.rand(count, 1, side, side, dtype=next(model.parameters()).dtype)
    epsilon, step = {"linf": (0.05, 0.02), "l2": (0.5, 0.2)}[norm]
    method = BasicIterativeMethod(Norm(norm), epsilon, step, 2)
    order = torch.randperm(count)
    solved = model.at(tolerance=0.1, gradient=gradient)
    y = solved(x).argmax(1)
    whole = attack(solved, x, y, method, batch_size=count)
    for size in (1, 7, 64):
        few = order[: min(6 * size, 130)]
        found = attack(solved, x[few], y[few], method, batch_size=size)
        assert torch.equal(found.success, whole.success[few])
        assert torch.equal(found.adversarial_predictions, whole.adversarial_predictions[few])
        assert torch.equal(found.iterations, whole.iterations[few])
        if whole.nfe_adversarial is not None:
            assert torch.equal(found.nfe_adversarial, whole.nfe_adversarial[few])
        yield found.adversarials, whole.adversarials[few]


class RowsOfConvolutions(TorchFunctionMode):
    """Records the rows of each convolution of states, without those of the map of time."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[int] = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func in (torch.conv2d, F.conv2d) and args[1].shape[1] > 1:
            self.rows.append(len(args[0]))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("kind", ["RES", "MIX", "OON"])
@pytest.mark.parametrize("gradient", ["direct", "adjoint"])
def test_no_state_is_convolved_alone(kind, gradient):
    """Not even if a single image is attacked, or is the last of its batch to finish."""
    model, x = network(kind), torch.rand(3, 1, 8, 8)
    method = BasicIterativeMethod(Norm("linf"), 0.05, 0.02, 2)
    solved = model.at(tolerance=0.1, gradient=gradient)
    with RowsOfConvolutions() as convolutions:
        attack(solved, x, solved(x).argmax(1), method, batch_size=1)
    assert convolutions.rows
    assert min(convolutions.rows) > 1


@pytest.mark.parametrize("channels", [8, 64])
def test_the_logits_of_an_image_are_the_same_bits_among_any_number_of_rows(channels):
    torch.manual_seed(2)
    head = Head(channels, 10, 0.0).eval()
    h = torch.randn(70, channels, 4, 4)
    with torch.no_grad():
        whole = head(h)
        assert all(torch.equal(head(h[:rows]), whole[:rows]) for rows in range(1, len(h)))


@pytest.mark.parametrize("order", [2, 3, 5])
def test_the_growth_of_a_step_does_not_depend_on_its_place_in_the_batch(order):
    generator = torch.Generator().manual_seed(3)
    ratio = 10 ** (4 * torch.rand(1031, dtype=torch.float64, generator=generator) - 2)
    control = Adaptive(order, 0.1)
    whole = control.growth(ratio)
    alone = torch.cat([control.growth(one) for one in ratio.split(1)])
    assert torch.equal(alone, whole)
    assert torch.equal(control.growth(ratio.flip(0)).flip(0), whole)
