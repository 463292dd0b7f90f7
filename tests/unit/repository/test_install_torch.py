"""Which build of PyTorch is installed, and that nothing replaces it. No network is needed."""

import os
import shutil
import socket
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

import install_torch

ROOT = Path(__file__).parents[3]
PAGE = b'<a href="torch-2.13.0%2Bcpu-cp311-cp311-manylinux_2_28_x86_64.whl">a wheel</a>'


def choice(wanted: str = "auto") -> str | None:
    return install_torch.choose(wanted, "torch==2.13.0")[0]


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Linux machine without a driver, whose programs are those in this folder."""

    def absent(name: str) -> None:
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(install_torch.platform, "system", lambda: "Linux")
    monkeypatch.setattr(install_torch.ctypes, "CDLL", absent)
    monkeypatch.setattr(install_torch, "DRIVER", tmp_path / "version")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    (tmp_path / "bin").mkdir()
    return tmp_path / "bin"


def write_program(path: Path, text: str) -> None:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


@pytest.fixture
def index(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, bytes]]:
    """The index of CPU builds, on this machine: its pages, which a test may change."""
    pages = {"/whl/cpu/torch/": PAGE}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path in pages else 404)
            self.end_headers()
            self.wfile.write(pages.get(self.path, b""))

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/whl/cpu"
        monkeypatch.setattr(install_torch, "CPU_INDEX", url)
        yield pages
        server.shutdown()


def test_without_a_driver_the_cpu_build(programs: Path, index: dict[str, bytes]):
    assert choice() == install_torch.CPU_INDEX


@pytest.mark.parametrize(
    "page", [None, b"", b"torch-2.12.0%2Bcpu-cp311", b"<h1>Please log in</h1>"]
)
def test_an_index_without_the_version_is_not_used(programs, index, page: bytes | None):
    index.clear()
    if page is not None:
        index["/whl/cpu/torch/"] = page
    assert choice() is None


def test_an_index_that_cannot_be_reached_is_not_used(programs, monkeypatch: pytest.MonkeyPatch):
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    monkeypatch.setattr(install_torch, "CPU_INDEX", f"http://127.0.0.1:{port}/whl/cpu")
    assert choice() is None


def test_an_index_that_does_not_answer_is_not_waited_for(programs, monkeypatch):
    monkeypatch.setattr(install_torch, "SECONDS", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/whl/cpu"
        monkeypatch.setattr(install_torch, "CPU_INDEX", url)
        assert choice() is None


def test_a_driver_is_seen_in_each_of_its_places(programs, index, monkeypatch):
    install_torch.DRIVER.write_text("NVRM version")
    assert choice() is None
    install_torch.DRIVER.unlink()
    write_program(programs / "nvidia-smi", "echo 'Driver Version: 580.1'")
    assert choice() is None
    write_program(programs / "nvidia-smi", "echo 'Failed to communicate with the driver.'; exit 9")
    assert choice() == install_torch.CPU_INDEX
    monkeypatch.setattr(install_torch.ctypes, "CDLL", lambda name: {"libcuda.so.1": 1}[name])
    assert choice() is None


@pytest.mark.parametrize(("gres", "gpus"), [("gpu:a100:4(S:0-1)", True), ("(null)", False)])
def test_the_login_node_of_a_cluster_with_gpus_gets_the_cuda_build(programs, index, gres, gpus):
    write_program(programs / "sinfo", f"printf '%s\\n' '(null)' '{gres}'")
    assert choice() == (None if gpus else install_torch.CPU_INDEX)


def test_other_systems_take_the_build_of_pips_own_index(programs, index, monkeypatch):
    monkeypatch.setattr(install_torch.platform, "system", lambda: "Darwin")
    assert choice() is None


def test_what_is_asked_for_is_not_looked_for(programs, index):
    install_torch.DRIVER.write_text("NVRM version")
    assert choice("cpu") == install_torch.CPU_INDEX
    assert choice("https://a.org/whl/cu126") == "https://a.org/whl/cu126"
    install_torch.DRIVER.unlink()
    index.clear()
    assert choice("cpu") == install_torch.CPU_INDEX
    assert choice("cuda") is None


def wheel(folder: Path, name: str, version: str, requires: str = "") -> None:
    """A package without content: metadata alone, which is all that pip goes by."""
    folder.mkdir(parents=True, exist_ok=True)
    about = f"{name}-{version}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as file:
        file.writestr(f"{about}/METADATA", metadata + (requires and f"Requires-Dist: {requires}\n"))
        file.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        file.writestr(f"{about}/RECORD", "")


@pytest.mark.slow
def test_the_environment_keeps_the_build_that_it_was_made_with(tmp_path: Path):
    """By the Makefile itself, in a folder with a space, with pip and indexes of a few packages."""
    project = tmp_path / "my project"
    (project / "requirements").mkdir(parents=True)
    for name in ("Makefile", "requirements/install_torch.py"):
        shutil.copyfile(ROOT / name, project / name)
    for name, text in {"run": "torch==2.13.0\nuser==1.0", "lock": "user==1.0", "dev": ""}.items():
        (project / f"requirements/{name}.txt").write_text(f"{text}\n")
    (project / "requirements/no-deps.txt").write_text("alone==1.0\n")
    pypi, cpu = tmp_path / "pypi", tmp_path / "cpu"
    wheel(pypi / "torch", "torch", "2.13.0")
    wheel(cpu / "torch", "torch", "2.13.0+cpu")
    wheel(pypi / "user", "user", "1.0", "torch>=2")
    wheel(pypi / "user", "user", "2.0", "torch>=3")
    wheel(pypi / "alone", "alone", "1.0", "torch<2")
    for folder in (*pypi.iterdir(), *cpu.iterdir()):
        links = "".join(f'<a href="{path.name}">{path.name}</a>' for path in folder.iterdir())
        (folder / "index.html").write_text(links)
    hidden = ("PIP_", "TORCH", "MAKE", "MFLAGS")
    environment = {k: v for k, v in os.environ.items() if not k.startswith(hidden)}
    environment |= {"PIP_CONFIG_FILE": os.devnull, "PIP_INDEX_URL": pypi.as_uri()}
    environment["PIP_NO_CACHE_DIR"] = "1"

    def make(*arguments: str) -> str:
        command = ["make", f"PYTHON={sys.executable}", *arguments]
        run = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True)
        return run.stdout + run.stderr

    def installed() -> set[str]:
        (packages,) = (project / ".venv/lib").glob("python3*/site-packages")
        return (
            {path.name for path in packages.glob("*.dist-info")}
            - {path.name for path in packages.glob("pip-*")}
            - {path.name for path in packages.glob("setuptools-*")}
        )

    others = {"user-1.0.dist-info", "alone-1.0.dist-info"}
    said = make(".venv/run", f"TORCH={cpu.as_uri()}")
    assert installed() == others | {"torch-2.13.0+cpu.dist-info"}, said
    assert "up to date" in make(".venv/run")
    make(".venv/dev")
    assert installed() == others | {"torch-2.13.0+cpu.dist-info"}
    said = make(".venv/run", "TORCH=cuda")
    assert installed() == others | {"torch-2.13.0.dist-info"}, said
    assert "up to date" in make(".venv/run", "TORCH=cuda")
    make(".venv/run", f"TORCH={cpu.as_uri()}")
    shutil.rmtree(cpu)  # what is there is not fetched again, as without a network
    (project / "requirements/lock.txt").touch()
    assert "ERROR" not in make(".venv/run")
    assert installed() == others | {"torch-2.13.0+cpu.dist-info"}, said
    said = make(".venv/run", "TORCH=gpu")
    assert "TORCH is 'gpu': set it to auto, cpu, cuda or the URL of an index." in said
    assert "up to date" in make(".venv/run")


def test_half_an_environment_is_not_left(tmp_path: Path):
    """Debian's Python makes one without pip where python3-venv is missing."""
    shutil.copyfile(ROOT / "Makefile", tmp_path / "Makefile")
    (tmp_path / "requirements").mkdir()
    for name in ("run", "no-deps", "lock"):
        (tmp_path / f"requirements/{name}.txt").touch()
    write_program(
        tmp_path / "python",
        'test "$1" = -c || { mkdir -p .venv/bin; cp "$0" .venv/bin/python; exit 1; }',
    )
    command = ["make", "PYTHON=./python", ".venv/run"]
    assert subprocess.run(command, cwd=tmp_path, capture_output=True).returncode != 0
    assert not (tmp_path / ".venv").exists()
