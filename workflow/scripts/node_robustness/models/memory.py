"""How many images to attack at a time: as many as fit a memory budget.

The memory of an image is measured on a few images. Results do not depend on the batch size
(`small_batches`).
"""

import weakref
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from node_robustness.config.compute import Compute
from node_robustness.models.classifier import frozen
from node_robustness.models.differentiation import gradient
from node_robustness.models.network import Network

PROBES = 4
"""Number of images on which the memory of an image is measured."""

LARGEST_BATCH = 1024
"""Largest batch size, however much memory there is.

Larger batches are hardly faster: on two cores a batch of 256 is 2 to 7 % faster than one of 128
(docs/performance.md). The bound lets a job show progress.
"""

_MARGIN = 1.5  # for images that need more steps than the measured ones, and for workspaces


class _Meter(TorchDispatchMode):
    """Sums the bytes of all live tensors and keeps the largest sum."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = 0
        self.peak = 0
        self._known: set[int] = set()

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Nothing is compiled: PyTorch need not import its compiler, which takes a second."""
        return False

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(tensor, Tensor):
                self._note(tensor.untyped_storage())
        return result

    def _note(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._known:
            return
        self._known.add(key)
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._forget, key, size)

    def _forget(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.now -= size


def bytes_per_image(model: nn.Module, images: Tensor) -> int:
    """Peak memory of one image, in bytes, while a gradient of its logits is computed.

    Args:
        model: images to logits, with the solver settings of the attack.
        images: a few images, float [n, C, H, W] in [0, 1].
    """
    with frozen(model), _Meter() as meter:
        inputs = images.clone().requires_grad_()
        gradient(model(inputs), inputs)
    peak: int = meter.peak
    return -(-peak // len(images))


def images_in_an_equation(model: nn.Module) -> int | None:
    """How many images a model solves as one equation; None if it solves each separately."""
    for module in model.modules():
        if isinstance(module, Network) and module.solver is not None:
            return module.solver.batch_size if module.solver.backend == "torchdiffeq" else None
    return None


def images_at_a_time(
    compute: Compute, model: nn.Module, images: Tensor, source: nn.Module | None = None
) -> int:
    """The batch size for attacking images, or for evaluating them, which takes less memory.

    Where a model solves several images as one equation, the batch size changes its results, so
    that the model's setting applies and not the memory budget.

    Args:
        compute: sets the batch size, or the budget in megabytes (2^20 bytes). By default the
            budget is 1,000 MB on a CPU and 80 % of the free memory on a CUDA device.
        model: images to logits, with the solver settings of the attack.
        images: all images of the job, float [n, C, H, W] in [0, 1], n >= 1.
        source: another model on which the attack computes adversarial examples or gradients.

    Returns:
        The batch size, 1 to `LARGEST_BATCH` unless `compute` or a model sets it.
    """
    joint = images_in_an_equation(model) or (source and images_in_an_equation(source))
    if joint:
        return joint
    if compute.batch_size is not None:
        return compute.batch_size
    budget_mb: float | None = compute.memory_mb
    if budget_mb is None:
        budget_mb = 1000.0
        if images.device.type == "cuda":
            budget_mb = 0.8 * torch.cuda.mem_get_info(images.device)[0] / 2**20
    need = bytes_per_image(model, images[:PROBES])
    return max(1, min(int(budget_mb * 2**20 / (_MARGIN * need)), LARGEST_BATCH))
