"""Whatever is in the way of the server, the script runs, in a new Python that knows why."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from node_robustness.warm import client

WHY = 'import os\nprint(os.environ.get("NODE_ROBUSTNESS_COLD", "warm"))\n'
ROOT_ONLY = pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")


def why(warm, body=WHY, **settings):
    """What a script that ends well says of its start."""
    ended = warm.run(body, **settings)
    assert (ended.returncode, ended.stderr) == (0, "")
    return ended.stdout.rstrip("\n")


def test_nothing_is_in_the_way(warm):
    assert why(warm) == "warm"


def test_no_server_runs_and_none_may_be_started(warm):
    assert why(warm, may_start=False) == "no server runs"
    assert not warm.servers()
    why(warm)
    assert why(warm, may_start=False) == "warm"


def missing(folder: Path) -> None:
    folder.rmdir()


def file(folder: Path) -> None:
    folder.rmdir()
    folder.touch()


def link(folder: Path) -> None:
    folder.rename(folder.with_name("elsewhere"))
    folder.symlink_to("elsewhere")


def open_to_all(folder: Path) -> None:
    folder.chmod(0o777)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (missing, "No such file"),
        (file, "Not a directory"),
        (link, "Not a directory"),
        (open_to_all, "is not a folder of this user alone"),
    ],
)
def test_the_folder_of_the_sockets(warm, change, words):
    change(warm.sockets)
    assert words in why(warm)
    assert not warm.servers()


@ROOT_ONLY
def test_the_folder_is_of_another_user(warm):
    os.chown(warm.sockets, 1, 1)
    assert "is not a folder of this user alone" in why(warm)


def test_a_long_path_of_the_folder(warm):
    deep = warm.sockets.joinpath(*["a" * 100] * 5)
    deep.mkdir(mode=0o700, parents=True)
    warm.sockets = deep
    assert why(warm) == "warm"


def test_files_in_place_of_sockets(warm):
    why(warm)
    warm.end_server()
    (stale,) = [path for path in warm.sockets.iterdir() if path.is_socket()]
    assert why(warm) == "warm"
    warm.end_server()
    stale.unlink()
    stale.write_text("no socket")
    assert why(warm) == "warm"
    warm.end_server()
    stale.unlink()
    stale.mkdir()
    assert "Is a directory" in why(warm)


def test_a_server_that_cannot_start_is_not_started_again_and_again(warm):
    warm.edit("server.py", "    gc.disable()", "    raise MemoryError")
    assert why(warm).startswith("the server ended")
    said = why(warm)
    assert said.startswith("the server could not start: see ")
    assert "MemoryError" in Path(said.rpartition(" ")[2]).read_text()
    assert not warm.servers()


def test_a_library_that_is_missing_is_no_hindrance(warm):
    warm.edit("server.py", "in ():", 'in ("no_such_library",):')
    assert why(warm) == "warm"


def test_a_server_that_does_not_answer_is_waited_for_once(warm):
    assert why(warm) == "warm"
    (server,) = warm.servers()
    server.suspend()
    warm.edit("client.py", "_PATIENCE = 60.0", "_PATIENCE = 1.0")
    # Not by a stream: it would end only when the server does, which has got it.
    body = WHY.replace("print(", "open('said', 'w').write(")
    for may_start, words in (
        (True, "the server does not answer within 1 s"),
        (False, "no server runs"),
        (True, "warm"),
    ):
        assert warm.start(body, may_start=may_start).wait(120) == 0
        assert (warm.folder / "said").read_text() == words
        if not may_start:
            warm.edit("client.py", "_PATIENCE = 1.0", "_PATIENCE = 60.0")  # for a busy machine


def test_a_server_with_other_traits_refuses(warm):
    """Were the checksum of two different environments the same."""
    warm.edit("client.py", 'return f"{zlib', 'return "same"; f"{zlib')
    assert why(warm, environment={"OTHER": "1"}) == "warm"
    assert why(warm) == "the server has other values of OTHER"
    assert why(warm, environment={"OTHER": "2"}) == "the server has other values of OTHER"
    assert why(warm, environment={"OTHER": "1"}, state="1").endswith("other values of state")
    assert len(warm.servers()) == 1


def test_an_environment_that_is_no_message(warm):
    large = {f"LARGE{number}": "x" * 100_000 for number in range(5)}
    assert why(warm, environment=large).endswith("Message too long")


@pytest.mark.parametrize(
    ("settings", "servers"),
    [
        ({"environment": {"SOME": "other"}}, 2),
        ({"state": "1"}, 2),
        ({"before": "ulimit -f 1000"}, 2),
        ({"before": "ulimit -n 100"}, 2),
        ({"before": "umask 077"}, 2),
        ({"before": "trap '' USR2"}, 2),
        ({"before": "renice -n 5 $$ > /dev/null"}, 2),
        ({"before": "taskset -pc 0 $$ > /dev/null"}, 2),
        ({"environment": {"PWD": "/", "SHLVL": "7", "XDG_CACHE_HOME": "/other"}}, 1),
        ({"environment": {"NODE_ROBUSTNESS_COMMAND_LINE": "other"}}, 1),
    ],
)
def test_what_could_make_a_difference_has_another_server(warm, settings, servers):
    if "taskset" in settings.get("before", "") and len(os.sched_getaffinity(0)) == 1:
        pytest.skip("there is one processor")
    assert why(warm) == "warm"
    before = settings.pop("before", None)
    command = warm.command(WHY, state=settings.pop("state", "0"))
    if before is not None:
        command = ["bash", "-c", f'{before}; exec "$@"', "bash", *command]
    variables = os.environ | settings.pop("environment", {})
    ended = subprocess.run(command, env=variables, capture_output=True, text=True, check=True)
    assert (ended.stdout, ended.stderr) == ("warm\n", "")
    assert len(warm.servers()) == servers


def test_a_relative_path_of_modules_is_that_of_the_folder_of_the_run(warm):
    for number in range(2):
        folder = warm.folder.with_name(f"other{number}")
        (folder / "modules").mkdir(parents=True)
        (folder / "modules/some.py").write_text(f"number = {number}")
        warm.folder = folder
        said = why(
            warm, WHY + "import some; print(some.number)", environment={"PYTHONPATH": "modules"}
        )
        assert said.split() == ["warm", str(number)]
    assert len(warm.servers()) == 2


def test_closed_streams_stay_closed(warm):
    body = """
import json, os, sys
said = os.environ.get("NODE_ROBUSTNESS_COLD", "warm")
def descriptor(number):
    try:
        return os.readlink(f"/proc/self/fd/{number}")
    except OSError:
        return None
found = [[stream is None for stream in (sys.stdin, sys.stdout, sys.stderr)],
         [descriptor(number) for number in range(3)], said]
open("found", "w").write(json.dumps(found))
"""
    for closed in ("<&-", ">&-", "2>&-", "<&- >&- 2>&-"):
        found = []
        for may_start in (False, True):
            command = warm.command(body, may_start=may_start)
            line = f'"$@" {closed}'
            subprocess.run(
                ["bash", "-c", line, "bash", *command],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd=warm.folder,
                check=True,
            )
            *seen, said = json.loads((warm.folder / "found").read_text())
            assert (said == "warm") == may_start
            found.append(seen)
        warm.end_server()
        assert found[0] == found[1]


def test_a_python_whose_path_has_spaces(warm, tmp_path):
    python = tmp_path / "a folder" / "python"
    python.parent.mkdir()
    python.symlink_to(Path(sys.executable).resolve())
    assert why(warm, python=python) == "warm"


def test_who_asks_for_nothing_or_nonsense_harms_nobody(warm):
    assert why(warm) == "warm"
    (path,) = [path for path in warm.sockets.iterdir() if path.is_socket()]
    folder = client.open_folder(str(warm.sockets))
    waiting = client.connect(folder, path.name)
    client.connect(folder, path.name).close()
    for packet in (b"nonsense", b"\x00" * 1000, b""):
        with client.connect(folder, path.name) as connection:
            connection.send(packet)
    for descriptors in ([], [0] * 10):
        with client.connect(folder, path.name) as connection:
            socket.send_fds(connection, [b"more nonsense"], descriptors)
            assert connection.recv(10) == b""
    os.close(folder)
    assert why(warm) == "warm"
    waiting.close()
    assert len(warm.servers()) == 1


def test_those_who_come_at_once_have_one_server(warm):
    processes = [warm.start(WHY) for _ in range(8)]
    assert {warm.finish(process).stdout for process in processes} == {"warm\n"}
    assert len(warm.servers()) == 1


def test_two_checkouts_have_two_servers(warm, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(warm.package, other / "node_robustness")
    assert why(warm, state="of one") == "warm"
    (server,) = warm.servers()
    warm.package = other / "node_robustness"
    assert why(warm, state="of the other") == "warm"
    assert server not in warm.servers()
    server.kill()


def test_an_edit_between_two_scripts_is_seen(warm):
    module = warm.folder / "some.py"
    body = f"import sys\nsys.path.append({str(warm.folder)!r})\nimport some\n{WHY}print(some.text)"
    for text in ("one", "another"):
        module.write_text(f"text = {text!r}")
        assert why(warm, body).split() == ["warm", text]
    assert len(warm.servers()) == 1


def test_a_signal_that_is_ignored_stays_so(warm):
    body = f"import signal\n{WHY}print(signal.getsignal(signal.SIGHUP).name)"
    for _ in range(2):
        command = ["nohup", *warm.command(body)]
        ended = subprocess.run(command, capture_output=True, text=True, check=True)
        assert ended.stdout.split() == ["warm", signal.SIG_IGN.name]


@ROOT_ONLY
def test_another_user_has_another_server_or_none(warm_in):
    other = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "env"]
    program = "import sys; sys.exit(sys.version_info < (3, 11))"
    for python in (sys.executable, "/usr/bin/python3"):
        if subprocess.run([*other, python, "-c", program], check=False).returncode == 0:
            break
    else:
        pytest.skip("no Python is for all users")
    # What pytest makes is this user's alone.
    with tempfile.TemporaryDirectory() as place, warm_in(Path(place)) as warm:
        Path(place).chmod(0o755)
        assert why(warm, python=python) == "warm"
        own = Path(place) / "own"
        own.mkdir(mode=0o700)
        os.chown(own, 65534, 65534)
        for sockets, words in ((warm.sockets, "Permission denied"), (own, "warm")):
            warm.sockets = sockets
            command = [*other, *warm.command(WHY, python=python)]
            ended = subprocess.run(command, capture_output=True, text=True, check=False)
            assert ended.returncode == 0, ended.stderr
            assert words in ended.stdout
        assert len(warm.servers()) == 2
