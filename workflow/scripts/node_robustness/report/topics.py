"""The topics of the report: the evidence, in the order in which a reader may doubt the answers."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Topic:
    """What the report folds into one part.

    Attributes:
        title: as the contents list has it.
        about: what the part answers, in a line.
        notes: what a reader must know to read the part.
    """

    title: str
    about: str
    notes: tuple[str, ...] = ()


_NOT_CORRECTED = (
    "Intervals are not corrected for the number of settings, claims are (Holm): where an interval "
    "leaves out zero, the claim may still be undecided."
)

TOPICS = {
    "leaderboard": Topic(
        "Leaderboard",
        "All models under one protocol, and what was published of them.",
        (
            "What was published was often measured on other images, and of weights that are not "
            "at hand: a model without imported weights was trained here. A certified share is a "
            "lower bound of robust accuracy: that an attack leaves less means that something else "
            "was evaluated than what is certified.",
        ),
    ),
    "verdicts": Topic(
        "Verdicts in detail",
        "What is real in each setting, and what is masked.",
        (
            "A setting is one tolerance, norm and ε of a model. The paper’s protocol is its attack "
            "with gradients solved at the tolerance that is attacked. The strongest attack is, for "
            "each image, the best of all attacks at all ε.",
            "Intervals contain the exact 95 % interval over images of every network. Verdicts and "
            "claims are corrected for their number (Holm); everything else describes and is not.",
        ),
    ),
    "models": Topic("Models", "Are models with an ODE more robust?", (_NOT_CORRECTED,)),
    "tolerances": Topic("Tolerances", "Does a larger tolerance protect?", (_NOT_CORRECTED,)),
    "dynamics": Topic(
        "Dynamics",
        "Where along the ODE is a decision lost?",
        (
            "t is the time of the ODE from 0 to 1; for a residual body it is the share of the "
            "blocks that have run. A setting is one tolerance, attack, norm, ε and seed of a "
            "model.",
            "Intervals of medians are distribution-free and need six images. “Clearly” means that "
            "the 95 % interval of the ratio does not contain one. The claim on shares and patches "
            "is corrected for the number of settings (Holm); everything else describes and is not.",
        ),
    ),
    "attacks": Topic(
        "Attacks",
        "What does each attack find?",
        (
            "“Clearly” means a difference of at least five points that every network shows: its "
            "95 % interval, from exact limits of both rates, does not contain zero on any. A "
            "setting is one dataset, attack, norm and ε.",
            "Networks of two models are not paired: each of one is compared with each of the "
            "other. What is said holds for the networks that were trained. These comparisons are "
            "descriptive: no correction is made for their number.",
        ),
    ),
    "gradients": Topic("Gradients", "Can the gradients that attacks follow be trusted?"),
    "defences": Topic("Defences", "Does a change of tolerance defend or reveal an attack?"),
    "clean": Topic("Clean images", "Accuracy and cost without an attack."),
    "ran": Topic("What ran", "Software, time and configuration."),
    "references": Topic("References", "The paper, and what was known before."),
}
"""By key, which is the topic's address in the page."""
