"""What of a run travels with its page of results.

Like `config`, this module must import quickly.
"""

TABLES = (
    "training",
    "clean",
    "attacks",
    "protocols",
    "verdicts",
    "gains",
    "comparisons",
    "ladder",
    "audit",
    "checks",
    "matrix",
    "randomisation",
    "detection",
    "trajectories",
    "trajectory_summary",
    "responsible",
    "probes",
)
"""The tables that the page rests on, or that belong to it."""

MEDIANS_ALONE = ("trajectories",)
"""Of these the other quantiles and the means stay behind: megabytes that only figures show."""

FIGURES = {
    "verdicts": ("verdicts", "The verdict in every setting: model, tolerance, norm and epsilon."),
    "protocols": (
        "verdicts",
        "Robust accuracy under the paper's protocol and the strongest attack.",
    ),
    "ladder": ("ladder", "Robust accuracy that each attack alone leaves."),
    "checks": ("checks", "Outcome of every sanity check."),
    "curves": ("verdicts", "Robust accuracy against the size of the perturbation."),
    "audit": ("audit", "Agreement of the gradients by which models are attacked."),
    "matrix": ("matrix", "Adversarials made at one tolerance, judged at the others."),
    "randomisation": (
        "randomisation",
        "Accuracy under attack of a network whose tolerance is drawn at random.",
    ),
    "detection": ("detection", "Detection of adversarials by the disagreement of tolerances."),
    "trajectories": ("trajectories", "Distance of perturbed from clean states along t."),
    "growth": ("trajectories", "Rate at which perturbations grow along t."),
    "responsible": ("responsible", "Intervals of t whose repair restores the decision."),
    "nfe": ("clean", "Evaluations of the ODE function for clean images."),
}
"""The figures of the page: the table without which there is none, and what it shows."""
