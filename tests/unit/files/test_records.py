"""What files of several stages have in common."""

import pytest

from node_robustness.files.hdf5 import open_hdf5, write_hdf5
from node_robustness.files.records import not_measured, say_not_measured


@pytest.mark.parametrize(
    ("reasons", "said"),
    [
        ([], ""),
        (["There is no solve."], "There is no solve."),
        (["There is no solve.", "It draws noise.", "There is no solve."],
         "There is no solve. It draws noise."),
    ],
)  # fmt: skip
def test_a_file_says_what_it_lacks(tmp_path, reasons, said):
    path = tmp_path / "cost.h5"
    with write_hdf5(path, "cost", {}) as file:
        say_not_measured(file, reasons)
    with open_hdf5(path, "cost") as file:
        assert not_measured(file) == said
        assert ("not_measured" in file.attrs) == bool(reasons)
