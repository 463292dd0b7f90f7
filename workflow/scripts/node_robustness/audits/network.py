"""The audit of a network at one tolerance, the whole of it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from node_robustness.attacks.apgd import AutoPGD
from node_robustness.attacks.method import Method
from node_robustness.audits import attack_checks, gradients
from node_robustness.audits.attack_checks import AttackChecks, Neighbours
from node_robustness.audits.attack_paths import AttackPaths, attack_paths
from node_robustness.audits.gradients import GradientAudit
from node_robustness.audits.held_steps import step_decisions
from node_robustness.models.evaluation import evaluate
from node_robustness.models.network import Network
from node_robustness.perturbations.norms import Norm
from node_robustness.perturbations.streams import Streams

PATHS = ("paper", "apgd")
"""The attacks whose iterates are recorded: the paper's (the basic iterative method with adjoint
gradients, direct ones without an ODE), and Auto-PGD with the cross-entropy and direct gradients."""


@dataclass(frozen=True)
class Held:
    """What the solver's decisions have to do with Auto-PGD's adversarial examples of n images.

    Attributes:
        adversarial: whether there is one, bool [n]; without one the others are false or NaN.
        survives: see `held_steps.StepDecisions`, bool [n].
        crosses: the same, bool [n].
        jump: the same, float32 [n].
        change: the same, float32 [n].
    """

    adversarial: Tensor
    survives: Tensor
    crosses: Tensor
    jump: Tensor
    change: Tensor


@dataclass(frozen=True)
class NormAudit:
    """What was found for n images in one norm, at one epsilon.

    Attributes:
        checks: of attacks whose order of strength is known.
        paths: by the names `PATHS`; of images that are not attacked, NaN and false.
        paper_cosine: of the angle between the gradient that the paper's attack follows halfway and
            the direct one there, float32 [n]; NaN where either is zero.
        apgd_slope_error: see `gradients.slope_errors`, halfway along the path of Auto-PGD, float64
            [n]; NaN for images beyond the first `differences`, and where the path ends there.
        held: None where steps do not depend on the image or cannot be held.
    """

    checks: AttackChecks
    paths: Mapping[str, AttackPaths]
    paper_cosine: Tensor
    apgd_slope_error: Tensor
    held: Held | None


@dataclass(frozen=True)
class NetworkAudit:
    """The audit of n images.

    Attributes:
        sources: kinds of gradients.
        directions: along which the loss is differenced.
        gradients: at the images.
        correct: whether the clean prediction is right; only those are attacked, bool [n].
        neighbours: how much the model varies around the images.
        large_epsilon_success: see `attack_checks.broken_at_large_epsilon`, with direct gradients
            and twice the iterations of the paper's attack, bool [n].
        paper_large_epsilon_success: the same with the gradients and iterations of the paper's
            attack.
        norms: by norm.
        lacks: what could not be measured and why, in sentences.
    """

    sources: Sequence[str]
    directions: Sequence[str]
    gradients: GradientAudit
    correct: Tensor
    neighbours: Neighbours
    large_epsilon_success: Tensor
    paper_large_epsilon_success: Tensor
    norms: Mapping[str, NormAudit]
    lacks: Sequence[str]


def audit_network(
    model: Network,
    images: Tensor,
    labels: Tensor,
    rows: Sequence[int],
    settings: Mapping[str, Any],
    *,
    seed: int,
    batch_size: int,
    progress: Callable[[int], object] | None = None,
) -> NetworkAudit:
    """Audit a network.

    Args:
        model: its solver set to the tolerance in question, and to direct gradients.
        images: float32 [n, C, H, W] in [0, 1], n >= 1.
        labels: int64 [n].
        rows: of the images in the test set.
        settings: of `grid.params.audit`.
        seed: of the model; with the rows, it fixes what is drawn at random.
        batch_size: images at a time; bounds the memory, does not change the result.
        progress: called with the number of images of each batch whose gradients are audited.
    """
    sources = gradients.sources(model, settings["tight_tolerance"], settings["rk4_steps"])
    paper = model.at(**sources.get("adjoint", sources["direct"]))
    iterations = settings["iterations"]
    exact, reason = gradients.in_double_precision(model, images)
    found = gradients.audit_gradients(
        model,
        exact,
        images,
        labels,
        sources,
        differences=settings["differences"],
        random=settings["directions"],
        streams=Streams.of(seed, rows, "directions"),
        batch_size=batch_size,
        progress=progress,
    )
    near = attack_checks.neighbours(
        model, images, labels, Streams.of(seed, rows, "neighbours"), batch_size=batch_size
    )
    large, paper_large = (
        attack_checks.broken_at_large_epsilon(
            attacked, images, labels, iterations=steps, batch_size=batch_size
        )
        for attacked, steps in ((model, 2 * iterations), (paper, iterations))
    )
    correct = evaluate(model, images, batch_size=batch_size).predictions == labels
    audit_norm = _NormAudits(
        model, exact, paper, images, labels, correct, rows, settings, seed, batch_size
    )
    return NetworkAudit(
        sources=list(sources),
        directions=gradients.directions(sources, settings["directions"]),
        gradients=found,
        correct=correct,
        neighbours=near,
        large_epsilon_success=large,
        paper_large_epsilon_success=paper_large,
        norms={norm: audit_norm(norm, eps) for norm, eps in settings["epsilons"].items()},
        lacks=[said for said in (reason, _why_not_held(model)) if said],
    )


def _why_not_held(model: Network) -> str:
    """Why the steps of an adaptive solver cannot be held, as a sentence; empty if they can."""
    if model.has_steps or not model.adaptive:
        return ""
    return " ".join(["The steps of the solver cannot be held.", *model.limits])


@dataclass(frozen=True)
class _NormAudits:
    """What the audits in all norms share; see `audit_network`."""

    model: Network
    exact: Network | None
    paper: Network
    images: Tensor
    labels: Tensor
    correct: Tensor
    rows: Sequence[int]
    settings: Mapping[str, Any]
    seed: int
    batch_size: int

    def __call__(self, norm: str, epsilon: float) -> NormAudit:
        iterations, steps = self.settings["iterations"], self.settings["apgd_iterations"]
        checks = attack_checks.check_attacks(
            self.model,
            self.images,
            self.labels,
            norm=norm,
            epsilon=epsilon,
            iterations=iterations,
            batch_size=self.batch_size,
        )
        paper = self._paths(
            self.paper, attack_checks.iterative(norm, epsilon, iterations), iterations
        )
        apgd = self._paths(self.model, AutoPGD(Norm(norm), epsilon, "ce", steps), steps)
        paths = {"paper": paper, "apgd": apgd}
        return NormAudit(
            checks=checks,
            paths={name: self._of_all(found) for name, found in paths.items()},
            paper_cosine=self._spread(self._cosine(paper), torch.nan),
            apgd_slope_error=self._spread(self._slope_error(apgd), torch.nan),
            held=self._held(apgd) if self.model.has_steps else None,
        )

    def _paths(self, model: Network, method: Method, steps: int) -> AttackPaths:
        chosen = self.correct.nonzero().flatten().tolist()
        return attack_paths(
            model,
            self.images[self.correct],
            self.labels[self.correct],
            method,
            Streams.of(self.seed, [self.rows[row] for row in chosen]),
            iterates=steps + 1,
            batch_size=self.batch_size,
        )

    def _cosine(self, paths: AttackPaths) -> Tensor:
        return gradients.cosine_to_direct(
            self.model,
            paths.halfway,
            self.labels[self.correct],
            paths.halfway_gradient,
            batch_size=self.batch_size,
        )

    def _slope_error(self, paths: AttackPaths) -> Tensor:
        few = self.settings["differences"]
        errors = gradients.slope_errors(
            self.exact,
            paths.halfway[:few],
            self.labels[self.correct][:few],
            batch_size=self.batch_size,
        )
        known = errors.new_full((len(paths.success),), torch.nan)
        known[: len(errors)] = errors
        return known

    def _held(self, paths: AttackPaths) -> Held:
        found = paths.success
        images, labels = self.images[self.correct], self.labels[self.correct]
        decisions = step_decisions(
            self.model,
            images[found],
            paths.adversarials[found],
            labels[found],
            located=self.settings["differences"],
            batch_size=self.batch_size,
        )
        adversarial = self._spread(found, False)
        parts = {
            name: self._spread(_at(found, values, missing), missing)
            for name, values, missing in (
                ("survives", decisions.survives, False),
                ("crosses", decisions.crosses, False),
                ("jump", decisions.jump, torch.nan),
                ("change", decisions.change, torch.nan),
            )
        }
        return Held(adversarial, **parts)

    def _of_all(self, paths: AttackPaths) -> AttackPaths:
        """The paths of all images, from those of the images that are attacked."""
        changes = {}
        for item in fields(AttackPaths):
            values = getattr(paths, item.name)
            missing = torch.nan if item.name == "loss" else 0
            changes[item.name] = self._spread(values, missing)
        return replace(paths, **changes)

    def _spread(self, values: Tensor, missing: float) -> Tensor:
        return _at(self.correct, values, missing)


def _at(chosen: Tensor, values: Tensor, missing: float) -> Tensor:
    """Values [k, ...] at the chosen places, bool [n], and a number at the others, [n, ...]."""
    everywhere = values.new_full((len(chosen), *values.shape[1:]), missing)
    everywhere[chosen.to(values.device)] = values
    return everywhere
