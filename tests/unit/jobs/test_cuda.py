"""The core on a GPU: what the CPU finds, and the same whatever the batch; skipped without CUDA."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from node_robustness.attacks.bim import BasicIterativeMethod
from node_robustness.attacks.engine import attack
from node_robustness.jobs import devices
from node_robustness.models import classifier
from node_robustness.models.evaluation import evaluate
from node_robustness.ode.solve import solve
from node_robustness.perturbations.norms import Norm
from node_robustness.trajectories import probes
from node_robustness.trajectories.runs import grid

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

DESIGNS = {"MIX": "residual", "OON": "convolution"}


@pytest.fixture(scope="module")
def device():
    return devices.choose_device("cuda")


def images(count, dtype=torch.float64):
    generator = torch.Generator().manual_seed(5)
    return torch.rand(count, 1, 12, 12, dtype=torch.float64, generator=generator).to(dtype)


def network(design, dtype=torch.float64):
    """A random classifier on the CPU whose predictions differ from image to image."""
    torch.manual_seed(3)
    spec = classifier.Spec(1, 4, (0.4,), (0.3,), DESIGNS[design], "ode", filters=8)
    model = classifier.Classifier(spec).eval()
    with torch.no_grad():
        model.head.linear.bias -= model.at(tolerance=0.1)(images(16, torch.float32)).mean(0)
    return model.to(dtype)


def on(device, model):
    return copy.deepcopy(model).to(device)


@pytest.mark.parametrize("method", ["dopri5", "bosh3"])
@pytest.mark.parametrize("tolerance", [1e-6, 1e-2, 10.0])
def test_the_solver_finds_the_states_and_evaluations_of_the_cpu(device, method, tolerance):
    torch.manual_seed(0)
    y, weight = torch.randn(50, 6, dtype=torch.float64), torch.randn(6, 6, dtype=torch.float64)
    times = torch.linspace(0, 1, 11).tolist()

    def solved(where):
        matrix = 2 * weight.to(where)
        return solve(
            lambda t, h: torch.tanh(h @ matrix) + t.reshape(-1, 1),
            y.to(where),
            times,
            tolerance=tolerance,
            method=method,
        )

    here, there = solved("cpu"), solved(device)
    assert there.states.device.type == "cuda"
    assert torch.equal(there.nfe.cpu(), here.nfe)
    torch.testing.assert_close(there.states.cpu(), here.states, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("design", DESIGNS)
@pytest.mark.parametrize("gradient", ["direct", "adjoint"])
def test_gradients_are_those_of_the_cpu(device, design, gradient):
    model, x = network(design), images(5)
    labels = torch.arange(5) % 4

    def gradient_on(where):
        net, at = on(where, model), x.to(where, copy=True).requires_grad_()
        solved = net.at(tolerance=1e-3, gradient=gradient)
        loss = F.cross_entropy(solved(at), labels.to(where), reduction="sum")
        return torch.autograd.grad(loss, at)[0].cpu()

    torch.testing.assert_close(gradient_on(device), gradient_on("cpu"), rtol=1e-7, atol=1e-12)


@pytest.mark.parametrize("design", DESIGNS)
@pytest.mark.parametrize("gradient", ["direct", "adjoint"])
def test_an_attack_succeeds_where_it_does_on_the_cpu(device, design, gradient):
    model, x = network(design), images(40)
    method = BasicIterativeMethod(Norm("linf"), 0.004, 0.001, 10, early_stop=True)

    def attacked(where):
        net = on(where, model)
        solved = net.at(tolerance=0.1, gradient=gradient)
        labels = evaluate(solved, x.to(where), batch_size=40).predictions
        return attack(solved, x.to(where), labels, method, batch_size=16)

    here, there = attacked("cpu"), attacked(device)
    assert 0 < int(here.success.sum()) < 40, "says nothing where all or none fall"
    for name in ("success", "adversarial_predictions", "iterations", "nfe_adversarial"):
        assert torch.equal(getattr(there, name).cpu(), getattr(here, name)), name
    torch.testing.assert_close(there.adversarials.cpu(), here.adversarials, rtol=0, atol=1e-9)


@pytest.mark.parametrize("design", DESIGNS)
def test_neither_the_batch_nor_a_second_time_changes_a_decision(device, design):
    """In float32, as jobs compute; two runs in the same batches are the same to the bit."""
    model, x = on(device, network(design, torch.float32)), images(70, torch.float32).to(device)
    method = BasicIterativeMethod(Norm("linf"), 0.004, 0.001, 5, early_stop=True)
    solved = model.at(tolerance=0.1)
    labels = evaluate(solved, x, batch_size=70).predictions
    found = {
        size: [attack(solved, x, labels, method, batch_size=size) for _ in range(2)]
        for size in (70, 1, 7)
    }
    for size, (one, again) in found.items():
        assert torch.equal(one.adversarials, again.adversarials), size
        for name in ("success", "adversarial_predictions", "iterations", "nfe_adversarial"):
            assert torch.equal(getattr(one, name), getattr(found[70][0], name)), (size, name)
        torch.testing.assert_close(one.adversarials, found[70][0].adversarials, rtol=0, atol=1e-5)


def test_features_for_the_probes_come_back(device):
    model, x = network("OON", torch.float32), images(9, torch.float32)
    here = probes.features_along(model, x, grid(5), batch_size=9)
    there = probes.features_along(on(device, model), x.to(device), grid(5), batch_size=4)
    for one, other in zip(here, there, strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-3, atol=1e-4)
