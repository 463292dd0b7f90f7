"""Tiny cell files for tests of tables, figures and report."""

import json
from pathlib import Path

import numpy as np

from node_robustness import figures, tables
from node_robustness.examples import example_table
from node_robustness.numbers import token
from node_robustness.report import render_report
from node_robustness.storage import put, write_hdf5


def write(path: Path, kind: str, settings: dict, arrays: dict, **attributes: object) -> Path:
    with write_hdf5(path, kind, settings, **attributes) as file:
        for name, values in arrays.items():
            put(file, name, values, units="1", description=name)
    return path


def solved(model="OON", seed=0, tolerance=0.1, dataset="toy", experiment="tiny") -> dict:
    return {
        "experiment": experiment,
        "dataset": dataset,
        "model": model,
        "seed": seed,
        "tolerance": tolerance,
    }


def cell(attack="bim", gradient="direct", norm="linf", epsilon=0.1, **where) -> dict:
    attacked_with = {"attack": attack, "gradient": gradient, "norm": norm, "epsilon": epsilon}
    return solved(**where) | attacked_with


def name(settings: dict) -> str:
    return "-".join(
        token(value) if isinstance(value, float) else str(value) for value in settings.values()
    )


def write_clean(folder: Path, settings: dict, predictions: list[int], nfe: list[int] | None):
    """Four images or fewer, whose labels are 0, 1, 2, 3."""
    arrays = {"labels": np.arange(len(predictions)), "predictions": np.array(predictions)}
    if nfe is not None:
        arrays["nfe"] = np.array(nfe, np.int32)
    return write(folder / f"clean-{name(settings)}.h5", "clean", settings, arrays)


def write_attack(folder: Path, settings: dict, attacked: list[bool], success: list[bool]) -> Path:
    n = len(attacked)
    won, clean = np.array(success), np.arange(n) % 3
    step = np.arange(1, n + 1)
    arrays = {
        "index": np.arange(n),
        "clean_predictions": clean,
        "adversarial_predictions": np.where(won, (clean + 1) % 3, clean),
        "attacked": np.array(attacked),
        "success": won,
        "iterations": step.astype(np.int32),
        "perturbation_linf": (0.25 * step).astype(np.float32),
        "perturbation_l2": (0.5 * step).astype(np.float32),
        "adversarials": np.where(won, 0.5, 0.0).reshape(n, 1, 1, 1).repeat(4, 2).repeat(4, 3),
    }
    if settings["tolerance"] is not None:
        arrays |= {"nfe_clean": 10 * step, "nfe_adversarial": 20 * step}
    path = folder / f"attack-{name(settings)}.h5"
    return write(path, "attack", settings, arrays)


def write_trajectory(folder: Path, settings: dict, l2: list[list[float]], times: list[float]):
    values = np.array(l2, np.float32).reshape(len(l2), len(times))
    arrays = {
        "success": np.ones(len(l2), bool),
        "t": np.array(times),
        "distance/l2": values,
        "distance/relative_l2": values / 2,
        "distance/cosine": 1 - values / 8,
    }
    return write(folder / f"trajectory-{name(settings)}.h5", "trajectory", settings, arrays)


def write_data(folder: Path) -> Path:
    arrays = {
        "test/images": np.zeros((4, 1, 4, 4), np.uint8),
        "class_names": np.array(["zero", "one", "two"]),
    }
    return write(folder / "data.h5", "data", {"dataset": "toy"}, arrays)


def collect(folder: Path, seeds=(0,)) -> tuple[dict, list[Path]]:
    """The tables of a tiny experiment, and the attack files that examples may come from."""
    clean, attacks, trajectories, shown = [], [], [], []
    for seed in seeds:
        for model, tolerance in [("RES", None), ("OON", 0.01), ("OON", 1.0)]:
            where = {"model": model, "tolerance": tolerance, "seed": seed}
            nfe = None if tolerance is None else [8, 8, 14, 20]
            clean.append(write_clean(folder, solved(**where), [0, 1, 2, 0], nfe))
            for epsilon in (0.1, 0.3):
                settings = cell(epsilon=epsilon, **where)
                success = [True, epsilon > 0.2, seed == 1, False]
                attacks.append(write_attack(folder, settings, [True, True, True, False], success))
                if tolerance is None:
                    shown.append(attacks[-1])
                else:
                    curves = [[1.0, 2.0], [2.0, 4.0]]
                    trajectories.append(write_trajectory(folder, settings, curves, [0.0, 1.0]))
    collected = {
        "clean": tables.clean_table(clean),
        "nfe": tables.nfe_table(clean),
        "attacks": tables.attack_table(attacks),
        "trajectories": tables.trajectory_table(trajectories),
    }
    return collected, shown


def draw(collected: dict, examples) -> dict:
    models = ["RES", "OON"]
    return {
        "clean": figures.clean_figure(collected["clean"], models),
        "nfe": figures.nfe_figure(collected["nfe"], models),
        "success": figures.success_figure(collected["attacks"], models),
        "robust": figures.robust_figure(collected["attacks"], collected["clean"], models),
        "trajectories": figures.trajectory_figure(collected["trajectories"], models),
        "examples": figures.example_figure(examples, models),
    }


MANIFEST = {
    "software": "node-robustness 0.1.0",
    "created_utc": "2020-01-02T03:04:05+00:00",
    "host": "here",
    "platform": "Linux",
    "python": "3.11.0",
    "device": "cpu",
    "threads": 2,
    "versions": {"torch": "2.0"},
    "git_commit": None,
    "config": {"datasets": {"toy": {"source": "digits"}}, "note": "</pre><b>"},
    "stages": [{"rule": "train", "jobs": 2, "seconds": 3725.4, "max_rss_mb": None}],
}


def write_report(folder: Path, experiment: str, paper: str | None = None) -> Path:
    collected, shown = collect(folder)
    data = write_data(folder)
    charts = draw(collected, example_table([(path, data) for path in shown]))
    specs = {key: json.loads(json.dumps(chart.to_dict())) for key, chart in charts.items()}
    path = folder / "report.html"
    render_report(experiment, collected, specs, MANIFEST, paper, path)
    return path
