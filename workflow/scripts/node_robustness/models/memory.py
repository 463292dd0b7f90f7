"""How many images to attack at a time: as many as a memory budget holds.

The need is measured on a few images. Results do not depend on the number (`small_batches`).
"""

import weakref
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from node_robustness.config.config import Compute
from node_robustness.models.classifier import frozen
from node_robustness.models.ode_body import ODEBody

PROBES = 4
"""Images on which the need of memory is measured."""

LARGEST_BATCH = 1024
"""Most images at a time, however much memory there is.

Larger batches hardly get faster: on two cores 256 at a time are 2 to 7 % faster than 128
(docs/performance.md). Where memory is plentiful, a bound lets a job show progress.
"""

_MARGIN = 1.5  # for images that need more steps than the probes, and for the kernels' workspaces


class _Meter(TorchDispatchMode):
    """Adds up the bytes of all tensors that are alive, and keeps the largest sum."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = 0
        self.peak = 0
        self._known: set[int] = set()

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


def bytes_an_image(model: nn.Module, images: Tensor) -> int:
    """The memory that one image takes at most while a gradient of its logits is computed.

    Args:
        model: images to logits, with the solver settings of the attack.
        images: a few images, float [n, C, H, W] in [0, 1].
    """
    with frozen(model), _Meter() as meter:
        asking = images.clone().requires_grad_()
        torch.autograd.grad(model(asking).sum(), asking)
    peak: int = meter.peak
    return -(-peak // len(images))


def _one_equation(model: nn.Module) -> int | None:
    """How many images a model solves as one equation; None if each is its own."""
    for module in model.modules():
        if isinstance(module, ODEBody) and module.settings.backend == "torchdiffeq":
            return module.settings.batch_size
    return None


def images_at_a_time(
    compute: Compute, model: nn.Module, images: Tensor, source: nn.Module | None = None
) -> int:
    """How many images to attack, or to evaluate, which takes less, at a time.

    Args:
        compute: names the number, or the megabytes (2^20 bytes) that it follows from. If neither
            is set: 1,000 MB on a CPU, and four fifths of what is free on a CUDA device.
        model: images to logits, with the solver settings of the attack.
        images: those of the job, float [n, C, H, W] in [0, 1], n >= 1.
        source: another model that makes the adversarials.

    Where a model solves several images as one equation, their number changes its results: it is
    then the model's to say, and not the memory's.
    """
    joint = _one_equation(model) or (source and _one_equation(source))
    if joint:
        return joint
    if compute.batch_size is not None:
        return compute.batch_size
    budget_mb: float | None = compute.memory_mb
    if budget_mb is None:
        budget_mb = 1000.0
        if images.device.type == "cuda":
            budget_mb = 0.8 * torch.cuda.mem_get_info(images.device)[0] / 2**20
    need = bytes_an_image(model, images[:PROBES])
    return max(1, min(int(budget_mb * 2**20 / (_MARGIN * need)), LARGEST_BATCH))
