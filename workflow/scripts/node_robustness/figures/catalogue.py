"""All figures of a run: what each shows, what it is drawn from, and where it is shown.

A figure is an entry here and a module of this folder with the entry's name, whose function `figure`
draws it; `experiment` imports the module. The rules, the report and the page of results follow from
the entries. The workflow reads this module while it is parsed, so it imports nothing heavy.
"""

from collections.abc import Mapping, Sized
from dataclasses import dataclass, field

from node_robustness.tables.catalogue import Level

EXAMPLE_PICTURES, IMAGE_PAGES = "example pictures", "image pages"
"""What figures are drawn from besides tables: the results of `examples.example_table` and
`image_pages.image_pages`."""


@dataclass(frozen=True)
class FigureEntry:
    """One figure.

    Attributes:
        title: its heading in the report.
        shows: what it shows, in one sentence that stands for the figure where it cannot be seen.
        level: what it speaks of.
        needs: what its function is called with, in order: names of tables, or the sources above.
        explanation: what the report says below the figure after that sentence.
        filled_by: the tables that must have rows for the figure to be shown, as far as they are at
            hand; empty for all that it needs.
        unmeasured: what the report says was not measured where the figure is not shown.
        section: the topic of the report that has it (`topics.TOPICS`).
        on_page: whether the page of results has it, too.
        rule: the rule that draws it.
    """

    title: str
    shows: str
    needs: tuple[str, ...]
    level: Level = field(kw_only=True)
    explanation: str = ""
    filled_by: tuple[str, ...] = ()
    unmeasured: str = ""
    section: str = field(kw_only=True)
    on_page: bool = False
    rule: str = "figures"

    @property
    def caption(self) -> str:
        """What the report says below the figure."""
        return f"{self.shows} {self.explanation}".strip() + f" {self.level.sentence}"


FIGURES = {
    "claim_models": FigureEntry(
        "Claim 1 at a glance",
        "Robust accuracy of each model under the paper's attack and under the strongest, in the "
        "setting where the two differ most.",
        ("verdicts", "models"),
        filled_by=("models",),
        section="summary",
        on_page=True,
        level=Level.NETWORKS,
    ),
    "claim_tolerances": FigureEntry(
        "Claim 2 at a glance",
        "Robust accuracy against the tolerance under three attacks, of the model on which they "
        "differ most.",
        ("verdicts", "tolerances"),
        filled_by=("tolerances",),
        section="summary",
        on_page=True,
        level=Level.NETWORKS,
    ),
    "claim_dynamics": FigureEntry(
        "Claim 3 at a glance",
        "Shares of the loss of margin that arise before the ODE and in each part of t, for "
        "adversarial examples, noise of the same norm and the difference of another image.",
        ("shares", "dynamics"),
        filled_by=("shares", "dynamics"),
        section="summary",
        on_page=True,
        level=Level.NETWORKS,
    ),
    "certificates": FigureEntry(
        "Between proof and attack",
        "What each model proves of its robustness, and what attacks leave of it.",
        ("verdicts", "certificates"),
        "A certificate is a lower bound of robust accuracy, and what an attack leaves an upper "
        "bound. Models are at their author's settings.",
        filled_by=("certificates",),
        section="leaderboard",
        on_page=True,
        level=Level.NETWORKS,
    ),
    "verdicts": FigureEntry(
        "The verdict",
        "The verdict in every setting: model, tolerance, norm and epsilon.",
        ("verdicts",),
        "Broken: hardly anything is left under the strongest attack. Masked: the paper's own steps "
        "along another gradient break what its procedure leaves. Under-searched: they do not, and "
        "stronger attacks do. Survives: the gap is small, the attacks are strong enough and have "
        "saturated, and all checks passed. Undecided: none of these is shown. Point at a field to "
        "read the reason.",
        section="verdicts",
        on_page=True,
        level=Level.NETWORKS,
    ),
    "models": FigureEntry(
        "Does the ranking survive the strongest attack?",
        "Robust accuracy of every network under the paper's procedure and under the strongest "
        "attack, at one epsilon a norm.",
        ("protocols", "models"),
        "Lines that cross mean that the paper's procedure reverses the ranking. In words: whether "
        "a model with an ODE is more or less robust than one without, under both. The strongest "
        "attack is, for each image, the best of all.",
        filled_by=("models",),
        section="models",
        on_page=True,
        level=Level.NETWORKS,
    ),
    "tolerances": FigureEntry(
        "Does a larger tolerance protect?",
        "Robust accuracy against the tolerance of the solver, under three protocols.",
        ("protocols", "verdicts", "tolerances"),
        "What the paper's attack leaves and the same steps along a corrected gradient break is "
        "masked gradient. What these leave and the strongest attack breaks is weak search. In "
        "words, above each tolerance: what is left of the claim that it protects.",
        filled_by=("tolerances",),
        section="tolerances",
        on_page=True,
        level=Level.NETWORKS,
    ),
    "attack_suite": FigureEntry(
        "What each attack leaves",
        "Robust accuracy under each attack alone.",
        ("attack_suite",),
        "An image that an expensive attack skips because a cheaper attack breaks it counts as "
        "broken. Random noise is a control: it does not search.",
        section="attacks",
        on_page=True,
        level=Level.NETWORKS,
    ),
    "curves": FigureEntry(
        "Robust accuracy at every epsilon",
        "Robust accuracy against the size of the perturbation.",
        ("curves",),
        "It is the share of the images without a known adversarial example of size ε or smaller.",
        filled_by=("curves", "verdicts"),
        section="attacks",
        on_page=True,
        level=Level.NETWORK,
    ),
    "audit": FigureEntry(
        "Agreement of gradients",
        "Agreement of the gradients that attacks follow, at each tolerance of the solver.",
        ("audit",),
        "Gradients are compared with each other and with finite differences of the network.",
        unmeasured="the gradients (audit)",
        section="gradients",
        on_page=True,
        level=Level.NETWORKS,
    ),
    "loss_curves": FigureEntry(
        "Loss along the attacks",
        "Loss along the paths of the paper's attack and of Auto-PGD.",
        ("loss_curves",),
        "A loss that does not rise has no gradient to follow, or a wrong one. A loss that still "
        "rises at the end has too few steps.",
        section="gradients",
        on_page=True,
        level=Level.NETWORK,
    ),
    "matrix": FigureEntry(
        "Attacked at one tolerance, evaluated at another",
        "Adversarial examples made at one tolerance and evaluated at the others.",
        ("matrix",),
        "Rows: the tolerance of the attack. Columns: the tolerance of the evaluation. Where robust "
        "accuracy stays low off the diagonal, a change of tolerance is no defence.",
        unmeasured="adversarial examples at other tolerances (matrix)",
        section="gradients",
        on_page=True,
        level=Level.NETWORKS,
    ),
    "randomisation": FigureEntry(
        "A tolerance drawn at random",
        "Accuracy under attack of a network whose tolerance is drawn at random for every solve.",
        ("randomisation",),
        "The attacks know more about the defence from left to right.",
        unmeasured="tolerances drawn at random (randomisation)",
        section="defences",
        on_page=True,
        level=Level.NETWORKS,
    ),
    "detection": FigureEntry(
        "Detection",
        "Detection of adversarial examples by the disagreement of tolerances and by confidence.",
        ("roc",),
        "One detector compares predictions at all tolerances; the other, the baseline, looks at "
        "how sure the classifier is. They are tested on an attack that stops at its first success, "
        "on one that goes on, and on one that knows the disagreement.",
        filled_by=("roc", "detection"),
        unmeasured="detection of adversarial examples (detection)",
        section="defences",
        on_page=True,
        level=Level.NETWORK,
    ),
    "adjoint_sweep": FigureEntry(
        "The adjoint at other tolerances",
        "Robust accuracy under the paper's attack by the tolerance of its backward solve.",
        ("adjoint_sweep",),
        "The network is solved at the forward tolerance throughout. A line that rises shows "
        "gradients masked by an inaccurate backward solve. What is left between its left end and "
        "the dashed line is masked by the adjoint itself: the equation has another gradient than "
        "the steps that the solver took.",
        unmeasured="the adjoint at other tolerances (adjoint_sweep)",
        section="gradients",
        on_page=True,
        level=Level.NETWORK,
    ),
    "cost": FigureEntry(
        "An attack on the cost",
        "Evaluations of the ODE function under an attack on their number, at each tolerance.",
        ("cost",),
        "The attack looks within ε for images that take more evaluations, whatever their class. "
        "Random noise of the same size is the control.",
        unmeasured="an attack on the number of function evaluations (cost)",
        section="defences",
        on_page=True,
        level=Level.NETWORK,
    ),
    "checks": FigureEntry(
        "Sanity checks",
        "Outcome of every sanity check.",
        ("checks",),
        "The checks look for what can be mistaken for robustness. A check passes or fails by the "
        "bound of its interval; undecided: too few images. Point at a field to read its value, its "
        "threshold and what a failure means.",
        section="verdicts",
        on_page=True,
        level=Level.NETWORK,
    ),
    "clean": FigureEntry(
        "Accuracy and cost on clean images",
        "Test error (left) and evaluations of the ODE function per image (right) at each tolerance "
        "of the solver.",
        ("clean",),
        "A model without an ODE has no tolerance: it is a horizontal line.",
        section="clean",
        level=Level.NETWORKS,
    ),
    "nfe": FigureEntry(
        "Cost by image",
        "Evaluations of the ODE function for single clean images, at each tolerance.",
        ("nfe",),
        filled_by=("nfe", "clean"),
        section="clean",
        on_page=True,
        level=Level.RUN,
    ),
    "success": FigureEntry(
        "Attack success",
        "Success rate of the attacks, made and evaluated at the same tolerance.",
        ("attacks", "attack_suite"),
        "The rate is a share of the images that the model classifies correctly at that tolerance; "
        "for an expensive attack, of those that no attack before it breaks. A "
        "model without an ODE is a horizontal line.",
        section="attacks",
        level=Level.NETWORKS,
    ),
    "shares": FigureEntry(
        "Where the margin is lost",
        "Fraction of the loss of margin that h(0) and each part of the body have.",
        ("shares",),
        "The margin that a full-strength adversarial example takes is divided by Aumann and "
        "Shapley's shares, which add up to it. Random noise of the same norm and the difference "
        "of another image are the controls.",
        unmeasured="shares of the loss of margin (trajectories)",
        section="dynamics",
        on_page=True,
        level=Level.NETWORKS,
    ),
    "patches": FigureEntry(
        "Repair and insertion",
        "Decisions that change when an interval of t is patched, by its start and length.",
        ("patches",),
        "A repair undoes what one interval adds to the perturbation; an insertion adds it to the "
        "clean image. A window is special only if it does more than others of its length, on "
        "images that did not choose it.",
        section="dynamics",
        on_page=True,
        level=Level.NETWORKS,
    ),
    "trajectories": FigureEntry(
        "Distance from the clean state",
        "Distance of perturbed from clean states along t.",
        ("trajectories",),
        "The state of a perturbed image is compared with that of its clean image while the ODE "
        "runs from t = 0 to 1, or from block to block of a residual body: for adversarial "
        "examples, for the last image of attacks that failed, and for random noise of the same "
        "norm and size. At loose tolerances a solve may take only a few steps, and the curve "
        "between them is the solver's interpolation.",
        section="dynamics",
        on_page=True,
        level=Level.NETWORKS,
    ),
    "growth": FigureEntry(
        "Where perturbations grow",
        "Rate at which perturbations grow along t.",
        ("trajectories",),
        "The rate is split into the part that the Jacobian at the clean state explains and a "
        "nonlinear rest. The logarithmic norm bounds the first part for any perturbation.",
        section="dynamics",
        on_page=True,
        level=Level.NETWORKS,
    ),
    "margins": FigureEntry(
        "When the decision changes",
        "Margin of the clean decision along t.",
        ("trajectories", "probes"),
        "The state at each t is read by the head, which was trained on states at t = 1 alone, and "
        "by linear probes that were trained at each t.",
        filled_by=("trajectories",),
        section="dynamics",
        level=Level.NETWORKS,
    ),
    "adaptive_cost": FigureEntry(
        "Does the solver notice the attack?",
        "Cost of images to an adaptive solver, and detection of adversarial examples by it.",
        ("trajectory_images", "trajectories", "trajectory_roc"),
        "From above: evaluations of the ODE function, the size of the steps along t, and ROC "
        "curves. A model without an ODE has none.",
        filled_by=("trajectory_roc",),
        section="dynamics",
        level=Level.NETWORKS,
    ),
    "images": FigureEntry(
        "Image by image",
        "One image at a time: choose model, tolerance, attack and image.",
        (IMAGE_PAGES,),
        "The folder figures/images/ next to this report has a page for every image whose states "
        "were kept.",
        filled_by=("trajectory_images",),
        section="dynamics",
        level=Level.RUN,
    ),
    "examples": FigureEntry(
        "Adversarial images",
        "The first images on which the attack succeeded: clean image, perturbation and result.",
        (EXAMPLE_PICTURES,),
        filled_by=("attacks",),
        section="attacks",
        level=Level.RUN,
    ),
    "costs": FigureEntry(
        "Where the time went",
        "Wall time of the jobs of each stage, added up, by model.",
        ("costs",),
        section="ran",
        rule="report",
        level=Level.RUN,
    ),
}
"""By name, in the order in which the report shows them."""

DRAWN = tuple(name for name, entry in FIGURES.items() if entry.rule == "figures")
"""The figures that have files, drawn by the rule `figures`."""

ON_PAGE = tuple(name for name, entry in FIGURES.items() if entry.on_page)
"""The figures of the page of results."""


def has_rows(name: str, tables: Mapping[str, Sized]) -> bool:
    """Whether the tables that fill a figure have rows, as far as they are at hand."""
    entry = FIGURES[name]
    return all(len(tables[table]) for table in entry.filled_by or entry.needs if table in tables)
