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
    return solved(**where) | attacked_with | {"method": "bim", "iterations": 10}


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


def write_attempt(folder: Path, settings: dict, sizes, correct=None, **changes) -> Path:
    """A cell of an attack that finds adversarials of these sizes in its norm (inf: none)."""
    sizes = np.asarray(sizes, float)
    correct = np.ones(len(sizes), bool) if correct is None else np.asarray(correct, bool)
    success = correct & (sizes <= settings["epsilon"])
    size = np.where(success, sizes, settings["epsilon"])
    arrays = {
        "index": np.arange(len(sizes)),
        "labels": np.zeros(len(sizes), int),
        "clean_predictions": np.where(correct, 0, 1),
        "adversarial_predictions": np.where(success | ~correct, 1, 0),
        "attacked": correct,
        "success": success,
        "iterations": np.ones(len(sizes), np.int32),
        "perturbation_linf": size.astype(np.float32),
        "perturbation_l2": (2 * size if settings["norm"] == "l2_rms" else size).astype(np.float32),
        "adversarials": np.zeros((len(sizes), 1, 2, 2), np.float32),
    }
    if settings["tolerance"] is not None:
        arrays["nfe_clean"] = arrays["nfe_adversarial"] = arrays["iterations"]
    path = folder / f"attack-{name(settings)}.h5"
    return write(path, "attack", settings, arrays | changes)


def sizes_leaving(share: float, n: int, epsilon: float = 0.1) -> np.ndarray:
    """Sizes of the smallest adversarials of n images, of which this share has none."""
    robust = round(share * n)
    return np.array([np.inf] * robust + [epsilon] * (n - robust))


LADDER = {
    "bim_adjoint": {"method": "bim", "gradient": "adjoint"},
    "apgd": {"method": "apgd", "gradient": "direct", "iterations": 100},
    "pgd_surrogate": {"method": "pgd", "gradient": "surrogate", "iterations": 40},
    "square": {"method": "square", "gradient": None},
    "noise": {"method": "noise", "gradient": None},
}


def write_ladder(folder: Path, n: int, paper: float, strongest: float, **where) -> list[Path]:
    """All kinds of attacks on n images, robust in these shares; apgd and square are the best."""
    paths = []
    shares = {"bim_adjoint": paper, "pgd_surrogate": paper, "noise": 1.0}
    for attack, settings in LADDER.items():
        if attack == "pgd_surrogate" and where.get("tolerance", 0.1) is None:
            continue
        sizes = sizes_leaving(shares.get(attack, strongest), n, where.get("epsilon", 0.1))
        paths.append(write_attempt(folder, cell(attack, **where) | settings, sizes))
    return paths


def write_evaluation(folder: Path, n: int, wrong: int = 0, **where) -> Path:
    """The clean.h5 of n images, the last ones of which are misclassified."""
    arrays = {
        "index": np.arange(n),
        "labels": np.zeros(n, int),
        "predictions": np.where(np.arange(n) < n - wrong, 0, 1),
    }
    if where.get("tolerance", 0.1) is not None:
        arrays |= {"nfe": np.full(n, 20, np.int32), "status": np.zeros(n, int)}
    settings = solved(**where)
    return write(folder / f"clean-{name(settings)}.h5", "clean", settings, arrays)


def write_audit(folder: Path, n: int = 8, **where) -> Path:
    """An audit that finds nothing wrong; `changes` replaces arrays."""
    changes = where.pop("changes", {})
    sources = ["direct"] if where.get("tolerance", 0.1) is None else ["direct", "adjoint", "tight"]
    s, d = len(sources), 3
    differences = np.linspace(1, 2, n * d).reshape(n, d)
    arrays = {
        "index": np.arange(n),
        "labels": np.zeros(n, int),
        "sources": np.array(sources),
        "directions": np.array(["random", "direct", "adjoint"]),
        "cosine": np.full((n, s, s), 0.98, np.float32),
        "sign_agreement": np.full((n, s, s), 0.9, np.float32),
        "gradient_norm": np.ones((n, s)),
        "zero_share": np.zeros((n, s)),
        "derivative": np.repeat(differences[:, None], s, 1),
        "finite_difference": 1.001 * differences,
        "finite_difference_frozen": differences,
        "alone_logit_difference": np.zeros(n, np.float32),
        "alone_prediction_differs": np.zeros(n, bool),
        "alone_nfe_differs": np.zeros(n, bool),
        "neighbours_changed": np.zeros(n, np.float32),
        "iterations_success": np.ones((n, 2), bool),
        "single_step_success": np.zeros(n, bool),
        "large_epsilon_success": np.ones(n, bool),
        "planted_success": np.ones(n, bool),
    }
    settings = solved(**where)
    return write(folder / f"audit-{name(settings)}.h5", "audit", settings, arrays | changes)


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
