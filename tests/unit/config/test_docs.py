"""The generated schema and reference, the shipped configurations, the examples of the README."""

import itertools
import re
import shlex
import shutil
from copy import deepcopy
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator
from snakemake.cli import parse_config
from snakemake.utils import update_config

from node_robustness.config import docs
from node_robustness.config.config import Config
from node_robustness.config.loading import load
from node_robustness.grid import cells, stages

SHIPPED = [
    "config",
    "standard",
    "mnist",
    "mnist-cpu",
    "mnist-long",
    "cifar10",
    "cifar10-cpu",
    "defences",
]
README = (docs.ROOT / "config/README.md").read_text(encoding="utf-8")


def shipped(name: str) -> dict[str, Any]:
    return yaml.safe_load((docs.ROOT / f"config/{name}.yaml").read_text(encoding="utf-8"))


@pytest.fixture
def checkout(tmp_path):
    for path in (docs.SCHEMA, docs.REFERENCE):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(docs.ROOT / path, tmp_path / path)
    return tmp_path


@pytest.fixture(scope="module")
def validator():
    return Draft202012Validator(docs.json_schema())


def test_generated_files_are_up_to_date():
    assert list(docs.stale(docs.ROOT)) == [], "run make docs"


def test_check_accepts_what_is_up_to_date(checkout, capsys):
    assert docs.main(["--check"], checkout) == 0
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("path", [docs.SCHEMA, docs.REFERENCE])
def test_check_names_a_stale_file_and_leaves_it(checkout, capsys, path):
    file = checkout / path
    file.write_text(file.read_text(encoding="utf-8").replace("tolerance", "tau"), encoding="utf-8")
    before = file.read_text(encoding="utf-8")
    assert docs.main(["--check"], checkout) == 1
    assert capsys.readouterr().err == f"{path} is out of date: run make docs\n"
    assert file.read_text(encoding="utf-8") == before


def test_writing_replaces_missing_and_stale_files(checkout):
    (checkout / docs.SCHEMA).unlink()
    (checkout / docs.REFERENCE).write_text("# Old\n", encoding="utf-8")
    assert docs.main([], checkout) == 0
    assert docs.main(["--check"], checkout) == 0
    for path in (docs.SCHEMA, docs.REFERENCE):
        assert (checkout / path).read_bytes() == (docs.ROOT / path).read_bytes()


def test_every_key_has_a_row():
    tables = docs.tables()
    schema = Config.model_json_schema()
    sections = [schema, *schema["$defs"].values()]
    rows = [line for line in tables.splitlines() if line.startswith("| `")]
    assert len(rows) == sum(len(section["properties"]) for section in sections)
    assert all(row.count("|") == 6 and row.split("|")[5].strip() for row in rows)
    assert tables.count("## ") == len(sections)


@pytest.mark.parametrize(
    "row",
    [
        "| `training` | section | its defaults |  | for every model that does not say otherwise |",
        "| `tolerance` | number | `0.001` | > 0 | tau in training: rtol and atol |",
        "| `hue` | number | `0` | ≥ 0, ≤ 0.5 | largest hue shift, as a share of the circle |",
        "| `test` | whole number or `null` | `null` | ≥ 1 | "
        "test images, the same in every cell; all if unset |",
        "| `seeds` | list of whole numbers | `[0]` | at least one; ≥ 0 | training seeds |",
    ],
)
def test_rows_use_plain_words(row):
    assert row in docs.tables().splitlines()


def test_the_schema_is_valid():
    Draft202012Validator.check_schema(docs.json_schema())


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_configurations_load_and_fit_the_schema(validator, name):
    raw = shipped(name)
    assert list(validator.iter_errors(raw)) == []
    assert load(raw)


NUMBERS = [
    "experiments/digits/tolerances/0",
    "experiments/digits/epsilons/0",
    "experiments/digits/trajectories/epsilons/0",
    "datasets/digits/validation",
    "models/MIX/dropout",
    "models/MIX/solver/tolerance",
    "attacks/own/step",
    "attacks/own/relative_step",
    "training/learning_rate",
    "training/momentum",
    "training/weight_decay",
    "training/augmentation/hue",
    "training/augmentation/saturation",
    "models/MIX/training/learning_rate",
]


def changed(path: str, value: object) -> dict[str, Any]:
    raw = deepcopy(shipped("config")) | {"attacks": {"own": {"method": "pgd"}}}
    node: Any = raw
    *parents, last = [int(key) if key.isdigit() else key for key in path.split("/")]
    for key in parents:
        node = node[key] if isinstance(node, list) else node.setdefault(key, {})
    node[last] = value
    return raw


@pytest.mark.parametrize("path", NUMBERS)
def test_the_schema_takes_every_spelling_of_a_number(validator, path):
    for value in (0.25, "0.25", "1e-3", "1E-3", "8/255", " 8 / 255"):
        assert validator.is_valid(changed(path, value)), value
    for value in ("a", "", True, None, [0.25], -1, -0.5):
        nullable = value is None and path.endswith("step")
        assert validator.is_valid(changed(path, value)) == nullable, value


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("experiment", {}),
        ("experiments/my experiment", {}),
        ("experiments", {}),
        ("experiments/digits/tolerance", [1]),
        ("experiments/digits/tolerances", []),
        ("experiments/digits/norms", ["l1"]),
        ("experiments/digits/epsilons", {"l1": [1]}),
        ("experiments/digits/epsilons", {"linf": [0]}),
        ("datasets/digits/source", "imagenet"),
        ("datasets/digits/mirrors", ["/data"]),
        ("models/MIX/filters", 0),
        ("models/MIX/dropout", 1),
        ("models/MIX/training", {"epoch": 1}),
        ("training/augmentation/hue", 0.6),
        ("compute/device", "gpu"),
    ],
)
def test_the_schema_refuses_mistakes(validator, path, value):
    assert not validator.is_valid(changed(path, value))


@pytest.mark.parametrize(
    "change",
    [
        {"experiments": {"digits": {"trajectories": None}}},
        {"experiments": {"digits": {"epsilons": {"linf": ["8/255", 0.1]}}}},
        {"attacks": {"own": {"method": "bim", "step": {"linf": "1/10"}}}},
    ],
)
def test_the_schema_takes_what_load_takes(validator, change):
    raw = shipped("config")
    raw["experiments"]["digits"]["trajectories"] = {}
    update_config(raw, change)
    assert load(raw)
    assert validator.is_valid(raw)


def test_default_follows_only_some_of_its_cells():
    config = load(shipped("config"))
    # Seven columns of eight attacks at two epsilons; RES transfers to six.
    assert len(list(cells.cells(config, "digits"))) == 7 * 8 * 2 + 6 * 2
    assert len(list(stages.followed(config, "digits"))) == 5


@pytest.mark.parametrize(
    ("name", "filters", "epochs", "patience", "epsilons", "step"),
    [
        ("mnist", 64, 25, 5, [0.05, 0.1, 0.3], 0.05),
        ("cifar10", 256, 250, 15, [0.01, 0.03, 0.05], 0.01),
    ],
)
def test_the_papers_settings(name, filters, epochs, patience, epsilons, step):
    config = load(shipped(name))
    (experiment,) = config.experiments.values()
    assert experiment.paper == name
    assert experiment.tolerances == [1e-4, 1e-3, 1e-2, 1e-1, 1, 10]
    assert experiment.norms == ["linf", "l2_rms"]
    assert experiment.epsilons == epsilons
    assert experiment.attacks == ["bim_adjoint"]
    assert experiment.trajectories is not None
    assert experiment.trajectories.times == 51
    attack = config.attacks["bim_adjoint"]
    assert (attack.iterations, attack.step, attack.gradient) == (10, step, "adjoint")
    assert attack.early_stop
    assert list(config.models) == ["RES", "MIX", "OON"]
    for model_name, model in config.models.items():
        training = config.training_of(model_name)
        assert (model.filters, model.blocks, model.dropout) == (filters, 6, 0.5)
        assert (model.solver.method, model.solver.tolerance) == ("dopri5", 1e-3)
        assert (training.epochs, training.patience, training.batch_size) == (epochs, patience, 128)
        assert (training.learning_rate, training.momentum) == (0.1, 0.9)
        assert (training.weight_decay, training.schedule) == (1e-4, "plateau")
        assert (training.solver, training.gradient) == ("torchdiffeq", "adjoint")
        jitter = training.augmentation.model_dump()
        assert jitter == {
            "crop_padding": 4 if name == "cifar10" else 0,
            "horizontal_flip": name == "cifar10",
            "hue": 0.05 if name == "cifar10" else 0,
            "saturation": 0.05 if name == "cifar10" else 0,
        }


def test_the_mirror_example_of_the_readme_works():
    """Snakemake reads `--config` itself: every value arrives as text."""
    (line,) = re.findall(r"^snakemake .*--config '.*$", README, re.MULTILINE)
    words = shlex.split(line)
    override = parse_config([words[words.index("--config") + 1]])
    raw = yaml.safe_load(
        (docs.ROOT / words[words.index("--configfile") + 1]).read_text(encoding="utf-8")
    )
    update_config(raw, override)
    assert load(raw).datasets["mnist"].mirrors == ["file:///data/mnist"]
    assert load(raw).datasets["mnist"].validation == 5000


def test_the_yaml_examples_of_the_readme_load():
    blocks = re.findall(r"^```yaml\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    assert len(blocks) == 11
    sums = itertools.count(0xA << 252)
    for block in blocks:
        raw = shipped("config")
        filled = re.sub("<64 hexadecimal digits>", lambda _: f"{next(sums):x}", block)
        example = yaml.safe_load(filled)
        update_config(raw, example)
        assert load(raw)
