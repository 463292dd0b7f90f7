"""A model that is configured to be solved by torchdiffeq itself, against direct calls of it."""

import json
from dataclasses import asdict

import pytest
import torch
from torchdiffeq import odeint

from node_robustness.attacks.bim import BasicIterativeMethod
from node_robustness.attacks.engine import attack
from node_robustness.attacks.gradients import with_gradient
from node_robustness.config.compute import Compute
from node_robustness.config.models import TORCHDIFFEQ_ONLY, Solver
from node_robustness.config.values import FIXED
from node_robustness.models.classifier import Classifier, Spec
from node_robustness.models.evaluation import evaluate
from node_robustness.models.memory import images_at_a_time
from node_robustness.models.ode_body import with_parameters
from node_robustness.models.predictions import NO_CLASS
from node_robustness.ode.solve import Status
from node_robustness.perturbations.norms import Norm

pytestmark = pytest.mark.numerical

METHODS = Solver.model_json_schema()["properties"]["method"]["enum"]
TAU = 1e-2


def network(method="dopri5", backend="torchdiffeq", **changes) -> Classifier:
    torch.manual_seed(7)
    steps = 6 if method in FIXED else None
    solver = {"method": method, "tolerance": TAU, "steps": steps, "backend": backend} | changes
    spec = Spec(1, 4, (0.4,), (0.3,), "convolution", "ode", filters=8, **solver)
    model = Classifier(spec).eval().double()
    with torch.no_grad():  # all classes are predicted, and small changes move the prediction
        model.head.linear.bias -= model(images(16)).mean(0)
    return model


def images(count: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(2)
    return torch.rand(16, 1, 8, 8, dtype=torch.float64, generator=generator)[:count]


@pytest.mark.parametrize("method", METHODS)
@torch.no_grad()
def test_every_method_gives_what_torchdiffeq_gives_for_each_of_its_equations(method):
    model, x = network(method, batch_size=2), images(5)
    times = torch.tensor([0.0, 1.0], dtype=torch.float64)
    options = {"step_size": 1 / 6} if method in FIXED else {}
    expected, evaluations = [], []
    for equation in x.split(2):
        calls = []

        def dynamics(t, h, calls=calls):
            calls.append(t)
            return model.ode.function(t, h)

        start = model.embed(equation)
        ends = odeint(dynamics, start, times, rtol=TAU, atol=TAU, method=method, options=options)
        expected.append(model.head(ends[-1]))
        evaluations += [len(calls)] * len(equation)
    torch.testing.assert_close(model(x), torch.cat(expected), rtol=1e-10, atol=1e-12)
    assert model.nfe.tolist() == evaluations


@torch.no_grad()
def test_a_prediction_depends_on_the_images_of_its_own_equation_alone():
    x = images(6)
    together = evaluate(network(batch_size=6), x, batch_size=6)
    alone = evaluate(network(batch_size=1), x, batch_size=1)
    batched = evaluate(network(backend="batched"), x, batch_size=6)
    assert not torch.allclose(together.logits, alone.logits, rtol=1e-7)
    torch.testing.assert_close(alone.logits, batched.logits, rtol=1e-10, atol=1e-10)
    assert torch.equal(alone.nfe, batched.nfe)
    assert together.nfe.unique().numel() == 1


def test_the_model_says_how_many_images_are_attacked_at_a_time():
    compute, x = Compute(batch_size=100), images(4)
    one_by_one, joint = network(), network(batch_size=3)
    batched = network(backend="batched")
    attacked = with_gradient(joint, TAU, {"gradient": "direct"})
    assert images_at_a_time(compute, attacked, x) == 3
    assert images_at_a_time(compute, one_by_one, x) == 1
    assert images_at_a_time(compute, batched, x) == 100
    assert images_at_a_time(compute, batched, x, joint) == 3  # it makes the adversarial examples


@pytest.mark.parametrize("norm", ["full", "seminorm"])
def test_its_adjoint_attack_is_ours_image_by_image(norm):
    """Though the attack freezes the parameters, whose integrals the paper's error norm has."""
    x = images(5)
    settings = {"gradient": "adjoint", "adjoint_tolerance": None, "adjoint_norm": norm}
    method = BasicIterativeMethod(Norm("linf"), 0.012, 0.004, 4)
    found = []
    for backend in ("torchdiffeq", "batched"):
        model = network(backend=backend)
        with torch.no_grad():
            y = model(x).argmax(1)
        attacked = with_gradient(model, TAU, settings)
        found.append(attack(attacked, x, y, method, batch_size=1))
    theirs, ours = found
    assert 0 < int(ours.success.sum()) < len(x)
    assert torch.equal(theirs.success, ours.success)
    assert torch.equal(theirs.iterations, ours.iterations)
    torch.testing.assert_close(theirs.adversarials, ours.adversarials, rtol=0, atol=1e-9)


def gradient(model, x, **solver):
    x = x.clone().requires_grad_()
    (found,) = torch.autograd.grad(100 * model.at(**solver)(x).logsumexp(1).sum(), x)
    return found


def test_frozen_parameters_stay_in_the_error_norm_of_the_papers_adjoint():
    x, adjoint = images(1), {"gradient": "adjoint", "tolerance": 1e-3}
    model = network()
    free = gradient(model, x, **adjoint)
    model.requires_grad_(False)
    assert torch.equal(gradient(model, x, **adjoint), free)
    assert not torch.equal(gradient(model, x, **adjoint, adjoint_norm="seminorm"), free)


def test_a_solve_that_fails_costs_its_own_equation_alone():
    model, x = network(batch_size=1, max_steps=2), images(3)
    with torch.no_grad():
        found = evaluate(model.at(tolerance=1e-9), x, batch_size=3)
    assert found.predictions.tolist() == [NO_CLASS] * 3
    assert found.status.tolist() == [Status.MAX_STEPS] * 3
    assert gradient(model, x, tolerance=1e-9).isnan().all()
    model.train()
    with pytest.raises(AssertionError, match="max_num_steps exceeded"):
        gradient(model, x, tolerance=1e-9)


@pytest.mark.parametrize("method", ["rk4", "implicit_adams"])
def test_equal_steps_that_lead_to_no_number_have_failed(method):
    model, x = network(batch_size=1, method=method, steps=2), images(3)
    x[1] = torch.nan
    with torch.no_grad():
        found = evaluate(model, x, batch_size=3)
    assert found.status.tolist() == [Status.SUCCESS, Status.NONFINITE, Status.SUCCESS]
    assert found.predictions[1] == NO_CLASS


def test_training_solves_a_whole_batch_as_one_equation():
    model, x = network(batch_size=1), images(4)
    model.train()
    model(x)
    assert model.nfe.unique().numel() == 1
    model.eval()
    model(x)
    assert model.nfe.unique().numel() > 1


@pytest.mark.parametrize("method", ["dopri5", "implicit_adams"])
def test_without_a_tolerance_the_model_keeps_its_own(method):
    model, x = network(method), images(2)
    solved = model.at(tolerance=None)
    with torch.no_grad():
        assert solved.solver.tolerance == TAU
        assert solved(x).isfinite().all()


def test_there_are_no_steps_of_an_image_to_look_at():
    model = network()
    with pytest.raises(ValueError, match="backend torchdiffeq has no steps of each image"):
        model.ode.solve(model.embed(images(2)), (0.0, 1.0))


def test_a_spec_names_the_backend_and_an_older_one_is_read_as_batched():
    spec = network("dopri8", batch_size=5).spec
    assert Spec.from_json(spec.to_json()) == spec
    old = asdict(network(backend="batched").spec)
    del old["backend"], old["batch_size"]
    again = Spec.from_json(json.dumps(old))
    assert (again.backend, again.batch_size) == ("batched", 1)
    del old["tolerance"]
    with pytest.raises(ValueError, match="exactly the keys"):
        Spec.from_json(json.dumps(old))


def test_the_configuration_has_every_method_of_torchdiffeq_that_has_a_gradient():
    from torchdiffeq._impl.odeint import SOLVERS

    # fixed_adams is an older name of implicit_adams; scipy_solver leaves autograd's graph.
    assert set(METHODS) == set(SOLVERS) - {"fixed_adams", "scipy_solver"}
    assert set(TORCHDIFFEQ_ONLY) < set(METHODS)


def test_a_copy_for_the_adjoint_shares_what_has_a_graph():
    """Dynamics may keep features of the images, which cannot be copied."""
    function = torch.nn.Linear(2, 2).requires_grad_(False)
    function.kept = torch.ones(2, requires_grad=True) * 2
    copied = with_parameters(function)
    assert copied.weight.requires_grad
    assert not function.weight.requires_grad
    assert copied.kept is function.kept
