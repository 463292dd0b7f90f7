"""The device and the threads of a job."""

import ctypes
import logging
import os
import platform
from collections.abc import Mapping
from typing import Any

import torch

from node_robustness.config.compute import Compute
from node_robustness.config.values import with_nulls
from node_robustness.errors import UserError
from node_robustness.jobs import gpus

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_KEPT_BYTES = 1 << 30
_LARGEST_MMAP_THRESHOLD = 32 << 20  # before glibc 2.35


def set_up(
    configuration: Mapping[str, Any], *, training: bool = False
) -> tuple[Compute, torch.device]:
    """Make a job ready to compute: its threads are set and its device is chosen.

    Args:
        configuration: the whole one, as Snakemake read it and checked it before any job; only its
            section `compute` is read here.
        training: whether the job trains, with `compute.training_threads`.

    Returns:
        The section `compute`, and the device.

    Raises:
        UserError: the device is missing.
    """
    compute = Compute.model_validate(with_nulls(configuration.get("compute", {})))
    keep_freed_memory()
    set_threads(compute.training_threads if training else compute.threads)
    return compute, choose_device(compute.device)


def choose_device(name: str) -> torch.device:
    """The device that `compute.device` names; call it before anything runs on a device.

    On cuda it also asks for full float32 precision and repeatable results: by default cuDNN's
    convolutions round to 10 bits of mantissa (TF32), which is coarser than the tolerances at which
    an ODE is solved, and cuBLAS repeats its results only with a workspace of fixed size. Of several
    GPUs it takes one that no other job holds.

    Args:
        name: `auto` (cuda, else mps, else cpu), `cpu`, `cuda` or `mps`.

    Raises:
        UserError: the named device is not there.
    """
    if name in ("auto", "cuda"):
        gpus.hold_one(torch.cuda.device_count())
    there = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    chosen = next(device for device in there if there[device]) if name == "auto" else name
    if not there[chosen]:
        raise UserError(
            f"compute.device: {name} is not there (PyTorch {torch.__version__} finds none); "
            "set it to auto or cpu"
        )
    given = os.environ.get(gpus.VISIBLE)
    if name == "auto" and given and not there["cuda"]:
        logging.warning(
            "a GPU was given to this job (%s=%s), but PyTorch %s finds none: computing on the %s",
            gpus.VISIBLE,
            given,
            torch.__version__,
            chosen,
        )
    if chosen == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.backends.cudnn.allow_tf32 = False
        torch.backends.cuda.matmul.allow_tf32 = False
    return torch.device(chosen)


def keep_freed_memory() -> None:
    """Let this process keep the memory that it frees, for its next tensors.

    By default glibc returns it to the kernel at the end of almost every step of a solver, and the
    next one faults its pages in again, which takes a tenth to a quarter of the time of a gradient.
    Other C libraries are left as they are. See `mallopt(3)`.
    """
    library = ctypes.CDLL(None)
    if hasattr(library, "gnu_get_libc_version"):
        library.mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)
        # Either of them, once set, ends the adaptation of both: this must not stay at 128 KiB.
        if not library.mallopt(_M_MMAP_THRESHOLD, _KEPT_BYTES):
            library.mallopt(_M_MMAP_THRESHOLD, _LARGEST_MMAP_THRESHOLD)


def set_threads(threads: int) -> None:
    """Use this many CPU threads; the last bits of a result depend on their number."""
    torch.set_num_threads(threads)


def describe(device: torch.device) -> str:
    """The device by name, such as `cuda (NVIDIA H200)` or `cpu (x86_64)`."""
    if device.type == "cuda":
        return f"cuda ({torch.cuda.get_device_name(device)})"
    return f"{device.type} ({platform.machine()})"
