"""All tables of an experiment, from the files of its cells."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pandas as pd

from node_robustness.tables import (
    adjoint_sweep,
    audit,
    cost,
    evaluation,
    networks,
    shares,
    trajectories,
    trajectory_summary,
)
from node_robustness.verdict import (
    attack_tables,
    certificates,
    dynamics,
    followed,
    known,
    models,
    pairs,
    populations,
    protocols,
    tolerances,
    verdicts,
)
from node_robustness.verdict.checks import check_table

Part = Callable[[], dict[str, pd.DataFrame]]
"""Makes some tables, by name."""


def of_experiment(
    files: Mapping[str, Sequence[Path | str]],
    paper: str | None,
    training_tolerances: Mapping[str, float | None],
    primary: Mapping[str, float],
) -> dict[str, pd.DataFrame]:
    """Return the tables of an experiment by name; `catalogue.TABLES` says what each holds.

    Args:
        files: By name: ``histories`` of training; files of the kinds "clean", "attack"
            (``attacks``), "trajectory" (``trajectories``), "probe" (``probes``), "audit"
            (``audits``), "reevaluated", "randomised", "detection" (``detections``),
            "adjoint_sweep" (``sweeps``), "cost" (``costs``) and "certified" (``certificates``); the
            ``specs`` of models, and the outcomes of the checks of own models (``checked``).
        paper: Name of the paper's attack, None without one.
        training_tolerances: Tolerance in training, by model; None for the own settings.
        primary: Epsilon at which claims are made first, by norm.

    Raises:
        UserError: A file is missing, damaged or of another kind, or cells that belong together
            attack different images.
    """
    made = [part() for part in parts(files, paper, training_tolerances, primary)]
    return {name: table for tables in made for name, table in tables.items()}


def parts(
    files: Mapping[str, Sequence[Path | str]],
    paper: str | None,
    training_tolerances: Mapping[str, float | None],
    primary: Mapping[str, float],
) -> list[Part]:
    """Return what makes the tables, in parts that share nothing but the files; see `of_experiment`.

    Each can be made in another process. The one that takes longest is the first.
    """
    known_networks = networks.network_table(
        files["clean"],
        files["specs"],
        files["checked"],
        {kind: files[name] for kind, name in _STAGES.items()},
    )
    references = pairs.References(training_tolerances, networks.own_tolerances(known_networks))

    def with_tau(make: Part) -> Part:
        return lambda: {
            name: networks.with_tau(table, known_networks) for name, table in make().items()
        }

    makers = (
        lambda: _of_attacked(files, paper, references, primary),
        lambda: {"trajectories": trajectories.trajectory_table(files["trajectories"])},
        lambda: _of_followed_images(files["trajectories"]),
        lambda: {"attacks": evaluation.attack_table(files["attacks"])},
        lambda: _of_dynamics(files["trajectories"], primary),
        lambda: _of_detections(files["detections"]),
        lambda: _of_audits(files["audits"]),
        lambda: {
            "networks": known_networks,
            "training": evaluation.training_table(files["histories"]),
            "clean": evaluation.clean_table(files["clean"]),
            "nfe": evaluation.nfe_table(files["clean"]),
            "probes": trajectories.probe_table(files["probes"]),
            "matrix": audit.matrix_table(files["reevaluated"]),
            "randomisation": audit.randomisation_table(files["randomised"]),
            "adjoint_sweep": adjoint_sweep.sweep_table(files["sweeps"]),
            "cost": cost.cost_table(files["costs"]),
        },
    )
    return [with_tau(make) for make in makers]


def _of_attacked(
    files: Mapping[str, Sequence[Path | str]],
    paper: str | None,
    references: pairs.References,
    primary: Mapping[str, float],
) -> dict[str, pd.DataFrame]:
    """The tables that need every attack on an image: the checks, the verdicts and the claims."""
    others = [
        example
        for kind, paths, group in (
            ("audit", files["audits"], ""),
            ("detection", files["detections"], ""),
            ("adjoint_sweep", files["sweeps"], ""),
            ("cost", files["costs"], ""),
            ("trajectory", files["trajectories"], "strong"),
        )
        for example in known.recorded(paths, kind, group)
    ]
    attacked = protocols.read_attacked(files["attacks"], files["reevaluated"], others)
    checks = check_table(files["clean"], attacked, files["audits"], files["reevaluated"])
    kept = protocols.protocol_table(attacked, paper)
    verdict = verdicts.verdict_table(kept, checks)
    compared = pairs.pair_table(attacked, paper, references)
    return {
        "examples": attack_tables.example_sizes(attacked, paper),
        "budgets": attack_tables.budget_table(attacked),
        "attack_suite": attack_tables.suite_table(attacked),
        "protocols": kept,
        "curves": attack_tables.curve_table(attacked, paper),
        "checks": checks,
        "verdicts": verdict,
        "pairs": compared,
        "models": models.model_table(compared, primary),
        "tolerances": tolerances.tolerance_table(compared, verdict, primary),
        "populations": populations.population_table(attacked, paper, references),
        "certificates": certificates.certificate_table(files["certificates"], attacked),
    }


def _of_followed_images(paths: Sequence[Path | str]) -> dict[str, pd.DataFrame]:
    images = trajectories.image_table(paths)
    return {
        "trajectory_images": images,
        "trajectory_summary": trajectory_summary.summary_table(images),
        "trajectory_roc": trajectory_summary.roc_table(images),
    }


def _of_dynamics(
    paths: Sequence[Path | str], primary: Mapping[str, float]
) -> dict[str, pd.DataFrame]:
    return {
        "shares": shares.share_table(paths),
        "patches": shares.patch_table(paths),
        "dynamics": dynamics.dynamics_table(followed.read_followed(paths), primary),
    }


def _of_detections(paths: Sequence[Path | str]) -> dict[str, pd.DataFrame]:
    return {"detection": audit.detection_table(paths), "roc": audit.roc_table(paths)}


def _of_audits(paths: Sequence[Path | str]) -> dict[str, pd.DataFrame]:
    return {
        "audit": audit.audit_table(paths),
        "loss_curves": audit.loss_table(paths),
        "held_steps": audit.held_table(paths),
    }


_STAGES = {
    "trajectory": "trajectories",
    "probe": "probes",
    "audit": "audits",
    "randomised": "randomised",
    "detection": "detections",
    "adjoint_sweep": "sweeps",
    "cost": "costs",
}
"""The kinds of files that may hold no results of a network, and their names among all files."""
