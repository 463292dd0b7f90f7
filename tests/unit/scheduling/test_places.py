import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from node_robustness.errors import UserError
from node_robustness.scheduling import places


@pytest.mark.parametrize("path", ["/a-b_c/d.e+f@g%h=i,j:k", "/é/日本", Path("/home/me")])
def test_plain(path):
    places.check_plain("a job", path)


@pytest.mark.parametrize("odd", [*" '\"&;$()#{}*?[]\\`~!<>|\t\n"])
def test_odd(odd):
    path = f"/a{odd}b"
    with pytest.raises(UserError) as caught:
        places.check_plain("a job", "/plain", path)
    message = str(caught.value)
    assert message.startswith(f"{path!r}: Snakemake cannot start a job")
    assert "\n" not in message


def test_python_is_quoted_in_command_lines_alone(monkeypatch, tmp_path):
    program = tmp_path / "a b" / "python"
    program.parent.mkdir()
    program.symlink_to(sys.executable)
    monkeypatch.setattr(sys, "executable", str(program))
    for _ in range(2):  # as often as the workflow is read
        places.quote_python()
    assert shlex.split(f"{sys.executable} x") == [str(program), "x"]
    assert Path(sys.executable) == program
    said = subprocess.run([sys.executable, "-c", "print(1)"], capture_output=True, check=True)
    assert said.stdout == b"1\n"


def test_python_without_docstrings():
    for optimize in (0, 1):
        places.check_docstrings(optimize)
    with pytest.raises(UserError, match=r"unset PYTHONOPTIMIZE$"):
        places.check_docstrings(2)


class TestWritable:
    def test_there_or_to_be_made(self, tmp_path, monkeypatch):
        (tmp_path / "elsewhere").mkdir()
        (tmp_path / "link").symlink_to("elsewhere")
        monkeypatch.chdir(tmp_path)
        for folder in ("", "elsewhere", "link", "new", "link/new/newer", tmp_path / "new"):
            places.check_writable(Path(folder))

    @pytest.mark.parametrize("below", ["", "below"])
    def test_what_is_in_the_way(self, tmp_path, monkeypatch, below):
        (tmp_path / "file").touch()
        (tmp_path / "link").symlink_to("nowhere")
        monkeypatch.chdir(tmp_path)
        for name, reason in (
            ("file", "is a file, where a folder is needed: move it away"),
            ("link", "is a link to nowhere, which is not there: make it"),
        ):
            with pytest.raises(UserError, match=f"{name} {reason}"):
                places.check_writable(Path(name, below))

    def test_that_may_not_be_written_to(self, tmp_path, monkeypatch):
        """The superuser may, so that the system's answer is made up."""
        monkeypatch.setattr(places.os, "access", lambda path, mode: Path(path) != tmp_path)
        with pytest.raises(UserError, match=f"{tmp_path} may not be written to: "):
            places.check_writable(tmp_path / "results")
