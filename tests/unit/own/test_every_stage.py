"""Networks of all kinds that users may bring: every stage ends, and says what it cannot measure."""

from collections.abc import Callable
from dataclasses import dataclass

import h5py
import numpy as np
import pytest
import torch
import torchdiffeq
from torch import nn
from torch.autograd.function import once_differentiable

from node_robustness.attacks.engine import attack
from node_robustness.attacks.expectation import log_uniform
from node_robustness.attacks.gradients import possible, with_gradient
from node_robustness.attacks.make import make
from node_robustness.audits import adjoint_sweep, cost
from node_robustness.audits.detection import Search, detect
from node_robustness.audits.files import write_audit
from node_robustness.audits.network import audit_network
from node_robustness.audits.randomisation import Ascent, attack_randomised
from node_robustness.audits.tolerance_matrix import reevaluate
from node_robustness.files.records import not_measured
from node_robustness.models.ode_body import solve_finite
from node_robustness.models.own.network import OwnNetwork
from node_robustness.perturbations.norms import Norm
from node_robustness.perturbations.streams import Streams
from node_robustness.trajectories import writer
from node_robustness.trajectories.measure import FollowedImages, Measurement, Selection
from node_robustness.trajectories.reader import open_trajectory
from node_robustness.trajectories.runs import grid
from restated import TAU, Block, ConcatConv2d
from victims import predicted

pytestmark = pytest.mark.numerical

N, SIDE, EPSILON = 4, 6, 0.1
LINF = Norm("linf")
BIM = {"method": "bim", "gradient": "direct", "step": 0.06, "iterations": 2}


def close(found, expected, atol=1e-3):
    """Steps depend on the rounding of an error estimate, and matrix products round by the batch."""
    torch.testing.assert_close(found, expected, rtol=0, atol=atol)


def images(count, channels=1):
    generator = torch.Generator().manual_seed(2)
    return torch.rand(count, channels, SIDE, SIDE, generator=generator)


class Tanh(nn.Module):
    """Dynamics of a vector."""

    def __init__(self, size):
        super().__init__()
        self.layer = nn.Linear(size, size)

    def forward(self, t, h):
        return torch.tanh(self.layer(h)) + t


class Dead(nn.Module):
    """Dynamics without t, whose ReLU lets nothing through, for some states or for all."""

    def __init__(self, size, shift):
        super().__init__()
        self.layer, self.shift = nn.Linear(size, size), shift

    def forward(self, t, h):
        return torch.relu(self.layer(h) - self.shift) - 0.1


class Decay(nn.Module):
    """Dynamics without parameters."""

    def forward(self, t, h):
        return -h


class Pair(nn.Module):
    """Dynamics of a tuple."""

    def __init__(self, size):
        super().__init__()
        self.layer = nn.Linear(size, size)

    def forward(self, t, state):
        h, v = state
        return v, torch.tanh(self.layer(h)) - v


class Branch(nn.Module):
    """Dynamics that read values."""

    def __init__(self, size):
        super().__init__()
        self.layer = nn.Linear(size, size)

    def forward(self, t, h):
        return torch.tanh(self.layer(h)) * (2 if h[0, 0] > 0 else 1)


class Once(torch.autograd.Function):
    """A square that can be differentiated once."""

    generate_vmap_rule = False

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**2

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        return 2 * ctx.saved_tensors[0] * gradient


class OfOnce(nn.Module):
    def __init__(self, size):
        super().__init__()
        self.layer = nn.Linear(size, size)

    def forward(self, t, h):
        return torch.tanh(self.layer(h)) - 0.1 * Once.apply(h)


class Single(nn.Module):
    """Dynamics in single precision, whatever they are given."""

    def __init__(self, size):
        super().__init__()
        self.register_buffer("weight", 0.3 * torch.randn(size, size))

    def forward(self, t, h):
        return torch.tanh(h.float() @ self.weight.float().T).to(h)


class Skip(nn.Module):
    """A network whose head also reads what its solve starts from."""

    def __init__(self, size):
        super().__init__()
        self.stem, self.block = nn.Linear(SIDE**2, size), Block(Tanh(size))
        self.out = nn.Linear(size, 4)

    def forward(self, x):
        h = self.stem(x.flatten(1))
        return self.out(h + self.block(h))


class Hyper(nn.Module):
    """A network whose dynamics read features of the images, not of the state alone."""

    def __init__(self, size):
        super().__init__()
        self.stem, self.layer = nn.Linear(SIDE**2, size), nn.Linear(size, size)
        self.out = nn.Linear(size, 4)

    def forward(self, x):
        features = self.stem(x.flatten(1))
        states = torchdiffeq.odeint(
            lambda t, h: torch.tanh(self.layer(h) + features), features, torch.tensor([0.0, 1.0]),
            rtol=TAU, atol=TAU,
        )  # fmt: skip
        return self.out(states[-1])


class Two(nn.Module):
    """Two solves, one after the other."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(1, 3, 3, padding=1)
        self.blocks = nn.Sequential(Block(ConcatConv2d(3)), nn.Tanh(), Block(ConcatConv2d(3)))
        self.out = nn.Linear(3, 4)

    def forward(self, x):
        return self.out(self.blocks(self.stem(x)).mean((2, 3)))


class PairBlock(nn.Module):
    def __init__(self, size):
        super().__init__()
        self.function = Pair(size)

    def forward(self, h):
        start = h, torch.zeros_like(h)
        span = torch.tensor([0.0, 1.0])
        return torchdiffeq.odeint(self.function, start, span, rtol=TAU, atol=TAU)[0][-1]


class Setter(nn.Module):
    """Euler's method with as many steps as the tolerance asks for."""

    def __init__(self, size):
        super().__init__()
        self.stem, self.layer = nn.Linear(SIDE**2, size), nn.Linear(size, size)
        self.out, self.steps = nn.Linear(size, 4), 10

    def set_tolerance(self, tau):
        self.steps = round(tau**-0.5)

    def forward(self, x):
        h = self.stem(x.flatten(1))
        for _ in range(self.steps):
            h = h + torch.tanh(self.layer(h)) / self.steps
        return self.out(h)


def vector(block, channels=1, size=5, classes=4):
    return nn.Sequential(
        nn.Flatten(), nn.Linear(channels * SIDE**2, size), block, nn.Linear(size, classes)
    )


class Bare(nn.Module):
    """Without parameters."""

    def __init__(self):
        super().__init__()
        self.block = Block(Decay())

    def forward(self, x):
        h = self.block(x.flatten(1)[:, :4])
        return 5 * h


@dataclass(frozen=True)
class Kind:
    """What is brought, and what it lacks."""

    build: Callable[[], nn.Module]
    channels: int = 1
    solve: str | None = None
    followed: bool = True
    adaptive: bool = True
    lacks: tuple = ()  # words of the trajectory.h5
    audit_lacks: tuple = ()  # words of the audit.h5


HELD = "The steps of the solver cannot be held."
KINDS = {
    "colours_of_two_classes": Kind(lambda: vector(Block(Tanh(5)), 3, classes=2), channels=3),
    "backwards": Kind(lambda: vector(Block(Tanh(5), (1.0, -0.5), rtol=1e-3, atol=1e-5))),
    "euler": Kind(
        lambda: vector(Block(Tanh(5), (0.0, 2.0), method="euler", options={"step_size": 0.3})),
        adaptive=False,
    ),
    "rk4_on_times": Kind(
        lambda: vector(Block(Tanh(5), (0.0, 0.1, 0.5, 1.0), method="rk4")), adaptive=False
    ),
    "second_of_two": Kind(Two, solve="blocks.2"),
    "pair": Kind(lambda: vector(PairBlock(5))),
    "dead_in_part": Kind(lambda: vector(Block(Dead(5, 0.5)))),
    "dead": Kind(lambda: vector(Block(Dead(5, 100.0)))),
    "no_parameters": Kind(Bare),
    "once_differentiable": Kind(
        lambda: vector(Block(OfOnce(5))), lacks=("cannot be differentiated twice",)
    ),
    "single_precision": Kind(
        lambda: vector(Block(Single(5))), audit_lacks=("it computes in single precision in part",)
    ),
    "skip": Kind(lambda: Skip(5), followed=False, lacks=("depend on more",)),
    "features_of_a_batch": Kind(
        lambda: Hyper(5), followed=False, lacks=("image by image",), audit_lacks=(HELD,)
    ),
    "branches": Kind(
        lambda: vector(Block(Branch(5))), followed=False, lacks=("image by image",),
        audit_lacks=(HELD, "image by image"),
    ),
    "setter": Kind(
        lambda: Setter(5), followed=False, lacks=("not torchdiffeq",), audit_lacks=(HELD,)
    ),
    "no_solve": Kind(lambda: vector(nn.Tanh()), followed=False, adaptive=False),
}  # fmt: skip


@pytest.fixture(scope="module", params=KINDS)
def case(request):
    kind = KINDS[request.param]
    torch.manual_seed(1)
    network = OwnNetwork.of(kind.build(), images(16, kind.channels), solve=kind.solve)
    return kind, network, images(N, kind.channels)


def test_what_is_known_of_it(case):
    kind, network, x = case
    assert (network.body is not None) == kind.followed
    assert network.adaptive == kind.adaptive
    with torch.no_grad():
        logits = network(x)
        assert torch.isfinite(logits).all()
        if kind.followed:
            h = network.embed(x)
            assert h.ndim == 4
            torch.testing.assert_close(network.head(network.body(h)), logits)
            assert network.features(h).ndim == 2


@torch.no_grad()
def test_other_images_take_its_steps(case):
    _, network, x = case
    found = network.spec.found
    assert network.has_steps == (bool(found.solves) and found.one_by_one is None)
    if not network.has_steps:
        return
    logits, steps = network.logits_and_steps(x)
    close(logits, network(x))
    assert steps.taken.shape == (N, 2 * network.solves)
    assert not steps.failed.any()
    close(network.by_steps(x, steps), logits)
    twice = network.by_steps(x.repeat(2, 1, 1, 1), steps.repeated(2))
    close(twice, logits.repeat(2, 1))
    alone, steps = network.logits_and_steps(x[:1])
    close(network.by_steps(x[:1], steps), alone)
    if network.adaptive:
        failing = network.at(max_steps=1, tolerance=1e-6)
        assert failing.logits_and_steps(x)[1].failed.all()


ATTACKS = {
    "bim": BIM,
    "adjoint": BIM | {"gradient": "adjoint", "adjoint_tolerance": None, "adjoint_norm": "full"},
    "surrogate": BIM | {"gradient": "surrogate", "surrogate": {"method": "rk4", "steps": 3}},
    "apgd_t": {"method": "apgd", "loss": "dlr", "iterations": 2, "targets": 2},
}  # fmt: skip


@pytest.mark.parametrize("name", ATTACKS)
def test_attacks(case, name):
    _, network, x = case
    settings = possible(network, ATTACKS[name])
    assert settings == ATTACKS[name] or (network.solver is None and settings == BIM)
    attacked = with_gradient(network, None, settings)
    found = attack(attacked, x, predicted(network, x), make(settings, "linf", EPSILON))
    assert ((found.adversarials - x).abs() <= EPSILON * (1 + 1e-5)).all()
    again = predicted(network, found.adversarials)
    assert torch.equal(again, found.adversarial_predictions)


def test_a_backward_solve_that_fails_has_no_gradient():
    """Where torchdiffeq solves image by image, it fails for this image alone."""
    torch.manual_seed(1)
    network = OwnNetwork.of(KINDS["branches"].build(), images(16), max_steps=100)
    x = images(N)

    def gradient(tolerance):
        at = x.clone().requires_grad_()
        solved = network.at(gradient="adjoint", adjoint_tolerance=tolerance)
        logits = solved(at)
        torch.testing.assert_close(logits, network(x))
        return torch.autograd.grad(logits.sum(), at)[0]

    each = torch.tensor([1e-4, 1e-13, 1e-4, 1e-4], dtype=torch.float64)
    found, expected = gradient(each), gradient(1e-4)
    assert found[1].isnan().all()
    torch.testing.assert_close(found[[0, 2, 3]], expected[[0, 2, 3]])


def test_the_audit(case, tmp_path):
    kind, network, x = case
    settings = {
        "differences": 2, "directions": 1, "iterations": 1, "apgd_iterations": 1,
        "epsilons": {"linf": EPSILON}, "tight_tolerance": 3e-3, "rk4_steps": 4,
    }  # fmt: skip
    y = predicted(network, x)
    found = audit_network(network, x, y, range(N), settings, seed=1, batch_size=3)
    write_audit(tmp_path / "a.h5", {}, np.arange(N), y.numpy(), found, seconds=1, device="here")
    with h5py.File(tmp_path / "a.h5") as file:
        for words in kind.audit_lacks:
            assert words in not_measured(file)
        assert ("not_measured" in file.attrs) == bool(kind.audit_lacks)
        held = network.solver is not None and HELD not in kind.audit_lacks
        assert ("linf/held" in file) == held
        differences = file["finite_difference"][:]
        frozen, own = file["finite_difference_frozen"][:], file["derivative"][:, 0]
    own_solver = network.adaptive and network.solver is None
    assert list(found.sources) == (
        ["direct", "adjoint", "tight", "rk4"]
        if network.solver is not None
        else ["direct", "tight"][: 1 + own_solver]
    )
    if "single" in " ".join(kind.audit_lacks):
        assert np.isnan(differences).all()
        return
    np.testing.assert_array_equal(
        np.isnan(frozen), np.isnan(differences) | (HELD in kind.audit_lacks)
    )
    known = np.isfinite(frozen)
    np.testing.assert_allclose(frozen[known], own[known], rtol=1e-3, atol=1e-5)
    assert torch.isfinite(found.gradients.gradient_norm).all()


def test_tolerances(case):
    kind, network, x = case
    if not kind.adaptive:
        return
    y, bim = predicted(network, x), make(BIM, "linf", EPSILON)
    tolerances = [1e-3, 0.1]
    found = reevaluate(network, x, tolerances, batch_size=3)
    for number, tau in enumerate(tolerances):
        with torch.no_grad():
            for row in range(N):
                expected = network.at(tolerance=tau)(x[row : row + 1])[0]
                close(found.logits[row, number], expected)
    each = torch.tensor([1e-3, 0.1, 1e-3, 0.1], dtype=torch.float64)
    with torch.no_grad():
        mixed = network.at(tolerance=each)(x)
    close(mixed, found.logits[torch.arange(N), [0, 1, 0, 1]])
    randomised = attack_randomised(
        network, x, y, Ascent(LINF, EPSILON, 0.05, 1), log_uniform(1e-3, 0.1),
        draws=2, evaluation_draws=2, streams=lambda purpose: Streams.of(0, range(N), purpose),
        batch_size=4,
    )  # fmt: skip
    assert torch.isfinite(randomised.wrong["eot"]).all()
    detected = detect(
        network, x, y, bim, Search(1, 1), tolerance=0.1, tolerances=tolerances, batch_size=6
    )
    assert torch.isfinite(detected.scores).all()
    assert bool(adjoint_sweep.why_not(network)) == (network.solver is None)
    if network.solver is None:
        return
    swept = adjoint_sweep.sweep(
        network, x, y, bim, [1e-2],
        adjoint_norm="full", index=range(N), seed=0, batch_size=3,
    )  # fmt: skip
    assert swept.success.shape == (N, 2)


def test_the_attack_on_the_cost(case, tmp_path):
    kind, network, x = case
    reasons = cost.why_not(network)
    assert bool(reasons) == (not (kind.followed and kind.adaptive))
    some = x[: 0 if reasons else None]
    found = cost.attack_cost(
        network, some, cost.CostSearch(LINF, EPSILON, 0.03, 2, 1),
        lambda purpose: Streams.of(0, range(len(some)), purpose), batch_size=3,
    )  # fmt: skip
    index = np.arange(len(some))
    cost.write_cost(
        tmp_path / "c.h5", {}, index, index, some, found, reasons, seconds=1, device="here"
    )
    with h5py.File(tmp_path / "c.h5") as file:
        assert bool(not_measured(file)) == bool(reasons)
        assert len(file["nfe_clean"]) == len(some)
    if not reasons:
        with torch.no_grad():
            network(x)
        assert torch.equal(network.nfe, found.nfe_clean)
        assert (found.nfe_attacked >= found.nfe_clean).all()


def measured(network, x, y, path):
    """Write a trajectory.h5 of images with an attack on them; what measured it."""
    attacked = attack(network, x, torch.from_numpy(y), make(BIM, "linf", EPSILON)).adversarials
    success = predicted(network, attacked).numpy() != y
    followed = FollowedImages(
        np.arange(N),
        y,
        success,
        y,
        x.shape[1:],
        lambda rows: (x.numpy()[rows], attacked.numpy()[rows]),
    )
    selection = Selection.of(success, states=2, growth=2, causal=2)
    tool = Measurement(network, grid(3), 2, LINF, EPSILON, 1, 5, 1e-4)
    sizes = tool.sizes(N, len(selection.kept), x.shape[1:], "float32")
    with writer.writing(path, {}, sizes, tool.axis, tool.grid, tool.ends, device="cpu") as written:
        tool.record(followed, selection, written)
    return tool


def test_trajectories(case, tmp_path):
    kind, network, x = case
    path = tmp_path / "t.h5"
    if not kind.followed:
        writer.write_not_followed(path, {}, grid(3), 2, network.limits, device="here")
        with open_trajectory(path) as found:
            assert len(found.images()) == 0
            assert not_measured(found.file).startswith(
                "The states of this network are not followed."
            )
            for words in kind.lacks:
                assert words in not_measured(found.file)
        return
    y = predicted(network, x).numpy()
    tool = measured(network, x, y, path)
    for words in kind.lacks:
        assert words in " ".join(tool.lacks)
    assert bool(tool.lacks) == bool(kind.lacks)
    with h5py.File(path) as file:
        loss, error = (file[f"shares/strong/{name}"][:] for name in ("loss", "error"))
        np.testing.assert_allclose(error, 0, atol=5e-2 * np.abs(loss).max() + 1e-5)
        assert np.isfinite(file["shares/strong/parts"][:]).all()
        assert np.isfinite(file["attack/distance/l2"][:]).all()
        with torch.no_grad():
            logits = network(x).numpy()
        own = logits[np.arange(N), y]
        logits[np.arange(N), y] = -np.inf
        margin = file["clean/margin/head"][:, -1]
        np.testing.assert_allclose(margin, own - logits.max(1), rtol=1e-3, atol=1e-4)
        known = np.isfinite(file["lyapunov_largest"][:2]).all()
        assert known == (not kind.lacks)


def test_an_earlier_solve_that_fails(tmp_path):
    """Of such an image nothing is known, and nothing else fails."""
    torch.manual_seed(1)
    network = OwnNetwork.of(Two(), images(16), solve="blocks.2")
    x = images(N)
    with torch.no_grad():
        start = network.embed(x)
    start[1] = torch.nan
    found = solve_finite(
        network.body, start, (0.0, 1.0), keep_nodes=True, keep_node_states=True, keep_work=True
    )
    assert found.status.tolist() == [0, 3, 0, 0]
    assert found.nfe[1] == found.accepted[1] == found.work[1] == 0
    assert found.states[:, 1].isnan().all()
    assert (len(found.nodes[1]), len(found.node_states[1])) == (1, 1)
    with torch.no_grad():
        close(network.head(found.states[-1])[[0, 2, 3]], network(x)[[0, 2, 3]])
    failing = network.at(tolerance=1e-6, max_steps=1)
    y = predicted(network, x).numpy()
    measured(failing, x, y, tmp_path / "t.h5")
    with h5py.File(tmp_path / "t.h5") as file:
        assert np.isnan(file["attack/distance/l2"][:]).all()
        assert np.isnan(file["shares/margin"][:]).all()
        assert (file["clean/nfe"][:] == 0).all()
    settings = cost.CostSearch(LINF, EPSILON, 0.03, 2, 1)
    costs = cost.attack_cost(
        failing, x, settings, lambda purpose: Streams.of(0, range(N), purpose), batch_size=3
    )
    assert (costs.clean_predictions == -1).all()
