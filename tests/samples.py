"""Tiny cell files for tests of tables, figures and report."""

import json
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd

from node_robustness.figures import costs, experiment
from node_robustness.figures.copies import shared_parts
from node_robustness.figures.drawing import still
from node_robustness.files.hdf5 import put, write_hdf5
from node_robustness.numbers import token
from node_robustness.provenance.costs import job_costs
from node_robustness.report.html import render_report
from node_robustness.scheduling.job_costs import JobCost, Spent
from node_robustness.scheduling.job_costs import read as read_costs
from node_robustness.tables.examples import example_table
from node_robustness.tables.image_pages import Pages, image_pages
from node_robustness.tables.networks import with_tau
from node_robustness.verdict.experiment import of_experiment
from vega_lite import spec_of


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
    index = np.arange(len(predictions))
    arrays = {"index": index, "labels": index, "predictions": np.array(predictions)}
    if nfe is not None:
        arrays |= {"nfe": np.array(nfe, np.int32), "status": np.zeros(len(nfe), int)}
    return write(folder / f"clean-{name(settings)}.h5", "clean", settings, arrays)


def write_attack(
    folder: Path,
    settings: dict,
    attacked: list[bool],
    success: list[bool],
    skipped=None,
    shape=(1, 4, 4),
) -> Path:
    n = len(attacked)
    won, clean = np.array(success), np.arange(n) % 3
    step = np.arange(1, n + 1)
    arrays = {
        "index": np.arange(n),
        "clean_predictions": clean,
        "adversarial_predictions": np.where(won, (clean + 1) % 3, clean),
        "attacked": np.array(attacked),
        "skipped": np.zeros(n, bool) if skipped is None else np.array(skipped),
        "success": won,
        "iterations": step.astype(np.int32),
        "labels": clean,
        "perturbation_linf": (0.25 * step).astype(np.float32),
        "perturbation_l2": (0.5 * step).astype(np.float32),
        "adversarials": np.where(won, 0.5, 0.0).reshape(n, 1, 1, 1) * np.ones(shape),
    }
    if settings["tolerance"] is not None:
        arrays |= {"nfe_clean": 10 * step, "nfe_adversarial": 20 * step}
    path = folder / f"attack-{name(settings)}.h5"
    return write(path, "attack", settings, arrays)


INTERVALS = [(a / 4, b / 4) for a in range(4) for b in range(a + 1, 5)]


def write_trajectory(
    folder: Path, settings: dict, success: list[bool], times=None, *, ode=False, **changes
):
    """Paths of images, half of them with kept states: an attack grows more than noise does.

    Every adversarial is repaired by any interval that has all of the third quarter of t, and flips
    at 0.75; `changes` replaces arrays, `__` standing for `/` in their names.
    """
    n, solved = len(success), settings["tolerance"] is not None or ode
    t = np.linspace(0, 1, 5) if times is None else np.array(times)
    won, each = np.array(success, bool), 1 + np.arange(n)[:, None] / max(n, 1)
    arrays: dict[str, np.ndarray] = {
        "index": np.arange(n),
        "labels": np.arange(n) % 3,
        "success": won,
        "clean_predictions": np.arange(n) % 3,
        "t": t,
        "clean/margin/head": each * (1 + 2 * t),
        "clean/margin/probe": each * (2 + t),
        "lyapunov_largest": np.full(n, 3.0),
    }
    for pair, rate in (("attack", 2.0), ("noise", 0.5)):
        growth = each * rate * (1 + np.sin(np.pi * t))
        distance = each * np.exp(rate * t)
        reaches = (won if pair == "attack" else np.zeros(n, bool))[:, None]
        left = np.where(reaches, 0.75 - t, 1.0) * each
        arrays |= {
            f"{pair}/distance/l2": distance,
            f"{pair}/distance/relative_l2": distance / 10,
            f"{pair}/distance/cosine": 1 - distance / 40,
            f"{pair}/growth/rate": growth if solved else np.where(t > 0, growth, np.nan),
            f"{pair}/growth/jacobian": 0.8 * growth if solved else np.full_like(growth, np.nan),
            f"{pair}/lyapunov_along": np.full(n, rate),
            f"{pair}/margin/head": 2 * left,
            f"{pair}/margin/probe": left,
            f"{pair}/flip_time/head": np.where(reaches[:, 0], 0.75, np.nan),
            f"{pair}/flip_time/probe": np.where(reaches[:, 0], 0.5, np.nan),
        }
    bounds = {"lower": each - 9 + t, "upper": each + 9 + t}
    for side, bound in bounds.items():
        arrays[f"growth/log_norm_{side}"] = bound if solved else np.full_like(bound, np.nan)
    if solved:
        arrays |= steps_of("clean", [0, 0.5, 1], n)
        arrays |= steps_of("attack", [0, 0.25, 0.75, 1.25], n)
        arrays |= steps_of("noise", [0, 0.5, 1], n)
        for distance in ("l2", "relative_l2"):
            for pair in ("attack", "noise"):
                arrays[f"{pair}/tight/{distance}"] = 1.1 * arrays[f"{pair}/distance/{distance}"]
    kept = np.sort(np.argsort(~won, kind="stable")[: (n + 1) // 2])
    m = len(kept)
    states = np.linspace(-1, 1, m * len(t) * 8 * 4).reshape(m, len(t), 8, 2, 2)
    misled = won | (won.any() & (np.arange(n) < n - 1))
    arrays |= (
        _patches_of(won)
        | shares_of(misled)
        | {
            "kept": kept,
            "states/clean": states,
            "states/attack": states + arrays["attack/distance/l2"][kept, :, None, None, None] / 10,
            "causal/channels": np.linspace(-0.2, 1, m * 8).reshape(m, 8),
            "causal/places": np.linspace(-0.2, 1, m * 4).reshape(m, 2, 2),
        }
    )
    arrays |= {name.replace("__", "/"): np.asarray(values) for name, values in changes.items()}
    path = folder / f"trajectory-{name(settings)}.h5"
    return write(path, "trajectory", settings, arrays, axis="time" if solved else "depth")


def write_probe(folder: Path, settings: dict, times=(0.0, 0.25, 0.5, 0.75, 1.0)) -> Path:
    """Probes that are right at every t, where the head is the better the later it reads."""
    t = np.array(times)
    arrays = {"t": t, "accuracy": np.full(len(t), 0.9), "ece": np.full(len(t), 0.05)}
    arrays |= {"head_accuracy": 0.1 + 0.8 * t, "head_ece": 0.5 - 0.4 * t}
    return write(folder / f"probe-{name(settings)}.h5", "probe", settings, arrays)


def steps_of(run: str, nodes: list[float], n: int) -> dict[str, np.ndarray]:
    """The steps of a run that are those of the first image, but for their number of evaluations."""
    found = {
        f"{run}/nfe": 6 * len(nodes) + np.arange(n) % 3,
        f"{run}/accepted": np.full(n, len(nodes) - 1),
        f"{run}/rejected": np.zeros(n, int),
        f"{run}/nodes/t": np.tile(nodes, n),
        f"{run}/nodes/offsets": len(nodes) * np.arange(n + 1),
    }
    if run != "clean":
        distance = np.tile(np.exp(np.array(nodes)), n)
        found |= {f"{run}/nodes/l2": distance, f"{run}/nodes/relative_l2": distance / 10}
    return found


EVEN = (0.2, 0.2, 0.2, 0.2, 0.2)
"""Fractions of h(0) and of four parts that say nothing of where."""


def shares_of(misled, fractions=(0.1, 0.1, 0.1, 0.6, 0.1), control=EVEN) -> dict[str, np.ndarray]:
    """Shares of h(0) and of the parts in these fractions, up to something that differs by image.

    The strong adversarial examples mislead some images; `control` is that of noise and of the
    difference of another image.
    """
    misled = np.asarray(misled, bool)
    image, player = np.arange(len(misled))[:, None], np.arange(len(fractions))
    wave = 0.05 * np.cos(1 + image * (1 + player))
    margin = 2 + 0.1 * (np.arange(len(misled)) % 5)
    arrays = {
        "strong/success": misled,
        "strong/margin": np.where(misled, -2.0, 0.5),
        "strong/perturbation_linf": np.full(len(misled), 0.1),
        "strong/perturbation_l2": np.full(len(misled), 0.4),
        "shares/ends": np.linspace(0, 1, len(fractions)),
        "shares/margin": margin,
    }
    losses = {"strong": margin - arrays["strong/margin"], "noise": 0.1 * margin}
    losses["swapped"] = 0.5 * margin
    for perturbation, loss in losses.items():
        of = np.array(fractions if perturbation == "strong" else control)
        shares = loss[:, None] * (of + wave)
        arrays |= {
            f"shares/{perturbation}/start": shares[:, 0],
            f"shares/{perturbation}/parts": shares[:, 1:],
            f"shares/{perturbation}/loss": loss,
            f"shares/{perturbation}/error": shares.sum(axis=1) - loss,
        }
    return arrays


def _patches_of(won: np.ndarray) -> dict[str, np.ndarray]:
    """Patches that decide where they have the whole third quarter of t."""
    decides = [a <= 0.5 and b >= 0.75 for a, b in INTERVALS]
    outcome = np.where(won[:, None], np.array(decides, int), -1)
    return {
        "causal/intervals": np.array(INTERVALS),
        "causal/repaired": outcome,
        "causal/inserted": outcome,
    }


def write_attempt(
    folder: Path, settings: dict, sizes, correct=None, *, ode=False, **changes
) -> Path:
    """A cell of an attack that finds adversarial examples of these sizes (inf: none).

    With `ode` the model solves an ODE, though the cell has no tolerance.
    """
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
        "skipped": np.zeros(len(sizes), bool),
        "success": success,
        "iterations": np.ones(len(sizes), np.int32),
        "perturbation_linf": size.astype(np.float32),
        "perturbation_l2": (2 * size if settings["norm"] == "l2_rms" else size).astype(np.float32),
        "adversarials": np.zeros((len(sizes), 1, 2, 2), np.float32),
    }
    if settings["tolerance"] is not None or ode:
        arrays["nfe_clean"] = arrays["nfe_adversarial"] = arrays["iterations"]
    path = folder / f"attack-{name(settings)}.h5"
    return write(path, "attack", settings, arrays | changes)


def sizes_leaving(share: float, n: int, epsilon: float = 0.1) -> np.ndarray:
    """Sizes of the smallest adversarial examples of n images, of which this share has none."""
    robust = round(share * n)
    return np.array([np.inf] * robust + [epsilon] * (n - robust))


SUITE = {
    "bim_adjoint": {"method": "bim", "gradient": "adjoint"},
    "bim_direct": {"method": "bim", "gradient": "direct"},
    "apgd_ce": {"method": "apgd", "gradient": "direct", "iterations": 100, "loss": "ce"},
    "apgd_t": {"method": "apgd", "gradient": "direct", "iterations": 100, "loss": "dlr"}
    | {"targets": 9},
    "apgd_surrogate": {"method": "apgd", "gradient": "surrogate", "iterations": 100, "loss": "ce"},
    "square": {"method": "square", "gradient": None, "queries": 1000},
    "noise": {"method": "noise", "gradient": None},
}


def write_suite(
    folder: Path,
    n: int,
    paper: float,
    strongest: float,
    corrected: float | None = None,
    *,
    ode: bool = False,
    **where,
) -> list[Path]:
    """All kinds of attacks on n images, robust in these shares.

    The paper's attack leaves `paper`, the same steps along direct gradients `corrected` (as much if
    None), all strong attacks `strongest`, and noise everything. With `ode` the model solves an ODE,
    though it has no tolerance.
    """
    shares = {"bim_adjoint": paper, "bim_direct": paper if corrected is None else corrected}
    shares["noise"] = 1.0
    paths = []
    for attack, settings in SUITE.items():
        plain = where.get("tolerance", 0.1) is None and not ode
        if attack == "apgd_surrogate" and plain:
            continue
        own = settings | ({"gradient": "direct"} if plain and settings["gradient"] else {})
        sizes = sizes_leaving(shares.get(attack, strongest), n, where.get("epsilon", 0.1))
        paths.append(write_attempt(folder, cell(attack, **where) | own, sizes, ode=ode))
    return paths


def write_evaluation(
    folder: Path, n: int, wrong: int = 0, *, ode=False, solves=1, attributes=None, **where
) -> Path:
    """The clean.h5 of n images, the last ones of which are misclassified.

    With `ode` the model solves an ODE, though the cell has no tolerance; with several `solves` each
    takes 10, 20, ... evaluations.
    """
    arrays = {
        "index": np.arange(n),
        "labels": np.zeros(n, int),
        "predictions": np.where(np.arange(n) < n - wrong, 0, 1),
    }
    if where.get("tolerance", 0.1) is not None or ode:
        arrays |= {"nfe": np.full(n, 20, np.int32), "status": np.zeros(n, int)}
    if solves > 1:
        by_solve = np.tile(10 * np.arange(1, solves + 1, dtype=np.int32), (n, 1))
        arrays |= {"nfe_by_solve": by_solve, "nfe": by_solve.sum(axis=1)}
    settings = solved(**where)
    path = folder / f"clean-{name(settings)}.h5"
    return write(path, "clean", settings, arrays, **(attributes or {}))


def write_audit(folder: Path, n: int = 100, norms=("linf",), **where) -> Path:
    """An audit that finds nothing wrong; `changes` replaces arrays, `__` standing for `/`."""
    changes = {name.replace("__", "/"): v for name, v in where.pop("changes", {}).items()}
    sources = ["direct"] if where.get("tolerance", 0.1) is None else ["direct", "adjoint", "tight"]
    s, d, m = len(sources), 3, min(n, 16)
    differences = np.linspace(1, 2, m * d).reshape(m, d)
    arrays = {
        "index": np.arange(n),
        "labels": np.zeros(n, int),
        "sources": np.array(sources),
        "directions": np.array(["random", "direct", "adjoint"]),
        "norms": np.array(norms),
        "cosine": np.full((n, s, s), 0.98, np.float32),
        "sign_agreement": np.full((n, s, s), 0.9, np.float32),
        "gradient_norm": np.ones((n, s)),
        "zero_share": np.zeros((n, s)),
        "precision_cosine": np.ones(m, np.float32),
        "derivative": np.repeat(differences[:, None], s, 1),
        "finite_difference": 1.001 * differences,
        "finite_difference_frozen": differences,
        "correct": np.ones(n, bool),
        "neighbours_changed": np.zeros(n, np.float32),
        "neighbours_variation": np.full(n, 0.01, np.float32),
        "large_epsilon_success": np.ones(n, bool),
        "paper_large_epsilon_success": np.ones(n, bool),
    }
    # None that the attacks of `masked_tables` do not break, too.
    broken = np.arange(n) >= 0.6 * n
    for norm in norms:
        own = _audit_of_norm(broken, m, s > 1)
        arrays |= {f"{norm}/{name}": values for name, values in own.items()}
        for path in ("paper", "apgd"):
            arrays[f"success/{path}_{norm}"] = broken
            arrays[f"perturbation_linf/{path}_{norm}"] = np.where(broken, 0.1, 0)
            arrays[f"perturbation_l2/{path}_{norm}"] = np.where(broken, 0.2, 0)
    settings = solved(**where) | {"epsilons": dict.fromkeys(norms, 0.1)}
    path = folder / f"audit-{name(solved(**where))}.h5"
    return write(path, "audit", settings, arrays | changes)


def _audit_of_norm(broken: np.ndarray, differenced: int, ode: bool) -> dict[str, np.ndarray]:
    """Images have an adversarial example after two steps, or a loss that is level."""
    n = len(broken)
    slope_error = np.full(n, np.nan)
    slope_error[:differenced] = 0.01
    arrays = {
        "iterations_success": broken,
        "single_step_success": np.zeros(n, bool),
        "paper/cosine": np.full(n, 0.97, np.float32),
        "apgd/slope_error": slope_error,
    }
    for path, steps in (("paper", 8), ("apgd", 12)):
        losses = np.full((n, steps + 1), 0.5, np.float32)
        losses[:, :2] = 0.1, 0.3
        losses[broken, 3:] = np.nan
        arrays |= {
            f"{path}/loss": losses,
            f"{path}/reached": broken,
            f"{path}/no_gradient": np.zeros(n, bool),
        }
    if ode:
        crosses = broken & (np.arange(n) % 4 == 0)
        arrays |= {
            "held/adversarial": broken,
            "held/survives": broken,
            "held/crosses": crosses,
            "held/jump": np.where(crosses, 0.02, np.nan).astype(np.float32),
            "held/change": np.where(broken, 4.0, np.nan).astype(np.float32),
        }
    return arrays


def write_reevaluated(
    folder: Path, settings: dict, tolerances: list, success: list, clean: list, adversarial: list
) -> Path:
    """Predictions of images of class 0, at each tolerance."""
    arrays = {
        "index": np.arange(len(success)),
        "labels": np.zeros(len(success), int),
        "success": np.array(success, bool),
        "tolerances": np.array(tolerances, float),
        "clean_predictions": np.array(clean, int),
        "adversarial_predictions": np.array(adversarial, int),
    }
    return write(folder / f"reevaluated-{name(settings)}.h5", "reevaluated", settings, arrays)


def write_randomised(folder: Path, wrong: dict, **where) -> Path:
    settings = solved(**where) | {"norm": "linf", "epsilon": 0.1}
    del settings["tolerance"]
    arrays = {f"wrong/{attacker}": np.array(w, np.float32) for attacker, w in wrong.items()}
    return write(folder / f"randomised-{name(settings)}.h5", "randomised", settings, arrays)


def write_detection(
    folder: Path, clean: list, plain: list, adaptive: list, fooled: list, **where
) -> Path:
    """Scores of the detectors; the adaptive attack always fools the classifier.

    The confident attack is like the plain one, and confidence detects the opposite.
    """
    settings = solved(**where) | {"norm": "linf", "epsilon": 0.1}
    scores = np.array([plain, plain, adaptive], np.float32).T
    everything = np.ones(len(fooled), bool)
    arrays = {
        "attackers": np.array(["plain", "confident", "adaptive"]),
        "detectors": np.array(["disagreement", "confidence"]),
        "index": np.arange(len(clean)),
        "labels": np.zeros(len(clean), np.int64),
        "correct": everything,
        "clean_scores": np.array([clean, [1 - score for score in clean]], np.float32).T,
        "scores": np.stack([scores, 1 - scores], axis=2),
        "success": np.array([fooled, fooled, everything], bool).T,
        # Larger than the smallest epsilon of these files, so that no attack's outcome changes.
        "perturbation_linf": np.full(scores.shape, 0.2, np.float32),
        "perturbation_l2": np.full(scores.shape, 0.3, np.float32),
    }
    return write(folder / f"detection-{name(settings)}.h5", "detection", settings, arrays)


def write_sweep(
    folder: Path, success: list, backward: tuple = (1e-5, 10), changes=None, **where
) -> Path:
    """A sweep on images that are right without an attack; `success` has the direct one first."""
    settings = solved(**where) | {"attack": "bim_adjoint", "norm": "linf", "epsilon": 0.1}
    shape = np.array(success).shape
    arrays = {
        "backward_tolerances": np.array([np.nan, *backward]),
        "correct": np.ones(shape[0], bool),
        "success": np.array(success, bool),
        "index": np.arange(shape[0]),
        "labels": np.zeros(shape[0], int),
        # As in `write_detection`.
        "perturbation_linf": np.full(shape, 0.2, np.float32),
        "perturbation_l2": np.full(shape, 0.8, np.float32),
        "cosine": np.tile(np.linspace(1, 0.5, shape[1], dtype=np.float32), (shape[0], 1)),
    }
    path = folder / f"adjoint_sweep-{name(settings)}.h5"
    return write(path, "adjoint_sweep", settings, arrays | (changes or {}))


def write_cost(folder: Path, clean: list, attacked: list, changes=None, **where) -> Path:
    """What images of class 0 cost; noise changes nothing, and all predictions are kept."""
    settings = solved(**where) | {"norm": "linf", "epsilon": 0.1}
    n = len(clean)
    arrays = {
        "index": np.arange(n),
        "labels": np.zeros(n, int),
        "nfe_clean": np.array(clean, np.int32),
        "nfe_noise": np.array(clean, np.int32),
        "nfe_attacked": np.array(attacked, np.int32),
        "clean_predictions": np.zeros(n, int),
        "attacked_predictions": np.zeros(n, int),
        "success": np.zeros(n, bool),
        "perturbation_linf": np.full(n, 0.1, np.float32),
        "perturbation_l2": np.full(n, 0.4, np.float32),
    }
    return write(folder / f"cost-{name(settings)}.h5", "cost", settings, arrays | (changes or {}))


def write_data(folder: Path, shape=(1, 4, 4)) -> Path:
    arrays = {
        "test/images": np.zeros((4, *shape), np.uint8),
        "class_names": np.array(["zero", "one", "two"]),
    }
    return write(folder / "data.h5", "data", {"dataset": "toy"}, arrays)


MODELS = ["RES", "OON"]


def collect(folder: Path, seeds=(0,)) -> tuple[dict, list[Path]]:
    """The tables of a tiny experiment, and the attack files that examples may come from."""
    clean, attacks, trajectories, probes, shown = [], [], [], [], []
    for seed in seeds:
        for model, tolerance in [("RES", None), ("OON", 0.01), ("OON", 1.0)]:
            where = {"model": model, "tolerance": tolerance, "seed": seed}
            nfe = None if tolerance is None else [8, 8, 14, 20]
            clean.append(write_clean(folder, solved(**where), [0, 1, 2, 0], nfe))
            probes.append(write_probe(folder, solved(**where)))
            for epsilon in (0.1, 0.3):
                settings = cell(epsilon=epsilon, **where)
                success = [True, epsilon > 0.2, seed == 1, False]
                attacks.append(write_attack(folder, settings, [True, True, True, False], success))
                if tolerance is None:
                    shown.append(attacks[-1])
                trajectories.append(write_trajectory(folder, settings, success))
    files = {"clean": clean, "attacks": attacks, "trajectories": trajectories, "probes": probes}
    return tables_of(**files), shown


def tiny_tables() -> dict:
    """The tables of `collect`."""
    return _copies(_tiny_tables())


@cache
def _tiny_tables() -> dict:
    with TemporaryDirectory() as folder:
        return collect(Path(folder))[0]


def _copies(found: dict) -> dict:
    return {name: table.copy() for name, table in found.items()}


FILES = (
    *("histories", "clean", "attacks", "trajectories", "probes"),
    *("audits", "reevaluated", "randomised", "detections", "sweeps", "costs", "certificates"),
    *("specs", "checked"),
)


def tables_of(**files: list[Path]) -> dict:
    """All tables of an experiment, from these files of its cells."""
    return of_experiment({kind: [] for kind in FILES} | files, "bim_adjoint", {"OON": 0.01}, {})


def named(table: pd.DataFrame, *, ode: Iterable[str] = ()) -> pd.DataFrame:
    """A table as `tables_of` names its tolerances; models with tolerances and these have an ODE."""
    solved = {*table.model[table.tolerance.notna()], *ode}
    networks = pd.DataFrame({"model": [*solved], "ode": True}, columns=["model", "ode"])
    return with_tau(table, networks.astype({"ode": bool}))


def masked_tables(n: int = 150, seeds=(0,)) -> dict:
    """The tables of an experiment in which a larger tolerance masks gradients, all measured."""
    return _copies(_masked_tables(n, seeds))


@cache
def _masked_tables(n: int, seeds: tuple[int, ...]) -> dict:
    with TemporaryDirectory() as folder:
        return tables_of(**_masked_files(Path(folder), n, seeds))


def _masked_files(folder: Path, n: int, seeds: tuple[int, ...]) -> dict[str, list[Path]]:
    files: dict[str, list[Path]] = {
        key: []
        for key in (
            *("clean", "attacks", "audits", "reevaluated", "randomised", "detections", "sweeps"),
            "costs",
        )
    }
    shares = {("RES", None): (0.3, 0.3), ("OON", 0.01): (0.4, 0.35, 0.4)}
    shares["OON", 1.0] = (0.9, 0.35, 0.4)
    for seed in seeds:
        for (model, tolerance), left in shares.items():
            where = {"model": model, "tolerance": tolerance, "seed": seed}
            files["clean"].append(write_evaluation(folder, n, **where))
            files["attacks"] += write_suite(folder, n, *left, **where)
            astray = {"cosine": np.full((100, 3, 3), 0.3, np.float32)} if tolerance == 1.0 else {}
            files["audits"].append(write_audit(folder, changes=astray, **where))
            if tolerance is not None:
                files["reevaluated"].append(
                    write_reevaluated(
                        folder,
                        cell("bim_direct", **where),
                        [0.01, 1.0],
                        [True, False],
                        [[0, 0]] * 2,
                        [[1, 0], [0, 0]],
                    )
                )
                scores = [0.1, 0.2, 0.3], [0.2, 0.5, 0.9], [0.1, 0.2, 0.2]
                fooled = [True] * 3
                files["detections"].append(write_detection(folder, *scores, fooled, **where))
                found = [[True, True, False], [True, False, False], [False, False, True]]
                files["sweeps"].append(write_sweep(folder, found, **where))
                files["costs"].append(write_cost(folder, [14, 20, 14], [14, 32, 20], **where))
        wrong = {"clean": [0, 0], "fixed": [0, 0.5], "fresh": [0.5, 1], "eot": [1, 1]}
        files["randomised"].append(write_randomised(folder, wrong, seed=seed))
    return files


SOLVES = [
    {"name": "net.1", "method": "dopri5", "way": "broadcast"},
    {"name": "net.5", "method": "dopri5", "way": "vmap"},
]
PASSED = {"name": "probabilities", "passed": True, "fatal": True, "value": 0.0, "sentence": ""}


def own_tables(n: int = 150, models=("RES", "theirs", "steps", "plain")) -> dict:
    """The tables of an experiment with own models.

    ``theirs`` has two adaptive solves, ``steps`` takes equal steps and is not followed, of
    ``plain`` no ODE is known. The own settings of ``theirs`` correspond to the tolerance 0.01; a
    larger one masks its gradients.
    """
    return _copies(_own_tables(n, models))


@cache
def _own_tables(n: int, models: tuple[str, ...]) -> dict:
    with TemporaryDirectory() as folder:
        return tables_of(**_own_files(Path(folder), n, models))


def _own_files(folder: Path, n: int, models: tuple[str, ...]) -> dict[str, list[Path]]:
    files: dict[str, list[Path]] = {
        key: [] for key in ("clean", "attacks", "trajectories", "audits", "specs", "checked")
    }
    theirs = {"own_rtol": 0.01, "own_atol": 0.001}
    shares = {
        ("RES", None): (0.3, 0.3),
        ("theirs", 0.001): (0.4, 0.35, 0.4),
        ("theirs", 0.1): (0.9, 0.35, 0.4),
        ("theirs", None): (0.4, 0.35, 0.4),
        ("steps", None): (0.5, 0.4, 0.5),
        ("plain", None): (0.6, 0.6),
    }
    for (model, tolerance), left in shares.items():
        if model not in models:
            continue
        where = {"model": model, "tolerance": tolerance}
        ode = model in ("theirs", "steps")
        about = theirs if ode and tolerance is None else {}
        solves = 2 if model == "theirs" else 1
        files["clean"].append(
            write_evaluation(folder, n, ode=ode, solves=solves, attributes=about, **where)
        )
        files["attacks"] += write_suite(folder, n, *left, ode=ode, **where)
        if model == "steps":
            empty = {"trajectory": cell(**where), "audit": solved(**where)}
            for kind, settings in empty.items():
                path = folder / f"{kind}-{name(settings)}.h5"
                write(path, kind, settings, {}, not_measured="Its solve cannot be followed.")
                files["trajectories" if kind == "trajectory" else "audits"].append(path)
        else:
            files["audits"].append(write_audit(folder, **where))
            files["trajectories"].append(
                write_trajectory(folder, cell(**where), [True] * 20, ode=ode)
            )
    for model, solves, ode in (("theirs", SOLVES, "adaptive"), ("plain", [], "none")):
        if model in models:
            _write_own(folder / f"results/tiny/toy/{model}/seed-0", files, model, solves, ode)
    if "steps" in models:
        fixed = [{"name": "net.1", "method": "euler", "way": "one_by_one"}]
        _write_own(folder / "results/tiny/toy/steps/seed-0", files, "steps", fixed, "fixed")
    return files


def _write_own(place: Path, files: dict, model: str, solves: list, ode: str) -> None:
    """The spec of an own model, and the outcome of its checks, one of which fails."""
    place.mkdir(parents=True)
    spec = {"module": f"models/{model}.py", "ode": ode, "solves": solves, "one_by_one": None}
    spec |= {"level": 1 if solves else 0, "limits": []}
    if ode == "fixed":
        spec["one_by_one"] = "it has events"
        spec["limits"] = ["torchdiffeq solves image by image, because it has events."]
    failed = {**PASSED, "name": "gradients", "passed": False, "sentence": "A <b>gradient</b> is 0"}
    limited = [{**failed, "name": "solves", "sentence": sentence} for sentence in spec["limits"]]
    checked = [PASSED, failed, *limited]
    for name_, content in (("model.json", spec), ("checked.json", checked)):
        (place / name_).write_text(json.dumps(content))
    files["specs"].append(place / "model.json")
    files["checked"].append(place / "checked.json")


def pages_in(folder: Path) -> Pages:
    """The pages of all trajectories in a folder that has their attacks, too."""
    paths = sorted(folder.glob("trajectory-*.h5"))
    attacks = [path.with_name(path.name.replace("trajectory", "attack", 1)) for path in paths]
    data = [write_data(folder)] * len(paths)
    return image_pages(zip(paths, attacks, data, strict=True))


def draw(collected: dict, examples, pages: Pages | None = None, models=MODELS) -> dict:
    known = image_pages([]) if pages is None else pages
    charts = experiment.of_experiment(collected, lambda: examples, lambda: known, models)
    with shared_parts():
        return {name: make() for name, make in charts.items()}


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
    "config": {
        "datasets": {"toy": {"source": "digits"}},
        "models": {"OON": {"published": {"claim": "robust</td><i>", "source": "a paper"}}},
        "note": "</pre><b>",
    },
    "command_line": "snakemake --cores 2",
    "hosts": ["node01", "node02"],
    "stages": [
        {
            "rule": "train",
            "jobs": 2,
            "started_utc": "2020-01-02T03:04:00+00:00",
            "seconds": 3725.4,
            "start_seconds": 3.0,
            "computing_seconds": 3600.0,
            "cpu_seconds": 3700.0,
            "max_rss_mb": 700.0,
        }
    ],
}


def spent(seconds: float, **others: Any) -> Spent:
    """What a job cost that took this long, half of it model computation."""
    values = {"started_utc": "2020-01-02T03:04:05+00:00", "host": "node01", "seconds": seconds}
    values |= {"start_seconds": 0.25, "computing_seconds": seconds / 2}
    return Spent(**(values | {"cpu_seconds": seconds, "max_rss_mb": 100.0} | others))


def write_logs(folder: Path, **logs: Spent) -> list[JobCost]:
    """Write the logs of jobs, by rule and place, into the folder of an experiment; read them."""
    for name, cost in logs.items():
        path = folder / f"logs/{name}.log"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"words\n{cost}\n")
    return read_costs(folder)


def costs_of_some(folder: Path) -> list[JobCost]:
    """The costs of a few jobs of the experiment of `collect`."""
    seconds = {
        "prepare/toy": 1,
        "train/toy/OON/seed-0": 60,
        "evaluate/toy/OON/seed-0/tau-0.01": 4,
        "attack/toy/OON/seed-0/tau-0.01/bim/linf/eps-0.1": 8,
        "attack/toy/RES/seed-0/tau-none/bim/linf/eps-0.3": 2,
    }
    return write_logs(folder, **{name: spent(value) for name, value in seconds.items()})


def shared_tables() -> dict:
    """The tables of where the margin is lost, of enough images for each claim to be made."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        paths = [
            write_trajectory(
                folder,
                cell(epsilon=0.3, model=model, tolerance=tolerance),
                [True] * 60,
                **{k.replace("/", "__"): v for k, v in shares_of([True] * 60, fractions).items()},
            )
            for model, tolerance, fractions in (
                ("RES", None, EVEN),
                ("OON", 0.01, (0.1, 0.05, 0.05, 0.75, 0.05)),
                ("OON", 1.0, (0.8, 0.05, 0.05, 0.05, 0.05)),
            )
        ]
        collected = tables_of(trajectories=paths)
    return {name: collected[name] for name in ("shares", "patches", "dynamics")}


CERTIFIED = {
    **{"experiment": "tiny", "dataset": "toy", "model": "RES", "seed": 0, "tolerance": np.nan},
    **{"tau": "no ODE", "norm": "linf", "epsilon": 0.1, "n": 150},
    **{"certified": 0.2, "certified_low": 0.14, "certified_high": 0.27},
    **{"strongest": 0.3, "strongest_low": 0.23, "strongest_high": 0.38},
    **{"contradictions": 0, "level": "this network"},
}


@cache
def measured_report() -> tuple[dict, dict]:
    """The tables and the figures of a report in which everything was measured."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        collected, shown = collect(folder)
        masked = masked_tables()
        collected |= {key: masked[key] for key in masked if key not in _OF_CELLS}
        collected |= shared_tables()
        collected["certificates"] = pd.DataFrame([CERTIFIED])
        data = write_data(folder)
        collected["costs"] = job_costs(costs_of_some(folder), collected)
        examples = example_table([(path, data) for path in shown])
        charts = draw(collected, examples, pages_in(folder))
    charts["costs"] = costs.figure(collected["costs"], MODELS)
    return collected, {key: json.loads(json.dumps(spec_of(chart))) for key, chart in charts.items()}


@cache
def measured_stills() -> dict[str, str]:
    """The stills of `measured_report`."""
    return {name: still(chart) for name, chart in measured_report()[1].items()}


def write_report(folder: Path, experiment: str, paper: str | None = None) -> Path:
    """A report of the cells of two tiny experiments."""
    path = folder / "report.html"
    render_report(experiment, *measured_report(), MANIFEST, paper, path, measured_stills())
    return path


_OF_CELLS = (
    *("clean", "nfe", "attacks", "trajectories", "trajectory_images", "trajectory_summary"),
    *("trajectory_roc", "probes", "shares", "patches", "dynamics"),
)
