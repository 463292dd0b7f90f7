"""Scripts that run by the client, in forks of a server that imports no library."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

import psutil
import pytest

import node_robustness

PACKAGE = Path(node_robustness.__file__).parent
# Many times what any of them takes.
PATIENCE = 120.0


class Warm:
    """A checkout that has the client and the server alone, a run, and a folder of sockets.

    Attributes:
        sockets: the folder of the sockets.
        folder: of the run.
    """

    def __init__(self, tmp_path: Path) -> None:
        self.sockets = tmp_path / "sockets"
        self.sockets.mkdir(mode=0o700)
        self.package = tmp_path / "checkout/node_robustness"
        shutil.copytree(PACKAGE / "warm", self.package / "warm")
        (self.package / "__init__.py").touch()
        self.edit("server.py", "in (*IMPORTED, *USED):", "in ():")
        self.folder = tmp_path / "run"
        self.scripts = self.folder / ".snakemake/scripts"
        self.scripts.mkdir(parents=True)

    def edit(self, module: str, old: str, new: str) -> None:
        """Change the client or the server."""
        path = self.package / "warm" / module
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))

    def command(
        self,
        body: str,
        *,
        state: str = "0",
        may_start: bool = True,
        snakemake: int | None = None,
        python: Path | str = sys.executable,
    ) -> list[str]:
        """The command that runs a script with this body."""
        script = self.scripts / f"tmp{abs(hash(body)):x}.job.py"
        script.write_text(body)
        words = [self.sockets, state, snakemake or os.getpid(), int(may_start), script]
        client = self.package / "warm/client.py"
        return [str(python), "-I", "-S", str(client), *map(str, words)]

    def start(
        self, body: str, *, environment: dict[str, str] | None = None, **settings: object
    ) -> "subprocess.Popen[str]":
        """Start a script with this body."""
        return subprocess.Popen(
            self.command(body, **settings),
            env=os.environ | (environment or {}),
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def run(self, body: str, **settings: object) -> "subprocess.CompletedProcess[str]":
        """Run a script with this body to its end."""
        return self.finish(self.start(body, **settings))

    @staticmethod
    def finish(process: "subprocess.Popen[str]") -> "subprocess.CompletedProcess[str]":
        """Wait for a script to end; it is killed if it takes too long."""
        with process:
            try:
                said, errors = process.communicate(timeout=PATIENCE)
            finally:
                process.kill()
        return subprocess.CompletedProcess(process.args, process.returncode, said, errors)

    def servers(self) -> list[psutil.Process]:
        """The servers of this checkout, without their forks."""
        program = str(self.package / "warm/server.py")
        found = [
            process
            for process in psutil.process_iter(["cmdline"])
            if program in (process.info["cmdline"] or [])
        ]
        pids = {process.pid for process in found}
        with suppress(psutil.NoSuchProcess):
            return [process for process in found if process.ppid() not in pids]
        return self.servers()

    @staticmethod
    def runs(pid: int) -> bool:
        """Whether a process has not ended yet."""
        with suppress(psutil.NoSuchProcess):
            return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
        return False

    def end_server(self) -> None:
        """Kill the only server; it need not be gone: whoever is to reap it may take seconds."""
        (server,) = self.servers()
        server.kill()
        self.wait_until(lambda: not self.runs(server.pid))

    @staticmethod
    def wait_until(condition: Callable[[], object]) -> None:
        """Wait until something is so."""
        end = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < end, "it does not come true"
            time.sleep(0.01)


@contextmanager
def _warm(folder: Path) -> Iterator[Warm]:
    found = Warm(folder)
    try:
        yield found
    finally:
        for server in found.servers():
            with suppress(psutil.NoSuchProcess):
                server.kill()


@pytest.fixture(autouse=True)
def _on_linux() -> None:
    if sys.platform != "linux":
        pytest.skip("elsewhere scripts run in a new Python")


@pytest.fixture
def warm(tmp_path: Path) -> Iterator[Warm]:
    """The client and the server; no server is left at the end."""
    with _warm(tmp_path) as found:
        yield found


@pytest.fixture
def warm_in() -> Callable[[Path], AbstractContextManager[Warm]]:
    """The same in any folder."""
    return _warm
