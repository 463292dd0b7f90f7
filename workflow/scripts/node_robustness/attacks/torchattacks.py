"""The attacks of the library torchattacks."""

import inspect
import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from node_robustness.attacks.best import Best
from node_robustness.attacks.method import Found, Pass
from node_robustness.errors import UserError
from node_robustness.perturbations.ball import into_ball
from node_robustness.perturbations.norms import Norm
from node_robustness.perturbations.streams import Streams

_SEEDS = 2**31
_LIBRARY_NORMS = {"linf": "Linf", "l2": "L2", "l2_rms": "L2"}


@dataclass(frozen=True)
class LibrarySearch:
    """An untargeted attack of the library, and our own evaluation of what it returns.

    The library draws random numbers for whole batches, from torch's global generators, and the
    images of a batch share losses. Images are therefore attacked one by one, each after a seed
    from its own stream. What is returned is projected into the ball and evaluated by the model:
    the library's own idea of success does not count.

    Attributes:
        norm: in which epsilon is measured.
        epsilon: largest norm of a perturbation.
        name: a class of the library.
        parameters: arguments of the class. The model, epsilon, the norm, the seed and the number
            of classes are added where it takes them.
        relative_step: the argument `alpha` as a share of epsilon; as in `parameters` if None.
    """

    norm: Norm
    epsilon: float
    name: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    relative_step: float | None = None

    largest_batch: ClassVar[int] = 1
    """See `method.BoundsBatches`."""

    @property
    def passes(self) -> int:
        """See `Method.passes`: the library sets no bound."""
        return sys.maxsize

    def search(self, model: nn.Module, images: Tensor, labels: Tensor, streams: Streams) -> Found:
        """See `Method.search`. `iterations` are forward passes."""
        best = Best(images, labels, self.norm, self.epsilon)
        for row in torch.arange(len(labels), device=labels.device).split(1):
            moved, passes = self._attacked(model, images[row], labels[row], streams[row])
            moved = torch.where(torch.isfinite(moved), moved, images[row])
            candidate = into_ball(images[row], moved, self.norm, self.epsilon)
            best.consider(row, Pass.over(model, candidate, differentiable=False), steps=passes)
        return best.found()

    def _attacked(
        self, model: nn.Module, image: Tensor, label: Tensor, streams: Streams
    ) -> tuple[Tensor, int]:
        """What the library makes of one image [1, C, H, W], and the forward passes it took."""
        library = self._library_class()
        seed = int(streams.integers(0, _SEEDS, ()))
        passes = 0

        def count(*_: object) -> None:
            nonlocal passes
            passes += 1

        arguments = self._arguments(library, model, image, seed)
        counter = model.register_forward_hook(count)
        devices = [image.device] if image.device.type == "cuda" else []
        try:
            with torch.random.fork_rng(devices):
                torch.manual_seed(seed)
                attack = library(model, **arguments)
                attack.set_device(image.device)
                moved = attack(image.clone(), label.clone())
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            raise UserError(
                f"torchattacks.{self.name} fails on images of shape {tuple(image.shape[1:])}: "
                f"{type(error).__name__}: {' '.join(str(error).split())}: remove this attack, or "
                "change its parameters"
            ) from error
        finally:
            counter.remove()
        # DeepFool's steps, for one, are recorded in the image that it returns.
        return moved.detach().to(image), passes

    def _library_class(self) -> Any:
        try:
            import torchattacks
        except ImportError:
            raise UserError(
                "torchattacks is not installed: run pip install --no-deps --requirement "
                "requirements/no-deps.txt"
            ) from None
        return getattr(torchattacks, self.name)

    def _arguments(
        self, library: Any, model: nn.Module, image: Tensor, seed: int
    ) -> dict[str, Any]:
        """All arguments of the class but the model."""
        epsilon = self.epsilon
        if self.norm.name == "l2_rms":
            epsilon *= math.sqrt(image[0].numel())
        known = inspect.signature(library).parameters
        given = {
            "eps": epsilon,
            "max_epsilon": epsilon,
            "norm": _LIBRARY_NORMS[self.norm.name],
            "seed": seed,
        }
        if "n_classes" in known:
            with torch.no_grad():
                given["n_classes"] = model(image).shape[1]
        arguments = {**self.parameters, **{key: given[key] for key in given if key in known}}
        if self.relative_step is not None:
            arguments["alpha"] = self.relative_step * epsilon
        return arguments
