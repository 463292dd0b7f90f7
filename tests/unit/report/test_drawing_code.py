"""The code that draws charts in a browser is whole in its file, or is refused."""

import pytest

from node_robustness.errors import UserError
from node_robustness.report import drawing_code

CODE = "draw('τ');\r\nend();\n"


def test_what_is_written_is_read(tmp_path):
    path = tmp_path / "vega.js"
    drawing_code.write(CODE, path)
    assert drawing_code.read(path) == CODE


@pytest.mark.parametrize(
    "damage",
    [
        lambda whole: b"",
        lambda whole: whole[:-1],
        lambda whole: whole[whole.index(b"\n") + 1 :],
        lambda whole: whole.replace(b"end", b"and"),
        lambda whole: whole.replace("τ".encode(), b"\xff"),
    ],
    ids=["empty", "cut", "headless", "changed", "no text"],
)
def test_a_damaged_file_is_refused_with_the_remedy(tmp_path, damage):
    path = tmp_path / "vega.js"
    drawing_code.write(CODE, path)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(UserError, match=r"vega\.js is damaged: delete it, the next run writes it"):
        drawing_code.read(path)
