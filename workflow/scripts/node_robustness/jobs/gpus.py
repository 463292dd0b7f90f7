"""The GPU of a job on a machine with several: one that no other job of this user holds.

A cluster gives each job its own. Elsewhere Snakemake only counts (`--resources gpu=4`), and without
a choice all jobs would land on the first device. A lock on a file stands for a job on a device; the
kernel releases it when the process ends, however it ends. Only when every device is held do jobs
share them: each device has a second slot, and a third. It imports no torch, so tests need no GPU.
"""

import fcntl
import itertools
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO

VISIBLE = "CUDA_VISIBLE_DEVICES"

_held: list[IO[str]] = []


def hold_one(count: int) -> None:
    """Let this process see one GPU alone until it ends; call it before CUDA starts.

    It chooses from those that `CUDA_VISIBLE_DEVICES` names, or else from all. With one or
    none there is no choice.

    Args:
        count: the GPUs of the machine, at least 0, where the variable is not set.

    Raises:
        OSError: no lock can be had in the folder for temporary files.
    """
    named = os.environ.get(VISIBLE)
    devices = [str(i) for i in range(count)] if named is None else named.split(",")
    if len(devices) > 1:
        folder = Path(tempfile.gettempdir()) / f"node-robustness-gpus-{os.getuid()}"
        folder.mkdir(mode=0o700, exist_ok=True)
        os.environ[VISIBLE], lock = claim_gpu(devices, folder)
        _held.append(lock)


def claim_gpu(devices: Sequence[str], folder: Path) -> tuple[str, IO[str]]:
    """Lock the lowest free slot of any of the devices.

    Args:
        devices: names of at least one device.
        folder: of the locks of all jobs.

    Returns:
        The device, and the file that releases it when closed.
    """
    for slot, device in ((slot, device) for slot in itertools.count() for device in devices):
        lock = (folder / f"{device.replace('/', '-')}.{slot}").open("w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
        else:
            return device, lock
    raise AssertionError("unreachable: there is always another slot")
