"""Run the workflow in another process and another folder, as a user does or in less time."""

import copy
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import NamedTemporaryFile
from types import MappingProxyType
from typing import Any

import h5py
import numpy as np
import pandas as pd
import psutil
import yaml

from node_robustness.files.atomic import sha256
from node_robustness.tables.catalogue import TABLES as TABLES
from quick_runs import POSSIBLE, QuickRuns
from quick_runs import ROOT as ROOT

TINY: dict[str, Any] = yaml.safe_load(Path(__file__).with_name("tiny.yaml").read_text())
OON = "results/tiny/digits/OON/seed-0"
IMAGES: int = TINY["datasets"]["digits"]["subset"]["test"]

# Many times what any of them takes on two cores.
_TIMEOUT = 300


def tiny(**changes: Any) -> dict[str, Any]:
    """The tiny configuration with other values at some keys.

    Args:
        **changes: values by path, with `__` between its keys; None removes a key.
    """
    config = copy.deepcopy(TINY)
    for path, value in changes.items():
        *sections, key = path.split("__")
        node = config
        for section in sections:
            node = node.setdefault(section, {})
        if value is None:
            del node[key]
        else:
            node[key] = value
    return config


@dataclass(frozen=True)
class Run:
    """What a run of Snakemake said and how it ended."""

    returncode: int
    output: str

    @property
    def jobs(self) -> dict[str, int]:
        """How many jobs of each rule Snakemake planned, from its `Job stats`."""
        table = re.search(r"^Job stats:\njob +count\n[- ]+\n((?:\w+ +\d+\n)+)", self.output, re.M)
        if table is None:
            assert "Nothing to be done" in self.output, self.output
            return {}
        rows = (line.split() for line in table[1].splitlines())
        return {rule: int(count) for rule, count in rows if rule not in ("all", "total")}


def command(
    folder: Path,
    *targets: str,
    config: dict[str, Any] | None = TINY,
    options: tuple[str, ...] = (),
    cores: int | None = 2,
    project: Path = ROOT,
    program: str = "snakemake",
    snakefile: Path | None = None,
) -> list[str]:
    """What stands behind `python -m` to run Snakemake in a folder.

    Args:
        folder: its working directory.
        *targets: files or rules; the whole run if there are none.
        config: the configuration; None: no file of one is named.
        options: further options.
        cores: how many; None: as the profile says.
        project: the folder with the Snakefile.
        snakefile: another one to run.
        program: what to run with Snakemake's arguments: a module.
    """
    words = [program, *targets, *options]
    if cores is not None:
        words += ["--cores", str(cores)]
    words += ["--snakefile", str(snakefile or project / "Snakefile"), "--directory", str(folder)]
    if config is not None:
        written = folder.with_name(f"{folder.name}.yaml")
        written.write_text(yaml.safe_dump(config, sort_keys=False))
        words += ["--configfile", str(written)]
    return words


def start(
    folder: Path,
    *targets: str,
    file_kilobytes: int | None = None,
    variables: Mapping[str, str] = MappingProxyType({}),
    python: Path | str = sys.executable,
    output: Path | None = None,
    **settings: Any,
) -> "subprocess.Popen[str]":
    """Start Snakemake in a folder, as a user does.

    Args:
        folder: its working directory.
        *targets: files or rules; the whole run if there are none.
        file_kilobytes: the largest file that the run may write.
        variables: further environment variables.
        python: what runs it.
        output: a file for what it says, at its end, instead of a pipe, which whoever kills it would
            have to read until the last of its jobs has ended.
        **settings: see `command`.
    """
    words = [str(python), "-m", *command(folder, *targets, **settings)]
    if file_kilobytes is not None:
        # The unit of bash, not of every sh, is 1024 bytes.
        limit = f'ulimit -f {file_kilobytes} && exec "$@"'
        words = ["bash", "-c", limit, "bash", *words]
    environment = variables_at(folder.with_name(f"{folder.name}.home")) | variables
    with nullcontext(subprocess.PIPE) if output is None else output.open("a") as stream:
        return subprocess.Popen(
            words,
            env=environment,
            stdout=stream,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )


def variables_at(home: Path) -> dict[str, str]:
    """The environment of a run, with another folder for caches and profiles."""
    # Neither the user's profiles nor caches of earlier runs, and no proxy before our own servers.
    # pytest's variables differ between tests, whose runs would not share a server of jobs.
    others = ("SNAKEMAKE", "PYTEST")
    environment = {k: v for k, v in os.environ.items() if not k.startswith(others)}
    for name in ("XDG_CACHE_HOME", "XDG_CONFIG_HOME"):
        environment[name] = str(home)
    return environment | dict.fromkeys(("NO_PROXY", "no_proxy"), "127.0.0.1")


def finish(process: "subprocess.Popen[str]", seconds: int = _TIMEOUT) -> Run:
    """Wait for Snakemake to end; end it with all its jobs if it takes too long."""
    try:
        output, _ = process.communicate(timeout=seconds)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    return Run(process.returncode, output)


def snakemake(folder: Path, *targets: str, **settings: Any) -> Run:
    """Run Snakemake in a folder to its good end."""
    run = attempt(folder, *targets, **settings)
    assert run.returncode == 0, run.output
    return run


def attempt(folder: Path, *targets: str, as_a_user: bool = False, **settings: Any) -> Run:
    """Run Snakemake in a folder to whatever end.

    Args:
        folder: its working directory.
        *targets: files or rules; the whole run if there are none.
        as_a_user: start it as a user does, which takes seconds, and have jobs side by side.
        **settings: see `start` and `command`.
    """
    folder.mkdir(exist_ok=True)
    if as_a_user or not POSSIBLE:
        return finish(start(folder, *targets, **settings))
    environment = variables_at(folder.with_name(f"{folder.name}.home"))
    environment |= settings.pop("variables", {})
    words = command(folder, *targets, **{"cores": 1} | settings)
    return quickly(words, environment, Path.cwd(), settings.get("project", ROOT))


def quickly(
    words: Sequence[str], environment: Mapping[str, str], folder: Path, project: Path = ROOT
) -> Run:
    """Do what `python -m` does, in a fork of a process that has imported all: see `quick_runs`.

    Args:
        words: the name of a module, and its arguments.
        environment: all environment variables.
        folder: the working directory.
        project: the folder whose scripts are used.
    """
    with NamedTemporaryFile(prefix="said-") as said:
        status = _quick().run(words, environment, folder, project, Path(said.name))
        return Run(status, said.read().decode(errors="replace"))


@cache
def _quick() -> QuickRuns:
    return QuickRuns()


def plan(folder: Path, *targets: str, **settings: Any) -> Run:
    """What Snakemake would do in a folder."""
    return snakemake(folder, *targets, options=("--dry-run",), **settings)


def scripts(folder: Path, name: str) -> Iterator[psutil.Process]:
    """The running processes of one script of a run (its name is a regular expression)."""
    started = re.compile(rf"{re.escape(str(folder))}/\.snakemake/scripts/\w+\.{name}\.py")
    for process in psutil.process_iter(["cmdline"]):
        if any(started.fullmatch(word) for word in process.info["cmdline"] or []):
            yield process


def files(folder: Path) -> set[str]:
    """The files below a folder but for Snakemake's own and logs."""
    paths = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    # The time stamp is Snakemake's mark in a folder that is an output.
    own = {".snakemake", ".snakemake_timestamp", "logs"}
    kept = (p for p in paths if not own & set(p.parts))
    return {str(path) for path in kept}


def numbers(folder: Path) -> set[str]:
    """Those of them that hold weights and numbers, but for the costs, which are the report's."""
    suffixes = {".h5", ".csv", ".parquet", ".safetensors"}
    found = {name for name in files(folder) if Path(name).suffix in suffixes}
    return {name for name in found if Path(name).stem != "costs"}


def untimed(path: Path) -> object:
    """The contents of a file without the times in it, to be compared with those of another."""
    if path.suffix == ".csv":
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
        return table.drop(columns="seconds", errors="ignore").to_dict("list")
    if path.suffix != ".h5":
        return path.read_bytes()
    with h5py.File(path) as file:
        contents = {name: value for name, value in file.attrs.items() if name != "seconds"}
        file.visititems(
            lambda name, node: contents.update(
                {name: _values(node) if isinstance(node, h5py.Dataset) else None}
            )
        )
        return contents


def _values(node: h5py.Dataset) -> tuple[object, ...]:
    values = node[()]
    exact = values.tolist() if values.dtype.kind == "O" else values.tobytes()
    # The references by which HDF5 keeps dimension scales cannot be compared, what they lead to can.
    links = {"DIMENSION_LIST", "REFERENCE_LIST"}
    attributes = {n: np.asarray(v).tolist() for n, v in node.attrs.items() if n not in links}
    scales = [[scale.name for scale in dimension.values()] for dimension in node.dims]
    return str(values.dtype), values.shape, node.chunks, exact, attributes, scales


def complaint(run: Run) -> str:
    """The one line that says what is wrong, of a run that failed for a mistake of its user."""
    assert run.returncode != 0, run.output
    assert "Traceback" not in run.output, run.output
    lines = {line for line in run.output.splitlines() if line.startswith(("error: ", "config: "))}
    assert len(lines) == 1, run.output
    return lines.pop()


def own_dataset(
    folder: Path,
    images: np.ndarray,
    labels: np.ndarray,
    test: int = 20,
    class_names: Sequence[str] = ("a", "b", "c"),
) -> dict[str, Any]:
    """Write images and labels as IDX files, the first ones as the test set; return its settings.

    Args:
        folder: where the files go.
        images: uint8 [N, C, H, W], or [N, H, W].
        labels: uint8 [N], below the number of classes.
        test: how many images are the test set.
        class_names: the names of the classes.
    """
    folder.mkdir()
    sets = {"train": slice(test, None), "test": slice(test)}
    written = {}
    for name, rows in sets.items():
        for what, array in (("images", images[rows]), ("labels", labels[rows])):
            header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
            path = folder / f"{name}-{what}"
            path.write_bytes(header + array.tobytes())
            written[f"{name}_{what}"] = {"name": path.name, "sha256": sha256(path)}
    return {
        "source": "idx",
        "mirrors": [folder.as_uri()],
        "files": written,
        "class_names": [*class_names],
    }


def noise(count: int, side: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Random colour images, uint8 [N, 3, side, side], and labels of three classes, uint8 [N]."""
    random = np.random.default_rng(seed)
    images = random.integers(0, 256, (count, 3, side, side), dtype=np.uint8)
    return images, random.permutation(np.arange(count, dtype=np.uint8) % 3)
