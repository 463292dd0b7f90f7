"""Collect the cells of an experiment into tables."""

from pathlib import Path

from node_robustness import (
    audit_tables,
    comparisons,
    protocols,
    tables,
    trajectory_summary,
    trajectory_tables,
    verdicts,
)
from node_robustness.checks import check_table
from node_robustness.jobs import job
from node_robustness.storage import SOFTWARE

with job(snakemake.log[0]):
    made_by = {"software": SOFTWARE, "experiment": snakemake.wildcards.experiment}
    cells, paper = snakemake.input, snakemake.params.paper
    trained = snakemake.params.training_tolerances
    attacked = protocols.read_attacked(cells.attacks)
    items = comparisons.replicated(attacked)
    checks = check_table(cells.clean, attacked, cells.audits, cells.judged)
    followed = trajectory_tables.image_table(cells.trajectories)
    judged = verdicts.verdict_table(items, checks, paper)
    collected = {
        "training": tables.training_table(cells.histories),
        "clean": tables.clean_table(cells.clean),
        "nfe": tables.nfe_table(cells.clean),
        "attacks": tables.attack_table(cells.attacks),
        "trajectories": trajectory_tables.trajectory_table(cells.trajectories),
        "trajectory_images": followed,
        "trajectory_summary": trajectory_summary.summary_table(followed),
        "trajectory_roc": trajectory_summary.roc_table(followed),
        "probes": trajectory_tables.probe_table(cells.probes),
        "responsible": trajectory_tables.responsible_table(cells.trajectories),
        "examples": protocols.example_sizes(attacked, paper),
        "budgets": protocols.budget_table(attacked),
        "ladder": protocols.ladder_table(attacked),
        "protocols": protocols.protocol_table(attacked, paper),
        "curves": protocols.curve_table(attacked, paper),
        "audit": audit_tables.audit_table(cells.audits),
        "matrix": audit_tables.matrix_table(cells.judged),
        "randomisation": audit_tables.randomisation_table(cells.randomised),
        "detection": audit_tables.detection_table(cells.detections),
        "roc": audit_tables.roc_table(cells.detections),
        "checks": checks,
        "comparisons": comparisons.comparison_table(items, paper, trained),
        "verdicts": judged,
        "gains": verdicts.gain_table(items, judged, paper, trained),
    }
    folder = Path(snakemake.output[0]).parent
    for name, table in collected.items():
        tables.write_table(table, folder / f"{name}.csv", folder / f"{name}.parquet", made_by)
