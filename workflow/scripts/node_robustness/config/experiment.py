"""The keys of an experiment: the grid that it spans, and what is measured on it."""

from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    Field,
    model_validator,
)

from node_robustness.config.presets import PAPER_ATTACK, PRESETS, expand
from node_robustness.config.values import (
    Count,
    Name,
    Names,
    Natural,
    Norms,
    NumberByNorm,
    Numbers,
    NumbersByNorm,
    Section,
    Seeds,
    Share,
    Times,
    Tolerance,
    Tolerances,
)
from node_robustness.numbers import label
from node_robustness.shapes.datasets import FEWEST_TO_PROBE


class Trajectories(Section):
    """Which cells get a trajectory file, and what it holds (docs/trajectories.md)."""

    attacks: Names | None = Field(None, description="attacks to follow; all if unset")
    norms: Norms | None = Field(None, description="norms to follow; all if unset")
    epsilons: Numbers | None = Field(None, description="epsilons to follow; all if unset")
    tolerances: Numbers | None = Field(None, description="tolerances to follow; all if unset")
    images: Count | None = Field(
        None, description="images that are followed, the first that were attacked; all if unset"
    )
    times: Times = Field(
        51,
        description="times of h(t): a number of equally spaced times in [0, 1], or a list that "
        "rises from 0 to 1; a model without an ODE is followed block by block",
    )
    states: Natural = Field(4, description="images whose full states are kept")
    precision: Literal["float16", "float32"] = Field("float16", description="of the kept states")
    growth: Natural = Field(
        16,
        description="images whose growth is split into what the Jacobian explains and the rest, "
        "with exponents, bounds and a tight reference curve",
    )
    strengthen: Natural = Field(
        20,
        description="gradient steps from what the attack ended with to an adversarial example of "
        "full strength, whose loss of margin is shared out",
    )
    causal: Natural = Field(
        100, description="adversarial examples in which intervals are repaired and inserted"
    )
    intervals: Count = Field(
        10,
        le=100,
        description="equal parts of [0, 1]: each has a share, and every run of neighbouring ones "
        "is repaired and inserted separately; a model without an ODE has its blocks",
    )
    probe: bool = Field(
        True,
        description="fit a linear probe of h(t) at every time to validation images, at least "
        f"{FEWEST_TO_PROBE}; if unset, where there are that many",
    )


class Audit(Section):
    """The audit of gradients and attacks, for every model at every tolerance."""

    images: Count = Field(
        100,
        description="the first test images, right or wrong; a check of a share passes with 59 or "
        "more of them",
    )
    differences: Count = Field(
        16, description="images of these whose loss is differenced, in double precision"
    )
    directions: Count = Field(
        2,
        description="random directions of the finite differences, in addition to the gradients",
    )
    iterations: Count = Field(
        10,
        description="steps of the paper's attack, and of the attack that is repeated with twice as "
        "many",
    )
    apgd_iterations: Count = Field(25, description="steps of Auto-PGD")


class Matrix(Section):
    """Which adversarial examples are classified at every tolerance, and at a tight one."""

    attacks: Names | None = Field(
        None,
        description="attacks whose adversarial examples are classified; if unset the first with "
        "adjoint and the first with direct gradients",
    )
    norms: Norms | None = Field(None, description="their norms; the first one if unset")
    epsilons: Numbers | None = Field(
        None, description="their epsilons; the primary one of each norm if unset"
    )


class Randomisation(Section):
    """A tolerance drawn at test time for every image and pass, as a defence, and its attackers."""

    distribution: Literal["log_uniform"] = Field(
        "log_uniform", description="log_uniform: the logarithm is uniform between low and high"
    )
    low: Tolerance | None = Field(
        None, description="smallest tolerance; the smallest of the experiment if unset"
    )
    high: Tolerance | None = Field(
        None, description="largest tolerance; the largest of the experiment if unset"
    )
    images: Count = Field(64, description="the first test images, right or wrong")
    norms: Norms | None = Field(None, description="norms of the attackers; the first one if unset")
    epsilons: Numbers | None = Field(
        None, description="their epsilons; the primary one of each norm if unset"
    )
    iterations: Count = Field(10, description="gradient steps of every attacker")
    relative_step: Share = Field(0.25, description="step size as a share of epsilon")
    draws: Count = Field(
        5, description="draws over which the attacker eot averages the gradient of one step"
    )
    evaluation_draws: Count = Field(20, description="draws at which every image is classified")


class Detection(Section):
    """Detectors of adversarial examples, and attacks that know more or less about them."""

    images: Count = Field(64, description="the first test images, right or wrong")
    norms: Norms | None = Field(None, description="norms of the attacks; the first one if unset")
    epsilons: Numbers | None = Field(
        None, description="their epsilons; the primary one of each norm if unset"
    )
    tolerances: Numbers | None = Field(
        None, description="of the classifier that is attacked; all if unset"
    )
    iterations: Count = Field(
        10, description="gradient steps of the attacks that do not know the detector"
    )
    relative_step: Share = Field(0.25, description="step size as a share of epsilon")
    searches: Count = Field(
        3,
        description="searches of the attack that knows the detector, each with another weight of "
        "the score for every image",
    )
    search_iterations: Count = Field(5, description="gradient steps of each search")


class AdjointSweep(Section):
    """The paper's attack with its adjoint solved at other tolerances than the forward solve."""

    images: Count = Field(300, description="the first test images, right or wrong")
    norms: Norms | None = Field(None, description="norms of the attack; the first one if unset")
    epsilons: Numbers | None = Field(
        None, description="their epsilons; the primary one of each norm if unset"
    )
    tolerances: Numbers | None = Field(None, description="of the forward solve; all if unset")
    backward_tolerances: Tolerances = Field(
        [1e-5, 1e-3, 0.1, 10], description="of the adjoint's backward solve"
    )


class CostAttack(Section):
    """An attack on the cost: images for which the solver evaluates its function more often."""

    images: Count = Field(64, description="the first test images, right or wrong")
    norms: Norms | None = Field(None, description="norms of the attack; the first one if unset")
    epsilons: Numbers | None = Field(
        None, description="their epsilons; the primary one of each norm if unset"
    )
    tolerances: Numbers | None = Field(None, description="of the solver; all if unset")
    queries: Count = Field(50, description="perturbations that the random search tries")
    iterations: Natural = Field(10, description="gradient steps from the costliest of them")
    relative_step: Share = Field(0.25, description="step size as a share of epsilon")


class Experiment(Section):
    """One grid: the product of its lists, without combinations that have no meaning."""

    datasets: Names = Field(description="names from `datasets`")
    models: Names = Field(description="names from `models`")
    seeds: Seeds = Field([0], description="training seeds")
    tolerances: Tolerances = Field(description="tau at test time; models without an ODE have none")
    attacks: Annotated[Names, AfterValidator(expand)] = Field(
        description="names from `attacks`, of built-in attacks, or of presets: "
        f"{', '.join(PRESETS)} (docs/attacks.md)"
    )
    primary_attacks: Annotated[Names, AfterValidator(expand)] | None = Field(
        None,
        description="more of them, which run at the primary epsilons alone: for what is too "
        "expensive to run at all",
    )
    norms: Norms = Field(description="linf; l2; l2_rms: the paper's, root mean square over pixels")
    epsilons: NumbersByNorm = Field(
        description="largest perturbation, for images in [0, 1]; one list, or a list for each norm"
    )
    primary: NumberByNorm | None = Field(
        None,
        description="the epsilon at which claims are made first, and at which sections measure "
        "unless they say otherwise; one for all norms or one for each; the middle one of each norm "
        "if unset",
    )
    skip_broken: bool = Field(
        True,
        description="apgd with targets or surrogate gradients, and square, leave out the images "
        "that a cheaper attack by gradients broke within the same epsilon; cw and fab those broken "
        "within the smallest (docs/attacks.md)",
    )
    trajectories: Trajectories | None = Field(
        Trajectories(), description="follow h(t) of clean and adversarial images; null disables it"
    )
    audit: Audit | None = Field(
        Audit(), description="compare gradients, and check the attacks; null disables it"
    )
    matrix: Matrix | None = Field(
        Matrix(), description="classify adversarial examples at every tolerance; null disables it"
    )
    randomisation: Randomisation | None = Field(
        Randomisation(),
        description="attack a tolerance that is drawn at test time; null disables it",
    )
    detection: Detection | None = Field(
        Detection(),
        description="test detectors of adversarial examples; null disables it",
    )
    adjoint_sweep: AdjointSweep | None = Field(
        None,
        description="repeat the paper's attack with the adjoint solved at other tolerances; off "
        "unless it is given, `{}` for its defaults",
    )
    cost: CostAttack | None = Field(
        None,
        description="attack the number of function evaluations; off unless it is given, `{}` for "
        "its defaults",
    )
    paper: Literal["mnist", "cifar10"] | None = Field(
        None, description="show the paper's values of this dataset next to those of the run"
    )

    paper_attack: Name | None = Field(
        None,
        description="the attack that is the paper's protocol in verdicts (docs/verdict.md); "
        f"{PAPER_ATTACK} if unset and among the attacks",
    )

    @model_validator(mode="after")
    def _the_papers_attack_runs(self) -> Self:
        if self.paper_attack is not None and self.paper_attack not in self.every_attack:
            raise ValueError(
                f"paper_attack: {self.paper_attack} is not among the attacks "
                f"({', '.join(self.every_attack)}): add it to attacks, or name one of these"
            )
        return self

    @property
    def papers_attack(self) -> str | None:
        """The attack that is the paper's protocol; None if none is."""
        return self.paper_attack or (PAPER_ATTACK if PAPER_ATTACK in self.every_attack else None)

    @property
    def every_attack(self) -> list[str]:
        """The attacks that run at every epsilon, and then those at the primary ones alone."""
        return list(dict.fromkeys([*self.attacks, *(self.primary_attacks or [])]))

    @model_validator(mode="after")
    def _every_norm_has_epsilons(self) -> Self:
        if isinstance(self.epsilons, dict):
            for norm in self.norms:
                if norm not in self.epsilons:
                    raise ValueError(f"epsilons has no list for norm {norm}: add one")
            for norm in self.epsilons:
                if norm not in self.norms:
                    raise ValueError(
                        f"epsilons has a list for {norm}: remove it, or add {norm} to norms"
                    )
        return self

    @model_validator(mode="after")
    def _every_norm_has_a_primary_epsilon(self) -> Self:
        if isinstance(self.primary, dict):
            for norm in self.norms:
                if norm not in self.primary:
                    raise ValueError(f"primary has no epsilon for norm {norm}: add one")
            for norm in self.primary:
                if norm not in self.norms:
                    raise ValueError(
                        f"primary has an epsilon for {norm}: remove it, or add {norm} to norms"
                    )
        for norm in self.norms:
            if self.primary_epsilon(norm) not in self.epsilons_for(norm):
                raise ValueError(
                    f"primary: {label(self.primary_epsilon(norm))} is not in the epsilons for "
                    f"{norm} ({', '.join(map(label, self.epsilons_for(norm)))}): name one of these"
                )
        return self

    @model_validator(mode="after")
    def _tolerances_can_be_drawn(self) -> Self:
        drawn = self.randomisation
        if drawn is not None and (drawn.low is not None or drawn.high is not None):
            low, high = self.drawn_tolerances(drawn)
            if low >= high:
                raise ValueError(
                    f"randomisation: low ({label(low)}) must be less than high ({label(high)})"
                )
        return self

    def drawn_tolerances(self, drawn: Randomisation) -> tuple[float, float]:
        """The smallest and the largest tolerance of a randomised model."""
        low = min(self.tolerances) if drawn.low is None else drawn.low
        high = max(self.tolerances) if drawn.high is None else drawn.high
        return low, high

    @property
    def distribution(self) -> dict[str, Any] | None:
        """The kind and the bounds of the tolerances that are drawn; None if none are."""
        drawn = self.randomisation
        if drawn is None:
            return None
        low, high = self.drawn_tolerances(drawn)
        if low == high:
            return None
        return {"distribution": drawn.distribution, "low": low, "high": high}

    def epsilons_for(self, norm: str) -> list[float]:
        """The epsilons of one norm."""
        if isinstance(self.epsilons, dict):
            return {str(key): values for key, values in self.epsilons.items()}[norm]
        return self.epsilons

    def primary_epsilon(self, norm: str) -> float:
        """The epsilon of a norm at which claims are made first.

        Unless it is set, the middle one; of an even number the larger one of two.
        """
        if isinstance(self.primary, dict):
            return {str(key): value for key, value in self.primary.items()}[norm]
        every = self.epsilons_for(norm)
        return sorted(every)[len(every) // 2] if self.primary is None else self.primary
