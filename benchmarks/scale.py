"""What Snakemake needs to plan thousands of cells, and what a job costs beyond its computation.

    python benchmarks/scale.py [--cells 100 1000 10000] [--repeats 3]
                               [--output results/benchmarks/scale.json]

Compares a dry run of the workflow with three others of as many jobs, measured in turn in this run,
the best of the repetitions each: wall time, CPU time and the largest memory of the process.

bare      trivial jobs: no inputs, no parameters, one `touch`
shaped    jobs with a script, three inputs, log and message, summarised in one table
constant  the same with a cell's eight coordinates, its parameters and what it asks a scheduler for,
          all of them constants: no function of this project is called

What `constant` takes more than `bare` is Snakemake's cost of the form of a cell. Rows are printed
and written to a JSON file. Nothing else should run meanwhile; if something does, compare CPU times.
"""

import argparse
import ast
import os
import platform
import re
import subprocess
import sys
import tempfile
import textwrap
import time
from importlib.metadata import version
from itertools import product
from pathlib import Path
from typing import Any

import yaml

import results

SCRIPTS = results.ROOT / "workflow/scripts"
Table = list[dict[str, Any]]

# Cells are 2 models x the product of these. Two of the five attacks are expensive ones, which have
# the files of the others among their inputs.
_GRIDS = {
    100: {"seeds": 1, "tolerances": 5, "epsilons": 2},
    1_000: {"seeds": 1, "tolerances": 10, "epsilons": 10},
    10_000: {"seeds": 10, "tolerances": 10, "epsilons": 10},
}
_ATTACKS = ["bim_adjoint", "bim_direct", "pgd", "apgd_ce", "square"]
_WHICH = ("attacks", "everything")
_OPTIONAL = ("trajectories", "audit", "matrix", "randomisation", "detection")

_BARE = """
    rule all:
        input: expand("out/{i}.txt", i=range(int(config["jobs"])))

    rule job:
        output: "out/{i}.txt"
        shell: "touch {output}"
    """
_SHAPED = """
    rule all:
        input: "table.txt"

    rule table:
        input: expand("cell-{i}.txt", i=range(int(config["jobs"]) - 2))
        output: "table.txt"
        script: "job.py"

    rule model:
        output: "data.txt", "weights.txt", "spec.txt"
        script: "job.py"

    rule cell:
        input: data="data.txt", weights="weights.txt", spec="spec.txt"
        output: "cell-{i}.txt"
        log: "cell-{i}.log"
        message: "Cell {wildcards.i}"
        script: "job.py"
    """
_CONSTANT = """
    TRAINED = "results/{experiment}/{dataset}/{model}/seed-{seed}"
    CELL = TRAINED + "/tau-{tolerance}/{attack}/{norm}/eps-{epsilon}"

    def cell(i):
        solved = f"results/grid/digits/OON/seed-{i // 500}/tau-{i // 50 % 10}"
        return f"{solved}/bim_{i // 10 % 5}/linf/eps-{i % 10}"

    rule all:
        input: "table.txt"

    rule table:
        input: [f"{cell(i)}/attack.h5" for i in range((int(config["jobs"]) - 2) * 500 // 501)]
        output: "table.txt"
        script: "job.py"

    rule prepare:
        output: "results/{experiment}/{dataset}/data.h5"
        script: "job.py"

    rule train:
        input: "results/{experiment}/{dataset}/data.h5"
        output:
            weights=TRAINED + "/model.safetensors",
            spec=TRAINED + "/model.json"
        script: "job.py"

    rule attack:
        input:
            data="results/{experiment}/{dataset}/data.h5",
            weights=TRAINED + "/model.safetensors",
            spec=TRAINED + "/model.json"
        output: CELL + "/attack.h5"
        log: CELL + "/attack.log"
        threads: 1
        resources: gpu=1, mem_mb=2000, runtime=10
        params: code={"a": 1}, coordinates={"a": 1}, settings={"a": 1}, images=200
        message: "Attacking {wildcards.model} (seed {wildcards.seed}) at {wildcards.tolerance}"
        script: "job.py"
    """
_SCRIPTED = """
    rule all:
        input: expand("out/{i}.txt", i=range(int(config["jobs"])))

    rule job:
        output: "out/{i}.txt"
        script: "job.py"
    """


def grid(cells: int, *, everything: bool) -> dict[str, Any]:
    """A configuration with so many attack cells.

    Args:
        cells: 100, 1,000 or 10,000.
        everything: with trajectories of every cell, audits, matrix and defences, as by default.
    """
    size = _GRIDS[cells]
    experiment = {
        "datasets": ["digits"],
        "models": ["MIX", "OON"],
        "seeds": list(range(size["seeds"])),
        "tolerances": [10 ** (-i / 2) for i in range(size["tolerances"])],
        "attacks": _ATTACKS,
        "norms": ["linf"],
        "epsilons": [(i + 1) / 255 for i in range(size["epsilons"])],
    }
    return {
        "experiments": {
            "grid": experiment | ({} if everything else dict.fromkeys(_OPTIONAL)),
        },
        "datasets": {"digits": {"source": "digits", "subset": {"test": 200}}},
        "models": {
            "MIX": {"downsampling": "residual", "body": "ode", "filters": 16},
            "OON": {"downsampling": "convolution", "body": "ode", "filters": 16},
        },
    }


def measured(command: list[str], log: Path) -> dict[str, float]:
    """Run a command, which must succeed: wall seconds, CPU seconds and the largest memory in MB."""
    started = time.perf_counter()
    with log.open("w") as stream:
        process = subprocess.Popen(command, stdout=stream, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{log.read_text()[-2000:]}")
    kilobytes = usage.ru_maxrss / (1024 if sys.platform == "darwin" else 1)
    return {
        "seconds": time.perf_counter() - started,
        "cpu_seconds": usage.ru_utime + usage.ru_stime,
        "memory_mb": kilobytes / 1000,
    }


def snakemake(snakefile: Path, folder: Path, *options: str) -> list[str]:
    """The command of a run in a folder, with the project's profile whatever the Snakefile."""
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(snakefile), "--cores", "2"]
    profile = results.ROOT / "profiles/default"
    return [*command, "--workflow-profile", str(profile), "--directory", str(folder), *options]


def dry_runs(sizes: list[int], grids: list[str], repeats: int, folder: Path) -> Table:
    """Dry runs of grids and of as many trivial jobs, in turn."""
    others, log = {}, folder / "log.txt"
    (folder / "job.py").write_text("from pathlib import Path\nPath(snakemake.output[0]).touch()\n")
    for name, text in {"bare": _BARE, "shaped": _SHAPED, "constant": _CONSTANT}.items():
        others[name] = folder / f"{name}.smk"
        others[name].write_text(textwrap.dedent(text))
    rows = []
    for cells, which in product(sizes, grids):
        configfile = folder / "grid.yaml"
        configfile.write_text(yaml.safe_dump(grid(cells, everything=which == "everything")))
        runs: dict[str, list[dict[str, float]]] = {name: [] for name in ("ours", *others)}
        for _ in range(repeats):
            own = ["--dry-run", "--configfile", str(configfile)]
            runs["ours"].append(measured(snakemake(results.ROOT / "Snakefile", folder, *own), log))
            jobs = int(re.findall(r"^total +(\d+)$", log.read_text(), re.MULTILINE)[0])
            for name, snakefile in others.items():
                # `all` is a job, too.
                options = ["--dry-run", "--config", f"jobs={jobs - 1}"]
                runs[name].append(measured(snakemake(snakefile, folder, *options), log))
        least = {name: least_of(times) for name, times in runs.items()}
        for name, values in least.items():
            times = {f"times_{key}": value / least["bare"][key] for key, value in values.items()}
            rows.append({"cells": cells, "grid": which, "jobs": jobs, "dry_run": name})
            rows[-1] |= values | times
            print(rows[-1], file=sys.stderr, flush=True)
    return rows


def least_of(runs: list[dict[str, float]]) -> dict[str, float]:
    """The least of each value."""
    return {name: min(run[name] for run in runs) for name in runs[0]}


def imports(path: Path) -> str:
    """The import statements at the top of a script, as a program."""
    statements = ast.parse(path.read_text()).body
    return "\n".join(
        ast.unparse(s) for s in statements if isinstance(s, ast.Import | ast.ImportFrom)
    )


def starts(repeats: int, folder: Path) -> Table:
    """What it takes to start: Python, libraries alone, and the imports of every script."""
    programs = {
        "python": "pass",
        "numpy": "import numpy",
        "pandas": "import pandas",
        "torch": "import torch",
        "snakemake": "import snakemake.cli",
        **{path.name: imports(path) for path in sorted(SCRIPTS.glob("*.py"))},
    }
    rows = []
    for name, program in programs.items():
        lines = f"import sys; sys.path.append({str(SCRIPTS)!r})\n{program}"
        command = [sys.executable, "-c", lines]
        runs = [measured(command, folder / "log.txt") for _ in range(repeats + 1)]
        rows.append({"program": name, **least_of(runs[1:])})
    return rows


def jobs_alone(repeats: int, folder: Path) -> Table:
    """What Snakemake adds to a job that does nothing: of many jobs more than of one, for each."""
    few, many = 1, 21
    rows = []
    for name, text in {"shell": _BARE, "script": _SCRIPTED}.items():
        snakefile = folder / f"{name}.smk"
        snakefile.write_text(textwrap.dedent(text))
        totals = {}
        for jobs in (few, many):
            own = ["--config", f"jobs={jobs}", "--forceall", "--cores", "1"]
            command = snakemake(snakefile, folder, *own)
            totals[jobs] = least_of(
                [measured(command, folder / "log.txt") for _ in range(repeats)]
            )["seconds"]
        rows.append({"job": name, "seconds": (totals[many] - totals[few]) / (many - few)})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cells", type=int, nargs="+", default=list(_GRIDS), choices=list(_GRIDS))
    parser.add_argument("--grids", nargs="+", default=list(_WHICH), choices=list(_WHICH))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument(
        "--output", type=Path, default=results.FOLDER / "scale.json", help="the JSON file"
    )
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tables = {
            "Dry runs": dry_runs(arguments.cells, arguments.grids, arguments.repeats, folder),
            "Starts": starts(arguments.repeats, folder),
            "A job that does nothing, seconds": jobs_alone(arguments.repeats, folder),
        }
    machine = {
        "processors": os.cpu_count(),
        "python": platform.python_version(),
        "snakemake": version("snakemake"),
        "torch": version("torch"),
    }
    report = {"machine": machine, "repeats": arguments.repeats, "tables": tables}
    results.write(report, arguments.output)
    for title, rows in tables.items():
        print(title, *rows, sep="\n")


if __name__ == "__main__":
    main()
