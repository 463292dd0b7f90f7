"""Growth rates, Jacobians, exponents and bounds against matrices and finite differences."""

import pytest
import torch

from node_robustness.models.classifier import Classifier, Spec, frozen
from node_robustness.models.ode_function import ODEFunction
from node_robustness.trajectories import growth
from node_robustness.trajectories.distances import distances
from node_robustness.trajectories.linearisation import by_autograd
from node_robustness.trajectories.runs import body_of, follow, grid
from planted import linear
from rounding import OtherRounding

pytestmark = pytest.mark.numerical

TIMES = grid(6)
DIMENSION = 12  # states of 3 channels, 2 x 2


def field(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(DIMENSION, DIMENSION, dtype=torch.float64, generator=generator)


def images(n, shape=(3, 2, 2), seed=1, size=0.1):
    generator = torch.Generator().manual_seed(seed)

    def draw():
        return torch.rand(n, *shape, dtype=torch.float64, generator=generator)

    clean = draw()
    return {"clean": clean, "attack": clean + size * draw(), "noise": clean - size * draw()}


def followed(model, batch):
    with frozen(model):
        return follow(model, batch, TIMES)


def start(n, shape=(3, 2, 2)):
    generator = torch.Generator().manual_seed(5)
    return torch.randn(n, *shape, dtype=torch.float64, generator=generator)


@pytest.fixture(scope="module", params=[0, 7])
def case(request):
    matrix = field(request.param)
    model, batch = linear(matrix), images(4)
    return matrix, model, batch, followed(model, batch)


class TestLinearField:
    """All measured values are known: h(t) = exp(A t) h(0)."""

    def differences(self, case, pair):
        matrix, _, batch, runs = case
        d = (batch[pair] - batch["clean"]).flatten(1)
        return torch.stack([d @ torch.linalg.matrix_exp(matrix * t).T for t in runs.times], dim=1)

    @pytest.mark.parametrize("pair", ["attack", "noise"])
    def test_rates_and_what_the_jacobian_explains(self, case, pair):
        matrix, model, _, runs = case
        d = self.differences(case, pair)
        expected = (d * (d @ matrix.T)).sum(2) / (d * d).sum(2)
        found = growth.rates(model.ode, runs)[pair]
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
        # No nonlinear part is left.
        linear_part = growth.jacobian_quotients(model.ode, runs)[pair]
        torch.testing.assert_close(linear_part, found, rtol=1e-9, atol=1e-9)

    def test_the_rate_is_the_derivative_of_the_logarithm(self, case):
        _, model, batch, _ = case
        times = grid(401)
        runs = follow(model, batch, times)
        l2 = (runs.states["attack"] - runs.states["clean"]).flatten(2).norm(dim=2).log()
        slope = (l2[2:] - l2[:-2]) / (2 / 400)
        torch.testing.assert_close(
            growth.rates(model.ode, runs)["attack"].T[1:-1], slope, rtol=0, atol=1e-3
        )

    def test_logarithmic_norms(self, case):
        matrix, model, _, runs = case
        exact = torch.linalg.eigvalsh((matrix + matrix.T) / 2)
        lower, upper = growth.logarithmic_norms(model.ode, runs, start(4))
        torch.testing.assert_close(lower, torch.full_like(lower, exact[0].item()))
        torch.testing.assert_close(upper, torch.full_like(upper, exact[-1].item()))

    def test_exponents(self, case):
        matrix, model, batch, runs = case
        flow_matrix = torch.linalg.matrix_exp(matrix)
        flow = growth.LinearisedFlow(model.ode, runs.states["clean"][0], runs.costs["clean"])
        d = (batch["attack"] - batch["clean"]).flatten(1)
        expected = ((d @ flow_matrix.T).norm(dim=1) / d.norm(dim=1)).log()
        found = flow.exponents_along(batch["attack"] - batch["clean"])
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-7)
        largest = torch.linalg.svdvals(flow_matrix)[0].log()
        found = flow.largest_exponents(start(4), iterations=12)
        torch.testing.assert_close(found, largest.expand(4), rtol=1e-6, atol=1e-7)
        assert (flow.largest_exponents(start(4), iterations=2) <= largest + 1e-7).all()


def network(body="ode"):
    torch.manual_seed(2)
    spec = Spec(1, 4, (0.4,), (0.3,), "convolution", body, filters=4, blocks=3)
    return Classifier(spec).eval().double()


@pytest.mark.parametrize("channels", [3, 8, 64])
def test_products_of_the_ode_function_with_vectors(channels):
    torch.manual_seed(0)
    function = ODEFunction(channels).double()
    for parameter in function.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    h, v, w = (torch.randn(5, channels, 3, 4, dtype=torch.float64) for _ in range(3))
    t = torch.linspace(0, 1, 5, dtype=torch.float64)
    value, push, pull = function.linearise(t, h)
    torch.testing.assert_close(value, function(t, h))
    generic = by_autograd(lambda state: function(t, state), h)
    torch.testing.assert_close(push(v), generic.push(v))
    torch.testing.assert_close(pull(w), generic.pull(w))
    with torch.no_grad():
        difference = (function(t, h + 1e-6 * v) - function(t, h - 1e-6 * v)) / 2e-6
    torch.testing.assert_close(push(v), difference, rtol=1e-5, atol=1e-5)
    one = function.linearise(t[:1], h[:1])
    torch.testing.assert_close(one[1](v[:1]), push(v)[:1])


def test_logarithmic_norms_are_those_of_the_whole_jacobian():
    model = network()
    runs = followed(model, images(2, (1, 6, 6)))
    lower, upper = growth.logarithmic_norms(
        model.ode, runs, start(2, runs.states["clean"].shape[2:])
    )
    for k, time in enumerate(runs.times):
        for i in range(2):
            h = runs.states["clean"][k, i]
            jacobian = torch.autograd.functional.jacobian(
                lambda flat, h=h, time=time: model.ode.function(
                    time.view(1), flat.view(1, *h.shape)
                ).flatten(),
                h.flatten(),
            )
            exact = torch.linalg.eigvalsh((jacobian + jacobian.T) / 2)
            torch.testing.assert_close(upper[i, k], exact[-1], rtol=1e-3, atol=0)
            torch.testing.assert_close(lower[i, k], exact[0], rtol=1e-3, atol=0)


@pytest.mark.parametrize("body", ["ode", "residual"])
@pytest.mark.parametrize("tau", [1e-3, 1.0])
def test_the_flow_is_the_derivative_of_the_solution_with_its_steps_held(body, tau):
    model = network(body)
    solved = model.at(tolerance=tau)
    runs = followed(solved, images(3, (1, 6, 6)))
    h, cost = runs.states["clean"][0], runs.costs.get("clean")
    flow = growth.LinearisedFlow(body_of(solved), h, cost)
    v, w = start(3, h.shape[1:]), start(3, h.shape[1:]).flip(0)

    @torch.no_grad()
    def final(state):
        if body == "residual":
            return solved.body(state)
        return solved.ode.solve(state, (0.0, 1.0), nodes=cost.nodes).states[-1]

    difference = (final(h + 1e-6 * v) - final(h - 1e-6 * v)) / 2e-6
    torch.testing.assert_close(flow.push(v), difference, rtol=1e-5, atol=1e-6)
    forward = (flow.push(v) * w).flatten(1).sum(1)
    backward = (v * flow.pull(w)).flatten(1).sum(1)
    torch.testing.assert_close(forward, backward)


@pytest.mark.parametrize("body", ["ode", "residual"])
def test_the_largest_exponent_is_that_of_the_whole_derivative(body):
    model = network(body)
    with frozen(model):
        runs = followed(model, images(1, (1, 4, 4)))
        h = runs.states["clean"][0]
        flow = growth.LinearisedFlow(body_of(model), h, runs.costs.get("clean"))
        columns = torch.eye(h[0].numel(), dtype=h.dtype).view(-1, *h.shape)
        derivative = torch.stack([flow.push(column).flatten() for column in columns], dim=1)
        expected = torch.linalg.svdvals(derivative)[0].log()
        found = flow.largest_exponents(start(1, h.shape[1:]), iterations=12)
    torch.testing.assert_close(found[0], expected, rtol=1e-3, atol=1e-4)


def test_rates_between_blocks():
    model = network("residual")
    runs = followed(model, images(3, (1, 6, 6)))
    found = growth.rates(body_of(model), runs)["attack"]
    l2 = (runs.states["attack"] - runs.states["clean"]).flatten(2).norm(dim=2).T
    assert found[:, 0].isnan().all()
    torch.testing.assert_close(found[:, 1:], 3 * (l2[:, 1:] / l2[:, :-1]).log())


@pytest.mark.parametrize("body", ["ode", "residual"])
@pytest.mark.parametrize("size", ["none", "rounding"])
def test_no_perturbation_has_no_rate(body, size):
    """Whatever the rounding of kernels: the same image is in another row of the batch."""
    model, batch = network(body), images(4, (1, 6, 6))
    clean, other = batch["clean"], torch.full_like(batch["clean"], torch.inf)
    batch["attack"] = clean.clone() if size == "none" else torch.nextafter(clean, other)
    with OtherRounding():
        runs = followed(model, batch)
        flow = growth.LinearisedFlow(
            body_of(model), runs.states["clean"][0], runs.costs.get("clean")
        )
        rates = growth.rates(body_of(model), runs)
        assert rates["attack"].isnan().all()
        assert rates["noise"][:, 1:].isfinite().all()
        if body == "ode":
            assert growth.jacobian_quotients(model.ode, runs)["attack"].isnan().all()
            moved = runs.at_nodes["attack"]
            assert size == "rounding" or all((at.l2 == 0).all() for at in moved)
        start = runs.states["attack"][0] - runs.states["clean"][0]
        assert flow.exponents_along(start).isnan().all()
        assert flow.exponents_along(torch.zeros_like(start)).isnan().all()
    found = distances(runs.states["clean"], runs.states["attack"]).l2
    assert (found < (1e-300 if size == "none" else 1e-12)).all()


def test_a_failed_solve_has_no_exponent():
    model, batch = network(), images(3, (1, 6, 6))
    solved = model.at(tolerance=1e-9, max_steps=3)
    runs = followed(solved, batch)
    flow = growth.LinearisedFlow(solved.ode, runs.states["clean"][0], runs.costs["clean"])
    with frozen(solved):
        assert flow.largest_exponents(start(3, runs.states["clean"].shape[2:])).isnan().all()


@pytest.mark.parametrize("slope", [torch.nan, 0.0], ids=["not finite", "lost"])
def test_without_a_direction_there_is_no_exponent(slope, monkeypatch):
    model, states = linear(torch.full((3, 3), slope).double()), torch.ones(2, 3, 1, 1).double()
    runs = follow(model, {"clean": states}, grid(2))
    flow = growth.LinearisedFlow(model.ode, states, runs.costs["clean"])
    if slope == 0:
        monkeypatch.setattr(growth.LinearisedFlow, "pull", lambda self, w: torch.zeros_like(w))
    assert flow.largest_exponents(states).isnan().all()


def test_extreme_eigenvalues_of_small_and_of_degenerate_maps():
    generator = torch.Generator().manual_seed(0)
    half = torch.randn(3, 6, 6, dtype=torch.float64, generator=generator)
    matrices = half + half.mT
    matrices[1] = 2 * torch.eye(6)  # its Krylov spaces end after one step
    matrices[2] = 0
    vector = torch.randn(3, 6, dtype=torch.float64, generator=generator)

    def apply(v):
        return (matrices @ v[..., None])[..., 0]

    lower, upper = growth.extreme_eigenvalues(apply, vector)
    values = torch.linalg.eigvalsh(matrices)
    torch.testing.assert_close(lower, values[:, 0])
    torch.testing.assert_close(upper, values[:, -1])
