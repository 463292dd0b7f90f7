"""The nets of examples/models: trained on digits, audited to the end, compared with torchdiffeq."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
import torch
from filelock import FileLock
from safetensors.torch import load_file

from harness import snakemake
from torchdiffeq_alone import ZOO, Alone

NETS = {
    "torchdiffeq": ("torchdiffeq_mnist.py", {"width": 16, "halvings": 1}),
    "TisODE": ("tisode.py", {"width": 16}),
    "SONet": ("sonet.py", {"width": 8, "stages": 2, "blocks": 2}),
    "SODEF": ("sodef.py", {"width": 8}),
    "augmented": ("augmented.py", {"size": 8, "filters": 8}),
    "LyaNet": ("lyanet.py", {"width": 16, "hidden": 32}),
    "residual": ("residual.py", {"width": 8, "blocks": [1, 1]}),
}
ADAPTIVE = ("torchdiffeq", "SONet", "SODEF", "augmented", "LyaNet")
# It trains seven nets. Every stage of own models has tests of its own.
pytestmark = pytest.mark.slow

TAU = 0.1
COLUMNS = [(net, None) for net in NETS] + [(net, TAU) for net in ADAPTIVE]
# Dynamics that enlarge differences enlarge rounding: in double precision it is below 1e-10.
ROUNDING = {"SODEF": 2e-2, "SONet": 2e-3}
KEYS = {
    "TisODE": {"ode": "fixed"},
    "SODEF": {"training": {"learning_rate": 0.02}},
    "augmented": {"training": {"epochs": 3}},
    "LyaNet": {"training": {"solver": "torchdiffeq", "epochs": 4}},
}

CONFIG = {
    "experiments": {
        "zoo": {
            "datasets": ["digits"],
            "models": [*NETS],
            "tolerances": [TAU],
            "attacks": ["bim_adjoint", "bim_direct"],
            "norms": ["linf"],
            "epsilons": [0.1],
            "trajectories": {
                "attacks": ["bim_direct"],
                "images": 6,
                "times": 3,
                "states": 1,
                "growth": 1,
                "strengthen": 1,
                "causal": 1,
                "intervals": 2,
            },
            "audit": {
                "images": 4,
                "differences": 2,
                "directions": 1,
                "iterations": 2,
                "apgd_iterations": 2,
            },
            "randomisation": None,
            "detection": None,
            "cost": None,
        }
    },
    "datasets": {"digits": {"source": "digits", "subset": {"train": 800, "test": 24}}},
    "models": {
        name: {"module": str(ZOO / file), "arguments": arguments} | KEYS.get(name, {})
        for name, (file, arguments) in NETS.items()
    },
    "attacks": {
        name: {"method": "bim", "iterations": 3, "relative_step": 0.5, "gradient": name[4:]}
        for name in ("bim_adjoint", "bim_direct")
    },
    "training": {"epochs": 6, "batch_size": 32, "schedule": "one_cycle"},
    "compute": {"training_threads": 1},
}


@pytest.fixture(scope="module")
def zoo(shared: Path) -> Path:
    """The folder of a finished run."""
    folder, done = shared / "zoo", shared / "zoo.done"
    with FileLock(shared / "zoo.lock"):
        if not done.exists():
            # All but pictures of the figures.
            claims = [f"results/zoo/claims/digits-{net}.json" for net in NETS]
            snakemake(folder, "results/zoo/report.html", *claims, config=CONFIG)
            done.touch()
    return folder


def folder_of(run: Path, net: str, tolerance: float | None) -> Path:
    column = "none" if tolerance is None else f"{tolerance:g}"
    return run / f"results/zoo/digits/{net}/seed-0/tau-{column}"


@pytest.fixture(scope="module")
def alone(zoo: Path) -> Callable[[str], Alone]:
    """A trained net by its name."""

    @cache
    def load(net: str) -> Alone:
        saved = load_file(zoo / f"results/zoo/digits/{net}/seed-0/model.safetensors")
        weights = {key.removeprefix("module."): tensor for key, tensor in saved.items()}
        return Alone(*NETS[net], weights)

    return load


@pytest.mark.parametrize("net", NETS)
def test_a_net_learns(zoo, net):
    with h5py.File(folder_of(zoo, net, None) / "clean.h5") as clean:
        assert (clean["predictions"][:] == clean["labels"][:]).mean() > 0.8


@pytest.mark.parametrize(("net", "tolerance"), COLUMNS)
def test_logits_and_evaluations_are_those_of_torchdiffeq(zoo, alone, net, tolerance):
    """Image by image, at the net's own tolerance and at another."""
    with (
        h5py.File(zoo / "results/zoo/digits/data.h5") as data,
        h5py.File(folder_of(zoo, net, tolerance) / "clean.h5") as clean,
    ):
        images = torch.from_numpy(data["test/images"][:][clean["index"][:]]).float() / 255
        logits, evaluations = alone(net).solve(images, tolerance)
        assert clean["logits"][:] == pytest.approx(logits.numpy(), abs=ROUNDING.get(net, 1e-4))
        if evaluations.numel():
            np.testing.assert_array_equal(clean["nfe"][:], evaluations.sum(1))
        if evaluations.shape[1] > 1:
            np.testing.assert_array_equal(clean["nfe_by_solve"][:], evaluations)


@pytest.mark.parametrize(("net", "tolerance"), COLUMNS)
def test_adversarial_examples_mislead_torchdiffeq_too(zoo, alone, net, tolerance):
    found, labels = [], []
    for attack in CONFIG["attacks"]:
        path = folder_of(zoo, net, tolerance) / f"{attack}/linf/eps-0.1/attack.h5"
        with h5py.File(path) as file:
            success = file["success"][:]
            found.append(file["adversarials"][:][success])
            labels.append(file["labels"][:][success])
    logits, _ = alone(net).solve(torch.from_numpy(np.concatenate(found)), tolerance)
    assert (logits.argmax(1).numpy() != np.concatenate(labels)).all()
    assert len(logits) > 5


def test_every_net_has_verdicts(zoo):
    verdicts = pd.read_csv(zoo / "results/zoo/tables/verdicts.csv")
    columns = verdicts[["model", "tolerance"]].itertuples(index=False, name=None)
    assert {(net, None if np.isnan(tau) else tau) for net, tau in columns} == {*COLUMNS}
    assert (zoo / "results/zoo/report.html").exists()


@pytest.mark.parametrize("net", [net for net in NETS if net != "residual"])
def test_states_are_followed_where_every_image_has_steps(zoo, net):
    cell = folder_of(zoo, net, None) / "bim_direct/linf/eps-0.1"
    with h5py.File(cell / "trajectory.h5") as trajectory:
        lacks = trajectory.attrs.get("not_measured", "")
        assert ("torchdiffeq solves image by image" in lacks) == (net == "LyaNet"), lacks
        assert len(trajectory["states/clean"]) == (net != "LyaNet")
