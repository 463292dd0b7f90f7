"""Audit one model of the user's own: `make audit MODEL=models/their_net.py` (docs/own-models.md).

    PYTHONPATH=workflow/scripts python tools/audit_model.py MODEL=models/net.py DATASET=mnist [...]

It looks at the model in a process of its own, writes a configuration, says what the run will cost,
runs it, and says where the report is.
"""

import csv
import math
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml
from snakemake.utils import available_cpu_count

import own_configuration
import run_costs
from node_robustness.config.config import Config
from node_robustness.errors import UserError
from node_robustness.numbers import label
from node_robustness.report.overviews import undecided
from node_robustness.scheduling import steps
from node_robustness.verdict.verdicts import UNDECIDED
from node_robustness.words import duration
from own_configuration import Found, Request
from own_inspection import Timing, inspect, timed

ROOT = Path(__file__).resolve().parents[1]
_KEYS = ("WEIGHTS", "BUILD", "ARGUMENTS", "WEIGHTS_KEY", "OUTPUT", "SOLVE")
_VARIABLES = (
    *("MODEL", "DATASET", *_KEYS, "NAME", "MIRROR", "NORM", "EPSILONS", "TOLERANCES", "ATTACKS"),
    *("IMAGES", "CORES", "PLAN", "YES", "ARGS"),
)
_FAILURE = ("config: ", "error: ")


def main(arguments: Sequence[str] | None = None) -> int:
    """Audit a model as `KEY=value` arguments say; return the exit status."""
    try:
        return _audit(_options(sys.argv[1:] if arguments is None else arguments))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
    except KeyboardInterrupt:
        print("Interrupted: the same command continues.", file=sys.stderr)
    return 1


def _options(arguments: Sequence[str]) -> dict[str, str]:
    """The variables by name, those with defaults included."""
    options = {"CORES": "all", "ATTACKS": "standard", "IMAGES": "100", "NORM": "linf"}
    for argument in arguments:
        name, _, value = argument.partition("=")
        if name not in _VARIABLES:
            raise UserError(f"{argument}: not known; write {', '.join(_VARIABLES)}=...")
        options[name] = value
    for name in ("MODEL", "DATASET"):
        if not options.get(name):
            raise UserError(
                f"{name} is missing: make audit MODEL=models/net.py DATASET=mnist, and WEIGHTS=... "
                "if there are any (docs/own-models.md)"
            )
    if not options["IMAGES"].isdecimal() or int(options["IMAGES"]) == 0:
        raise UserError(f"IMAGES={options['IMAGES']}: write a whole number of test images")
    if options["CORES"] != "all" and not options["CORES"].isdecimal():
        raise UserError(f"CORES={options['CORES']}: write a number, or all")
    return options


def _request(options: Mapping[str, str]) -> Request:
    keys: dict[str, Any] = {}
    for name in _KEYS:
        text = options.get(name, "")
        if text:
            keys[name.lower()] = text if name in ("WEIGHTS", "BUILD") else _yaml(name, text)
    return Request(
        module=options["MODEL"],
        dataset=options["DATASET"],
        keys=keys,
        name=options.get("NAME", ""),
        mirror=options.get("MIRROR", ""),
        norm=options["NORM"],
        epsilons=_words(options.get("EPSILONS", "")),
        tolerances=_words(options.get("TOLERANCES", "")),
        attacks=_words(options["ATTACKS"]),
        images=int(options["IMAGES"]),
    )


def _words(text: str) -> list[str]:
    return text.replace(",", " ").split()


def _yaml(name: str, text: str) -> Any:
    """The value of a key: a number, a text, or for `arguments` a map, with or without braces."""
    mapped = name == "ARGUMENTS" and not text.lstrip().startswith("{")
    try:
        return yaml.safe_load(f"{{{text}}}" if mapped else text)
    except yaml.YAMLError:
        raise UserError(f"{name}={text}: is not YAML: write 'width: 32, depth: 2'") from None


def _audit(options: Mapping[str, str]) -> int:
    request = _request(options)
    path, cores = request.path, options["CORES"]
    kept = _kept(request)
    if kept is None:
        _write(path, own_configuration.text(request, Found()))
    print(f"{request.module} is code and runs with your rights.", flush=True)
    config, seconds = _measured(request, kept)
    print(_cost(config, request.called, seconds, _cores(cores)), flush=True)
    if options.get("PLAN"):
        print("Nothing was run: the same command without PLAN runs it.")
        return 0
    if not (options.get("YES") or _agreed()):
        print(f"Not run. Edit {path}, and give the same command again.")
        return 0
    command = _snakemake(path, cores, shlex.split(options.get("ARGS", "")))
    return _result(request.called, subprocess.run(command).returncode)


def _measured(request: Request, kept: str | None) -> tuple[Config, Timing]:
    """Look at the model, write the configuration, and time the steps of its run.

    Args:
        request: what was asked for.
        kept: the configuration, if the user has edited it.
    """
    name, path = request.called, request.path
    config = _checked(path)
    data = Path(f"results/{name}/{config.experiments[name].datasets[0]}/data.h5")
    _snakemake_quietly(path, str(data))
    # The user's code runs in another process, which it may end.
    with (
        TemporaryDirectory() as folder,
        ProcessPoolExecutor(1, get_context("spawn")) as process,
    ):
        model = Path(folder)
        try:
            seen = process.submit(inspect, config, name, data, model).result()
            print("\n".join(seen.lines), flush=True)
            if kept is None:
                _write(path, own_configuration.text(request, seen.found))
                config = _checked(path)
            print(_written(path, kept), flush=True)
            if seen.fatal is not None:
                raise UserError(f"models.{name}: {seen.fatal}")
            kinds = steps.kinds(config, name)
            return config, process.submit(timed, config, model, data, kinds).result()
        except BrokenProcessPool:
            raise UserError(f"{request.module} ended the process that looked at it") from None


def _kept(request: Request) -> str | None:
    """The configuration of an earlier command that the user has edited; None otherwise.

    Raises:
        UserError: the name is that of something else, whose results a run would replace.
    """
    path, results = request.path, Path("results") / request.called
    of_a_model = any(results.glob(f"*/{request.called}"))
    if not path.exists():
        if results.exists() and any(results.iterdir()) and not of_a_model:
            raise UserError(f"{results} is there, of another experiment: choose another NAME")
        return None
    written = path.read_text(encoding="utf-8")
    edited = own_configuration.is_edited(written)
    if edited or of_a_model:
        _check_same(request, path, all_keys=not edited)
    return written if edited else None


def _check_same(request: Request, path: Path, *, all_keys: bool) -> None:
    """Refuse a request for another model, or another dataset, than a configuration has.

    Args:
        request: what was asked for.
        path: the configuration.
        all_keys: whether keys count, too, that were not given.
    """
    config, name = _checked(path), request.called
    if name not in config.experiments or name not in config.models:
        raise UserError(f"{path} has no experiment and model {name}: choose another NAME")
    model = config.models[name].model_dump(exclude_unset=True, exclude={"ode"})
    there = {"dataset": ", ".join(config.experiments[name].datasets), **model}
    given = {"dataset": request.dataset, "module": request.module, **request.keys}
    for key in [*given, *(there if all_keys else ())]:
        if there.get(key) != given.get(key):
            raise UserError(
                f"{path} has {key} {there.get(key, 'unset')}, and not {given.get(key, 'unset')}: "
                "choose another NAME for another audit, or delete the file to replace this one"
            )


def _checked(path: Path) -> Config:
    try:
        return own_configuration.checked(path.read_text(encoding="utf-8"))
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def _written(path: Path, kept: str | None) -> str:
    if kept is None:
        return f"Configuration: {path}. It is yours to edit; it is not part of the repository."
    return f"Configuration: {path}, which you edited: it is used as it is, whatever else is given."


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def _snakemake(path: Path, cores: str, arguments: Sequence[str]) -> list[str]:
    here = [] if Path.cwd() == ROOT else ["--snakefile", str(ROOT / "Snakefile")]
    return [
        *(sys.executable, "-m", "snakemake", *arguments, "--cores", cores, *here),
        *("--configfile", str(path)),
    ]


def _snakemake_quietly(path: Path, target: str) -> None:
    """Make a file, and say nothing unless it fails."""
    command = _snakemake(path, "1", [target])
    run = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if run.returncode:
        lines = [line for line in run.stdout.splitlines() if line.startswith(_FAILURE)]
        lines = lines or re.findall(r"^WorkflowError.*:\n(.+)", run.stdout, re.MULTILINE)
        raise UserError("\n".join(dict.fromkeys(lines)).removeprefix("error: ") or run.stdout)


def _cores(given: str) -> int:
    return int(given) if given.isdecimal() else available_cpu_count()


def _cost(config: Config, name: str, timing: Timing, cores: int) -> str:
    """What the run will cost, in a few lines."""
    lines = [f"A gradient of an image takes, on {timing.device}:"]
    for (tolerance, kind), seconds in timing.seconds.items():
        if kind == "direct":
            at = (
                "with its own settings" if tolerance is None else f"at tolerance {label(tolerance)}"
            )
            lines.append(f"  {1000 * seconds:.3g} ms {at}")
    late, soon = (
        run_costs.costs(config, name, timing.seconds, soon=soon) for soon in (False, True)
    )
    counted = ", ".join(f"{count} {rule}" for rule, count in late.jobs.items())
    lines.append(f"The run has {late.jobs.total()} jobs ({counted}).")
    between = list(dict.fromkeys(duration(costs.wall(cores)) for costs in (soon, late)))
    lines.append(
        f"On {cores} {'core' if cores == 1 else 'cores'} it takes about {' to '.join(between)} "
        f"(h:mm:ss), the less the more attacks succeed, and {late.bytes / 1e6:.0f} MB."
    )
    return "\n".join(lines)


def _agreed() -> bool:
    """Ask whether to run; without a terminal nobody is there to ask."""
    if not sys.stdin.isatty():
        return True
    return input("Run it? [Y/n] ").strip().lower() in ("", "y", "yes")


def _result(name: str, status: int) -> int:
    """Say what came out, and where it is."""
    report = Path(f"results/{name}/report.html")
    if status:
        print("Not complete: the reasons are above. The same command continues.", file=sys.stderr)
        return status
    print(_verdicts(Path(f"results/{name}/tables/verdicts.csv")))
    print("Done. Open the report:", report.absolute().as_uri())
    return 0


def _verdicts(table: Path) -> str:
    """The verdicts, one line each: robust accuracy by protocol, and why one is undecided."""
    with table.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    lines = [
        "Robust accuracy under the paper's attack (P), by corrected gradients (C), under all (R):",
        "tolerance  epsilon      P      C      R  verdict",
    ]
    for row in rows:
        shares = [row[key] for key in ("paper", "corrected", "strongest")]
        shown = [f"{100 * float(share):4.0f} %" if share else "     –" for share in shares]
        setting = f"{row['tolerance'] or 'own':>9}  {row['epsilon']:>7}"
        verdict = row["verdict"]
        if verdict == UNDECIDED:
            verdict = undecided(row["because"], float(row["needed"] or math.nan))
        lines.append(f"{setting}  {' '.join(shown)}  {verdict}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
