"""What a cell costs over SLURM beyond its computation: a job each, groups, a pilot, and no SLURM.

    tests/slurm/cluster.sh run python benchmarks/slurm_modes.py

Computes the attacks of the tests' tiny experiment, each a fraction of a second, in every mode, and
prints CPU seconds a cell: as SLURM accounted them for the jobs, or for the processes here. Those of
Snakemake on the login node are not counted. Another cluster: --partition, --options of snakemake.
"""

import argparse
import re
import resource
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
CONFIG = ROOT / "tests/workflow/tiny.yaml"
PRETEND = (
    f"--slurm-partition-config {ROOT}/tests/slurm/partitions.yaml "
    "--resources runtime=60 mem_mb=8000 gpu=1 --slurm-init-seconds-before-status-checks 2"
)


def arguments(folder: Path, *targets: str) -> list[str]:
    """The arguments of a run in a folder."""
    where = ["--snakefile", str(ROOT / "Snakefile"), "--directory", str(folder)]
    return [*targets, *where, "--configfile", str(CONFIG)]


def run(*command: str) -> str:
    """What a command says; its end in failure is this one's."""
    done = subprocess.run(
        command, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=ROOT
    )
    if done.returncode:
        sys.exit(f"{shlex.join(command)} failed:\n{done.stdout[-2000:]}")
    return done.stdout


def snakemake(*options: str) -> str:
    """What Snakemake says."""
    return run(sys.executable, "-m", "snakemake", *options)


def accounted(*which: str) -> float:
    """CPU seconds of SLURM jobs."""
    said = run("sacct", "--noheader", "--parsable2", "--format=JobID,TotalCPU", *which)
    seconds = 0.0
    for job, row in (line.split("|") for line in said.splitlines()):
        if "." in job:  # the job's own sum is only filled in with its steps
            for part, unit in zip(
                reversed(re.split("[-:]", row)), (1, 60, 3600, 86400), strict=False
            ):
                seconds += float(part) * unit
    return seconds


def submitted(folder: Path, targets: list[str], options: list[str]) -> float:
    """CPU seconds of the SLURM jobs that make targets."""
    said = snakemake(*arguments(folder, *targets), "--profile", "profiles/slurm", *options)
    return accounted("--name=" + said.split("SLURM run ID: ")[1].split()[0])


def piloted(folder: Path, targets: list[str], partition: str) -> float:
    """CPU seconds of one allocation of two GPUs that makes targets."""
    allocation = [f"--partition={partition}", "--gpus-per-node=2", "--cpus-per-task=2"]
    allocation += ["--mem=8000", "--time=30", f"--output={folder}/pilot.log"]
    script = ["profiles/pilot/pilot.sh", *arguments(folder, *targets)]
    return accounted(
        "--jobs=" + run("sbatch", "--parsable", "--wait", *allocation, *script).strip()
    )


def local(folder: Path, targets: list[str]) -> float:
    """CPU seconds of the same without SLURM, Snakemake's included."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    snakemake(*arguments(folder, *targets), "--cores", "2")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--partition", default="gpu", help="of the pilot")
    parser.add_argument("--options", type=shlex.split, default=shlex.split(PRETEND))
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        finished = Path(name) / "finished"
        finished.mkdir()
        snakemake(*arguments(finished), "--cores", "2")
        targets = [str(path.relative_to(finished)) for path in finished.rglob("attack.h5")]
        groups = ["--groups", "attack=cells", "--group-components", "cells=3"]
        modes = {
            "a job each": lambda folder: submitted(folder, targets, given.options),
            "groups of three": lambda folder: submitted(folder, targets, given.options + groups),
            "pilot": lambda folder: piloted(folder, targets, given.partition),
            "without SLURM": lambda folder: local(folder, targets),
        }
        for number, (mode, measure) in enumerate(modes.items()):
            folder = Path(shutil.copytree(finished, Path(name) / str(number)))
            for target in targets:
                (folder / target).unlink()
            print(f"{mode:16} {measure(folder) / len(targets):5.2f} CPU s a cell", flush=True)


if __name__ == "__main__":
    main()
