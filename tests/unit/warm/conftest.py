"""Scripts that run by the client, with a server that imports nothing and waits for seconds."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

import node_robustness

PACKAGE = Path(node_robustness.__file__).parent
# Many times what any of them takes.
PATIENCE = 60.0


class Warm:
    """A checkout of the client and the server alone, and a folder of sockets.

    Attributes:
        folder: of the sockets.
        checkout: the copy of the package.
    """

    def __init__(self, tmp_path: Path) -> None:
        self.folder = tmp_path / "sockets"
        self.folder.mkdir(mode=0o700)
        self.checkout = tmp_path / "checkout/node_robustness"
        shutil.copytree(PACKAGE / "warm", self.checkout / "warm")
        (self.checkout / "__init__.py").touch()
        self.edit("server.py", "IMPORTED = (", 'IMPORTED = ("numpy",) if True else (')
        self.scripts = tmp_path / "run/.snakemake/scripts"
        self.scripts.mkdir(parents=True)

    def edit(self, module: str, old: str, new: str) -> None:
        """Change a line of the client or of the server."""
        path = self.checkout / "warm" / module
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))

    def command(
        self, body: str, *, state: str = "0", may_start: bool = True, snakemake: int | None = None
    ) -> list[str]:
        """The command that runs a script with this body."""
        script = self.scripts / f"tmp{abs(hash(body)):x}.job.py"
        script.write_text(body)
        words = [self.folder, state, snakemake or os.getpid(), int(may_start), script]
        client = self.checkout / "warm/client.py"
        return [sys.executable, "-I", "-S", str(client), *map(str, words)]

    def run(
        self, body: str, *, environment: dict[str, str] | None = None, **settings: object
    ) -> "subprocess.CompletedProcess[str]":
        """Run a script with this body to its end."""
        return subprocess.run(
            self.command(body, **settings),
            env=os.environ | (environment or {}),
            cwd=self.scripts.parents[1],
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE,
        )

    def start(self, body: str, **settings: object) -> "subprocess.Popen[str]":
        """Start a script with this body, and wait until it prints a line, its number."""
        process = subprocess.Popen(
            self.command(f"import os\nprint(os.getpid(), flush=True)\n{body}", **settings),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        return process

    def servers(self) -> list[psutil.Process]:
        """The servers of this checkout, without their forks."""
        found = []
        for process in psutil.process_iter(["cmdline"]):
            if str(self.checkout / "warm/server.py") in (process.info["cmdline"] or []):
                found.append(process)
        pids = {process.pid for process in found}
        return [process for process in found if process.ppid() not in pids]


def wait_until(condition, seconds=PATIENCE):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it does not come true"
        time.sleep(0.01)


@pytest.fixture
def warm(tmp_path: Path) -> Iterator[Warm]:
    """The client and the server; no server is left at the end."""
    found = Warm(tmp_path)
    yield found
    for server in found.servers():
        with suppress(psutil.NoSuchProcess):
            server.send_signal(signal.SIGKILL)
