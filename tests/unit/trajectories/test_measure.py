"""A whole trajectory.h5: what is in it, whatever the batches, and how it is read."""

import functools
import re
import runpy
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from node_robustness.errors import UserError
from node_robustness.models.classifier import Classifier, Spec
from node_robustness.perturbations.noise import noise_like
from node_robustness.perturbations.norms import Norm
from node_robustness.perturbations.streams import Streams
from node_robustness.trajectories import layout, measure, writer
from node_robustness.trajectories.decision import margins
from node_robustness.trajectories.growth import LinearisedFlow
from node_robustness.trajectories.measure import FollowedImages, Measurement, Selection
from node_robustness.trajectories.probes import Probes
from node_robustness.trajectories.reader import open_trajectory
from node_robustness.trajectories.runs import grid
from node_robustness.trajectories.strengthen import strengthen

pytestmark = pytest.mark.numerical

ROOT = Path(__file__).parents[3]
N, TIMES, SIDE = 4, 6, 8
SHAPE = (1, SIDE, SIDE)
CHOICE = {"states": 3, "causal": 2}


def network(body="ode"):
    torch.manual_seed(6)
    spec = Spec(1, 4, (0.4,), (0.3,), "convolution", body, filters=8, blocks=3)
    model = Classifier(spec).eval()
    with torch.no_grad():  # so that classes differ
        model.head.linear.weight *= 20
        x = torch.rand(64, *SHAPE, generator=torch.Generator().manual_seed(9))
        model.head.linear.bias -= model(x).mean(0)
    return model


def probes(model, n):
    generator = np.random.default_rng(0)
    weights = generator.normal(size=(n, 4, 8)).astype(np.float32)
    bias = generator.normal(size=(n, 4)).astype(np.float32)
    return Probes(np.linspace(0, 1, n), weights, bias, *[np.ones(n, np.float32)] * 5)


@dataclass(frozen=True)
class Drawn(FollowedImages):
    """Images in memory."""

    clean: torch.Tensor
    attacked: torch.Tensor


@torch.no_grad()
def attacked(model, n=N):
    """The first n of N images, some of which are misled."""
    generator = torch.Generator().manual_seed(1)
    clean = torch.rand(N, *SHAPE, generator=generator)
    moved = (clean + 0.6 * (torch.rand(N, *SHAPE, generator=generator) - 0.5)).clamp(0, 1)
    clean, moved = clean[:n], moved[:n]
    index = 3 + 2 * np.arange(n)
    before = after = np.zeros(0, np.int64)
    if n:
        before, after = (model(x).argmax(1).numpy() for x in (clean, moved))

    def load(rows):
        return clean.numpy()[rows], moved.numpy()[rows]

    return Drawn(index, before, before != after, before, SHAPE, load, clean, moved)


def measured(path, body="ode", n=N, tolerance=1e-2, precision="float32", growth=2, **settings):
    """Write a trajectory.h5 of the first n images; returns the model and the images."""
    model = network(body)
    solved = model.at(tolerance=tolerance)
    images = attacked(solved, n)
    choice = Selection.of(images.success, **CHOICE, growth=growth)
    read = probes(solved, 4 if body == "residual" else TIMES)
    tool = Measurement(solved, grid(TIMES), 3, Norm("linf"), 0.3, 4, 5, 1e-5, read, **settings)
    sizes = tool.sizes(n, len(choice.kept), SHAPE, precision)
    with writer.writing(
        path, {"seed": 5}, sizes, tool.axis, tool.grid, tool.ends, device="cpu"
    ) as written:
        tool.record(images, choice, written)
    return model, images, sizes


@pytest.fixture(scope="module", autouse=True)
def few_iterations():
    """The largest exponent is a bound after any number of iterations."""
    few = functools.partialmethod(LinearisedFlow.largest_exponents, iterations=3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LinearisedFlow, "largest_exponents", few)
        yield


@pytest.fixture(scope="module")
def cases(tmp_path_factory):
    """From a body to its file and what the file was made from, each written once."""

    @functools.cache
    def of(body):
        path = tmp_path_factory.mktemp("trajectory") / "trajectory.h5"
        return path, body, *measured(path, body)

    return of


@pytest.fixture(scope="module", params=["ode", "residual"])
def case(request, cases):
    return cases(request.param)


def everything(path):
    found = {}
    with h5py.File(path) as file:
        file.visititems(
            lambda name, node: found.update({name: node[()]} if hasattr(node, "dtype") else {})
        )
    return found


def test_there_is_something_to_find(case):
    _, _, _, images, _ = case
    assert 2 <= images.success.sum() < N


def test_distances_are_those_of_the_stored_states(case):
    found = everything(case[0])
    kept = found["kept"]
    clean, moved = (
        found[f"states/{run}"].reshape(len(kept), len(found["t"]), -1).astype(float)
        for run in ("clean", "attack")
    )
    l2, size = np.linalg.norm(moved - clean, axis=2), np.linalg.norm(clean, axis=2)
    np.testing.assert_allclose(found["attack/distance/l2"][kept], l2, rtol=1e-4)
    np.testing.assert_allclose(found["attack/distance/relative_l2"][kept], l2 / size, rtol=1e-4)
    cosine = (clean * moved).sum(2) / size / np.linalg.norm(moved, axis=2)
    np.testing.assert_allclose(found["attack/distance/cosine"][kept], cosine, atol=1e-5)


def test_the_first_adversarial_examples_keep_their_states(case):
    _, _, _, images, _ = case
    found = everything(case[0])["kept"]
    successes = np.flatnonzero(images.success)
    others = np.flatnonzero(~images.success)
    np.testing.assert_array_equal(found, np.sort(np.concatenate([successes, others])[:3]))


def test_noise_is_as_large_as_the_perturbation_and_seeded_by_the_image(case):
    _, _, model, images, _ = case
    found = everything(case[0])
    clean, moved = images.clean, images.attacked
    noisy = noise_like(
        Norm("linf"), clean, moved, Streams.of(5, images.index.tolist(), "trajectory noise")
    )
    size, wanted = (noisy - clean).abs().amax((1, 2, 3)), (moved - clean).abs().amax((1, 2, 3))
    torch.testing.assert_close(size, wanted, rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        start = (model.embed(noisy) - model.embed(clean)).flatten(1).norm(dim=1)
    np.testing.assert_allclose(found["noise/distance/l2"][:, 0], start, rtol=1e-5)


def test_margins_at_the_end_are_those_of_the_model(case):
    _, _, model, images, _ = case
    found = everything(case[0])
    with torch.no_grad():
        logits = model.at(tolerance=1e-2)(images.attacked).numpy()
    own = logits[np.arange(N), images.decided]
    logits[np.arange(N), images.decided] = -np.inf
    np.testing.assert_allclose(
        found["attack/margin/head"][:, -1], own - logits.max(1), rtol=1e-3, atol=1e-4
    )
    flipped = found["attack/flip_time/head"]
    np.testing.assert_array_equal(np.isfinite(flipped), images.success)
    assert (found["clean/margin/head"][:, -1] > 0).all()


def test_expensive_measurements_are_of_the_first_images(case):
    _, body, _, images, _ = case
    found = everything(case[0])
    known = np.isfinite(found["lyapunov_largest"])
    assert known.tolist() == [True] * 2 + [False] * (N - 2)
    for pair in ("attack", "noise"):
        assert (found[f"{pair}/lyapunov_along"][:2] <= found["lyapunov_largest"][:2]).all()
        jacobian = found[f"{pair}/growth/jacobian"]
        assert np.isfinite(jacobian[:2]).all() == (body == "ode")
        assert np.isnan(jacobian[2:]).all()
        if body == "ode":
            assert (jacobian[:2] <= found["growth/log_norm_upper"][:2]).all()
            assert (jacobian[:2] >= found["growth/log_norm_lower"][:2]).all()
            tight = found[f"{pair}/tight/l2"][:2]
            np.testing.assert_allclose(tight, found[f"{pair}/distance/l2"][:2], rtol=0.1)
    tested = images.success & (images.success.cumsum() <= CHOICE["causal"])
    assert (found["causal/repaired"][~tested] == -1).all()
    assert (found["causal/repaired"][tested] != -1).any(1).all()
    assert np.isfinite(found["causal/channels"]).all()


def test_shares_are_of_the_strong_example_and_two_controls(case):
    path, _, model, images, _ = case
    found = everything(path)
    model, norm = model.at(tolerance=1e-2), Norm("linf")
    decided = torch.from_numpy(images.decided)
    with torch.no_grad():
        own = margins(model(images.clean)[None], decided)[:, 0]
    strong = strengthen(
        model, images.clean, images.attacked, decided, norm, 0.3, steps=4, batch_size=N
    )
    np.testing.assert_array_equal(found["strong/success"], strong.success)
    assert (found["strong/margin"] <= found["attack/margin/head"][:, -1] + 1e-4).all()
    assert found["strong/perturbation_linf"].max() <= 0.3 * (1 + 1e-6)
    streams = Streams.of(5, images.index.tolist(), "trajectory shares noise")
    change = (strong.images - images.clean).roll(-1, 0)
    perturbed = {
        "strong": strong.images,
        "noise": noise_like(norm, images.clean, strong.images, streams),
        "swapped": (images.clean + change).clamp(0, 1),
    }
    np.testing.assert_allclose(found["shares/margin"], own, rtol=1e-3, atol=1e-4)
    for name, moved in perturbed.items():
        with torch.no_grad():
            loss = own - margins(model(moved)[None], decided)[:, 0]
        np.testing.assert_allclose(found[f"shares/{name}/loss"], loss, rtol=1e-3, atol=1e-3)
        total = found[f"shares/{name}/start"] + found[f"shares/{name}/parts"].sum(1)
        error = found[f"shares/{name}/error"]
        np.testing.assert_allclose(total - found[f"shares/{name}/loss"], error, atol=1e-5)
    np.testing.assert_allclose(found["shares/ends"], np.linspace(0, 1, 4))


@pytest.mark.parametrize("body", ["ode", "residual"])
def test_one_image_has_no_other_image_to_swap_with(tmp_path, body):
    measured(tmp_path / "one.h5", body, n=1, growth=0)
    found = everything(tmp_path / "one.h5")
    for value in ("start", "parts", "loss", "error"):
        assert np.isnan(found[f"shares/swapped/{value}"]).all()
        for name in ("strong", "noise"):
            assert np.isfinite(found[f"shares/{name}/{value}"]).all()


def test_batches_do_not_matter(case, tmp_path, monkeypatch):
    monkeypatch.setattr(measure, "_STATES_BYTES", 1)
    measured(tmp_path / "parts.h5", case[1])
    whole, parts = everything(case[0]), everything(tmp_path / "parts.h5")
    assert whole.keys() == parts.keys()
    for name, values in whole.items():
        if values.dtype.kind in "iub":
            np.testing.assert_array_equal(parts[name], values, err_msg=name)
        else:
            np.testing.assert_allclose(parts[name], values, rtol=2e-3, atol=2e-4, err_msg=name)


def test_the_file_has_its_layout(case):
    path, body, _, _, sizes = case
    with h5py.File(path) as file:
        assert file.attrs["axis"] == ("time" if body == "ode" else "depth")
        assert file.attrs["schema_version"] == 3
        for entry in layout.entries(sizes):
            rows = {"n": sizes.images, "m": sizes.kept}[entry.axes[0]]
            dataset = file[entry.name]
            assert dataset.shape == (rows, *sizes.shape(entry))
            assert dataset.dtype == np.dtype(entry.dtype)
            assert dataset.attrs["units"]
            assert dataset.attrs["description"].endswith(" ".join(entry.axes))
            assert [d.label for d in dataset.dims] == list(entry.axes)
            scales = [list(d.keys()) for d in dataset.dims]
            expected = {"n": ["index"], "t": ["t"]}
            if entry.name != "index":
                assert scales == [expected.get(letter, []) for letter in entry.axes]
        stored = sum(node.nbytes for node in (file[entry.name] for entry in layout.entries(sizes)))
    nodes = sizes.bytes_per_image * N + sizes.bytes_per_kept_image * sizes.kept - stored
    assert nodes == (N * 32 * (3 * 8 + 2 * 12) if body == "ode" else 0)
    assert path.stat().st_size < sizes.total_bytes
    # As docs/trajectories.md says.
    times, intervals, parts = sizes.times, sizes.intervals, sizes.parts
    c, h, w = sizes.state
    of_solver = 16 * times + 1572 if body == "ode" else 0
    assert sizes.bytes_per_image == 72 * times + 2 * intervals + 12 * parts + 106 + of_solver
    of_number = {"float16": 2, "float32": 4}[sizes.precision]
    states = 2 * times * of_number * c * h * w
    assert sizes.bytes_per_kept_image == states + 4 * (c + h * w) + 8


def test_nodes_are_where_the_solver_stepped(cases):
    with open_trajectory(cases("ode")[0]) as found:
        for run in ("clean", "attack", "noise"):
            nodes = found.nodes(f"{run}/nodes/t")
            accepted = found.file[f"{run}/accepted"][:]
            assert [len(own) - 1 for own in nodes] == accepted.tolist()
            sizes = found.step_sizes(run)
            for own, row in zip(nodes, sizes, strict=True):
                assert own[0] == 0 and own[-1] >= 1  # noqa: PT018
                for t, size in zip(found.t, row, strict=True):
                    after = next(k for k in range(1, len(own)) if own[k] >= t)
                    assert size == own[after] - own[after - 1]
        at_nodes = found.nodes("attack/nodes/l2")
        np.testing.assert_allclose(
            [own[0] for own in at_nodes], found.curves("attack/distance/l2")[0.0], rtol=1e-5
        )
        np.testing.assert_allclose(
            [own[-1] for own in at_nodes], found.curves("attack/distance/l2")[1.0], rtol=1e-4
        )


@pytest.mark.parametrize("body", ["ode", "residual"])
def test_a_file_without_images_is_valid(tmp_path, body):
    path = tmp_path / "none.h5"
    measured(path, body, n=0)
    with open_trajectory(path) as found:
        assert len(found.images()) == 0
        assert found.curves("attack/distance/l2").shape == (0, len(found.t))
        assert found.states("clean").shape[:2] == (0, len(found.t))
        if body == "ode":
            assert found.nodes("attack/nodes/t") == []
            assert found.step_sizes("attack").shape == (0, TIMES)


def test_the_reader(case):
    path, _, _, images, _ = case
    with open_trajectory(path) as found:
        table = found.images()
        assert table.index.tolist() == images.index.tolist()
        assert table.success.tolist() == images.success.tolist()
        assert {"attack/flip_time/head", "shares/strong/start", "lyapunov_largest"} <= set(table)
        groups = found.groups()
        assert [groups[name][1].sum() for name in ("success", "failed", "noise")] == [
            images.success.sum(), (~images.success).sum(), N,
        ]  # fmt: skip
        rate = found.curves("noise/growth/rate").to_numpy()
        rest = rate - found.file["noise/growth/jacobian"][:]
        np.testing.assert_array_equal(found.nonlinear_rate("noise"), rest)


def test_missing_datasets_are_named(case):
    path, body, *_ = case
    with open_trajectory(path) as found:
        asked = [
            (lambda: found.curves("attack/distance/l3"), "attack/distance/l3"),
            (lambda: found.states("noise"), "states/noise"),
            (lambda: found.nonlinear_rate("clean"), "clean/growth/rate"),
        ]
        if body == "residual":
            asked.append((lambda: found.step_sizes("clean"), "clean/nodes/t"))
        for read, name in asked:
            line = rf"{re.escape(str(path))}: there is no {name} \(there is: .*states/clean"
            with pytest.raises(UserError, match=line):
                read()


def test_another_schema_version(case, tmp_path):
    copy = tmp_path / "trajectory.h5"
    copy.write_bytes(case[0].read_bytes())
    with h5py.File(copy, "r+") as file:
        file.attrs["schema_version"] = 1
    with pytest.raises(UserError, match="has schema version 1"), open_trajectory(copy):
        pass


def test_the_example_opens_a_file(case, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["open_trajectory.py", str(case[0])])
    runpy.run_path(str(ROOT / "docs/examples/open_trajectory.py"), run_name="__main__")
    printed = capsys.readouterr().out
    assert "success" in printed
    assert "share_of_start" in printed


def test_a_tolerance_or_none(tmp_path):
    """Fixed steps have no tolerance; trajectories exist all the same."""
    model = network()
    model = model.at(method="rk4", steps=5)
    images = attacked(model)
    choice = Selection.of(images.success, **CHOICE, growth=2)
    tool = Measurement(model, grid(TIMES), 3, Norm("l2"), 1.0, 4, 5, 1e-5)
    sizes = tool.sizes(N, len(choice.kept), SHAPE, "float16")
    with writer.writing(
        tmp_path / "a.h5", {}, sizes, tool.axis, tool.grid, tool.ends, device="cpu"
    ) as written:
        tool.record(images, choice, written)
    found = everything(tmp_path / "a.h5")
    assert (found["clean/accepted"] == 5).all()
    assert np.isnan(found["attack/margin/probe"]).all()
    assert np.isfinite(found["attack/distance/l2"]).all()
