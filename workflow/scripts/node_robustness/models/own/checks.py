"""Checks of a model before anything is measured: whether its results would mean something.

They find what makes attacks on a classifier from elsewhere say nothing about it (after the checks
of AutoAttack, Croce and Hein 2020, and RobustBench, Croce et al. 2021): images in another range,
random outputs, probabilities in the place of logits, and so on. Each check is a function of the
network and some images; `check_model` runs all of them.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from node_robustness.errors import UserError
from node_robustness.models.classifier import frozen
from node_robustness.models.evaluation import Evaluation, evaluate
from node_robustness.models.network import Network
from node_robustness.models.own.inspection import logits_of, rounded
from node_robustness.models.own.modules import isolated
from node_robustness.models.own.network import OwnNetwork
from node_robustness.models.own.passes import applied
from node_robustness.ode.solve import Status
from node_robustness.statistics import paired, proportions
from node_robustness.words import listed, percent

IMAGES = 256
"""Images by which accuracy is measured: its 95 % interval is at most 13 points wide."""

FEW = 16
"""Images of the checks that repeat passes, some of them image by image."""

BATCH = 64
"""Images at a time; few enough for any memory, as no more than `FEW` have gradients."""

ROUNDING = {torch.float32: 1e-4, torch.float64: 1e-8}
"""By how much two computations of the same logits may differ, as a share of the largest one.

Rounding alone makes 1e-7 to 1e-5 in single precision, more where dynamics amplify it; other steps
or another batch make a difference of about the tolerance, 1e-3.
"""

SPREADS = 10
"""How many times as far as other roundings move logits, another computation may be off."""

ALLOWED = 1
"""Of `FEW` images, how many may differ by more: rounding may decide whether a step is accepted."""

MUCH_BETTER = 0.2
"""The gain in accuracy by which another range of the images must be the one that is meant.

A network that knows images in [0, 1] loses accuracy in every other range.
"""

BETTER = 0.02
"""The gain that is worth a word.

Of three published networks for MNIST without their normalisation, one loses 32 points, one 4 and
one 1; as they are, none gains more than 0.4 points in another range.
"""

CERTAIN = 0.01
"""The p-value below which a gain is not chance; there are three other ranges."""

KNOWS_SOMETHING = 1 / 3
"""How far, from guessing to 1, accuracy in another range must be: untrained networks guess in each,
and with few classes some guess well."""

NO_GRADIENT = 0.05
"""The share of images without a gradient that is worth a word, as in the audit."""

FAILED_SOLVES = 0.5
"""The share of failed solves from which there is nothing to attack."""

STEPS_ELSEWHERE = 100
"""Steps after which a solve in another range counts as failed: dynamics may be stiff there."""


@dataclass(frozen=True)
class ModelCheck:
    """The outcome of a check.

    Attributes:
        name: of the check.
        passed: whether nothing was found.
        fatal: whether what was found ends the audit of the model.
        value: what was measured; None if it is not a number.
        sentence: what was found, and what to do about it.
    """

    name: str
    passed: bool
    fatal: bool
    value: float | None
    sentence: str

    def __str__(self) -> str:
        outcome = "passed" if self.passed else "fatal" if self.fatal else "warning"
        return f"{self.name}: {outcome}: {self.sentence}"


@dataclass(frozen=True)
class Expected:
    """What a model is expected to do.

    Attributes:
        classes: number of classes of the data.
        mean: of each channel of the data.
        std: standard deviation of each channel.
        ode: the configured kind of its ODE: adaptive, fixed or none.
    """

    classes: int
    mean: Sequence[float]
    std: Sequence[float]
    ode: str


def _passed(name: str, value: float | None, sentence: str) -> ModelCheck:
    return ModelCheck(name, True, False, value, sentence)


def _warning(name: str, value: float | None, sentence: str) -> ModelCheck:
    return ModelCheck(name, False, False, value, sentence)


def _fatal(name: str, value: float | None, sentence: str) -> ModelCheck:
    return ModelCheck(name, False, True, value, sentence)


def check_model(
    network: OwnNetwork, images: Tensor, labels: Tensor, expected: Expected
) -> Iterator[ModelCheck]:
    """Run the checks, from those without which others mean nothing to the finer ones.

    Args:
        network: with the author's settings.
        images: float [n, C, H, W] in [0, 1], n >= 1; `IMAGES` of them are enough.
        labels: int64 [n].
        expected: of the model.
    """
    few, found = images[:FEW], network.spec.found
    with frozen(network):
        first = logits(network, few, expected.classes)
        yield first
        if first.fatal:
            return
        yield ode(network, expected.ode)
        everything = evaluate(network, images, batch_size=BATCH)
        yield finite(everything)
        if everything.status is not None:
            yield solves(everything)
        yield deterministic(network, few)
        yield memoryless(network, few, images[FEW : 2 * FEW])
        yield evaluation_mode(network)
        yield batch_independent(network, few, found.double)
        yield image_range(network, images, labels, everything, expected)
        yield accuracy(everything, labels)
        yield no_probabilities(everything)
        yield gradients(network, few)
        if found.solves and found.one_by_one is None:
            yield as_torchdiffeq(network, few)
        yield measurable(network)


def refuse(found: Sequence[ModelCheck], where: str) -> None:
    """Refuse a model of which a check found something fatal.

    Args:
        found: the outcomes.
        where: names the model in the message.

    Raises:
        UserError: there is one.
    """
    fatal = [check.sentence for check in found if check.fatal]
    if fatal:
        more = f" (the log has {len(fatal) - 1} more)" if fatal[1:] else ""
        raise UserError(f"{where}: {fatal[0]}{more}")


def logits(network: Network, images: Tensor, classes: int) -> ModelCheck:
    """Whether images become logits, one for each class."""
    name = "logits"
    try:
        with torch.no_grad():
            found = network(images)
    except UserError:
        raise
    except Exception as error:
        words = " ".join(str(error).split())
        return _fatal(
            name,
            None,
            f"the model fails on images {_shape(images)}: {type(error).__name__}: {words}",
        )
    if not isinstance(found, Tensor) or found.shape[:-1] != images.shape[:1]:
        given = _shape(found) if isinstance(found, Tensor) else f"a {type(found).__name__}"
        return _fatal(
            name,
            None,
            f"the model gives {given} for images {_shape(images)}, where logits are "
            f"[{len(images)}, {classes}]: set `output` if it returns several results, or return "
            "the logits",
        )
    count = found.shape[1]
    if count != classes:
        return _fatal(
            name,
            count,
            f"the model gives {count} logits, and the data have {classes} classes: set the "
            "number of classes in `arguments`, or choose the dataset that it was trained on",
        )
    return _passed(name, count, f"images {_shape(images[:1])} become {count} logits")


def _shape(values: Tensor) -> str:
    return str([*values.shape])


def ode(network: OwnNetwork, configured: str) -> ModelCheck:
    """Whether the kind of ODE that is configured is the one that was found."""
    name, found = "ode", network.spec.found
    if found.ode == configured:
        return _passed(name, None, f"{_SOLVES[found.ode]}, as configured")
    remedy = f"set `ode: {found.ode}`"
    if configured == "adaptive":
        # Its columns of tolerances would all be the same.
        return _fatal(
            name, None, f"{_SOLVES[found.ode]}, so that a tolerance has no effect: {remedy}"
        )
    return _warning(name, None, f"{_SOLVES[found.ode]}, and `ode: {configured}` is set: {remedy}")


_SOLVES = {
    "adaptive": "the solver takes adaptive steps",
    "fixed": "the solver takes fixed steps",
    "none": "a pass calls no solver of torchdiffeq",
}


def finite(found: Evaluation) -> ModelCheck:
    """Whether logits are finite where no solve failed."""
    name, n = "finite", len(found.logits)
    bad = ~torch.isfinite(found.logits).all(1)
    if found.status is not None:
        bad &= found.status == Status.SUCCESS
    count = int(bad.sum())
    if count:
        return _fatal(
            name,
            count / n,
            f"the logits of {count} of {n} images are not finite, and no solve failed: look for a "
            "division, logarithm or root in the model, or for weights that diverged in training",
        )
    return _passed(name, 0.0, f"the logits of {n} images are finite")


def solves(found: Evaluation) -> ModelCheck:
    """Whether the author's settings solve the ODE."""
    assert found.status is not None
    name, n = "solves", len(found.status)
    failed = found.status[found.status != Status.SUCCESS]
    if not len(failed):
        return _passed(name, 0.0, f"the solves of {n} images succeed")
    kinds = [Status(kind).name.lower() for kind in failed.unique().tolist()]
    sentence = (
        f"with the author's settings the solve fails for {len(failed)} of {n} images "
        f"({', '.join(kinds)}): raise `max_steps` of the model, or the tolerances in its file"
    )
    return (_fatal if len(failed) > FAILED_SOLVES * n else _warning)(
        name, len(failed) / n, sentence
    )


class _Draws(TorchDispatchMode):
    """Notes the operations that draw random numbers."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.names: dict[str, None] = {}

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Nothing is compiled."""
        return False

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if torch.Tag.nondeterministic_seeded in func.tags:
            self.names[func.overloadpacket.__name__] = None
        return func(*args, **(kwargs or {}))


def _pass(network: Network, images: Tensor, seed: int = 0) -> Tensor:
    """Logits, with random numbers from a seed; the random states are put back."""
    with isolated(), torch.no_grad():
        torch.manual_seed(seed)
        np.random.seed(seed)
        random.seed(seed)
        found: Tensor = network(images)
    return found


def _apart(first: Tensor, second: Tensor) -> Tensor:
    """The distance of two logits of each image, as a share of the largest logit, [n]."""
    scale = first[torch.isfinite(first)].abs().max() if torch.isfinite(first).any() else 1.0
    # Where both are not finite in the same way they are the same.
    apart = torch.where(first == second, 0.0, (first - second).abs() / scale)
    apart = torch.where(first.isnan() & second.isnan(), 0.0, apart)
    return apart.nan_to_num(torch.inf).amax(1)


def deterministic(network: Network, images: Tensor) -> ModelCheck:
    """Whether two passes over the same images give the same logits."""
    name, n = "deterministic", len(images)
    first = _pass(network, images)
    apart = max(float(_apart(first, _pass(network, images, seed)).max()) for seed in (0, 1))
    if apart <= ROUNDING[torch.float32]:
        return _passed(name, apart, f"two passes over {n} images give the same logits")
    with _Draws() as draws:
        _pass(network, images)
    if _DROPOUT & draws.names.keys():
        why = "because dropout is left on: use nn.Dropout, or F.dropout with training=self.training"
    elif draws.names:
        why = (
            f"because the model draws random numbers ({', '.join(draws.names)}): draw them once, "
            "when it is built, or average over draws that are fixed"
        )
    else:
        why = (
            "because the model keeps something between calls, or draws random numbers not by "
            "PyTorch: let the logits depend on the images alone"
        )
    return _fatal(
        name,
        apart,
        f"two passes over {n} images differ by {percent(apart)} of the largest logit, {why}",
    )


_DROPOUT = {"bernoulli", "bernoulli_", "native_dropout", "_fused_dropout", "feature_dropout"}


def memoryless(network: Network, images: Tensor, others: Tensor) -> ModelCheck:
    """Whether a pass over other images in between changes logits or buffers."""
    name = "memoryless"
    before = {key: value.clone() for key, value in network.state_dict().items()}
    first = _pass(network, images)
    _pass(network, others if len(others) else images.flip(3))
    apart = float(_apart(first, _pass(network, images)).max())
    if apart > ROUNDING[torch.float32]:
        return _fatal(
            name,
            apart,
            f"after a pass over other images the logits differ by {percent(apart)} of the largest "
            "one: the model keeps something between calls; let its logits depend on the images "
            "alone",
        )
    after = network.state_dict()
    changed = [
        key.removeprefix("module.")
        for key, value in before.items()
        if not torch.equal(value, after[key])
    ]
    if changed:
        return _warning(
            name,
            len(changed),
            f"a pass changes {_some(changed)} of the model: do not update it in evaluation mode",
        )
    return _passed(name, apart, "a pass over other images changes nothing")


def _some(names: Sequence[str]) -> str:
    """The first names, and how many more there are."""
    return listed([*names[:3], *([f"{len(names) - 3} more"] if names[3:] else [])])


def evaluation_mode(network: Network) -> ModelCheck:
    """Whether all layers are in evaluation mode after a pass, with statistics to normalise by."""
    name = "evaluation_mode"
    modules = [
        (key.removeprefix("module.") or "the model", m) for key, m in network.named_modules()
    ]
    training = [key for key, module in modules if module.training]
    if training:
        return _warning(
            name,
            len(training),
            f"{_some(training)} is in training mode after eval(): remove train() from the model's "
            "code",
        )
    without = [
        key
        for key, module in modules
        if isinstance(module, nn.modules.batchnorm._NormBase)
        and module.running_mean is None
        # Instance normalisation has statistics of each image, which depend on no other one.
        and not isinstance(module, nn.modules.instancenorm._InstanceNorm)
    ]
    if without:
        return _warning(
            name,
            len(without),
            f"{_some(without)} normalises by the statistics of the batch (it has no running ones): "
            "use track_running_stats=True",
        )
    return _passed(name, 0.0, "all layers are in evaluation mode")


Compare = Callable[[Network, Tensor, bool], Tensor]
"""Which images a network computes differently in two ways, bool [n].

The last argument is whether differences are left out that `_of_rounding` explains.
"""


def _differing(compare: Compare, network: Network, images: Tensor, double: bool) -> int:
    """How many images differ by more than rounding.

    Too many in single precision are compared again in double precision, where that is possible:
    dynamics may amplify rounding, which no bound for all networks can allow for.
    """
    count = int(compare(network, images, not double).sum())
    if count > ALLOWED and double:
        count = int(compare(deepcopy(network).double(), images.double(), True).sum())
    return count


def _alone(network: Network, images: Tensor, explained: bool) -> Tensor:
    """Which images have other logits or another NFE by themselves than in a batch."""
    together = evaluate(network, images, batch_size=len(images))
    return _unlike(together, network, images, explained)


def _unlike(found: Evaluation, reference: Network, images: Tensor, explained: bool) -> Tensor:
    """Which images have other logits or another NFE than by themselves in a network."""
    expected = evaluate(reference, images, batch_size=1)
    unlike = _changed(expected, found)
    if explained and int(unlike.sum()) > ALLOWED:
        unlike &= ~_of_rounding(found, expected, reference, images)
    return unlike


def _changed(first: Evaluation, second: Evaluation) -> Tensor:
    changed = _apart(first.logits, second.logits) > ROUNDING[first.logits.dtype]
    if first.nfe is not None and second.nfe is not None:
        changed |= first.nfe != second.nfe
    return changed


def _of_rounding(
    found: Evaluation, expected: Evaluation, reference: Network, images: Tensor
) -> Tensor:
    """Which images differ no more than if they are rounded otherwise, and so take other steps.

    With torchdiffeq's default tolerances, 1e-7 and 1e-9, most images do, in double precision, too.
    """
    unsteady, spread = torch.zeros(len(images), dtype=torch.bool, device=images.device), 0.0
    for moved in rounded(images):
        other = evaluate(reference, moved, batch_size=1)
        unsteady |= _changed(expected, other)
        spread = max(spread, float(_apart(expected.logits, other.logits).max()))
    return unsteady & (_apart(expected.logits, found.logits) <= SPREADS * spread)


def batch_independent(network: Network, images: Tensor, double: bool = True) -> ModelCheck:
    """Whether an image has the logits and the NFE by itself that it has among others."""
    name, n = "batch_independent", len(images)
    count = _differing(_alone, network, images, double)
    if count > ALLOWED:
        return _fatal(
            name,
            count / n,
            f"{count} of {n} images have other logits by themselves than in a batch: look for "
            "batch statistics (BatchNorm in training mode), or for means or norms over the batch",
        )
    return _passed(name, count / n, f"{n - count} of {n} images are the same alone and in a batch")


def image_range(
    network: Network, images: Tensor, labels: Tensor, found: Evaluation, expected: Expected
) -> ModelCheck:
    """Whether the model knows images in [0, 1] better than in the ranges that others use."""
    name = "image_range"
    own = found.predictions == labels
    rate = float(own.float().mean())
    here = f"accuracy on images in [0, 1] is {percent(rate)}"
    if 1 - rate < BETTER:
        return _passed(name, 0.0, here)
    quick = network.at(max_steps=STEPS_ELSEWHERE)
    mean, std = (
        images.new_tensor(values).view(-1, 1, 1) for values in (expected.mean, expected.std)
    )
    ranges = {
        f"with mean {_numbers(expected.mean)} and deviation {_numbers(expected.std)} it is {{}}: "
        "put the normalisation into the module": (images - mean) / std,
        "in [-1, 1] it is {}: put 2 * images - 1 into the module": 2 * images - 1,
        "in [0, 255] it is {}: put 255 * images into the module": 255 * images,
    }
    rights = {words: _right(quick, moved, labels) for words, moved in ranges.items()}
    words, best = max(rights.items(), key=lambda item: int(item[1].sum()))
    gained, lost = int((best & ~own).sum()), int((own & ~best).sum())
    gain, there = (gained - lost) / len(own), float(best.float().mean())
    guessing = float(labels.bincount().max()) / len(labels)
    knows = there - guessing > KNOWS_SOMETHING * (1 - guessing)
    if gain < BETTER or not knows or paired.mcnemar(gained, lost)[0] > CERTAIN:
        return _passed(name, gain, f"{here}; no other range is better")
    sentence = f"{here}; {words.format(percent(there))}"
    return (_fatal if gain >= MUCH_BETTER else _warning)(name, gain, sentence)


def _right(network: Network, images: Tensor, labels: Tensor) -> Tensor:
    """Which images are classified correctly, bool [n]: none where the model fails on them."""
    try:
        return evaluate(network, images, batch_size=BATCH).predictions == labels
    except Exception:
        return torch.zeros_like(labels, dtype=torch.bool)


def _numbers(values: Sequence[float]) -> str:
    return listed([f"{value:.4f}" for value in values])


def accuracy(found: Evaluation, labels: Tensor) -> ModelCheck:
    """Whether the model knows more than the commonest class."""
    name, n = "accuracy", len(labels)
    right = int((found.predictions == labels).sum())
    guessing = float(labels.bincount().max()) / n
    rate = right / n
    if proportions.interval(right, n)[0] <= guessing:
        return _warning(
            name,
            rate,
            f"accuracy is {percent(rate)} on {n} images, and {percent(guessing)} are of one class: "
            "a model that guesses says nothing about robustness; check its weights and the order "
            "of the classes",
        )
    return _passed(name, rate, f"accuracy is {percent(rate)} on {n} images")


def no_probabilities(found: Evaluation) -> ModelCheck:
    """Whether the model returns logits and not the probabilities of a softmax."""
    name = "no_probabilities"
    values = found.logits[torch.isfinite(found.logits).all(1)]
    sums = values.sum(1)
    # A softmax in single precision sums to 1 within 1e-6; no logits do for every image.
    if len(values) and bool(((sums - 1).abs() < 1e-4).all() and (values >= 0).all()):
        return _warning(
            name,
            1.0,
            "what the model returns is positive and sums to 1: probabilities, whose cross-entropy "
            "has gradients that vanish; return the logits, without softmax",
        )
    return _passed(name, 0.0, "the model returns logits and no probabilities")


def gradients(network: Network, images: Tensor) -> ModelCheck:
    """Whether there are gradients to follow, of the logits and of the cross-entropy."""
    name, n = "gradients", len(images)
    by_logits = _without_gradient(network, images, _lead)
    if by_logits > NO_GRADIENT * n:
        return _warning(
            name,
            by_logits / n,
            f"the gradient of the logits is zero or missing for {by_logits} of {n} images, so that "
            "attacks by gradients fail: look for detach, no_grad, rounding or argmax in the model",
        )
    by_loss = _without_gradient(network, images, _cross_entropy)
    if by_loss > NO_GRADIENT * n:
        return _warning(
            name,
            by_loss / n,
            f"the gradient of the cross-entropy is zero for {by_loss} of {n} images, and that of "
            "the logits is not: the logits are so large that single precision leaves no digits; "
            "trust attacks with a margin loss, or divide the logits by a constant",
        )
    return _passed(name, by_loss / n, f"{n - by_loss} of {n} images have a gradient")


def _lead(found: Tensor) -> Tensor:
    """Of the largest logit over the next, [n]."""
    top = found.topk(2, dim=1).values
    return top[:, 0] - top[:, 1]


def _cross_entropy(found: Tensor) -> Tensor:
    return F.cross_entropy(found, found.argmax(1), reduction="none")


def _without_gradient(network: Network, images: Tensor, loss: Callable[[Tensor], Tensor]) -> int:
    """For how many images the gradient of a loss is zero, not finite or not there."""
    inputs = images.clone().requires_grad_()
    values = loss(network(inputs)).sum()
    if not values.requires_grad:
        return len(images)
    (gradient,) = torch.autograd.grad(values, inputs, allow_unused=True, materialize_grads=True)
    sizes = gradient.flatten(1).abs().amax(1)
    return int((~(torch.isfinite(sizes) & (sizes > 0))).sum())


def as_torchdiffeq(network: OwnNetwork, images: Tensor) -> ModelCheck:
    """Whether logits and NFE are those of torchdiffeq at batch 1, at the author's and at other tau.

    At the author's settings also those of the module as it stands, without interception.
    """
    name, n = "as_torchdiffeq", len(images)
    solve = network.main_solve
    assert solve is not None
    adaptive = network.spec.found.ode == "adaptive"
    others = [10 * solve.tolerance, 100 * solve.tolerance] if adaptive else []
    counts = {
        tolerance: _differing(_at(tolerance), network, images, network.spec.found.double)
        for tolerance in (None, *others)
    }
    tolerance, count = max(counts.items(), key=lambda item: item[1])
    if count > ALLOWED:
        where = "the author's settings" if tolerance is None else f"tau {tolerance:g}"
        return _fatal(
            name,
            count / n,
            f"at {where}, {count} of {n} images have other logits or another NFE than torchdiffeq "
            "gives for each by itself: the interception fails on this model; report it with the "
            "file (with a copy of torchdiffeq in its folder it is audited without tolerances)",
        )
    return _passed(
        name,
        count / n,
        f"logits and NFE of {n - count} of {n} images are those of torchdiffeq for each by itself",
    )


def _at(tolerance: float | None) -> Compare:
    def compare(network: Network, images: Tensor, explained: bool) -> Tensor:
        assert isinstance(network, OwnNetwork)
        own = evaluate(network.at(tolerance=tolerance), images, batch_size=len(images))
        theirs = network.at(tolerance=tolerance, backend="torchdiffeq")
        unlike = _unlike(own, theirs, images, explained)
        if tolerance is None:
            alone = [
                logits_of(applied(network.module, image), network.spec.output)
                for image in images.split(1)
            ]
            expected = evaluate(theirs, images, batch_size=1).logits
            unlike |= _apart(torch.cat(alone), expected) > ROUNDING[images.dtype]
        return unlike

    return torch.no_grad()(compare)


def measurable(network: OwnNetwork) -> ModelCheck:
    """Whether everything can be measured that the workflow measures."""
    if network.limits:
        return _warning("measurable", len(network.limits), " ".join(network.limits))
    return _passed("measurable", 0.0, "everything can be measured")
