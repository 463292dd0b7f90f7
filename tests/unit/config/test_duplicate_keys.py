"""Keys that stand twice are refused, with their lines, and nothing else is."""

import json

import pytest
import yaml

from node_robustness.config.docs import ROOT
from node_robustness.config.duplicate_keys import check_arguments, check_files, check_options
from node_robustness.errors import UserError


def complaints(tmp_path, text, name="run.yaml"):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    try:
        check_files([path])
    except UserError as error:
        lines = str(error).split("\n")
        before, after = f"config: {path}: ", ", and only the last would count: keep one"
        assert all(line.startswith(before) and line.endswith(after) for line in lines)
        return [line[len(before) : -len(after)] for line in lines]
    return []


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("a: 1\nb: 2\na: 3\n", ["a stands more than once, in lines 1 and 3"]),
        (
            "training: {epochs: 1}\ntraining:\n  epochs: 2\n",
            ["training stands more than once, in lines 1 and 2"],
        ),
        ("a:\n  b:\n    c: 1\n    c: 2\n", ["a.b.c stands more than once, in lines 3 and 4"]),
        ("a: {b: 1, c: 2, b: 3}\n", ["a.b stands more than once, in line 1"]),
        ("a: 1\n'a': 2\n\"a\": 3\n", ["a stands more than once, in lines 1, 2 and 3"]),
        ("a:\n- b: 1\n- b: 1\n  b: 2\n", ["a[1].b stands more than once, in lines 3 and 4"]),
        (
            "b: &x {c: 1, c: 2}\nd: *x\ne: 1\ne: 2\n",
            ["b.c stands more than once, in line 1", "e stands more than once, in lines 3 and 4"],
        ),
        ("\ufeffé: 1\r\né: 2\r\n", ["é stands more than once, in lines 1 and 2"]),
        ("# a: 0\n? a\n: 1\n? a\n: 2\n", ["a stands more than once, in lines 2 and 4"]),
    ],
)
def test_keys_that_stand_twice(tmp_path, text, found):
    assert complaints(tmp_path, text) == found


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a: 1\n",
        "a: {b: 1}\nc: {b: 1}\n",
        "a.b: 1\na: {b: 2}\n",
        "- a: 1\n- a: 1\n",
        # What is merged may be replaced, and several may be merged.
        "x: &x {a: 1, b: 2}\ny: &y {c: 1}\nz:\n  <<: *x\n  <<: *y\n  a: 2\n",
        "x: &x {a: 1}\ny: {<<: [*x, *x], a: 2}\n",
        # A map in itself, and one that stands for two.
        "a: &a\n  b: *a\n",
        "a: &a {b: 1}\nc: *a\nd: *a\n",
        # Different to Python, and refused by the configuration.
        "1: a\n'1': b\n",
        "[1, 2]: a\n",
    ],
)
def test_what_stands_once(tmp_path, text):
    assert complaints(tmp_path, text) == []


@pytest.mark.parametrize("path", sorted((ROOT / "config").glob("*.yaml")), ids=lambda p: p.name)
def test_shipped_configurations(path):
    check_files([path])
    first = next(iter(yaml.safe_load(path.read_text(encoding="utf-8"))))
    assert f"\n{first}:" in path.read_text(encoding="utf-8")


def test_json(tmp_path):
    right = {"a": {"b": ["\U0001f600", "x/y\\", 'tab\t"']}, "c": {"b": None}}
    for indent in (None, 2, "\t"):
        text = json.dumps(right, indent=indent).replace("/", "\\/")
        assert json.loads(text) == right
        assert complaints(tmp_path, text, "run.json") == []
        twice = text[:-1].rstrip() + ',\n"a": 1}'
        first, second = 1 if indent is None else 2, len(twice.splitlines())
        assert complaints(tmp_path, twice, "run.json") == [
            f"a stands more than once, in lines {first} and {second}"
        ]


def test_every_file_is_looked_at(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).write_text(f"{name}: 1\n{name}: 2\n")
    with pytest.raises(UserError) as caught:
        check_files([tmp_path / "one", str(tmp_path / "two")])
    assert [line.split()[2] for line in str(caught.value).split("\n")] == ["one", "two"]


def test_arguments():
    check_arguments(["a=1", "training={'epochs': 1}", "b=x: y: z", "c=", 'd={"a": {}, "b": {}}'])
    with pytest.raises(UserError) as caught:
        check_arguments(['datasets={"mnist": {"subset": {}}, "mnist": {}}'])
    assert str(caught.value) == (
        "config: --config datasets: mnist stands twice: remove one of the two"
    )


def test_arguments_of_one_name():
    check_arguments(["training={epochs: 1}", "training={batch_size: 2}", "a={b: {c: 1}}", "b=["])
    for two, key in (
        (["training={epochs: 1}", 'training={"batch_size": 2, "epochs": 2}'], "training.epochs"),
        (["a=1", "a=1"], "a"),
    ):
        with pytest.raises(UserError) as caught:
            check_arguments(two)
        assert str(caught.value) == f"config: --config: {key} stands twice: remove one of the two"


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (["--config", "a=1", "--config", "b=2"], "--config"),
        (["-C", "a=1", "--config=b=2"], "--config"),
        (["--configfile", "a", "-n", "--configfiles", "b"], "--configfile"),
    ],
)
def test_an_option_that_stands_twice(arguments, name):
    with pytest.raises(UserError) as caught:
        check_options(["snakemake", *arguments])
    assert str(caught.value) == (
        f"{name} stands more than once on the command line, and only the last would count: write "
        f"all after one {name}"
    )


def test_options_that_stand_once():
    check_options(["snakemake", "--configfile", "a", "b", "--config", "a=1", "b=--config"])
