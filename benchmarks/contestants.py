"""The same attack, the same training step and the same forward pass, done by different code.

- ours: the batched solver, in which every image has its own steps, and the attack engine;
- torchattacks: its PGD over torchdiffeq's direct gradient, the batch solved as one equation;
- paper: image by image, adjoint gradients by torchdiffeq, until the first adversarial iterate.
"""

import inspect
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
import torchattacks
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from nets import classifier
from node_robustness.attacks import engine
from node_robustness.attacks.bim import BasicIterativeMethod
from node_robustness.perturbations.norms import Norm

ITERATIONS, STEP = 10, 0.05


@dataclass(frozen=True)
class Attacked:
    """What an attack took, and whom it fooled.

    Attributes:
        seconds: for all its images.
        success: among the images that were classified correctly, bool [n].
        correct: whether they were, bool [n].
    """

    seconds: float
    success: Tensor
    correct: Tensor

    @property
    def seconds_an_image(self) -> float:
        return self.seconds / len(self.success)


def synchronise(device: torch.device) -> None:
    """Wait until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds(work: Callable[[], object], device: torch.device) -> float:
    """Wall time of a piece of work."""
    synchronise(device)
    started = time.perf_counter()
    work()
    synchronise(device)
    return time.perf_counter() - started


def ours(
    model: classifier.Classifier,
    images: Tensor,
    labels: Tensor,
    epsilon: float,
    *,
    batch_size: int,
    **solver: object,
) -> Attacked:
    """Our attack engine on our solver; `solver` changes the solver's settings."""
    method = BasicIterativeMethod(Norm("linf"), epsilon, STEP, ITERATIONS)
    found, solved = [], model.at(**solver)
    taken = seconds(
        lambda: found.append(engine.attack(solved, images, labels, method, batch_size=batch_size)),
        images.device,
    )
    return Attacked(taken, found[0].success, found[0].attacked)


def by_torchattacks(
    model: classifier.Classifier, images: Tensor, labels: Tensor, epsilon: float, tolerance: float
) -> Attacked:
    """PGD of torchattacks over torchdiffeq, without random start; successes as of its last step."""
    found = []
    model = model.at(backend="torchdiffeq", tolerance=tolerance)

    def work() -> None:
        attack = torchattacks.PGD(model, epsilon, STEP, ITERATIONS, random_start=False)
        with torch.no_grad():
            correct = model(images).argmax(1) == labels
        examples = attack(images, labels)
        with torch.no_grad():
            found.append((correct, correct & (model(examples).argmax(1) != labels)))

    with classifier.frozen(model):
        taken = seconds(work, images.device)
    return Attacked(taken, found[0][1], found[0][0])


def by_the_paper(
    model: classifier.Classifier, images: Tensor, labels: Tensor, epsilon: float, tolerance: float
) -> Attacked:
    """The paper's procedure: one image at a time; its parameters are not frozen."""
    success, correct = [], []
    model = model.at(backend="torchdiffeq", gradient="adjoint", tolerance=tolerance)

    def work() -> None:
        for image, label in zip(images.split(1), labels.split(1), strict=True):
            right, fooled = _one_image(model, image, label, epsilon)
            correct.append(right)
            success.append(fooled)

    taken = seconds(work, images.device)
    return Attacked(taken, torch.tensor(success), torch.tensor(correct))


def _one_image(model: nn.Module, image: Tensor, label: Tensor, epsilon: float) -> tuple[bool, bool]:
    with torch.no_grad():
        if model(image).argmax(1) != label:
            return False, False
    current = image
    for _ in range(ITERATIONS):
        current = current.detach().requires_grad_()
        loss = F.cross_entropy(model(current), label)
        (gradient,) = torch.autograd.grad(loss, current)
        moved = current.detach() + STEP * gradient.sign()
        current = (image + (moved - image).clamp(-epsilon, epsilon)).clamp(0, 1)
        with torch.no_grad():
            if model(current).argmax(1) != label:
                return True, True
    return True, False


def gradients(
    model: classifier.Classifier, images: Tensor, labels: Tensor, **solver: object
) -> Callable[[], None]:
    """The gradient of each image's loss, as an attack needs it; parameters are frozen."""
    solved = model.at(**solver)

    def work() -> None:
        with classifier.frozen(solved):
            inputs = images.clone().requires_grad_()
            torch.autograd.grad(F.cross_entropy(solved(inputs), labels, reduction="sum"), inputs)

    return work


def gradients_by_the_paper(
    model: classifier.Classifier, images: Tensor, labels: Tensor, tolerance: float
) -> Callable[[], None]:
    """The same one image at a time, by torchdiffeq's adjoint with the parameters in its norm."""
    paper = {"backend": "torchdiffeq", "gradient": "adjoint", "tolerance": tolerance}
    each = [
        gradients(model, image, label, **paper)
        for image, label in zip(images.split(1), labels.split(1), strict=True)
    ]

    def work() -> None:
        for one in each:
            one()

    return work


def training_step(
    model: classifier.Classifier, images: Tensor, labels: Tensor, **solver: object
) -> Callable[[], None]:
    """Forward and backward pass of one step, and SGD with a rate of zero (nothing changes)."""
    optimiser = torch.optim.SGD(model.parameters(), lr=0.0, momentum=0.9)
    solved = model.at(**solver)

    def step() -> None:
        optimiser.zero_grad()
        F.cross_entropy(solved(images), labels).backward()
        optimiser.step()

    return step


def forward(model: classifier.Classifier, images: Tensor, **solver: object) -> Callable[[], None]:
    """A forward pass without gradients."""

    solved = model.at(**solver)

    def work() -> None:
        with torch.no_grad():
            solved(images)

    return work


class _Convolutions(TorchFunctionMode):
    """Takes note of the convolutions that run."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[torch.Size, Tensor, Any, Any]] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (torch.conv2d, F.conv2d):
            named = inspect.getcallargs(_conv2d, *args, **(kwargs or {}))
            call = named["input"].shape, named["weight"], named["stride"], named["padding"]
            self.calls.append(call)
        return func(*args, **(kwargs or {}))


def _conv2d(input, weight, bias=None, stride=1, padding=0, dilation=1, groups=1) -> None:  # type: ignore[no-untyped-def] # noqa: ANN001
    """The signature of torch.conv2d, which cannot be inspected."""


def convolutions(work: Callable[[], None]) -> tuple[Callable[[], None], float]:
    """The convolutions of a piece of work, on the same shapes, and nothing else.

    Returns:
        What does them, and their floating point operations.
    """
    with _Convolutions() as recorder:
        work()
    calls = recorder.calls
    inputs = {shape: torch.randn(shape, device=weight.device) for shape, weight, _, _ in calls}

    def only_these() -> None:
        with torch.no_grad():
            for shape, weight, stride, padding in calls:
                F.conv2d(inputs[shape], weight, stride=stride, padding=padding)

    operations = 0.0
    for shape, weight, stride, padding in calls:
        with torch.no_grad():
            out = F.conv2d(inputs[shape][:1], weight, stride=stride, padding=padding)
        operations += 2.0 * shape[0] * out.numel() * weight[0].numel()
    return only_these, operations


def by_torchode(
    model: classifier.Classifier, images: Tensor, tolerance: float
) -> Callable[[], None]:
    """A forward pass by torchode's own batched Dormand-Prince method.

    Raises:
        ImportError: it is not installed.
    """
    import torchode

    assert model.ode is not None
    function = model.ode.function

    def work() -> None:
        with torch.no_grad():
            state = model.embed(images)
            shape = state.shape
            bound = function.bind(state)
            term = torchode.ODETerm(
                lambda t, y: bound(t, y.unflatten(1, shape[1:])).flatten(1)  # type: ignore[arg-type]
            )
            method = torchode.Dopri5(term=term)
            control = torchode.IntegralController(atol=tolerance, rtol=tolerance, term=term)
            solver = torchode.AutoDiffAdjoint(method, control)
            ends = torch.tensor([[0.0, 1.0]], device=state.device).expand(len(state), 2)
            problem = torchode.InitialValueProblem(y0=state.flatten(1), t_eval=ends)
            solution = solver.solve(problem)
            model.head(solution.ys[:, -1].unflatten(1, shape[1:]))

    return work
