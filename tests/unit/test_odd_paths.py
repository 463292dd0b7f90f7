import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from node_robustness import odd_paths
from node_robustness.errors import UserError


@pytest.mark.parametrize("path", ["/a-b_c/d.e+f@g%h=i,j:k", "/é/日本", Path("/home/me")])
def test_plain(path):
    odd_paths.check_plain("a job", path)


@pytest.mark.parametrize("odd", [*" '\"&;$()#{}*?[]\\`~!<>|\t\n"])
def test_odd(odd):
    path = f"/a{odd}b"
    with pytest.raises(UserError) as caught:
        odd_paths.check_plain("a job", "/plain", path)
    message = str(caught.value)
    assert message.startswith(f"{path!r}: Snakemake cannot start a job")
    assert "\n" not in message


def test_python_is_quoted_in_command_lines_alone(monkeypatch, tmp_path):
    program = tmp_path / "a b" / "python"
    program.parent.mkdir()
    program.symlink_to(sys.executable)
    monkeypatch.setattr(sys, "executable", str(program))
    for _ in range(2):  # as often as the workflow is read
        odd_paths.quote_python()
    assert shlex.split(f"{sys.executable} x") == [str(program), "x"]
    assert Path(sys.executable) == program
    said = subprocess.run([sys.executable, "-c", "print(1)"], capture_output=True, check=True)
    assert said.stdout == b"1\n"
