"""The adjoint's settings: its norm, its tolerance, its cost; and fixed steps in a classifier."""

import pytest
import torch
import torch.nn.functional as F
import torchdiffeq
from sklearn.datasets import load_digits
from torch import Tensor

from node_robustness.attacks.bim import BasicIterativeMethod
from node_robustness.attacks.engine import attack
from node_robustness.config.models import Solver
from node_robustness.models.classifier import Classifier, Spec
from node_robustness.ode.tableaus import TABLEAUS
from node_robustness.perturbations.norms import Norm

pytestmark = pytest.mark.numerical


def classifier(seed: int = 0, **changes: object) -> Classifier:
    torch.manual_seed(seed)
    spec = Spec(1, 10, (0.0,), (1.0,), "convolution", "ode", 8, **changes)
    return Classifier(spec).eval().double()


def gradient(model: Classifier, images: Tensor, **solver: object) -> Tensor:
    """Of the summed loss for labels 0, 1, ..., with respect to the images."""
    images = images.clone().requires_grad_()
    solved = model.at(**solver) if solver else model
    loss = F.cross_entropy(solved(images), torch.arange(len(images)), reduction="sum")
    return torch.autograd.grad(loss, images)[0]


def one_by_one(model: Classifier, images: Tensor, **solver: object) -> Tensor:
    """The same by torchdiffeq at batch 1."""
    found = []
    for label, image in enumerate(images.split(1)):
        image = image.clone().requires_grad_()
        solved = model.at(backend="torchdiffeq", **solver)
        loss = F.cross_entropy(solved(image), torch.tensor([label]))
        found.append(torch.autograd.grad(loss, image)[0])
    return torch.cat(found)


@pytest.fixture
def images() -> Tensor:
    torch.manual_seed(1)
    return torch.rand(4, 1, 12, 12, dtype=torch.float64)


@pytest.mark.parametrize("norm", ["full", "seminorm"])
@pytest.mark.parametrize("tau", [1e-4, 1e-1, 10.0])
@pytest.mark.parametrize("adjoint_tau", [None, 1e-3])
def test_equals_torchdiffeq_at_batch_one(norm, tau, adjoint_tau, images):
    model = classifier()
    settings = {
        "tolerance": tau,
        "gradient": "adjoint",
        "adjoint_norm": norm,
        "adjoint_tolerance": adjoint_tau,
    }
    images = images[:2]
    ours, theirs = gradient(model, images, **settings), one_by_one(model, images, **settings)
    assert torch.allclose(ours, theirs, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("tau", [1e-4, 1e-1, 10.0])
def test_the_seminorm_is_torchdiffeqs_norm_without_parameters(tau, images):
    """Gradients and evaluations; the latter need the time's integral in the norm as well."""
    model = classifier()
    assert model.ode is not None
    h, weights = model.embed(images[:2]).detach(), torch.randn(2, 8, 6, 6, dtype=torch.float64)

    theirs, evaluations = [], []
    for start, weight in zip(h.split(1), weights.split(1), strict=True):
        start = start.clone().requires_grad_()
        final = torchdiffeq.odeint_adjoint(
            model.ode.function,
            start,
            torch.tensor([0.0, 1.0], dtype=torch.float64),
            rtol=tau,
            atol=tau,
            adjoint_params=(),
        )[-1]
        calls = []
        hook = model.ode.function.register_forward_hook(lambda *_, calls=calls: calls.append(1))
        theirs.append(torch.autograd.grad((weight * final).sum(), start)[0])
        hook.remove()
        evaluations.append(len(calls))

    start = h.clone().requires_grad_()
    solved = model.at(tolerance=tau, gradient="adjoint", adjoint_norm="seminorm")
    (ours,) = torch.autograd.grad((weights * solved.ode(start)).sum(), start)
    assert torch.allclose(ours, torch.cat(theirs), rtol=1e-8, atol=1e-12)
    assert solved.ode.nfe_backward is not None
    assert solved.ode.nfe_backward.tolist() == evaluations


def test_the_two_norms_agree_at_a_small_tolerance_only(images):
    """The full norm takes more steps: it also bounds errors that an attack does not use."""
    model = classifier()
    distance, cost = {}, {}
    for tau in (1e-6, 1e-3):
        found = []
        for norm in ("full", "seminorm"):
            solved = model.at(tolerance=tau, gradient="adjoint", adjoint_norm=norm)
            found.append(gradient(solved, images[:1]).flatten(1))
            cost[tau, norm] = solved.ode.nfe_backward.sum().item()
        full, seminorm = found
        distance[tau] = ((full - seminorm).norm(dim=1) / full.norm(dim=1)).max().item()
    assert distance[1e-6] < 0.05
    assert distance[1e-3] > 0.1
    assert cost[1e-6, "seminorm"] < cost[1e-6, "full"]


def test_a_loose_backward_solve_spoils_the_gradient_of_a_tight_forward_one(images):
    model, images = classifier(), images[:2]
    exact = gradient(model, images, tolerance=1e-6).flatten(1)

    def cosine(adjoint_tau: float) -> float:
        settings = {"gradient": "adjoint", "adjoint_tolerance": adjoint_tau}
        found = gradient(model, images, tolerance=1e-6, **settings).flatten(1)
        return F.cosine_similarity(found, exact).min().item()

    assert cosine(1e-6) > 0.999
    assert cosine(1.0) < 0.9


def test_evaluations_of_the_backward_solve(images):
    model = classifier()
    assert model.ode is not None
    solved = model.at(gradient="adjoint", tolerance=1e-1)
    start = images.clone().requires_grad_()
    losses = F.cross_entropy(solved(start), torch.arange(4), reduction="none")
    assert solved.ode.nfe_backward is None
    torch.autograd.grad(losses[[0, 2]].sum(), start)
    nfe = solved.ode.nfe_backward
    assert nfe is not None
    assert nfe.dtype == torch.int32
    assert (nfe > 0).tolist() == [True, False, True, False]
    assert ((nfe[[0, 2]] - 2) % 6 == 0).all()
    solved(images)
    assert solved.ode.nfe_backward is None


@pytest.mark.parametrize("method", ["euler", "midpoint", "rk4"])
@pytest.mark.parametrize("kind", ["direct", "adjoint"])
def test_fixed_steps_in_a_classifier(method, kind, images):
    model = classifier(method=method, steps=7)
    solved = model.at(gradient=kind)
    ours = gradient(solved, images)
    assert solved.nfe.tolist() == [7 * len(TABLEAUS[method].solution)] * 4
    assert torch.allclose(ours, one_by_one(model, images, gradient=kind), rtol=1e-8, atol=1e-12)
    assert Spec.from_json(model.spec.to_json()) == model.spec


def test_checkpointed_gradients_are_the_same(images):
    model = classifier()
    plain, again = (
        gradient(model, images[:2], tolerance=1e-3, checkpoint=c) for c in (False, True)
    )
    assert torch.equal(plain, again)


@pytest.mark.parametrize("method", TABLEAUS)
def test_every_method_can_be_configured(method):
    steps = None if TABLEAUS[method].error else 20
    assert Solver(method=method, steps=steps).method == method


@pytest.fixture(scope="module")
def trained() -> tuple[Classifier, Tensor, Tensor]:
    """A net that has learnt the digits, and images with labels."""
    digits = load_digits()
    x = torch.from_numpy(digits.images).float()[:, None] / 16
    y = torch.from_numpy(digits.target)
    torch.manual_seed(0)
    model = Classifier(Spec(1, 10, (0.0,), (1.0,), "convolution", "ode", 8, dropout=0.0))
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for rows in torch.randperm(800).split(32):
        optimiser.zero_grad()
        F.cross_entropy(model(x[rows]), y[rows]).backward()
        optimiser.step()
    return model.eval(), x[800:804], y[800:804]


def test_how_far_the_papers_gradients_and_successes_are_from_the_direct_ones(
    trained, record_property
):
    """At batch 1 by torchdiffeq, parameters in the norm, tau that of the attacked model."""
    model, x, y = trained
    agreement, successes = {}, {}
    method = BasicIterativeMethod(Norm("linf"), 0.1, 0.05, 2)
    for tau in (1e-4, 10.0):
        paper = {"backend": "torchdiffeq", "gradient": "adjoint", "tolerance": tau}
        found, one = {}, {}
        for name, settings in (("paper", paper), ("direct", {"tolerance": tau})):
            found[name] = attack(model.at(**settings), x, y, method, batch_size=1)
            one[name] = torch.cat(
                [gradient(model, image, **settings).flatten(1) for image in x.split(1)]
            )
        agreement[tau] = F.cosine_similarity(one["paper"], one["direct"]).mean().item()
        # One at a time by torchdiffeq or in our batch: the same images are classified correctly.
        assert torch.equal(found["paper"].attacked, found["direct"].attacked)
        successes[tau] = {name: int(result.success.sum()) for name, result in found.items()}
    record_property("cosine of paper's and direct gradient", agreement)
    record_property("successes of BIM", successes)
    assert agreement[1e-4] > 0.99
    assert agreement[10.0] < 0.8
    assert successes[1e-4]["paper"] == successes[1e-4]["direct"]
    # Four images, and weights that differ between processors: the difference is recorded only.
    assert successes[10.0]["paper"] <= successes[10.0]["direct"]


@pytest.mark.parametrize("kind", ["direct", "adjoint"])
def test_a_tolerance_for_each_image_is_a_pass_for_each(kind, images):
    """Also where a failed or finished image has no gradient to solve for."""
    model, taus = classifier(), torch.tensor([1e-4, 10.0, 1e-1, 1e-2], dtype=torch.float64)
    assert model.ode is not None
    x = images.clone().requires_grad_()
    solved = model.at(tolerance=taus, gradient=kind)
    losses = F.cross_entropy(solved(x), torch.arange(4), reduction="none")
    together = solved.ode.nfe
    (gradients,) = torch.autograd.grad(losses[[0, 2, 3]].sum(), x)
    assert together is not None
    assert not gradients[1].any()
    for row in (0, 2, 3):
        alone = images[row : row + 1].clone().requires_grad_()
        solved = model.at(tolerance=float(taus[row]), gradient=kind)
        loss = F.cross_entropy(solved(alone), torch.tensor([row]))
        assert solved.ode.nfe is not None
        assert solved.ode.nfe.item() == together[row].item()
        torch.testing.assert_close(losses[row], loss, rtol=1e-12, atol=1e-12)
        (gradient,) = torch.autograd.grad(loss, alone)
        torch.testing.assert_close(gradients[row], gradient[0], rtol=1e-8, atol=1e-12)


def test_torchdiffeq_has_one_tolerance(images):
    model = classifier().at(tolerance=torch.ones(4), backend="torchdiffeq")
    with pytest.raises(ValueError, match="give one tolerance"):
        model(images)
