"""Run a script in a fork of the server, or else in a new Python.

    python -I -S client.py FOLDER STATE SNAKEMAKE MAY_START SCRIPT

For Snakemake this process is the job: it has the job's standard streams, it takes its signals, and
it ends as the script ends. It stands alone and imports as little as possible: a job waits for it.

The server of a process is one whose traits are the same (`traits`). Its socket has the name of
their checksum, and the server compares the traits themselves. A message is one packet:

    client to server   the script, the environment, the traits, and the standard streams
    server to client   `refused WHY`, or
    fork to client     `ready PID`
    client to fork     `go`
    server to client   the exit status, negative where a signal ended the fork

The end of either process is the end of the connection. Until `go`, the script runs in a new Python
when anything is in the way.
"""

import marshal
import os
import select
import signal
import socket
import sys
import time
import zlib
from contextlib import suppress
from typing import NoReturn

_SERVER = os.path.join(os.path.dirname(__file__), "server.py")
COLD = "NODE_ROBUSTNESS_COLD"
"""The variable in which a job reads why it was not forked from the server."""

STARTED = "NODE_ROBUSTNESS_STARTED"
"""The variable in which a fork reads when the client started, in seconds since the epoch."""

PACKET = 1 << 20
"""More bytes than a message has; the kernel's own limit is lower."""

_PATIENCE = 60.0
# A server that could not start is not started again for this long, unless its traits are others.
_FAILED_FOR = 600.0

# They differ between shells, runs and logins. The server's imports read none of them for anything
# that a script uses, and a fork has its own.
_IGNORED = {b"_", b"COLUMNS", b"LINES", b"OLDPWD", b"PWD", b"SHLVL"}
_IGNORED_PREFIXES = (b"NODE_ROBUSTNESS_", b"XDG_")
# Snakemake sets them all to the threads of a job.
_THREADS = (
    *(b"OMP_NUM_THREADS", b"GOTO_NUM_THREADS", b"OPENBLAS_NUM_THREADS", b"MKL_NUM_THREADS"),
    *(b"VECLIB_MAXIMUM_THREADS", b"NUMEXPR_NUM_THREADS"),
)
# What a process inherits and cannot or need not be given later.
_STATUS = (
    *(b"Umask", b"Uid", b"Gid", b"Groups", b"NoNewPrivs", b"Seccomp", b"SigBlk", b"SigIgn"),
    *(b"CapInh", b"CapPrm", b"CapEff", b"CapBnd", b"CapAmb", b"Cpus_allowed", b"Mems_allowed"),
)
_FILES = ("limits", "cgroup", "oom_score_adj", "personality")
_PASSED_ON = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)

Traits = dict[bytes, bytes]


class ColdError(Exception):
    """Why a script runs in a new Python."""


def kept(environment: Traits) -> Traits:
    """The variables that must have the same values in a server and in a fork of it."""
    ignored = _IGNORED if threads(environment) is None else _IGNORED.union(_THREADS)
    return {
        name: value
        for name, value in environment.items()
        if name not in ignored and not name.startswith(_IGNORED_PREFIXES)
    }


def threads(environment: Traits) -> int | None:
    """The threads that all libraries may use by these variables; None if they do not agree."""
    values = {environment.get(name, b"") for name in _THREADS}
    value = values.pop()
    return int(value) if not values and value.isdigit() else None


def traits(state: str) -> Traits:
    """What must be the same in a server and in a process that a fork of it takes the place of.

    That is what a process has from its parent and could make a difference for a script, besides the
    environment.

    Args:
        state: of the interpreter, its libraries and the checkout.
    """
    found = {b"state": state.encode()}
    # Relative ones depend on where the process starts.
    folders = os.environb.get(b"PYTHONPATH", b"").split(b":")
    found[b"PYTHONPATH"] = b":".join(map(os.path.abspath, folders)) if folders != [b""] else b""
    for line in _read("status").splitlines():
        name, _, value = line.partition(b":")
        if name in _STATUS:
            found[name] = value
    for file in _FILES:
        found[file.encode()] = _read(file)
    for space in os.listdir("/proc/self/ns"):
        found[space.encode()] = os.readlink(f"/proc/self/ns/{space}").encode()
    found[b"root"] = os.readlink(b"/proc/self/root")
    found[b"priority"] = b"%d %d" % (os.nice(0), os.sched_getscheduler(0))
    return found


def _read(name: str) -> bytes:
    with open(f"/proc/self/{name}", "rb") as file:
        return file.read()


def name_of(own: Traits, environment: Traits) -> str:
    """The name of the socket of a server with these traits and this environment."""
    contents = [sorted(own.items()), sorted(kept(environment).items())]
    return f"{zlib.crc32(marshal.dumps(contents)):08x}"


def open_folder(path: str) -> int:
    """Open the folder of the sockets, where nobody else may have put one.

    Raises:
        ColdError: somebody else may have.
        OSError: it cannot be opened.
    """
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    found = os.fstat(folder)
    if found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise ColdError(f"{path} is not a folder of this user alone")
    return folder


def address(folder: int, name: str) -> str:
    """The path of a socket in an open folder: short, however long the path of the folder is."""
    return f"/proc/self/fd/{folder}/{name}"


def connect(folder: int, name: str) -> socket.socket | None:
    """A connection to the server of this name; None if there is none."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        connection.connect(address(folder, name))
    except (FileNotFoundError, ConnectionRefusedError):
        connection.close()
        return None
    return connection


def locked(folder: int) -> int:
    """The lock of whoever starts a server in a folder, or ends one; closing it releases it."""
    import fcntl

    lock = os.open("lock", os.O_RDWR | os.O_CREAT, 0o600, dir_fd=folder)
    fcntl.flock(lock, fcntl.LOCK_EX)
    return lock


def _start(folder: int, path: str, name: str, state: str) -> socket.socket:
    """Start a server, unless another process has just done so; a connection to it."""
    lock = locked(folder)
    try:
        connection = connect(folder, name)
        if connection is not None:
            return connection
        _check_not_failed(folder, path, name)
        log = os.open(f"{name}.log", os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600, dir_fd=folder)
        with suppress(FileNotFoundError):
            os.unlink(name, dir_fd=folder)
        # It listens before there is a server: whoever comes meanwhile waits.
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
            listener.bind(address(folder, name))
            listener.listen(socket.SOMAXCONN)
            _spawn([_SERVER, str(listener.fileno()), path, name, state], listener.fileno(), log)
        os.close(log)
        connection = connect(folder, name)
    finally:
        os.close(lock)
    if connection is None:
        raise ColdError("the server ended at once")
    return connection


def _check_not_failed(folder: int, path: str, name: str) -> None:
    """Refuse to start a server that has just failed to: its log, empty otherwise, says why."""
    with suppress(FileNotFoundError):
        log = os.stat(f"{name}.log", dir_fd=folder)
        if log.st_size > 0 and time.time() - log.st_mtime < _FAILED_FOR:
            raise ColdError(f"the server could not start: see {path}/{name}.log")


def _spawn(arguments: list[str], listener: int, log: int) -> None:
    """Run Python in a session that outlives this process, and is not a child of it."""
    child = os.fork()
    if child == 0:
        try:
            os.setsid()
            if os.fork() == 0:
                for stream, number in ((os.open(os.devnull, os.O_RDONLY), 0), (log, 1), (log, 2)):
                    os.dup2(stream, number)
                os.set_inheritable(listener, True)
                os.execv(sys.executable, [sys.executable, *arguments])
        finally:
            os._exit(0)
    os.waitpid(child, 0)


def _fill_standard_streams() -> list[int]:
    """Open those that are closed, as a socket would get their number; return which they were."""
    closed = []
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        closed.append(number)
    os.close(number)
    return closed


def _ask(connection: socket.socket, script: str, closed: list[int], own: Traits) -> None:
    """Send what a fork needs to take the place of this process."""
    environment = dict(os.environb)
    request = marshal.dumps((script, closed, environment, own))
    here = os.open(".", os.O_PATH | os.O_DIRECTORY)
    try:
        socket.send_fds(connection, [request], [here, 0, 1, 2])
    finally:
        os.close(here)


def _answer(connection: socket.socket, snakemake: int) -> int:
    """Wait until a fork is ready; its number.

    Raises:
        ColdError: there is none.
        TimeoutError: the server does not answer.
    """
    poll = select.poll()
    poll.register(connection, select.POLLIN)
    poll.register(snakemake, select.POLLIN)
    ready = [descriptor for descriptor, _ in poll.poll(_PATIENCE * 1000)]
    if snakemake in ready:
        os._exit(1)
    if not ready:
        raise TimeoutError(f"the server does not answer within {_PATIENCE:.0f} s")
    answer = b""
    with suppress(ConnectionError):
        answer = connection.recv(PACKET)
    word, _, rest = answer.partition(b" ")
    if word == b"ready":
        return int(rest)
    refused = word == b"refused"
    raise ColdError(rest.decode(errors="replace") if refused else "the server ended, or its fork")


def _follow(connection: socket.socket, pid: int, snakemake: int) -> None:
    """Let a fork run the script, and end as it does; return only if the server ended first."""
    fork = os.pidfd_open(pid)
    taken = []

    def pass_on(number: int, _: object) -> None:
        taken.append(number)
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(fork, number)

    def stop(*_: object) -> None:
        with suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGSTOP)
            os.kill(os.getpid(), signal.SIGSTOP)
            os.killpg(pid, signal.SIGCONT)

    for number in (*_PASSED_ON, signal.SIGTSTP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, stop if number == signal.SIGTSTP else pass_on)
    connection.send(b"go")
    poll = select.poll()
    poll.register(connection, select.POLLIN)
    poll.register(snakemake, select.POLLIN)
    if snakemake in [descriptor for descriptor, _ in poll.poll()]:
        os._exit(1)  # the end of the connection ends the fork
    with suppress(ConnectionError):
        status = connection.recv(PACKET)
        if status:
            _end_as(int(status))
    # The kernel kills a fork whose server is dead, and what it started is in its group.
    with suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
    poll = select.poll()
    poll.register(fork, select.POLLIN)
    poll.poll()
    if taken:
        _end_as(-taken[-1])


def _end_as(status: int) -> NoReturn:
    """End as a process ended: with its exit status, or by the same signal."""
    if status < 0:
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # the core is the fork's
        if -status not in (signal.SIGKILL, signal.SIGSTOP):
            signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    os._exit(status if status >= 0 else 128 - status)


def _warm(folder: str, state: str, snakemake: int, may_start: bool, script: str) -> None:
    """Run a script in a fork and end as it ends.

    Raises:
        ColdError: it did not run, or did not come to an end.
        OSError: the same.
    """
    closed = _fill_standard_streams()
    parent = os.pidfd_open(snakemake)
    own = traits(state)
    name = name_of(own, dict(os.environb))
    sockets = open_folder(folder)
    connection = connect(sockets, name)
    if connection is None and may_start:
        connection = _start(sockets, folder, name, state)
    if connection is None:
        raise ColdError("no server runs")
    _ask(connection, script, closed, own)
    try:
        pid = _answer(connection, parent)
    except TimeoutError:
        with suppress(FileNotFoundError):
            os.unlink(name, dir_fd=sockets)  # so that no other waits as long
        raise
    _follow(connection, pid, parent)
    raise ColdError("the server ended before the script did")


def main() -> None:
    """Run the script of the command line."""
    started = time.time()
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    folder, state, snakemake, may_start, script = sys.argv[1:]
    os.environ.pop(COLD, None)
    os.environ[STARTED] = repr(started)
    try:
        _warm(folder, state, int(snakemake), bool(int(may_start)), script)
    except (ColdError, OSError) as why:
        os.environ[COLD] = str(why)
    # Its start is that of this process.
    del os.environ[STARTED]
    os.execv(sys.executable, [sys.executable, script])


if __name__ == "__main__":
    main()
