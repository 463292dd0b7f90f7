"""How fast this machine is, next to the one on which the rates in `rates` were measured.

As a program, this module measures it and prints what it found: numpy is imported in a process that
ends. It takes a fraction of a second, once for each machine. Nothing but what a run says of its
time depends on it, so no failure here is one of the run.
"""

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

_LONGEST = 3.0  # seconds that a run waits for the measurement
_REPEATS = 5
_SIDE = 512  # of the matrices whose product is measured
_CALLS = 200_000
# On one core of an AMD EPYC, where the rates were measured: of the product, and of the calls.
_PRODUCT_SECONDS = 2.1e-3
_CALLS_SECONDS = 5.0e-3


@dataclass(frozen=True)
class Speed:
    """How many times as fast a core is as that on which the rates were measured.

    Attributes:
        arithmetic: in sums and products of many numbers.
        calls: in what Python does between them.
    """

    arithmetic: float = 1.0
    calls: float = 1.0


def of_this_machine() -> Speed:
    """The speed that was measured here, or is measured now.

    That of the other machine where it cannot be measured.
    """
    file = _file()
    with suppress(OSError, ValueError):
        return _read(file.read_text(encoding="utf-8"))
    try:
        text = subprocess.run(
            [sys.executable, __file__],
            env=os.environ | dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1"),
            capture_output=True,
            text=True,
            check=True,
            timeout=_LONGEST,
        ).stdout
        speed = _read(text)
    except (OSError, ValueError, subprocess.SubprocessError):
        return Speed()
    with suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        # Another run may read it meanwhile.
        part = file.with_suffix(f".{os.getpid()}")
        part.write_text(text, encoding="utf-8")
        part.replace(file)
    return speed


def _file() -> Path:
    """In the user's cache, which several machines may share."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "node-robustness" / f"speed-of-{platform.node() or 'this-machine'}.json"


def _read(text: str) -> Speed:
    """What `_measure` found.

    Raises:
        ValueError: the text is something else.
    """
    try:
        speed = Speed(**json.loads(text))
        if min(speed.arithmetic, speed.calls) > 0:
            return speed
    except TypeError:
        pass
    raise ValueError(f"no speed: {text}")


def _measure() -> Speed:
    import numpy as np

    matrix = np.ones((_SIDE, _SIDE), dtype=np.float32)
    return Speed(
        arithmetic=_PRODUCT_SECONDS / _fastest(lambda: matrix @ matrix),
        calls=_CALLS_SECONDS / _fastest(_call),
    )


def _call() -> None:
    for number in range(_CALLS):
        len((number,))


def _fastest(work: Callable[[], object]) -> float:
    """The least CPU seconds: others may use the machine meanwhile."""
    seconds = []
    for _ in range(_REPEATS):
        started = time.process_time()
        work()
        seconds.append(time.process_time() - started)
    return min(seconds)


if __name__ == "__main__":
    print(json.dumps(asdict(_measure())))
