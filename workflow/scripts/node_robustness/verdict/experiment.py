"""All tables of an experiment, from the files of its cells."""

from collections.abc import Mapping, Sequence
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


def of_experiment(
    files: Mapping[str, Sequence[Path | str]],
    paper: str | None,
    training_tolerances: Mapping[str, float | None],
) -> dict[str, pd.DataFrame]:
    """Return the tables of an experiment by name; `catalogue.TABLES` says what each holds.

    Args:
        files: By name: ``histories`` of training; files of the kinds "clean", "attack"
            (``attacks``), "trajectory" (``trajectories``), "probe" (``probes``), "audit"
            (``audits``), "reevaluated", "randomised", "detection" (``detections``),
            "adjoint_sweep" (``sweeps``) and "cost" (``costs``); the ``specs`` of models, and the
            outcomes of the checks of own models (``checked``).
        paper: Name of the paper's attack, None without one.
        training_tolerances: Tolerance in training, by model; None for the own settings.

    Raises:
        UserError: A file is missing, damaged or of another kind, or cells that belong together
            attack different images.
    """
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
    images = trajectories.image_table(files["trajectories"])
    kept = protocols.protocol_table(attacked, paper)
    verdict = verdicts.verdict_table(kept, checks)
    known_networks = networks.network_table(
        files["clean"],
        files["specs"],
        files["checked"],
        {kind: files[name] for kind, name in _STAGES.items()},
    )
    references = pairs.References(training_tolerances, networks.own_tolerances(known_networks))
    compared = pairs.pair_table(attacked, paper, references)
    tables = {
        "networks": known_networks,
        "training": evaluation.training_table(files["histories"]),
        "clean": evaluation.clean_table(files["clean"]),
        "nfe": evaluation.nfe_table(files["clean"]),
        "attacks": evaluation.attack_table(files["attacks"]),
        "trajectories": trajectories.trajectory_table(files["trajectories"]),
        "trajectory_images": images,
        "trajectory_summary": trajectory_summary.summary_table(images),
        "trajectory_roc": trajectory_summary.roc_table(images),
        "probes": trajectories.probe_table(files["probes"]),
        "shares": shares.share_table(files["trajectories"]),
        "patches": shares.patch_table(files["trajectories"]),
        "examples": attack_tables.example_sizes(attacked, paper),
        "budgets": attack_tables.budget_table(attacked),
        "attack_suite": attack_tables.suite_table(attacked),
        "protocols": kept,
        "curves": attack_tables.curve_table(attacked, paper),
        "audit": audit.audit_table(files["audits"]),
        "loss_curves": audit.loss_table(files["audits"]),
        "held_steps": audit.held_table(files["audits"]),
        "matrix": audit.matrix_table(files["reevaluated"]),
        "randomisation": audit.randomisation_table(files["randomised"]),
        "detection": audit.detection_table(files["detections"]),
        "roc": audit.roc_table(files["detections"]),
        "adjoint_sweep": adjoint_sweep.sweep_table(files["sweeps"]),
        "cost": cost.cost_table(files["costs"]),
        "checks": checks,
        "verdicts": verdict,
        "pairs": compared,
        "models": models.model_table(compared),
        "tolerances": tolerances.tolerance_table(compared, verdict),
        "dynamics": dynamics.dynamics_table(followed.read_followed(files["trajectories"])),
        "populations": populations.population_table(attacked, paper, references),
    }
    return {name: networks.with_tau(table, known_networks) for name, table in tables.items()}


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
