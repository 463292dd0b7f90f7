"""A file is whole or absent, whatever happens while it is written."""

import errno

import pytest

from node_robustness.errors import UserError
from node_robustness.files.atomic import atomic_path


def fail_half_way(path, error):
    with atomic_path(path) as temporary:
        temporary.write_text("half")
        raise error


def test_makes_folders_and_replaces_the_file(tmp_path):
    path = tmp_path / "a" / "table.csv"
    for text in ("old", "new"):
        with atomic_path(path) as temporary:
            assert temporary.parent == path.parent
            assert temporary.name.startswith(".")
            assert temporary.suffix == ".csv"
            temporary.write_text(text)
    assert path.read_text() == "new"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt()])
def test_keeps_the_old_file_after_a_failure(tmp_path, error):
    path = tmp_path / "table.csv"
    path.write_text("old")
    with pytest.raises(type(error)):
        fail_half_way(path, error)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_wants_a_file(tmp_path):
    with pytest.raises(FileNotFoundError), atomic_path(tmp_path / "never"):
        pass


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "x"),
        OSError(errno.EDQUOT, "x"),
        RuntimeError('Os { code: 28, message: "No space left on device" }'),
    ],
)
def test_full_disk_is_a_user_error(tmp_path, error):
    path = tmp_path / "model.safetensors"
    with pytest.raises(UserError, match=r"model\.safetensors: no space left.*free space"):
        fail_half_way(path, error)
    assert list(tmp_path.iterdir()) == []


def test_other_system_errors_keep_their_traceback(tmp_path):
    with pytest.raises(PermissionError), atomic_path(tmp_path / "x"):
        raise PermissionError(errno.EACCES, "x")
