"""Install the PyTorch that run.txt pins, in the build that suits this machine, and nothing else.

PyPI's wheels for Linux bring gigabytes of CUDA, which a machine without an NVIDIA GPU has no use
for. There PyTorch's own index of CPU builds is asked first. The environment variable TORCH
overrules this: `cpu`, `cuda` (whatever pip's own index has), or the URL of a package index.
Arguments are passed on to pip: `--force-reinstall` replaces another build of the same version. It
needs no package: everything else is installed after it.
"""

import ctypes
import os
import platform
import subprocess
import sys
from pathlib import Path

CPU_INDEX = "https://download.pytorch.org/whl/cpu"
DRIVER = Path("/proc/driver/nvidia/version")
SECONDS = 10

# The sizes of the wheels for x86-64.
CPU_BUILD = "the CPU build, about 0.2 GB"
CUDA_BUILD = "the CUDA build, about 2.7 GB"

# Prints a page. In a separate process: what a name server takes has no timeout in Python.
READ = "import sys, urllib.request as u; print(u.urlopen(sys.argv[1], timeout=5).read().decode())"


def main() -> int:
    """Choose the build, say which and why, and have pip install it."""
    wanted = os.environ.get("TORCH") or "auto"
    requirement = pinned()
    try:
        index, reason = choose(wanted, requirement)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    print(f"PyTorch: {reason}", file=sys.stderr)
    command = [sys.executable, "-m", "pip", "install", "--no-deps", requirement, *sys.argv[1:]]
    if index is not None:
        command += ["--index-url", index]
    return subprocess.run(command).returncode


def pinned() -> str:
    """The line of run.txt that names PyTorch and its version."""
    lines = Path(__file__).with_name("run.txt").read_text(encoding="utf-8").splitlines()
    return next(line for line in lines if line.startswith("torch=="))


def choose(wanted: str, requirement: str) -> tuple[str | None, str]:
    """The index to take PyTorch from, None being pip's own, and why."""
    if wanted == "cpu":
        return CPU_INDEX, f"the CPU build, as TORCH={wanted} asks for."
    if wanted == "cuda":
        return None, f"the build of pip's own index, as TORCH={wanted} asks for."
    if "://" in wanted:
        return wanted, f"the build of {wanted}, as TORCH asks for."
    if wanted != "auto":
        raise ValueError(f"TORCH is {wanted!r}: set it to auto, cpu, cuda or the URL of an index.")
    if platform.system() != "Linux":
        return None, "the build of pip's own index: there is no CUDA on this system."
    if has_driver():
        return None, f"{CUDA_BUILD}, because an NVIDIA driver was found. TORCH=cpu overrules this."
    if has_gpus_elsewhere():
        return None, f"{CUDA_BUILD}, because SLURM has nodes with GPUs. TORCH=cpu overrules this."
    if not offers(CPU_INDEX, requirement):
        return None, f"the build of pip's own index, because {CPU_INDEX} does not answer."
    return CPU_INDEX, f"{CPU_BUILD}, because no NVIDIA driver was found. TORCH=cuda overrules this."


def has_driver() -> bool:
    """Whether this machine has an NVIDIA driver."""
    if DRIVER.exists():
        return True
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return bool(printed("nvidia-smi"))
    return True


def has_gpus_elsewhere() -> bool:
    """Whether this is a login node: jobs share its environment, and SLURM gives them GPUs."""
    return "gpu" in printed("sinfo", "--noheader", "--format=%G")


def offers(index: str, requirement: str) -> bool:
    """Whether a package index answers soon, and with this version."""
    return requirement.replace("==", "-") in printed(sys.executable, "-c", READ, f"{index}/torch/")


def printed(*command: str) -> str:
    """What a program prints: nothing if it is not there, fails or hangs."""
    try:
        run = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return run.stdout if run.returncode == 0 else ""


if __name__ == "__main__":
    sys.exit(main())
