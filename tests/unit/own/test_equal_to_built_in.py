"""A built-in network restated as a user would write it: every stage finds the same, to rounding."""

from dataclasses import fields, is_dataclass

import h5py
import numpy as np
import pytest
import torch

from node_robustness.attacks.engine import attack
from node_robustness.attacks.expectation import log_uniform
from node_robustness.attacks.gradients import gradient_settings, with_gradient
from node_robustness.attacks.make import make
from node_robustness.audits.adjoint_sweep import sweep
from node_robustness.audits.cost import CostSearch, attack_cost
from node_robustness.audits.detection import Search, detect
from node_robustness.audits.network import audit_network
from node_robustness.audits.randomisation import Ascent, attack_randomised
from node_robustness.audits.tolerance_matrix import reevaluate
from node_robustness.models.evaluation import evaluate
from node_robustness.models.own.network import OwnNetwork
from node_robustness.perturbations.norms import Norm
from node_robustness.perturbations.streams import Streams
from node_robustness.trajectories import writer
from node_robustness.trajectories.measure import FollowedImages, Measurement, Selection
from node_robustness.trajectories.probes import features_along
from node_robustness.trajectories.runs import grid
from restated import TAU, Restated
from victims import predicted, random_images, small_ode

pytestmark = pytest.mark.numerical

N, EPSILON = 4, 0.04
TAUS = [TAU, 1.0]
LINF = Norm("linf")


@pytest.fixture(scope="module")
def networks():
    """The built-in one and its restatement; logits that tell images apart."""
    built_in = small_ode()
    built_in.head.linear.weight *= 5
    built_in.head.linear.bias *= 5
    own = OwnNetwork.of(Restated(built_in), random_images(16))
    assert own.limits == ()
    return built_in.at(tolerance=TAU), own


def arrays(found, name=""):
    """All arrays in a result, by their place in it."""
    if isinstance(found, torch.Tensor | np.ndarray):
        yield name, np.asarray(found)
    elif is_dataclass(found):
        for item in fields(found):
            yield from arrays(getattr(found, item.name), f"{name}.{item.name}")
    elif isinstance(found, dict):
        for key, value in found.items():
            yield from arrays(value, f"{name}[{key}]")
    elif isinstance(found, list | tuple):
        for number, value in enumerate(found):
            yield from arrays(value, f"{name}[{number}]")
    else:
        yield name, np.asarray(found)


def assert_same(found, expected, rtol=1e-3, atol=1e-4):
    """Equal to rounding; counts, classes and decisions equal."""
    pairs = dict(arrays(found)), dict(arrays(expected))
    assert pairs[0].keys() == pairs[1].keys()
    for name, values in pairs[1].items():
        own = pairs[0][name]
        if values.dtype.kind == "f":
            np.testing.assert_allclose(own, values, rtol, atol, err_msg=name)
        else:
            np.testing.assert_array_equal(own, values, err_msg=name)


def test_evaluation(networks):
    x = random_images(40)
    built_in, own = (evaluate(network, x, batch_size=16) for network in networks)
    assert_same((own.logits, own.nfe, own.status), (built_in.logits, built_in.nfe, built_in.status))
    at = [network.at(tolerance=torch.linspace(0.001, 1, 40)) for network in networks]
    built_in, own = (evaluate(network, x, batch_size=40) for network in at)
    assert_same((own.logits, own.nfe), (built_in.logits, built_in.nfe))
    assert len(set(own.nfe.tolist())) > 2


ATTACKS = {
    "bim_direct": {"method": "bim", "gradient": "direct", "step": 0.01, "iterations": 4},
    "bim_adjoint": {
        "method": "bim", "step": 0.01, "iterations": 3,
        "gradient": "adjoint", "adjoint_tolerance": None, "adjoint_norm": "full",
    },
    "bim_seminorm": {
        "method": "bim", "step": 0.01, "iterations": 2,
        "gradient": "adjoint", "adjoint_tolerance": 1e-4, "adjoint_norm": "seminorm",
    },
    "bim_surrogate": {
        "method": "bim", "step": 0.01, "iterations": 4,
        "gradient": "surrogate", "surrogate": {"method": "rk4", "steps": 4},
    },
    "apgd_t": {"method": "apgd", "loss": "dlr", "iterations": 5, "targets": 2},
    "square": {"method": "square", "queries": 20},
    "eot_pgd": {
        "method": "eot_pgd", "gradient": "direct", "step": 0.01, "iterations": 3, "draws": 2,
        "drawn": {"low": 1e-3, "high": 1.0},
    },
}  # fmt: skip


@pytest.mark.parametrize("name", ATTACKS)
def test_attacks(networks, name):
    x, settings = random_images(N), ATTACKS[name]

    def found(network):
        source = network.at(**gradient_settings(settings)) if "drawn" in settings else None
        attacked = with_gradient(network, TAU, settings)
        method = make(settings, "linf", EPSILON, source)
        return attack(attacked, x, predicted(network, x), method, seed=3)

    built_in, own = map(found, networks)
    assert_same(own, built_in)
    assert built_in.success.any()


def test_the_audit(networks):
    x = random_images(N)
    settings = {
        "differences": 2, "directions": 1, "iterations": 2, "apgd_iterations": 2,
        "epsilons": {"linf": EPSILON}, "tight_tolerance": 1e-3, "rk4_steps": 4,
    }  # fmt: skip
    built_in, own = (
        audit_network(network, x, predicted(network, x), range(N), settings, seed=1, batch_size=4)
        for network in networks
    )
    assert own.norms["linf"].held is not None
    assert_same(own, built_in, rtol=5e-3, atol=2e-3)


def test_randomisation(networks):
    x = random_images(N)
    built_in, own = (
        attack_randomised(
            network, x, predicted(network, x), Ascent(LINF, EPSILON, 0.02, 2), log_uniform(1e-3, 1),
            draws=2, evaluation_draws=4, streams=lambda purpose: Streams.of(0, range(N), purpose),
            batch_size=4,
        )
        for network in networks
    )  # fmt: skip
    assert_same(own, built_in)
    assert built_in.wrong["eot"].sum() > built_in.wrong["clean"].sum()


def test_detection(networks):
    x = random_images(N)
    method = make(ATTACKS["bim_direct"], "linf", EPSILON)
    built_in, own = (
        detect(
            network, x, predicted(network, x), method, Search(2, 2),
            tolerance=TAU, tolerances=TAUS, batch_size=8,
        )
        for network in networks
    )  # fmt: skip
    assert_same(own, built_in)
    assert built_in.success.any()


def test_the_matrix_of_tolerances(networks):
    built_in, own = (reevaluate(net, random_images(N), TAUS, batch_size=4) for net in networks)
    assert_same(own, built_in)


def test_the_sweep_of_the_adjoint(networks):
    x = random_images(N)
    method = make(ATTACKS["bim_direct"] | {"iterations": 2}, "linf", EPSILON)
    built_in, own = (
        sweep(
            network, x, predicted(network, x), method, [1.0],
            adjoint_norm="full", index=range(N), seed=0, batch_size=4,
        )
        for network in networks
    )  # fmt: skip
    assert_same(own, built_in)


def test_the_attack_on_the_cost(networks):
    search = CostSearch(LINF, 0.1, 0.02, queries=4, iterations=2)
    # Of fewer images the attack raises the cost of none.
    x = random_images(6)
    built_in, own = (
        attack_cost(
            network, x, search, lambda purpose: Streams.of(0, range(6), purpose), batch_size=4
        )
        for network in networks
    )  # fmt: skip
    assert_same(own, built_in)
    assert (built_in.nfe_attacked > built_in.nfe_clean).any()


def test_what_probes_read(networks):
    """The states and the head; the features of an own network are the means of its channels."""
    built_in, own = (
        features_along(network, random_images(N), grid(4), batch_size=4) for network in networks
    )
    assert_same(own[::2], built_in[::2])
    assert own[1].shape == built_in[1].shape


def followed(network, path):
    """Everything in the trajectory.h5 of a network."""
    x = random_images(N)
    y = predicted(network, x).numpy()
    method = make(ATTACKS["bim_direct"], "linf", EPSILON)
    found = attack(network, x, torch.from_numpy(y), method)
    success = found.success.numpy()
    images = FollowedImages(
        np.arange(N), y, success, y, x.shape[1:],
        lambda rows: (x.numpy()[rows], found.adversarials.numpy()[rows]),
    )  # fmt: skip
    selection = Selection.of(success, states=2, growth=2, causal=2)
    tool = Measurement(network, grid(3), 2, LINF, EPSILON, 2, 5, 1e-4)
    sizes = tool.sizes(N, len(selection.kept), x.shape[1:], "float32")
    with writer.writing(path, {}, sizes, tool.axis, tool.grid, tool.ends, device="cpu") as written:
        tool.record(images, selection, written)
    assert tool.lacks == []
    read = {}
    with h5py.File(path) as file:
        file.visititems(
            lambda name, node: read.update({name: node[()]} if hasattr(node, "dtype") else {})
        )
    return read


def test_trajectories_growth_patches_and_shares(networks, tmp_path):
    built_in, own = (
        followed(network, tmp_path / f"{number}.h5") for number, network in enumerate(networks)
    )
    assert_same(own, built_in, rtol=5e-3, atol=1e-3)
    assert built_in["success"].any()
    assert np.isfinite(built_in["shares/strong/parts"]).all()
    assert (built_in["causal/repaired"] >= 0).any()
