"""How much of a core Snakemake takes while a grid runs, as it is and with its scheduler mended.

    python benchmarks/rounds.py [--jobs 1000] [--seconds 90] [--json out.json]

Runs a workflow of so many jobs that do nothing for three seconds, twenty at a time, once as
Snakemake is and once with what `node_robustness.scheduling.snakemake_fixes` changes; after so many
seconds each is stopped, and the CPU time of Snakemake's own process is set beside it.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

SCRIPTS = Path(__file__).parents[1] / "workflow" / "scripts"
JOBS_AT_A_TIME = 20
SNAKEFILE = """
import os, sys

if os.environ["MENDED"] == "yes":
    sys.path.insert(0, {scripts!r})
    from node_robustness.scheduling import snakemake_fixes
    from snakemake.scheduling.job_scheduler import JobScheduler

    snakemake_fixes.mend(JobScheduler)

rule all:
    input: expand("out/{{i}}", i=range({jobs}))

rule wait:
    input: "Snakefile"
    output: "out/{{i}}"
    resources: mem_mb=lambda wildcards: 1
    shell: "sleep 3; touch {{output}}"
"""


def measure(jobs: int, seconds: float, *, mended: bool) -> dict[str, float]:
    """CPU seconds of Snakemake's own process from its first job on, and the jobs that ended."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "Snakefile").write_text(SNAKEFILE.format(scripts=str(SCRIPTS), jobs=jobs))
        command = [sys.executable, "-m", "snakemake", "--cores", str(JOBS_AT_A_TIME), "--quiet"]
        environment = {**os.environ, "MENDED": "yes" if mended else "no"}
        with subprocess.Popen(
            [*command, "all"], cwd=folder, env=environment, stderr=subprocess.DEVNULL
        ) as started:
            process = psutil.Process(started.pid)
            while not (folder / "out").exists():
                time.sleep(0.1)
            before = process.cpu_times()
            time.sleep(seconds)
            after = process.cpu_times()
            for own in [process, *process.children(recursive=True)]:
                own.kill()
        ended = len(list((folder / "out").iterdir()))
    cpu = after.user + after.system - before.user - before.system
    return {"cpu_seconds": cpu, "share_of_a_core": cpu / seconds, "jobs_ended": ended}


def main() -> None:
    """Measure both and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=90)
    parser.add_argument("--json", type=Path, help="also write the figures here")
    arguments = parser.parse_args()
    found = {
        name: measure(arguments.jobs, arguments.seconds, mended=mended)
        for name, mended in (("as it is", False), ("mended", True))
    }
    for name, row in found.items():
        print(
            f"{name}: {row['cpu_seconds']:.1f} s of CPU in {arguments.seconds:.0f} s, "
            f"{row['jobs_ended']} jobs ended"
        )
    ratio = found["as it is"]["cpu_seconds"] / found["mended"]["cpu_seconds"]
    print(f"as it is, {ratio:.1f} times as much")
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
