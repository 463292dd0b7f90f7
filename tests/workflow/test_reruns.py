"""What a change runs again: the very jobs that depend on it, no more and no fewer.

The grid is one of every stage but fetching and preparing times two; its files are empty, since
Snakemake looks at records and times of files, not into them, and were marked as made by
`snakemake --touch`.
"""

import copy
import csv
import os
import re
import shutil
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from harness import ROOT, attempt, plan, snakemake, tiny

BIM = {"method": "bim", "iterations": 4, "step": 0.1}
WIDE = {
    "experiments__tiny__seeds": [0, 1],
    "experiments__tiny__attacks": ["bim", "bim_adjoint"],
    "experiments__tiny__norms": ["linf"],
    "experiments__tiny__epsilons": [0.1, 0.3],
    "attacks__bim_adjoint": BIM | {"gradient": "adjoint"},
}
DRAWN = {
    *("figures results/tiny/figures", "stills results/tiny/figures"),
    "report results/tiny",
}
SUMMARY = DRAWN | {"tables results/tiny/tables", "claim results/tiny/claims"}
DATA = {"fetch resources/digits", "prepare results/tiny/digits"}
TRAINED = "results/tiny/digits/{model}/seed-{seed}"
CELL = TRAINED + "/tau-{tolerance}/{attack}/linf/eps-{epsilon}"
# At the middle one of the epsilons.
MIDDLE = "linf/eps-0.3"
STAGES = {
    "train": TRAINED,
    "evaluate": TRAINED + "/tau-{tolerance}",
    "audit": TRAINED + "/tau-{tolerance}",
    "attack": CELL,
    "attack_shard": CELL,
    "merge": CELL,
    "probe": TRAINED + "/tau-{tolerance}",
    "trajectory": CELL,
    "reevaluate": TRAINED + "/tau-{tolerance}/{attack}/" + MIDDLE,
    "detect": TRAINED + "/tau-{tolerance}/detection/" + MIDDLE,
    "randomise": TRAINED + "/randomised/" + MIDDLE,
}
NEED_AN_ODE = {"reevaluate", "detect", "randomise"}
OF_ATTACK = ["attack", "trajectory", "reevaluate"]
IN_SHARDS = ["attack_shard", "merge", "trajectory", "reevaluate"]
LATER = [stage for stage in STAGES if stage not in ("train", "attack_shard", "merge")]


def wide(**changes: Any) -> dict[str, Any]:
    """The configuration of the grid with other values at some keys; see `harness.tiny`."""
    return tiny(**WIDE | changes)


def jobs(*stages: str, **lists: list[Any]) -> set[str]:
    """The jobs of some stages, as `rule folder`; of a list that is not given all coordinates."""
    lists = {
        "model": ["RES", "OON"],
        "seed": [0, 1],
        "tolerance": ["0.001", "1"],
        "attack": ["bim", "bim_adjoint"],
        "epsilon": ["0.1", "0.3"],
    } | lists
    found = set()
    for values in product(*lists.values()):
        where = dict(zip(lists, values, strict=True))
        for stage in stages:
            if where["model"] != "RES":
                found.add(f"{stage} {STAGES[stage].format(**where)}")
            elif stage not in NEED_AN_ODE and lists["tolerance"] == ["0.001", "1"]:
                found.add(f"{stage} {STAGES[stage].format(**where | {'tolerance': 'none'})}")
    return found


EVERY_MODEL_AND_AFTER = jobs("train", *LATER) | SUMMARY


def planned(folder: Path, **settings: Any) -> set[str]:
    """The jobs that Snakemake would run, as `rule folder`."""
    return {
        f"{row['rule']} {Path(row['output_file']).parent}"
        for row in summary(folder, **settings)
        if row["plan"] == "update pending"
    }


def summary(folder: Path, **settings: Any) -> Iterator[dict[str, str]]:
    """What Snakemake says of every output: its `output_file`, `rule`, `plan`, and more."""
    output = snakemake(folder, options=("--summary",), **settings).output
    table = output[output.index("output_file\t") :].splitlines()
    return csv.DictReader(table, delimiter="\t")


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the grid, all of which is up to date; not to be changed."""
    return up_to_date(tmp_path_factory.mktemp("grid") / "run", wide())


def up_to_date(folder: Path, config: dict[str, Any]) -> Path:
    """A folder where all that a configuration asks for is there and up to date."""
    for row in summary(folder, config=config):
        path = folder / row["output_file"]
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix:
            path.touch()
        else:
            path.mkdir()
    snakemake(folder, config=config, options=("--touch", "--forceall"))
    return folder


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of the project, to be changed; to Snakemake, as good as the one it was copied from."""
    folder = tmp_path / "project"
    for name in ("workflow", "profiles"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "Snakefile", folder)
    return folder


def add_line(project: Path, name: str, line: str) -> None:
    """Add a line at the end of a file of the scripts' folder."""
    path = project / "workflow/scripts" / name
    path.write_text(f"{path.read_text()}\n{line}\n")


def pretend(folder: Path, library: str) -> None:
    """Make a folder in which version 99.0 of a library is installed, as far as one can ask."""
    metadata = folder / f"{library}-99.0.dist-info/METADATA"
    metadata.parent.mkdir()
    metadata.write_text(f"Metadata-Version: 2.1\nName: {library}\nVersion: 99.0\n")


class TestConfiguration:
    @pytest.mark.parametrize(
        ("key", "values", "new"),
        [
            ("epsilons", [0.1, 0.3, 0.4], jobs("attack", "trajectory", epsilon=["0.4"])),
            (
                "tolerances",
                [1e-3, 1, 0.1],
                # The matrix classifies at every tolerance, and the detector compares them all.
                jobs("evaluate", "audit", "attack", "probe", "trajectory", tolerance=["0.1"])
                | jobs("reevaluate", "detect", tolerance=["0.001", "0.1", "1"]),
            ),
            ("seeds", [0, 1, 2], jobs("train", *LATER, seed=[2])),
            ("models", ["RES", "OON", "MIX"], jobs("train", *LATER, model=["MIX"])),
            (
                "attacks",
                ["bim", "bim_adjoint", "long"],
                jobs("attack", "trajectory", attack=["long"]),
            ),
        ],
        ids=lambda value: value if isinstance(value, str) else "",
    )
    def test_one_more(self, grid, key, values, new):
        config = wide(
            **{f"experiments__tiny__{key}": values},
            models__MIX={"downsampling": "residual", "body": "ode", "filters": 4},
            attacks__long=BIM | {"iterations": 9},
        )
        assert planned(grid, config=config) == new | SUMMARY

    @pytest.mark.parametrize(
        ("key", "values", "again"),
        [
            ("epsilons", [0.3], set()),
            ("tolerances", [1], jobs("reevaluate", tolerance=["1"])),
            ("seeds", [0], set()),
            ("models", ["OON"], set()),
            ("attacks", ["bim"], set()),
        ],
        ids=lambda value: value if isinstance(value, str) else "",
    )
    def test_one_fewer(self, grid, key, values, again):
        config = wide(**{f"experiments__tiny__{key}": values})
        assert planned(grid, config=config) == again | SUMMARY

    @pytest.mark.parametrize(
        ("change", "expected"),
        [
            (
                {"attacks__bim__iterations": 5},
                jobs(*OF_ATTACK, attack=["bim"]) | SUMMARY,
            ),
            (
                {"models__OON__training": {"epochs": 2}},
                jobs("train", *LATER, model=["OON"]) | SUMMARY,
            ),
            ({"experiments__tiny__paper": "mnist"}, {"report results/tiny"}),
            ({"training__epochs": 2}, EVERY_MODEL_AND_AFTER),
            ({"compute__batch_size": 3, "compute__device": "cpu"}, set()),
            (
                {
                    "experiments__tiny__epsilons": ["1e-1", "3/10"],
                    "attacks__bim__step": "1e-1",
                    "training__learning_rate": "5e-2",
                },
                set(),
            ),
        ],
        ids=["iterations", "epochs", "paper", "all epochs", "compute", "spelling"],
    )
    def test_a_setting(self, grid, change, expected):
        assert planned(grid, config=wide(**change)) == expected

    def test_the_order_of_keys(self, grid):
        assert planned(grid, config=backwards(wide())) == set()

    @pytest.mark.parametrize(
        ("lists", "expected"),
        [
            ({"epsilons": [0.3, 0.1]}, set()),
            # The figures show images of the first cell, and models in their order.
            (
                {
                    "tolerances": [1, 1e-3],
                    "seeds": [1, 0],
                    "attacks": ["bim_adjoint", "bim"],
                    "models": ["OON", "RES"],
                },
                DRAWN,
            ),
        ],
        ids=["epsilons", "others"],
    )
    def test_the_order_of_a_list(self, grid, lists, expected):
        config = wide(**{f"experiments__tiny__{key}": values for key, values in lists.items()})
        assert planned(grid, config=config) == expected

    def test_another_norm(self, grid):
        new = {job.replace("linf", "l2") for job in jobs("attack")}
        config = wide(experiments__tiny__norms=["linf", "l2"])
        # The file of an audit has every norm.
        assert planned(grid, config=config) == new | jobs("audit") | SUMMARY


class TestShards:
    """How attacks are cut changes nothing that is there; what is not there is cut as asked."""

    def test_of_a_finished_run(self, grid):
        assert planned(grid, config=wide(compute__shard_size=16)) == set()

    def test_of_a_new_cell(self, grid):
        config = wide(compute__shard_size=16, experiments__tiny__epsilons=[0.1, 0.3, 0.4])
        expected = jobs("attack_shard", "merge", "trajectory", epsilon=["0.4"])
        assert planned(grid, config=config) == expected | SUMMARY

    def test_of_a_run_in_shards(self, grid, tmp_path):
        folder = shutil.copytree(grid, tmp_path / "run")
        config = wide(compute__shard_size=16)
        for row in summary(folder, config=config):
            (folder / row["output_file"]).touch()
        snakemake(folder, config=config, options=("--touch", "--forceall"))
        for path in folder.glob("results/**/attack-*.h5"):
            path.unlink()
        for config in (wide(compute__shard_size=20), wide()):
            assert planned(folder, config=config) == set()
        changed = wide(compute__shard_size=16, attacks__bim__iterations=5)
        assert planned(folder, config=changed) == jobs(*IN_SHARDS, attack=["bim"]) | SUMMARY


def backwards(value: Any) -> Any:
    """A configuration with the keys of every section in the other order."""
    if not isinstance(value, dict):
        return value
    return {key: backwards(value[key]) for key in reversed(value)}


class TestCode:
    def test_form_alone(self, grid, project):
        """New times for all files, as a checkout gives them, and comments in all code."""
        for pattern in ("*.py", "*.smk", "Snakefile"):
            for path in project.rglob(pattern):
                path.write_text(f"# A comment.\n\n\n{path.read_text()}\n# Another.\n")
        for path in project.rglob("*"):
            os.utime(path, (2**32, 2**32))
        assert planned(grid, config=wide(), project=project) == set()

    @pytest.mark.parametrize(
        ("name", "expected"),
        [
            ("attack.py", jobs(*OF_ATTACK) | SUMMARY),
            # Merged or not, an attack.h5 has the code of both scripts on record.
            ("node_robustness/attacks/merge.py", jobs(*OF_ATTACK) | SUMMARY),
            ("evaluate.py", jobs("evaluate") | SUMMARY),
            ("node_robustness/ode/solve.py", EVERY_MODEL_AND_AFTER),
            ("node_robustness/attacks/square.py", set()),
            (
                "node_robustness/attacks/bim.py",
                jobs(*OF_ATTACK, "audit", "detect") | SUMMARY,
            ),
            ("node_robustness/audits/gradients.py", jobs("audit") | SUMMARY),
            ("node_robustness/audits/tolerance_matrix.py", jobs("reevaluate") | SUMMARY),
            ("node_robustness/audits/detection.py", jobs("detect") | SUMMARY),
            ("node_robustness/trajectories/distances.py", jobs("probe", "trajectory") | SUMMARY),
            ("node_robustness/files/hdf5.py", DATA | EVERY_MODEL_AND_AFTER),
            ("node_robustness/figures/style.py", DRAWN),
            ("node_robustness/report/findings.py", {"report results/tiny"}),
            ("node_robustness/config/config.py", set()),
            ("node_robustness/import_me_not.py", set()),
            # One figure draws the figures and the report again, and collects no table.
            ("node_robustness/figures/curves.py", DRAWN),
        ],
        ids=lambda value: value if isinstance(value, str) else "",
    )
    def test_a_module(self, grid, project, name, expected):
        (project / "workflow/scripts" / name).touch()
        add_line(project, name, "_ADDED = 1")
        assert planned(grid, config=wide(), project=project) == expected

    @pytest.mark.parametrize("name", ["page.html", "style.css", "page.js"])
    def test_a_template_of_the_report(self, grid, project, name):
        add_line(project, f"node_robustness/report/templates/{name}", " ")
        assert planned(grid, config=wide(), project=project) == {"report results/tiny"}

    @pytest.mark.parametrize(
        ("library", "expected"),
        [
            ("torchdiffeq", EVERY_MODEL_AND_AFTER),
            ("pyarrow", SUMMARY),
            ("pillow", DRAWN),
            ("tqdm", set()),
        ],
    )
    def test_another_version_of_a_library(self, grid, tmp_path, library, expected):
        pretend(tmp_path, library)
        path = {"PYTHONPATH": str(tmp_path)}
        assert planned(grid, config=wide(), variables=path) == expected

    def test_what_ran_for_its_code_does_not_run_again(self, copied, project):
        add_line(project, "node_robustness/report/findings.py", "_ADDED = 1")
        assert snakemake(copied, project=project).jobs == {"report": 1}
        assert plan(copied, project=project).jobs == {}


EACH_METHOD = tiny(
    **{
        f"experiments__tiny__{key}": value
        for key, value in {
            "attacks": ["bim", "squares", "moved"],
            "norms": ["linf"],
            "skip_broken": False,
            "trajectories": {"attacks": ["bim"]},
        }.items()
    },
    attacks__squares={"method": "square", "queries": 9},
    attacks__moved={"method": "transfer", "by": "steps"},
    attacks__steps={"method": "pgd", "relative_step": 0.5},
)


@pytest.fixture(scope="module")
def methods(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of three methods, all of which is up to date; not to be changed."""
    return up_to_date(tmp_path_factory.mktemp("methods") / "run", EACH_METHOD)


class TestMethods:
    """The file of a method reruns the attacks that use it, and what follows from them."""

    @staticmethod
    def of(attack: str, *stages: str) -> set[str]:
        return jobs(*stages, seed=[0], attack=[attack], epsilon=["0.3"])

    @pytest.mark.parametrize(
        ("name", "stages"),
        [
            ("square", {"squares": ["attack"]}),
            ("transfer", {"moved": ["attack"]}),
            ("pgd", {"moved": ["attack"]}),
            ("fab", {}),
            ("bim", {"bim": [*OF_ATTACK, "audit", "detect"]}),
        ],
    )
    def test_a_change_of_one(self, methods, project, name, stages):
        add_line(project, f"node_robustness/attacks/{name}.py", "_ADDED = 1")
        expected = set().union(*(self.of(attack, *found) for attack, found in stages.items()))
        # The source of a transfer has no cell.
        expected = {job for job in expected if "RES" not in job or "moved" not in job}
        assert planned(methods, config=EACH_METHOD, project=project) == (
            expected | SUMMARY if expected else set()
        )

    def test_one_more(self, methods, project):
        scripts = project / "workflow/scripts/node_robustness"
        shutil.copy(scripts / "attacks/noise.py", scripts / "attacks/hiss.py")
        settings = (scripts / "config/attacks/noise.py").read_text()
        settings = settings.replace('"noise', '"hiss').replace("Noise", "Hiss")
        (scripts / "config/attacks/hiss.py").write_text(settings)
        # The report names standard attacks that did not run, so it knows the methods.
        report = {"report results/tiny"}
        assert planned(methods, config=EACH_METHOD, project=project) == report
        attacks = [*EACH_METHOD["experiments"]["tiny"]["attacks"], "hiss"]
        config = copy.deepcopy(EACH_METHOD)
        config["experiments"]["tiny"]["attacks"] = attacks
        assert (
            planned(methods, config=config, project=project) == self.of("hiss", "attack") | SUMMARY
        )


class TestPlan:
    @staticmethod
    def lines(folder: Path, *search: Path, **settings: Any) -> list[str]:
        path = ":".join(map(str, [*search, ROOT / "workflow/scripts"]))
        variables = {"PYTHONPATH": path}
        run = attempt(
            folder,
            program="node_robustness.scheduling.plan",
            variables=variables,
            cores=2,
            **settings,
        )
        assert run.returncode == 0, run.output
        said = [line for line in run.output.splitlines() if not line.startswith("Using workflow")]
        *lines, last = said
        if lines:
            assert re.match(r"Time needed: .+ on \d cores? for \d+ jobs?, by ", last)
        return lines or said

    def test_nothing(self, grid):
        (line,) = self.lines(grid, config=wide())
        assert line == "Nothing to do: everything is there and up to date."

    def test_settings_and_coordinates(self, grid):
        config = wide(
            experiments__tiny__epsilons=[0.1, 0.3, "90/255"],
            attacks__bim__iterations=5,
            datasets__digits__subset__test=None,
        )
        lines = self.lines(grid, config=config)
        assert set(lines[:-1]) == {
            "6 evaluate, 12 attack jobs: images 40 -> None",
            "12 attack jobs: settings.iterations 4 -> 5; images 40 -> None",
            "12 attack, 12 trajectory jobs: epsilon 90over255 is new",
            "24 trajectory, 8 reevaluate, 1 tables, 1 figures, 2 claim, 1 stills, 1 report jobs: "
            "inputs are rebuilt",
        }
        assert lines[-2].endswith("inputs are rebuilt")
        assert lines[-1] == "92 jobs in all."

    def test_shards(self, grid):
        config = wide(compute__shard_size=16, attacks__bim__iterations=5)
        assert self.lines(grid, config=config) == [
            "36 attack_shard jobs: temporary files are needed again",
            "12 merge jobs: settings.iterations 4 -> 5",
            "12 trajectory, 4 reevaluate, 1 tables, 1 figures, 2 claim, 1 stills, 1 report jobs: "
            "inputs are rebuilt",
            "70 jobs in all.",
        ]

    def test_fewer_inputs(self, grid):
        first, *_ = self.lines(grid, config=wide(experiments__tiny__epsilons=[0.3]))
        assert first == "1 tables job: another set of inputs"

    def test_what_is_not_there_or_not_whole(self, grid, tmp_path):
        folder = shutil.copytree(grid, tmp_path / "run")
        (folder / "results/tiny/tables/nfe.csv").unlink()
        cell = "results/tiny/digits/RES/seed-1/tau-none/bim/linf/eps-0.3/attack.h5"
        # What Snakemake leaves behind when it is killed: a mark that the job was begun.
        marks = folder / ".snakemake/incomplete"
        marks.mkdir(exist_ok=True)
        (marks / urlsafe_b64encode(cell.encode()).decode()).write_text("{}")
        model = folder / "results/tiny/digits/OON/seed-1/model.json"
        model.write_text("other contents")
        os.utime(model, (2**32, 2**32))
        assert self.lines(folder, config=wide()) == [
            "2 evaluate, 8 attack, 2 probe, 2 audit, 1 randomise, 2 detect jobs: "
            "newer inputs: model.json",
            "1 attack job: interrupted in an earlier run",
            "9 trajectory, 4 reevaluate, 1 tables, 1 figures, 2 claim, 1 stills, 1 report jobs: "
            "inputs are rebuilt",
            "37 jobs in all.",
        ]

    def test_code_and_libraries(self, grid, project, tmp_path):
        add_line(project, "node_robustness/report/findings.py", "_ADDED = 1")
        pretend(tmp_path, "markupsafe")
        reason, total = self.lines(grid, tmp_path, config=wide(), project=project)
        assert re.fullmatch(
            r"1 report job: code changed: node_robustness/report/findings\.py; "
            r"markupsafe \S+ -> 99\.0",
            reason,
        )
        assert total == "1 job in all."
