"""Whatever the configuration and the images: refused before any training, or a complete report.

Nothing in between: no traceback, no job that fails after hours of training, no figure or table that
is missing.
"""

import json
import re
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import altair as alt
import pandas as pd
import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings

from configurations import ANY_NET, EXPERIMENT, Example, Pictures, examples
from harness import TABLES, Run, attempt

_drawn = settings(
    # What fails is not made smaller, which would take hours: its folder shows what it was.
    phases=[Phase.generate],
    database=None,
    suppress_health_check=list(HealthCheck),
)


def check(folder: Path, example: Example, validate: bool = False) -> str | None:
    """Run an example: why it is refused, in one line, or None if its report is complete.

    Args:
        folder: where it runs.
        example: the configuration and the images.
        validate: compare its figures with the schema of Vega-Lite, which takes seconds.
    """
    images, run_in = folder / "images", folder / "run"
    images.mkdir()
    run = attempt(run_in, config=example.write(images))
    assert "Traceback" not in run.output, run.output
    if run.returncode != 0:
        return refusal(run)
    complete(run_in, example)
    if validate:
        for figure in run_in.glob(f"results/{EXPERIMENT}/figures/*.json"):
            alt.VConcatChart.validate(json.loads(figure.read_text()))
    return None


def refusal(run: Run) -> str:
    """The line that refuses a configuration, before any model is trained."""
    lines = {line for line in run.output.splitlines() if re.match("(error|config): ", line)}
    assert lines, run.output
    # Each mistake has its own.
    line = min(lines)
    assert len(lines) == 1 or line.startswith("config: "), run.output
    assert re.search(r"\w[./-]\w", line), f"no key and no file is named: {line}"
    # What becomes of a training, and what a library makes of images of some shape, is known only
    # then; what else can be made still is.
    if not re.match(r"error: ((training|validation) loss is not finite|torchattacks\.)", line):
        before, _, _ = run.output.partition(line)
        assert "Training " not in before, run.output
    return line


def complete(folder: Path, example: Example) -> None:
    """See that a run has all that a report consists of, and that each of it can be read."""
    results = folder / "results" / EXPERIMENT
    for log in results.glob("logs/**/*.log"):
        said = log.read_text()
        # Of a figure, too, that another one stands in for.
        assert "Traceback" not in said, said
    for name in TABLES:
        table = pd.read_parquet(results / f"tables/{name}.parquet")
        written = pd.read_csv(results / f"tables/{name}.csv")
        assert list(written.columns) == list(table.columns), name
        assert len(written) == len(table), name
    figures = list(results.glob("figures/*.json"))
    assert figures
    for figure in figures:
        assert json.loads(figure.read_text())["$schema"]
        assert figure.with_suffix(".png").stat().st_size
        ET.parse(figure.with_suffix(".svg"))
    for page in results.glob("figures/images/**/*.svg"):
        ET.parse(page)
    experiment = example.config["experiments"][EXPERIMENT]
    claims = {path.stem for path in results.glob("claims/*.json")}
    assert claims == {f"{d}-{m}" for d in experiment["datasets"] for m in experiment["models"]}
    assert json.loads((results / "manifest.json").read_text())["config"]
    html = (results / "report.html").read_text()
    words = re.sub(r"<(script|style|svg|pre)\b.*?</\1>|<[^>]*>", " ", html, flags=re.DOTALL)
    assert "What is real" in words
    assert not re.search(r"\b(nan|NaN|None|undefined)\b", words), words


def case(
    shape: tuple[int, ...] = (1, 8, 8),
    class_names: tuple[str, ...] = ("a", "b", "c"),
    train: int = 60,
    test: int = 12,
    solver: dict[str, Any] | None = None,
    training: dict[str, Any] | None = None,
    subset: dict[str, int] | None = None,
    **experiment: Any,
) -> Example:
    """The smallest of experiments, of which nothing but the attack is measured, but for changes."""
    nothing_more = ("trajectories", "audit", "matrix", "randomisation", "detection")
    common = {"filters": 4, "dropout": 0}
    config = {
        "experiments": {
            EXPERIMENT: {
                "datasets": ["own"],
                "models": ["OON"],
                "tolerances": [1],
                "attacks": ["bim"],
                "norms": ["linf"],
                "epsilons": [0.3],
                **dict.fromkeys(nothing_more),
                **experiment,
            }
        },
        "datasets": {"own": {"subset": subset or {}}},
        "models": {
            "OON": {"downsampling": "convolution", "body": "ode", "solver": solver or {}, **common},
            "RES": {"downsampling": "residual", "body": "residual", "blocks": 1, **common},
            "SOLVES": own_model("Net", solves=2, several=True, end=2.0) | {"output": 1},
            "SETS": own_model("Stepper"),
            "PLAIN": own_model("plain") | {"ode": "none"},
        },
        "attacks": {
            "bim": {"method": "bim", "iterations": 2, "step": 0.1},
            "cw_short": {"method": "cw", "iterations": 5, "search_steps": 2},
        },
        "training": {"epochs": 1, "batch_size": 16, "learning_rate": 0.01, **(training or {})},
    }
    return Example(config, {"own": Pictures(shape, class_names, train, test)})


def own_model(build: str, **arguments: Any) -> dict[str, Any]:
    """A model of a user's file."""
    return {"module": str(ANY_NET), "build": build, "arguments": arguments}


_DEFAULTS: dict[str, Any] = {
    name: {} for name in ("trajectories", "audit", "matrix", "randomisation", "detection")
}


@pytest.mark.parametrize(
    "example",
    [
        pytest.param(
            case(
                (5, 9, 8),
                solver={"method": "euler", "steps": 2},
                attacks=["fgsm", "cw_short"],
                norms=["linf", "l2"],
                trajectories={"times": 3, "images": 1},
            ),
            id="equal steps alone, no attack knows all norms, five channels",
        ),
        pytest.param(
            case((2, 9, 7), train=30, test=4, tolerances=[0.1, 1], **_DEFAULTS),
            id="fewer images than the defaults ask for, two channels",
            marks=pytest.mark.slow,  # the own models below are as few images
        ),
        pytest.param(
            case(test=1, solver={"tolerance": 1, "max_steps": 3}, tolerances=[1e-4]),
            id="one image, and its solve fails",
        ),
        pytest.param(
            case(
                (2, 9, 7),
                test=2,
                models=["SOLVES", "SETS", "PLAIN", "OON"],
                attacks=["bim_adjoint", "transfer"],
                cost={},
                adjoint_sweep={"images": 1, "backward_tolerances": [0.1, 1]},
                paper_attack="bim_adjoint",
                **_DEFAULTS
                | {
                    "trajectories": {"times": 3, "intervals": 2},
                    "audit": {"iterations": 2, "apgd_iterations": 2},
                },
            ),
            id="own models of all levels",
        ),
    ],
)
def test_a_complete_report(example, tmp_path):
    assert check(tmp_path, example) is None


@pytest.mark.parametrize(
    ("example", "words"),
    [
        pytest.param(case((1, 1, 1)), "models.OON: cannot learn from", id="one pixel"),
        pytest.param(
            case((3, 6, 6), models=["RES"], audit={}),
            "models.RES: cannot learn from",
            id="a constant network",
        ),
        pytest.param(case(subset={"test": 13}), "subset.test: 13 images", id="too few images"),
        pytest.param(case(epsilons=[8]), "epsilons", id="epsilon of bytes"),
        pytest.param(case(class_names=("a",)), "class_names", id="one class"),
        pytest.param(case(class_names=("a", "b", "a")), "class_names", id="a class twice"),
        pytest.param(
            case(solver={"tolerance": 1e-4, "max_steps": 2}),
            "solver.max_steps",
            id="too few steps to train",
        ),
        pytest.param(
            case(training={"augmentation": {"hue": 0.1}}), "augmentation.hue", id="colours of grey"
        ),
    ],
)
def test_a_refusal(example, words, tmp_path):
    line = check(tmp_path, example)
    assert line is not None
    assert words in line


def test_the_images_of_all_datasets_are_looked_at_before_any_training(tmp_path):
    example = case(datasets=["own", "small"])
    example.config["datasets"]["small"] = {}
    example.pictures["small"] = Pictures((1, 1, 1), ("a", "b"), 40, 4)
    line = check(tmp_path, example)
    assert line is not None
    assert "cannot learn from the images of small" in line


@settings(_drawn, max_examples=2)  # each takes a whole run; more are below
@seed(0)
@given(example=examples())
def test_what_is_drawn(tmp_path_factory, example):
    check(tmp_path_factory.mktemp("drawn"), example)


@pytest.mark.slow
@pytest.mark.parametrize("number", range(7))
def test_more_that_is_drawn(tmp_path_factory, number):
    # Of more, most would be variations of those drawn before.
    @settings(_drawn, max_examples=10)
    @seed(number)
    @given(examples())
    def ten(example: Example) -> None:
        check(tmp_path_factory.mktemp("drawn"), example, validate=True)

    ten()
