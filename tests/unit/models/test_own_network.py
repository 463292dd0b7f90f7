"""A user's own module as a network, against torchdiffeq at batch 1, image by image."""

import copy

import pytest
import torch
import torchdiffeq
from torch import Tensor, nn

from node_robustness.errors import UserError
from node_robustness.models import differentiation
from node_robustness.models.classifier import frozen
from node_robustness.models.memory import bytes_per_image
from node_robustness.models.own import checks
from node_robustness.models.own.modules import build_module
from node_robustness.models.own.network import OwnNetwork
from node_robustness.models.own.spec import OwnSpec
from node_robustness.ode.rows import Way
from node_robustness.ode.solve import Status

pytestmark = pytest.mark.numerical

TOLERANCES = (1e-3, 0.1, 10.0, None)

NET = """
import torch
from torch import nn
{imports}

class Concat(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.layer = nn.Conv2d(dim + 1, dim, 3, padding=1)

    def forward(self, t, x):
        return self.layer(torch.cat([torch.ones_like(x[:, :1]) * t, x], 1))

class Dynamics(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.norm, self.relu = nn.GroupNorm(2, dim), nn.ReLU(inplace=True)
        self.conv1, self.conv2 = Concat(dim), Concat(dim)
        self.nfe = 0

    def forward(self, t, x):
        self.nfe += 1
        return 4 * self.conv2(t, self.relu(self.conv1(t, self.norm(x))))

class Block(nn.Module):
    def __init__(self, dynamics, tol):
        super().__init__()
        self.dynamics, self.tol = dynamics, tol
        {init}

    def forward(self, x):
        t = torch.tensor([0, 1]).type_as(x)
        return {call}[1]

def build(channels=1, classes=4, width=4, tol=1e-3):
    return nn.Sequential(
        nn.Conv2d(channels, width, 4, 2, 1), Block(Dynamics(width), tol),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, classes),
    )
"""

CALL = "odeint(self.dynamics, x, t, rtol=self.tol, atol=self.tol)"
STYLES = {
    "by name": ("from torchdiffeq import odeint", "pass", CALL),
    "adjoint renamed": ("from torchdiffeq import odeint_adjoint as odeint", "pass", CALL),
    "by module": ("import torchdiffeq", "pass", f"torchdiffeq.{CALL}"),
    "adjoint by module": (
        "import torchdiffeq as td",
        "pass",
        f"td.{CALL.replace('odeint', 'odeint_adjoint')}",
    ),
    "partial": (
        "from functools import partial\nfrom torchdiffeq import odeint\n"
        "SOLVE = partial(odeint, method='dopri5')",
        "pass",
        CALL.replace("odeint", "SOLVE"),
    ),
    "attribute": (
        "from torchdiffeq import odeint",
        "self.solve = odeint",
        CALL.replace("odeint", "self.solve"),
    ),
    "flag": (
        "from torchdiffeq import odeint, odeint_adjoint",
        "self.adjoint = True",
        CALL.replace("odeint", "(odeint_adjoint if self.adjoint else odeint)"),
    ),
    "default argument": (
        "import torchdiffeq\ndef solve(f, x, t, tol, using=torchdiffeq.odeint):\n"
        "    return using(f, x, t, rtol=tol, atol=tol)",
        "pass",
        "solve(self.dynamics, x, t, self.tol)",
    ),
    "the drop-in": (
        "from node_robustness.ode import odeint_adjoint",
        "pass",
        CALL.replace("odeint", "odeint_adjoint"),
    ),
    "inside a function": (
        "",
        "pass",
        "__import__('torchdiffeq').odeint(func=self.dynamics, y0=x, t=t, "
        "atol=torch.tensor(self.tol), rtol=torch.tensor(self.tol, dtype=torch.float64))",
    ),
}


def images(count: int = 8, size: int = 10) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.rand(count, 1, size, size, generator=generator)


def built(tmp_path, style: str, **arguments) -> nn.Module:
    imports, init, call = STYLES[style]
    path = tmp_path / "net.py"
    path.write_text(NET.format(imports=imports, init=init, call=call))
    torch.manual_seed(1)
    return build_module(str(path), "build", arguments, {"channels": 1, "classes": 4}).eval()


def alone(network: OwnNetwork) -> OwnNetwork:
    """The same network, solved by torchdiffeq itself image by image."""
    return network.at(backend="torchdiffeq", batch_size=1)


def double(network: OwnNetwork) -> OwnNetwork:
    """A copy in double precision, in which rounding does not change the steps of small nets."""
    return copy.deepcopy(network).double()


def assert_as_torchdiffeq(network: OwnNetwork, tolerances=TOLERANCES) -> None:
    network, x = double(network), images(4).double()
    for tolerance in tolerances:
        view = network.at(tolerance=tolerance)
        expected = alone(view)
        with torch.no_grad():
            torch.testing.assert_close(view(x), expected(x), rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(view.nfe, expected.nfe)
        assert (view.status == Status.SUCCESS).all()


@pytest.mark.parametrize("style", STYLES)
def test_every_way_to_import_torchdiffeq_is_found(tmp_path, style):
    net = built(tmp_path, style)
    network = OwnNetwork.of(net, images())
    assert network.limits == ()
    assert network.own_tolerances == pytest.approx((1e-3, 1e-3))
    assert_as_torchdiffeq(network, [0.1, None])


def test_logits_and_evaluations_are_those_of_the_file_itself_at_batch_one(tmp_path):
    net, x = built(tmp_path, "adjoint renamed"), images()
    network, block = OwnNetwork.of(net, x), net[1]
    for tolerance in TOLERANCES:
        block.tol = 1e-3
        view = network.at(tolerance=tolerance)
        logits = view(x)
        block.tol = tolerance or 1e-3
        for number, image in enumerate(x.split(1)):
            block.dynamics.nfe = 0
            torch.testing.assert_close(logits[[number]], net(image), rtol=1e-5, atol=1e-6)
            assert view.nfe[number] == block.dynamics.nfe


def test_images_do_not_depend_on_the_batch(tmp_path):
    network, x = OwnNetwork.of(built(tmp_path, "by name"), images()), images()
    logits, nfe = network(x), network.nfe
    for rows in (slice(0, 1), slice(2, 5), slice(1, 8, 3)):
        torch.testing.assert_close(network(x[rows]), logits[rows], rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(network.nfe, nfe[rows])


def test_every_image_may_have_a_tolerance(tmp_path):
    network, x = OwnNetwork.of(built(tmp_path, "by name"), images(4)), images(4).double()
    network = double(network)
    taus = torch.tensor([1e-5, 1e-3, 0.1, 10], dtype=torch.float64)
    for view in (network.at(tolerance=taus), alone(network).at(tolerance=taus)):
        logits, nfe = view(x), view.nfe
        for number, tau in enumerate(taus.tolist()):
            one = network.at(tolerance=tau)
            torch.testing.assert_close(one(x)[number], logits[number], rtol=1e-5, atol=1e-6)
            assert one.nfe[number] == nfe[number]


def test_the_body_of_few_images_has_their_tolerances(tmp_path):
    for module, solve in ((built(tmp_path, "by name"), 0), (Blocks(), 0), (Blocks(), 1)):
        network = double(OwnNetwork.of(module, images(), solve=solve))
        for count in (2, 6):
            x = images(count).double()
            view = network.at(tolerance=torch.logspace(-4, 0, count, dtype=torch.float64))
            body = view.body
            assert view.body is body
            torch.testing.assert_close(view.head(body(view.embed(x))), view(x))


def test_tolerances_keep_their_ratio_and_none_is_the_authors():
    network, x = OwnNetwork.of(Vector(rtol=1e-2, atol=1e-4), images()), images().double()
    assert network.own_tolerances == (1e-2, 1e-4)
    assert network.solver.tolerance == 1e-2
    for tolerance, expected in ((1e-3, (1e-3, 1e-5)), (None, (1e-2, 1e-4)), (1e-2, (1e-2, 1e-4))):
        view, given = double(network).at(tolerance=tolerance), Vector(*expected).double()
        torch.testing.assert_close(view(x), torch.cat([given(image) for image in x.split(1)]))


class Vector(nn.Module):
    """f of 6 numbers, in a closure."""

    def __init__(self, rtol=1e-3, atol=1e-3, t=(0.0, 1.0), method=None, options=None) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.encode, self.decode = nn.Linear(100, 6), nn.Linear(6, 4)
        self.layer = nn.Linear(6, 6)
        self.settings = {"rtol": rtol, "atol": atol, "method": method, "options": options}
        self.t = t

    def dynamics(self, t: Tensor, h: Tensor) -> Tensor:
        return 2 * torch.sin(self.layer(h) * (1 + t))

    def forward(self, x: Tensor) -> Tensor:
        h = self.encode(x.flatten(1))
        solve = torchdiffeq.odeint
        t = torch.tensor(self.t).to(h)
        return self.decode(solve(self.dynamics, h, t, **self.settings)[-1])


@pytest.mark.parametrize("t", [(0.0, 3.0), (2.0, 0.5), (0.0, 0.2, 0.7, 1.0), (-1.0, -1.5, -3.0)])
def test_any_span_direction_and_output_times(t):
    network = OwnNetwork.of(Vector(t=t), images())
    assert network.limits == ()
    assert_as_torchdiffeq(network)
    for gradient in ("direct", "adjoint"):
        assert_the_body_is_followed(network.at(tolerance=1e-2, gradient=gradient))


def assert_the_body_is_followed(network: OwnNetwork) -> None:
    network, x = double(network), images(4).double()
    body, start = network.body, network.embed(x)
    assert start.ndim == 4
    torch.testing.assert_close(network.head(body(start)), network(x))
    torch.testing.assert_close(body.nfe, network.nfe)
    solution = body.solve(start, (0.0, 0.25, 1.0), keep_nodes=True, keep_node_states=True)
    torch.testing.assert_close(network.head(solution.states[-1]), network(x))
    again = body.solve(start, (0.0, 1.0), nodes=solution.nodes)
    torch.testing.assert_close(again.states[-1], solution.states[-1])
    assert all(nodes[0] == 0 and nodes[-1] >= 1 for nodes in solution.nodes)
    # The slope is that of the state in time from 0 to 1.
    t = torch.full((len(x),), 0.25, dtype=x.dtype)
    near = body.at(tolerance=1e-6).solve(start, (0.0, 0.249, 0.251)).states
    slope = (near[2] - near[1]) / 0.002
    middle = (near[1] + near[2]) / 2
    torch.testing.assert_close(body.function(t, middle), slope, rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize("method", ["euler", "midpoint", "rk4"])
@pytest.mark.parametrize("t", [(0.0, 1.0), (1.0, 0.25)])
@pytest.mark.parametrize("options", [{"step_size": 0.15}, None], ids=["step_size", "output times"])
def test_fixed_steps_are_the_authors(method, t, options):
    network = OwnNetwork.of(Vector(t=t, method=method, options=options), images())
    found = network.spec.found
    assert (found.ode, network.adaptive) == ("fixed", False)
    assert found.solves[0].steps == (1 if options is None else 7 if t[1] == 1 else 5)
    assert_as_torchdiffeq(network, [None])
    assert_gradients(double(network), images(3).double())


def test_fixed_steps_need_no_tolerances():
    settings = {"method": "euler", "options": {"step_size": 0.25}}
    network = OwnNetwork.of(Vector(0.0, 0.0, **settings), images())
    assert_as_torchdiffeq(network, [1e-3, None])
    assert_gradients(double(network), images(3).double())


@pytest.mark.parametrize("method", ["bosh3", "adaptive_heun", "fehlberg2"])
def test_adaptive_methods_are_the_authors(method):
    assert_as_torchdiffeq(OwnNetwork.of(Vector(method=method), images()), [1e-2, None])


def test_sizes_of_adaptive_steps_are_the_authors():
    options = {"first_step": 0.01, "safety": 0.8, "ifactor": 3.0, "dfactor": 0.5}
    network = OwnNetwork.of(Vector(options=options), images())
    assert network.limits == ()
    assert_as_torchdiffeq(network)
    assert_gradients(double(network), images(3).double())


def assert_gradients(network: OwnNetwork, x: Tensor, norms=("full", "seminorm")) -> None:
    """Adjoint gradients as torchdiffeq's at batch 1; they repeat its decisions."""
    for norm in norms:
        found = []
        for view in (network, alone(network)):
            view = view.at(gradient="adjoint", adjoint_norm=norm)
            found.append(gradient(view, x))
        torch.testing.assert_close(*found, rtol=1e-8, atol=1e-12)


def gradient(model: nn.Module, x: Tensor) -> Tensor:
    x = x.clone().requires_grad_()
    with frozen(model):
        return differentiation.gradient(model(x).square(), x)


@pytest.mark.parametrize("tolerance", [1e-3, 0.1, None])
def test_adjoint_gradients_are_those_of_torchdiffeq(tmp_path, tolerance):
    network = OwnNetwork.of(built(tmp_path, "by name"), images())
    assert_gradients(double(network).at(tolerance=tolerance), images(3).double())


def test_direct_gradients_are_those_of_fixed_steps(tmp_path):
    network = double(OwnNetwork.of(built(tmp_path, "by name"), images()))
    x = images().double()
    view = network.at(method="rk4", steps=5)
    torch.testing.assert_close(gradient(view, x), gradient(alone(view), x), rtol=1e-9, atol=1e-12)
    assert (view.nfe == 20).all()


def test_a_surrogate_of_fixed_steps_may_be_adaptive():
    network = OwnNetwork.of(Vector(method="euler", options={"step_size": 0.1}), images())
    view = network.at(method="dopri5", steps=None, tolerance=1e-3)
    exact = OwnNetwork.of(Vector(), images()).at(tolerance=1e-3)
    torch.testing.assert_close(view(images()), exact(images()))


class Tuple(nn.Module):
    """A state of two parts; the second one does not need a time for each image."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(4)
        self.encode, self.decode = nn.Linear(100, 6), nn.Linear(8, 4)
        self.f, self.g = nn.Linear(6, 6), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        def dynamics(t, state):
            return 3 * torch.sin(self.f(state[0]) + t), torch.tanh(self.g(state[0]))

        h = self.encode(x.flatten(1))
        start = h, h.new_zeros(len(h), 2)
        t = torch.tensor([0.0, 1.0]).to(h)
        parts = torchdiffeq.odeint(dynamics, start, t, rtol=1e-4, atol=1e-3)
        return self.decode(torch.cat([part[-1] for part in parts], 1))


def test_a_state_may_be_a_tuple():
    network = OwnNetwork.of(Tuple(), images())
    assert network.limits == ()
    assert network.spec.found.solves[0].shape == ((6,), (2,))
    assert_as_torchdiffeq(network)
    assert_the_body_is_followed(network.at(tolerance=1e-2))


class Energy(nn.Module):
    """A state of channels, a vector and a number for each image."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.encode, self.decode = nn.Conv2d(1, 4, 3, stride=3), nn.Linear(4, 4)
        self.norm, self.f, self.g = nn.GroupNorm(2, 4), nn.Conv2d(4, 4, 1), nn.Linear(4, 3)

    def dynamics(self, t, state):
        h, v, _ = state
        # `view` needs a contiguous part.
        mean = h.view(*h.shape[:2], -1).mean(2)
        slope = 2 * torch.sin(self.f(self.norm(h)) + t)
        return slope, torch.tanh(self.g(mean)) - v, slope.square().mean((1, 2, 3))

    def forward(self, x: Tensor) -> Tensor:
        h = self.encode(x)
        start = h, h.new_zeros(len(h), 3), h.new_zeros(len(h))
        t = torch.tensor([0.0, 1.0]).to(h)
        h, v, energy = torchdiffeq.odeint(self.dynamics, start, t, rtol=1e-3, atol=1e-4)
        return self.decode(h[-1].mean((2, 3))) + v[-1].sum(1, keepdim=True) * energy[-1][:, None]


@pytest.mark.parametrize("gradient", ["direct", "adjoint"])
def test_parts_of_a_state_may_have_any_dimensions(gradient):
    network = OwnNetwork.of(Energy(), images())
    assert network.limits == ()
    assert_as_torchdiffeq(network)
    assert_the_body_is_followed(network.at(tolerance=1e-2, gradient=gradient))
    if gradient == "adjoint":
        assert_gradients(double(network), images(3).double())


class Blocks(nn.Module):
    """Two solves in sequence, with tolerances of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = Vector(1e-2, 1e-2), Vector(1e-4, 1e-5)
        self.widen = nn.Linear(4, 100)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(torch.sin(self.widen(self.first(x))))


def test_several_solves_in_sequence():
    network, x = double(OwnNetwork.of(Blocks(), images())), images().double()
    assert [solve.name for solve in network.spec.found.solves] == ["first", "second"]
    assert_as_torchdiffeq(network)
    expected = alone(network)
    torch.testing.assert_close(network(x), expected(x), rtol=1e-6, atol=1e-8)
    assert network.nfe_by_solve.shape == (8, 2)
    torch.testing.assert_close(network.nfe_by_solve, expected.nfe_by_solve)
    torch.testing.assert_close(network.nfe, network.nfe_by_solve.sum(1, dtype=torch.int32))


@pytest.mark.parametrize(("solve", "number"), [(None, 0), (1, 1), ("second", 1), ("first", 0)])
def test_the_solve_that_is_followed_is_named(solve, number):
    network, x = OwnNetwork.of(Blocks(), images(), solve=solve), images()
    assert network.spec.found.followed == number
    assert network.own_tolerances == ((1e-2, 1e-2), (1e-4, 1e-5))[number]
    torch.testing.assert_close(network.head(network.body(network.embed(x))), network(x))


@pytest.mark.parametrize("solve", [2, -1, "third", "fir"])
def test_a_solve_that_is_not_there(solve):
    with pytest.raises(UserError, match=r"is no ODE solve .*0 in first, 1 in second"):
        OwnNetwork.of(Blocks(), images(), solve=solve)


class Static(nn.Module):
    """The images act on the dynamics, through an attribute of the batch."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.encode, self.layer = nn.Linear(100, 6), nn.Linear(12, 6)

    def dynamics(self, t: Tensor, h: Tensor) -> Tensor:
        return 2 * torch.tanh(self.layer(torch.cat([h, self.static], 1)))

    def forward(self, x: Tensor) -> Tensor:
        self.static = self.encode(x.flatten(1))
        t, start = torch.linspace(0, 1, 3), torch.zeros_like(self.static)
        return torchdiffeq.odeint(self.dynamics, start, t, rtol=1e-3, atol=1e-3)[-1]


class StaticModule(nn.Module):
    """The same, but the dynamics are a module that keeps what depends on the images."""

    def __init__(self) -> None:
        super().__init__()
        self.dynamics = Held()
        self.encode = nn.Linear(100, 6)

    def forward(self, x: Tensor) -> Tensor:
        self.dynamics.static = self.encode(x.flatten(1))
        t, start = torch.linspace(0, 1, 3), torch.zeros_like(self.dynamics.static)
        solve = torchdiffeq.odeint_adjoint
        return solve(self.dynamics, start, t, rtol=1e-3, atol=1e-3)[-1][:, :4]


class Held(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(12, 6)

    def forward(self, t: Tensor, h: Tensor) -> Tensor:
        return 2 * torch.tanh(self.layer(torch.cat([h, self.static], 1)))


class Noisy(Vector):
    """Noise on the images."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x + 0.1 * torch.randn_like(x))


class BackwardVector(Vector):
    """A backward solve with a method and options of its own."""

    def forward(self, x: Tensor) -> Tensor:
        h = torchdiffeq.odeint_adjoint(
            self.dynamics,
            self.encode(x.flatten(1)),
            torch.tensor(self.t),
            rtol=1e-3,
            atol=1e-3,
            adjoint_method="rk4",
            adjoint_options={"step_size": 0.1},
            adjoint_params=tuple(self.layer.parameters()),
        )
        return self.decode(h[-1])


def test_settings_of_a_backward_solve_that_are_not_followed_are_said():
    assert OwnNetwork.of(BackwardVector(), images()).limits == (
        "Gradients by the adjoint have the method of the forward solve, not the author's "
        "adjoint_method rk4 and adjoint_options step_size.",
    )


def test_a_random_network_has_steps_of_each_image_and_no_body():
    module = Noisy()
    state = torch.get_rng_state()
    network = OwnNetwork.of(module, images())
    assert torch.equal(torch.get_rng_state(), state)
    assert network.limits == (
        "Its solve is not followed, because a second pass gives other logits.",
    )
    assert len(network(images()).unique()) > 4


def test_results_that_dynamics_keep_do_not_stop_adjoint_gradients():
    network, x = OwnNetwork.of(StaticModule(), images()), images()
    for gradient_kind in ("direct", "adjoint"):
        view = network.at(gradient=gradient_kind)
        # torchdiffeq's adjoint has no gradient for what the dynamics keep.
        assert gradient(view, x).any() == (gradient_kind == "direct")
        assert bytes_per_image(view, x) > 0


class Nested(Vector):
    """The dynamics solve an ODE themselves."""

    def dynamics(self, t: Tensor, h: Tensor) -> Tensor:
        inner = torchdiffeq.odeint(super().dynamics, h, torch.tensor([0.0, 0.5]), **self.settings)
        return torch.tanh(inner[-1])


class Branch(Vector):
    """The dynamics branch on a value of the state."""

    def dynamics(self, t: Tensor, h: Tensor) -> Tensor:
        return super().dynamics(t, h) * (2 if h.mean() > 0 else 1)


class Event(Vector):
    """The solve ends at an event."""

    def forward(self, x: Tensor) -> Tensor:
        h = self.encode(x.flatten(1))
        _, states = torchdiffeq.odeint_event(
            self.dynamics, h, torch.tensor(0.0), event_fn=lambda t, h: t - 0.8, **self.settings
        )
        return self.decode(states[-1])


class Called(Vector):
    """Something is called at each step."""

    def __init__(self) -> None:
        super().__init__()
        self.steps = 0
        self.right = nn.Linear(6, 6)
        self.right.callback_step = lambda t, h, step: setattr(self, "steps", self.steps + 1)
        self.right.forward = self.dynamics

    def forward(self, x: Tensor) -> Tensor:
        h = self.encode(x.flatten(1))
        h = torchdiffeq.odeint(self.right, h, torch.tensor(self.t), **self.settings)[-1]
        return self.decode(h)


class Patches(Vector):
    """Four rows of the state for each image."""

    def forward(self, x: Tensor) -> Tensor:
        h = self.encode(x.flatten(1)).repeat_interleave(4, 0)
        h = torchdiffeq.odeint(self.dynamics, h, torch.tensor(self.t), **self.settings)[-1]
        return self.decode(h.unflatten(0, (-1, 4)).mean(1))


class Columns(Vector):
    """Six rows of the state, whatever the number of images."""

    def dynamics(self, t: Tensor, h: Tensor) -> Tensor:
        return 2 * torch.sin(h * (1 + t))

    def forward(self, x: Tensor) -> Tensor:
        h = self.encode(x.flatten(1)).T
        h = torchdiffeq.odeint(self.dynamics, h, torch.tensor(self.t).to(h), **self.settings)[-1]
        return self.decode(h.T)


def test_as_many_rows_as_images_may_be_no_images():
    network = OwnNetwork.of(Columns(), images(6))
    assert "a state has 6 rows for 4 images" in network.limits[0]


class Kinks(Vector):
    """Of its steps at torchdiffeq's default tolerances rounding decides."""

    def __init__(self) -> None:
        super().__init__(1e-7, 1e-9, (0.0, 0.25))
        self.norm = nn.GroupNorm(2, 6)
        self.error = 0.0

    def dynamics(self, t: Tensor, h: Tensor) -> Tensor:
        size = 1 + self.error * (t.ndim > 0)  # with a time for each image
        return size * (8 * self.layer((self.layer(self.norm(h)) + t).relu()) - h)


def test_steps_that_rounding_decides_on_are_no_difference():
    network = OwnNetwork.of(Kinks(), images())
    assert network.limits == ()
    assert checks.as_torchdiffeq(network, images(2)).passed
    assert_as_torchdiffeq(network, tolerances=(1e-3, 0.1))
    # Of other dynamics nothing is explained so.
    network.module.error = 1e-3
    assert checks.as_torchdiffeq(network, images(2)).fatal


ALONE = {
    "static": (Static, "does not take one row"),
    "nested": (Nested, "solve another ODE"),
    "branch": (Branch, "reads values of the state"),
    "event": (Event, "ends at an event"),
    "callbacks": (Called, "has callbacks"),
    "patches": (Patches, "a state has 16 rows for 4 images"),
    "method": (lambda: Vector(method="dopri8"), "method dopri8"),
    "option": (lambda: Vector(options={"norm": lambda h: h.abs().max()}), "option norm"),
}


@pytest.mark.parametrize("kind", ALONE)
def test_what_has_no_steps_of_each_image_is_solved_one_by_one(kind):
    make, words = ALONE[kind]
    module, x = make(), images(4)
    network = OwnNetwork.of(module, x)
    assert words in network.limits[0]
    assert (network.ode, network.body) == (None, None)
    expected = torch.cat([module(image) for image in x.split(1)])
    torch.testing.assert_close(network(x), expected)
    assert network.nfe.shape == network.status.shape == (4,)
    loose = network.at(tolerance=10.0)
    assert loose(x).shape == (4, 4 if kind != "static" else 6)
    if kind != "event":
        assert (loose.nfe <= network.nfe).all()
    torch.testing.assert_close(network(x[2:3]), expected[2:3])
    assert torch.isfinite(gradient(network, x)).all()


def test_a_failed_solve_loses_that_image_alone():
    for network in (
        OwnNetwork.of(Vector(t=(0.0, 4.0)), images(), max_steps=1000),
        OwnNetwork.of(Branch(t=(0.0, 4.0)), images(), max_steps=1000),
    ):
        network(images())
        most = int(network.nfe.max())
        network.spec = OwnSpec(network.spec.found, max_steps=(most - 2) // 6 - 1)
        logits = network(images())
        lost = network.status == Status.MAX_STEPS
        assert lost.any()
        assert not lost.all()
        torch.testing.assert_close(lost, ~torch.isfinite(logits).all(1))


def test_a_solve_that_fails_as_the_author_wrote_it():
    with pytest.raises(UserError, match=r"fails .*MAX_STEPS.*: raise max_steps of the model"):
        OwnNetwork.of(Vector(t=(0.0, 20.0)), images(), max_steps=3)


def test_an_element_of_a_single_tensor_does_not_exist():
    for output in (5, "logits"):
        with pytest.raises(UserError, match=rf"without an element {output!r}: leave `output` out"):
            OwnNetwork.of(Vector(), images(), output=output)


def test_a_solve_that_too_small_steps_end():
    exploding = Vector(t=(0.0, 4.0))
    with torch.no_grad():
        for parameter in exploding.parameters():
            parameter.mul_(1e30)
    with pytest.raises(
        UserError, match=r"fails .*: .* look at the weights and at the range"
    ) as said:
        OwnNetwork.of(exploding, images())
    assert "max_steps" not in str(said.value)


def test_a_user_s_code_does_not_stop_the_end_of_a_pass():
    class Careful(Vector):
        def forward(self, x):
            try:
                return super().forward(x)
            except Exception:
                return x.flatten(1)[:, :4]

    network = OwnNetwork.of(Careful(), images())
    assert network.spec.found.followed == 0
    assert_the_body_is_followed(network)


@pytest.mark.parametrize("gradient", ["direct", "adjoint"])
@pytest.mark.parametrize("make", [Vector, Tuple, Blocks], ids=lambda make: make.__name__)
def test_a_batch_in_training_has_the_gradients_of_its_images(make, gradient):
    # Direct gradients are those of torchdiffeq only where no step size has one.
    fixed = {"method": "rk4", "steps": 6} if gradient == "direct" else {}
    network, x = double(OwnNetwork.of(make(), images())).train(), images(4).double()
    view = network.at(gradient=gradient, **fixed)
    torch.autograd.backward(view(x).square().sum())
    found = [parameter.grad for parameter in network.parameters()]
    network.zero_grad()
    for image in x.split(1):
        torch.autograd.backward(view.at(backend="torchdiffeq")(image).square().sum())
    for parameter, expected in zip(network.parameters(), found, strict=True):
        torch.testing.assert_close(parameter.grad, expected, rtol=1e-6, atol=1e-8)


class Normalised(Vector):
    """The dynamics normalise batches."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(6)

    def dynamics(self, t: Tensor, h: Tensor) -> Tensor:
        return super().dynamics(t, self.norm(h))


@pytest.mark.parametrize("make", [Normalised, Static], ids=lambda make: make.__name__)
def test_what_needs_a_batch_is_trained_as_one_equation(make):
    module = make()
    network, x = OwnNetwork.of(module, images()), images()
    trained, as_it_is = network.train(), copy.deepcopy(module)
    torch.testing.assert_close(trained(x), as_it_is(x))
    assert (trained.nfe == trained.nfe[0]).all()
    module.eval()
    if make is Normalised:
        assert network.eval().limits == ()


def test_a_failed_solve_before_another():
    network, x = double(OwnNetwork.of(Blocks(), images())), images().double()
    expected = network(x)
    x[3] = torch.inf
    logits = network(x)
    assert network.status.tolist() == [0, 0, 0, int(Status.NONFINITE), 0, 0, 0, 0]
    assert torch.isnan(logits[3]).all()
    kept = torch.arange(8) != 3
    torch.testing.assert_close(logits[kept], expected[kept])


def test_a_copy_has_weights_of_its_own_and_a_view_has_not(tmp_path):
    for module in (built(tmp_path, "by name"), Tuple(), Static()):
        network = OwnNetwork.of(module, images())
        module(images())  # leaves results with a graph in attributes
        expected = network(images())
        view, other = network.at(tolerance=None), copy.deepcopy(network).at(tolerance=None)
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.zero_()
        assert not view(images()).allclose(expected)
        torch.testing.assert_close(other(images()), expected)


def test_double_precision(tmp_path):
    network = double(OwnNetwork.of(built(tmp_path, "by name"), images()))
    x = images().double()
    assert network(x).dtype == torch.float64
    assert network.body(network.embed(x)).dtype == torch.float64
    assert not OwnNetwork.of(OnlySingle(), images()).spec.found.double


class OnlySingle(Vector):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.float() if x.dtype == torch.float64 else x)


class Normalising(Vector):
    """It writes into the images that it is given."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.sub_(0.3).div_(0.4))


@pytest.mark.parametrize("method", ["dopri5", "dopri8"])
def test_a_module_that_writes_into_its_images_leaves_them_as_they_were(method):
    x, module = images(), Normalising(method=method)
    network = OwnNetwork.of(module, x)
    assert (network.limits == ()) == (method == "dopri5")
    expected = torch.cat([module(image.clone()) for image in x.split(1)])
    torch.testing.assert_close(network(x), expected, rtol=1e-3, atol=1e-4)
    assert torch.isfinite(gradient(network, x)).all()
    torch.testing.assert_close(x, images(), rtol=0, atol=0)


class Residual(nn.Module):
    """No ODE; several outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(100, 4)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"features": x.flatten(1), "logits": self.layer(x.flatten(1))}


def test_any_module_is_a_network_at_level_0():
    network = OwnNetwork.of(Residual(), images(), output="logits")
    assert (network.spec.found.level, network.spec.found.ode) == (0, "none")
    assert (network.ode, network.nfe, network.status, network.solver) == (None,) * 4
    assert network.at(tolerance=0.1)(images()).shape == (8, 4)


class Setter(nn.Module):
    """A solver of its own that takes a tolerance."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.tolerance, self.nfe = nn.Linear(100, 4), 1e-3, 0

    def set_tolerance(self, tolerance: float) -> None:
        self.tolerance = tolerance

    def forward(self, x: Tensor) -> Tensor:
        self.nfe = round(1 / self.tolerance)
        return self.layer(x.flatten(1)) + self.tolerance


def test_a_module_that_sets_its_tolerance_is_at_level_2():
    module, x = Setter(), images(4)
    network = OwnNetwork.of(module, x)
    assert (network.spec.found.level, network.adaptive) == (2, True)
    own, view = network(x), network.at(tolerance=0.5)
    torch.testing.assert_close(view(x), own + 0.5 - 1e-3)
    assert view.nfe.tolist() == [2] * 4
    assert module.tolerance == 1e-3
    torch.testing.assert_close(network(x), own)
    assert network.nfe.tolist() == [1000] * 4
    taus = torch.tensor([0.5, 0.25, 0.5, 0.1], dtype=torch.float64)
    drawn = network.at(tolerance=taus)
    torch.testing.assert_close(drawn(x), own + taus[:, None].float() - 1e-3)
    assert drawn.nfe.tolist() == [2, 4, 2, 10]
    with torch.no_grad():  # views share the weights
        module.layer.weight.zero_()
    assert not view(x).allclose(own + 0.5 - 1e-3)


@pytest.mark.parametrize(
    ("output", "words"),
    [(2, "without an element 2"), (0, "not logits of n images"), ("logits", "element 'logits'")],
)
def test_the_place_of_the_logits_is_wrong(output, words):
    class Several(Residual):
        def forward(self, x):
            return x, super().forward(x)["logits"]

    assert OwnNetwork.of(Several(), images(), output=1)(images()).shape == (8, 4)
    with pytest.raises(UserError, match=words):
        OwnNetwork.of(Several(), images(), output=output)


def test_the_spec_can_be_read_again(tmp_path):
    for module in (built(tmp_path, "by name"), Tuple(), Blocks(), Nested(), Residual()):
        output = "logits" if isinstance(module, Residual) else 0
        spec = OwnNetwork.of(module, images(), output=output).spec
        assert OwnSpec.from_json(spec.to_json()).to_json() == spec.to_json()


def test_a_function_that_needs_vmap():
    class Scalar(Vector):
        def dynamics(self, t, h):
            return super().dynamics(t.reshape(()), h)

    network = OwnNetwork.of(Scalar(), images())
    assert network.spec.found.solves[0].way == Way.VMAP
    assert_as_torchdiffeq(network)
    assert_gradients(double(network), images(3).double())


def test_memory_of_an_image_is_that_of_its_own_steps(tmp_path):
    network = OwnNetwork.of(built(tmp_path, "by name"), images())
    loose, tight = (bytes_per_image(network.at(tolerance=tau), images(4)) for tau in (10, 1e-5))
    assert loose < tight / 2


def test_torchdiffeq_is_itself_outside_a_pass(tmp_path):
    network = OwnNetwork.of(built(tmp_path, "by name"), images())
    code = torchdiffeq.odeint.__code__
    network(images())
    assert torchdiffeq.odeint.__code__ is code
    with pytest.raises(RuntimeError):
        network(images()[:, :, :1, :1].expand(-1, 3, -1, -1))
    assert torchdiffeq.odeint.__code__ is code
    t = torch.tensor([0.0, 1.0])
    solved = torchdiffeq.odeint(lambda t, y: -y, torch.ones(2), t)
    torch.testing.assert_close(solved[1], torch.ones(2) * torch.e**-1)
