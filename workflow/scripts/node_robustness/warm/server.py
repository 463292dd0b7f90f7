"""Import the libraries of the jobs once, and fork for each script that a client brings.

    python server.py LISTENER FOLDER NAME STATE

It ends when it has had nothing to do for a minute. It never starts a thread or CUDA, and imports
no module of this package besides `client`, of which it forgets the name: a fork imports them as a
new process does, as they are then. The threads of libraries do no harm: those of OpenBLAS and
of Arrow's memory allocator end before a fork, or are not needed after it, by handlers of
these libraries (`pthread_atfork`).
"""

import atexit
import contextlib
import ctypes
import gc
import importlib
import io
import marshal
import os
import runpy
import select
import signal
import socket
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

if __name__ == "__main__":
    # In place of the folder of this file, which is there unless PYTHONSAFEPATH is set.
    del sys.path[: not sys.flags.safe_path]
    sys.path.insert(0, str(Path(__file__).parents[2]))

from node_robustness.warm import client

IMPORTED = (
    # Of all scripts.
    "pydantic",
    "pydantic.dataclasses",
    "snakemake.iocontainers",
    "snakemake.logging",
    "tqdm",
    "yaml",
    # Of those that compute.
    "h5py",
    "numpy",
    "numpy.typing",
    "safetensors.torch",
    "torch",
    "torch.nn.utils.rnn",
    "torch.optim.lr_scheduler",
    "torch.overrides",
    "torch.utils._python_dispatch",
    "torch.utils.checkpoint",
    "torchdiffeq",
    # Of those that evaluate, draw and report.
    "PIL.Image",
    "altair",
    "jinja2",
    "markupsafe",
    "pandas",
    "pyarrow.parquet",
    "scipy.optimize",
    "scipy.special",
    "scipy.stats",
    "sklearn.datasets",
    "sklearn.linear_model",
    "sklearn.metrics",
    "vl_convert",
)
"""All that scripts import at the top of their modules."""

USED = (
    "pandas.core.methods.to_dict",
    "pandas.io.formats.csvs",
    "pyarrow.dataset",
    "pyarrow.pandas_compat",
    "pydantic.main",
    "pydantic.type_adapter",
    "scipy.optimize.elementwise",
    "snakemake.io",
    "threadpoolctl",
    "torch._dynamo",  # by optimizers and transforms of functions; it takes a second
    "xml.etree.ElementTree",
)
"""What these libraries import themselves when scripts use them; one that is gone is left out."""

_IDLE = 60.0
_PR_SET_PDEATHSIG = 1


@dataclass
class _Job:
    """A fork that runs a script, by the number of its process, and the descriptors for it."""

    connection: socket.socket
    pid: int
    process: int

    def close(self) -> None:
        self.connection.close()
        os.close(self.process)


@dataclass
class _Request:
    """What a client asks for: a script, in its place."""

    connection: socket.socket
    script: str
    closed: list[int]
    environment: client.Traits
    folder: int
    streams: list[int]

    def close(self) -> None:
        self.connection.close()
        _close([self.folder, *self.streams])


class Server:
    """The listening socket, the clients that have not asked yet, and the jobs that run.

    Args:
        listener: the socket.
        folder: of the socket.
        name: of the socket in it.
        state: the trait that the process cannot know.
    """

    def __init__(self, listener: socket.socket, folder: str, name: str, state: str) -> None:
        """Take the traits of this process: imports may change its environment."""
        self._listener = listener
        self._folder = client.open_folder(folder)
        self._name = name
        self._inode = os.stat(name, dir_fd=self._folder).st_ino
        self._traits = client.traits(state)
        self._kept = client.kept(dict(os.environb))
        self._poll = select.poll()
        self._poll.register(listener, select.POLLIN)
        self._new: dict[int, socket.socket] = {}
        self._jobs: dict[int, _Job] = {}

    def serve(self) -> _Request | None:
        """Fork for one client after another.

        Returns:
            What is to be run in this fork; None in the server, when it is to end.
        """
        while True:
            busy = self._new or self._jobs
            events = self._poll.poll(None if busy else _IDLE * 1000)
            if not events and self._leave():
                return None
            for descriptor, _ in events:
                if descriptor == self._listener.fileno():
                    self._accept()
                elif descriptor in self._new:
                    request = self._read(descriptor)
                    if request is not None and self._fork(request):
                        return request
                elif descriptor in self._jobs:
                    self._end(self._jobs[descriptor], by_itself=True)
                else:
                    for job in [*self._jobs.values()]:
                        if job.connection.fileno() == descriptor:
                            self._end(job, by_itself=False)

    def _accept(self) -> None:
        connection, _ = self._listener.accept()
        self._new[connection.fileno()] = connection
        self._poll.register(connection, select.POLLIN)

    def _read(self, descriptor: int) -> _Request | None:
        """What a client asks for; None if it has gone, or is refused."""
        self._poll.unregister(descriptor)
        connection = self._new.pop(descriptor)
        descriptors: list[int] = []
        try:
            packet, descriptors, _, _ = socket.recv_fds(connection, client.PACKET, 4)
            script, closed, environment, traits = marshal.loads(packet)
            here, *streams = descriptors
            other = _differences(self._traits, traits)
            other |= _differences(self._kept, client.kept(environment))
        except (OSError, EOFError, ValueError, TypeError, AttributeError):
            # It has gone without asking, or it is no client.
            _close(descriptors)
            connection.close()
            return None
        request = _Request(connection, script, closed, environment, here, streams)
        if other:
            names = b", ".join(sorted(other)).decode(errors="replace")
            self._refuse(request, f"the server has other values of {names}")
            return None
        return request

    @staticmethod
    def _refuse(request: _Request, why: str) -> None:
        with contextlib.suppress(OSError):
            request.connection.send(f"refused {why}".encode())
        request.close()

    def _fork(self, request: _Request) -> bool:
        """Fork; whether this is the fork."""
        server = os.getpid()
        try:
            pid = os.fork()
        except OSError as error:
            self._refuse(request, f"the server cannot fork: {error}")
            return False
        if pid == 0:
            # Before anything else: without it, a fork may outlive the server.
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != server:
                os._exit(1)
            os.setpgid(0, 0)
            self._close()
            return True
        os.setpgid(pid, pid)
        _close([request.folder, *request.streams])
        job = _Job(request.connection, pid, os.pidfd_open(pid))
        self._jobs[job.process] = job
        self._poll.register(job.process, select.POLLIN)
        # Its end alone: what the client says is for the fork.
        self._poll.register(job.connection, 0)
        return False

    def _end(self, job: _Job, *, by_itself: bool) -> None:
        """End what is left of a job, and report to its client if that is there."""
        del self._jobs[job.process]
        self._poll.unregister(job.process)
        self._poll.unregister(job.connection)
        if by_itself:
            # Until it is waited for, its number belongs to no other process.
            os.waitid(os.P_PID, job.pid, os.WEXITED | os.WNOWAIT)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(job.pid, signal.SIGKILL)
        status = os.waitstatus_to_exitcode(os.waitpid(job.pid, 0)[1])
        with contextlib.suppress(OSError):
            job.connection.send(b"%d" % status)
        job.close()

    def _leave(self) -> bool:
        """Remove the socket, unless a client has come meanwhile; whether it is removed."""
        lock = client.locked(self._folder)
        try:
            if self._poll.poll(0):
                return False
            with contextlib.suppress(FileNotFoundError):
                if os.stat(self._name, dir_fd=self._folder).st_ino == self._inode:
                    os.unlink(self._name, dir_fd=self._folder)
                    os.unlink(f"{self._name}.log", dir_fd=self._folder)
            return True
        finally:
            os.close(lock)

    def _close(self) -> None:
        """Close, in a fork, what is the server's."""
        self._listener.close()
        os.close(self._folder)
        for connection in self._new.values():
            connection.close()
        for job in self._jobs.values():
            job.close()


def _differences(some: client.Traits, others: client.Traits) -> set[bytes]:
    return {name for name in some | others if some.get(name) != others.get(name)}


def _close(descriptors: list[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


def _cache_bytecode(folder: str) -> None:
    """Let forks compile a module once where Python is to write no bytecode next to the code.

    In a new Python the import of the libraries takes much longer than compiling the modules of a
    script. In a fork these would be most of its start.
    """
    if sys.dont_write_bytecode:
        sys.dont_write_bytecode = False
        sys.pycache_prefix = str(Path(folder, "bytecode"))


def _take_place(request: _Request) -> None:
    """Give this process what the client has from its parent."""
    os.fchdir(request.folder)
    for number, stream in enumerate(request.streams):
        if number in request.closed:
            os.close(number)
        else:
            os.dup2(stream, number)
    _close([request.folder, *request.streams])
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if number in request.closed:
            setattr(sys, name, None)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=os.isatty(1))
    threads_before = client.threads(dict(os.environb))
    threads = client.threads(request.environment)
    os.environb.clear()
    os.environb.update(request.environment)
    if numpy := sys.modules.get("numpy"):
        numpy.random.seed()
    if threads != threads_before:
        sys.modules["threadpoolctl"].threadpool_limits(threads)
    sys.argv = [request.script]
    sys.orig_argv = [sys.executable, request.script]
    if not sys.flags.safe_path:
        sys.path.insert(0, str(Path(request.script).parent))


def _is_to_go(connection: socket.socket) -> bool:
    """Whether the client is still there, and lets this process run the script."""
    with connection, contextlib.suppress(ConnectionError):
        connection.send(b"ready %d" % os.getpid())
        return connection.recv(client.PACKET) == b"go"
    return False


def _run(request: _Request) -> NoReturn:
    """Run the script as Python runs it, and end."""
    status = 1
    try:
        _take_place(request)
        if not _is_to_go(request.connection):
            os._exit(1)
        runpy.run_path(request.script, run_name="__main__")
        status = 0
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            status = end.code or 0
        else:
            print(end.code, file=sys.stderr)
    except BaseException as error:
        sys.excepthook(type(error), error, error.__traceback__)
        if isinstance(error, KeyboardInterrupt):
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGINT)
    # As at the end of Python, but for taking every module apart.
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
    os._exit(status & 0xFF)


def main() -> None:
    """Serve until there is nothing to do."""
    number, folder, name, state = sys.argv[1:]
    server = Server(socket.socket(fileno=int(number)), folder, name, state)
    del sys.path[0]
    for module in [name for name in sys.modules if name.startswith("node_robustness")]:
        del sys.modules[module]
    gc.disable()
    for library in (*IMPORTED, *USED):
        # A job that needs one that is missing says so.
        with contextlib.suppress(ModuleNotFoundError):
            importlib.import_module(library)
    gc.collect()
    gc.freeze()
    gc.enable()
    os.chdir("/")
    os.ftruncate(2, 0)
    _cache_bytecode(folder)
    request = server.serve()
    if request is not None:
        _run(request)


if __name__ == "__main__":
    main()
