"""Collect the cells of an experiment into tables."""

from pathlib import Path

from node_robustness.files.atomic import SOFTWARE
from node_robustness.jobs.log import job
from node_robustness.tables import audit, evaluation, frame, trajectories, trajectory_summary
from node_robustness.verdict import comparisons, gains, protocols, verdicts
from node_robustness.verdict.checks import check_table

with job(snakemake.log[0]):
    made_by = {"software": SOFTWARE, "experiment": snakemake.wildcards.experiment}
    cells, paper = snakemake.input, snakemake.params.paper
    trained = snakemake.params.training_tolerances
    attacked = protocols.read_attacked(cells.attacks)
    items = comparisons.replicated(attacked)
    checks = check_table(cells.clean, attacked, cells.audits, cells.judged)
    followed = trajectories.image_table(cells.trajectories)
    judged = verdicts.verdict_table(items, checks, paper)
    collected = {
        "training": evaluation.training_table(cells.histories),
        "clean": evaluation.clean_table(cells.clean),
        "nfe": evaluation.nfe_table(cells.clean),
        "attacks": evaluation.attack_table(cells.attacks),
        "trajectories": trajectories.trajectory_table(cells.trajectories),
        "trajectory_images": followed,
        "trajectory_summary": trajectory_summary.summary_table(followed),
        "trajectory_roc": trajectory_summary.roc_table(followed),
        "probes": trajectories.probe_table(cells.probes),
        "responsible": trajectories.responsible_table(cells.trajectories),
        "examples": protocols.example_sizes(attacked, paper),
        "budgets": protocols.budget_table(attacked),
        "ladder": protocols.ladder_table(attacked),
        "protocols": protocols.protocol_table(attacked, paper),
        "curves": protocols.curve_table(attacked, paper),
        "audit": audit.audit_table(cells.audits),
        "matrix": audit.matrix_table(cells.judged),
        "randomisation": audit.randomisation_table(cells.randomised),
        "detection": audit.detection_table(cells.detections),
        "roc": audit.roc_table(cells.detections),
        "checks": checks,
        "comparisons": comparisons.comparison_table(items, paper, trained),
        "verdicts": judged,
        "gains": gains.gain_table(items, judged, paper, trained),
    }
    folder = Path(snakemake.output[0]).parent
    for name, table in collected.items():
        frame.write_table(table, folder / f"{name}.csv", folder / f"{name}.parquet", made_by)
