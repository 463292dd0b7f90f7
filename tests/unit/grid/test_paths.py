"""The grammar of paths, both ways."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node_robustness.config.values import NAME
from node_robustness.grid import paths

names = st.from_regex(re.compile(NAME, re.ASCII), fullmatch=True)
numbers = st.floats(min_value=0, exclude_min=True, allow_infinity=False)
COORDINATES = st.fixed_dictionaries(
    {
        **dict.fromkeys(["experiment", "dataset", "model", "attack"], names),
        "seed": st.integers(0, 2**63 - 1),
        "tolerance": st.none() | numbers,
        "norm": st.sampled_from(["linf", "l2", "l2_rms"]),
        "epsilon": numbers | st.integers(1, 255).map(lambda level: level / 255),
        "shard": st.tuples(*[st.integers(0, 10**9)] * 2).map("{0[0]}-{0[1]}".format),
    }
)
PLACES = ["TRAINED", "SOLVED", "CELL", "SHARD", "RANDOMISED", "DETECTED", "SWEPT", "COST"]


def named(pattern: str, values: dict) -> dict:
    """Those of some values that a pattern names."""
    return {name: value for name, value in values.items() if f"{{{name}}}" in pattern}


@pytest.mark.parametrize("place", [getattr(paths, name) for name in PLACES], ids=PLACES)
@given(values=COORDINATES, above=st.sampled_from(["", "/", "/results/x", "theirs"]))
def test_a_path_says_its_coordinates(place, values, above):
    pattern = paths.result(place, "a.h5")
    path = paths.fill(pattern, values)
    assert "{" not in path
    assert paths.read(pattern, Path(above, path)) == named(pattern, values)
    text = paths.fill(place, values)
    assert paths.read_place(text) == named(place, values)
    assert paths.fill(place, paths.read_place(text)) == text


def test_paths_as_they_have_always_been():
    values = {"experiment": "e", "dataset": "d", "model": "M", "seed": 3, "shard": "0-50"}
    values |= {"tolerance": 1e-3, "attack": "bim", "norm": "linf", "epsilon": 8 / 255}
    cell = "d/M/seed-3/tau-0.001/bim/linf/eps-8over255"
    for pattern, expected in [
        (paths.result(paths.PREPARED, "data.h5"), "results/e/d/data.h5"),
        (paths.result(paths.TRAINED, "model.json"), "results/e/d/M/seed-3/model.json"),
        (paths.result(paths.SOLVED, "clean.h5"), "results/e/d/M/seed-3/tau-0.001/clean.h5"),
        (paths.result(paths.CELL, "attack.h5"), f"results/e/{cell}/attack.h5"),
        (paths.result(paths.CELL, paths.SHARD_FILE), f"results/e/{cell}/attack-0-50.h5"),
        (
            paths.result(paths.RANDOMISED, "randomised.h5"),
            "results/e/d/M/seed-3/randomised/linf/eps-8over255/randomised.h5",
        ),
        (
            paths.result(paths.DETECTED, "detection.h5"),
            "results/e/d/M/seed-3/tau-0.001/detection/linf/eps-8over255/detection.h5",
        ),
        (
            paths.result(paths.SWEPT, "adjoint_sweep.h5"),
            "results/e/d/M/seed-3/tau-0.001/adjoint_sweep/linf/eps-8over255/adjoint_sweep.h5",
        ),
        (paths.log("attack_shard", paths.SHARD), f"results/e/logs/attack_shard/{cell}/0-50.log"),
        (
            paths.log("randomise", paths.RANDOMISED),
            "results/e/logs/randomise/d/M/seed-3/linf/eps-8over255.log",
        ),
    ]:
        assert paths.fill(pattern, values) == expected
    assert paths.fill(paths.SOLVED, values | {"tolerance": None}) == "d/M/seed-3/tau-none"


@pytest.mark.parametrize(
    "text",
    [
        "tables",
        "d-M",
        "d/M/seed-x",
        "d/M/seed-0/tau-loose",
        "d/M/seed-0/tau-1/bim/linf/eps-",
        "d/M/seed-0/tau-1/bim/linf/eps-0.1/0",
        "d/M/seed-0/tau-1/bim/linf/eps-0.1/0-50/more",
    ],
)
def test_other_texts_are_no_places(text):
    assert paths.read_place(text) is None


def test_a_path_of_another_pattern_is_named():
    with pytest.raises(ValueError, match=r"results/e/d/seed-0/a.h5 is not results/"):
        paths.read(paths.result(paths.TRAINED, "a.h5"), Path("results/e/d/seed-0/a.h5"))


def test_coordinates_of_wildcards():
    spelled = {"model": "M", "seed": "3", "tolerance": "none", "epsilon": "8over255"}
    expected = {"model": "M", "seed": 3, "tolerance": None, "epsilon": 8 / 255}
    assert paths.values(spelled) == expected
