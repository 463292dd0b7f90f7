"""A whole run: what it leaves behind, what it repeats, and what a change runs again."""

import csv
import json
import math
import platform
import re
from collections import Counter
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
import yaml
from snakemake.api import SnakemakeApi
from snakemake.cli import parse_args
from snakemake.settings.enums import Quietness
from snakemake.settings.types import OutputSettings

from harness import (
    IMAGES,
    OON,
    ROOT,
    TABLES,
    TINY,
    attempt,
    files,
    numbers,
    plan,
    snakemake,
    tiny,
)
from node_robustness.files.atomic import sha256
from node_robustness.report.markdown import render
from node_robustness.scheduling import job_costs
from node_robustness.scheduling import plan as scheduling_plan

AUDITS = {"audit": 3, "reevaluate": 2, "randomise": 1, "detect": 2}
JOBS = {
    "fetch": 1,
    "bundle": 1,
    "prepare": 1,
    "train": 2,
    "evaluate": 3,
    "attack": 6,
    "probe": 3,
    "trajectory": 3,
    **AUDITS,
    "tables": 1,
    "figures": 1,
    "stills": 1,
    "claim": 2,
    "report": 1,
}
COMPUTING = {"train", "evaluate", "attack", "probe", "trajectory", *AUDITS}
CELL = ["experiment", "dataset", "model", "seed", "tolerance", "attack", "norm", "epsilon"]
FOLLOWED = TINY["experiments"]["tiny"]["trajectories"]
SUMMARY = {"tables": 1, "figures": 1, "stills": 1, "claim": 2, "report": 1}


def cells(folder: Path, kind: str) -> list[Path]:
    found = sorted(folder.glob(f"results/**/{kind}.h5"))
    assert found
    return found


def settings(path: Path) -> dict:
    with h5py.File(path) as file:
        return json.loads(file.attrs["settings"])


class TestFiles:
    def test_every_job_ran(self, finished_run):
        _, run = finished_run
        assert run.jobs == JOBS
        assert "Traceback" not in run.output

    def test_jobs_of_trajectories_state_their_size_before_they_compute(self, finished):
        number = r"([\d.]+)"
        kept_images = rf"and the states of {number} of them of {number} kB"
        line = rf"{number} images of {number} kB each, {kept_images}"
        stated = values = 0.0
        for path in cells(finished, "trajectory"):
            place = path.parent.relative_to(finished / "results/tiny")
            log = finished / "results/tiny/logs/trajectory" / f"{place}.log"
            found = re.search(line, log.read_text())
            assert found is not None, log
            images, each, kept, more = map(float, found.groups())
            stated += 1e3 * (images * each + kept * more)
            with h5py.File(path) as file:
                sizes: list[int] = []
                file.visititems(
                    lambda name, node, sizes=sizes: sizes.append(getattr(node, "nbytes", 0))
                )
            values += sum(sizes)
        # At most: of the images that were attacked, and as if the solver took 32 steps.
        assert 0.02 * stated < values < stated + 1e5

    def test_every_job_has_a_log_that_says_what_it_cost(self, finished):
        folders = (finished / "resources", finished / "results/tiny")
        costs = [job for folder in folders for job in job_costs.read(folder)]
        assert Counter(job.rule for job in costs) == JOBS
        for job in costs:
            spent = job.spent
            assert 0 < spent.start_seconds <= spent.start_seconds + spent.computing_seconds
            assert spent.start_seconds + spent.computing_seconds <= spent.seconds, job
            assert 10 < spent.max_rss_mb < 2000, job
            assert (spent.computing_seconds > 0) == (job.rule in COMPUTING), job

    def test_no_job_took_more_memory_than_it_asks_for(self, finished, monkeypatch):
        # A plan remembers its command line for the jobs that it has not.
        monkeypatch.setenv("NODE_ROBUSTNESS_COMMAND_LINE", "")
        monkeypatch.chdir(finished)
        arguments = ["--snakefile", str(ROOT / "Snakefile"), "--directory", str(finished)]
        arguments += ["--configfile", str(finished.with_name("finished.yaml"))]
        _, options = parse_args([*arguments, "--dry-run", "--forceall"])
        with SnakemakeApi(OutputSettings(dryrun=True, quiet={Quietness.ALL})) as api:
            jobs = [job for job in scheduling_plan._planned(api, options).dag.jobs if job.log]
        assert Counter(job.rule.name for job in jobs) == JOBS
        slurm = yaml.safe_load((ROOT / "profiles/slurm/config.yaml").read_text())
        by_default = int(slurm["default-resources"]["mem_mb"].split(" * ")[0])
        for job in jobs:
            asked = job.resources.get("mem_mb", by_default)
            spent = job_costs.parse((finished / job.log[0]).read_text())
            assert spent.max_rss_mb < asked, job

    def test_the_seconds_of_a_file_are_those_of_the_log(self, finished):
        folder = finished / "results/tiny"
        logged = {(job.rule, job.place): job.spent for job in job_costs.read(folder)}
        for path in cells(finished, "attack"):
            place = str(path.parent.relative_to(folder))
            with h5py.File(path) as file:
                seconds = logged["attack", place].computing_seconds
                assert file.attrs["seconds"] == pytest.approx(seconds, abs=1e-3), path
        for path in folder.rglob("history.csv"):
            place = str(path.parent.relative_to(folder))
            (row,) = csv.DictReader(path.open())
            # The answers to a few images are compared after training.
            rest = logged["train", place].computing_seconds - float(row["seconds"])
            assert 0 < rest < logged["train", place].seconds / 2

    def test_the_files_of_a_run_and_no_others(self, finished):
        there = files(finished)
        for name in ("report.html", "manifest.json", "tables/clean.csv", "figures/clean.svg"):
            assert f"results/tiny/{name}" in there
        ends = {".h5", ".csv", ".parquet", ".svg", ".png", ".json", ".html", ".safetensors", ".js"}
        assert {Path(name).suffix for name in there} == ends
        assert not [name for name in there if Path(name).name.startswith((".", "checkpoint"))]
        assert len(cells(finished, "attack")) == JOBS["attack"]
        # data, models, histories, clean, attack, probe, trajectory, audits, tables as two files
        counted = 1 + 2 + 2 + 3 + 6 + 3 + 3 + sum(AUDITS.values()) + 2 * len(TABLES)
        assert len(numbers(finished)) == counted

    def test_history(self, finished):
        for model in ("RES", "OON"):
            path = finished / f"results/tiny/digits/{model}/seed-0/history.csv"
            (row,) = csv.DictReader(path.open())
            assert row["epoch"] == "1"
            assert float(row["learning_rate"]) == 0.05
            assert 0 <= float(row["validation_accuracy"]) <= 1
            assert math.isfinite(float(row["train_loss"]))
            assert (row["nfe_mean"] == "") == (model == "RES")

    def test_manifest_knows_the_configuration(self, finished):
        manifest = json.loads((finished / "results/tiny/manifest.json").read_text())
        experiment = manifest["config"]["experiments"]["tiny"]
        assert experiment["epsilons"] == [0.3]
        # What the file does not say is there, too.
        assert experiment["matrix"] == {"attacks": None, "norms": None, "epsilons": None}
        assert manifest["command_line"].startswith("snakemake --cores 2 --snakefile ")
        assert manifest["checkpoints"] == {
            f"digits/{model}/seed-0": sha256(
                finished / f"results/tiny/digits/{model}/seed-0/model.safetensors"
            )
            for model in ("RES", "OON")
        }

    def test_a_page_of_results_that_needs_its_folder_alone(self, copied):
        run = snakemake(copied, "docs/results/tiny.md")
        assert run.jobs == {"page": 1}
        page = (copied / "docs/results/tiny.md").read_text()
        assert page == render("tiny", copied / "docs/results/tiny")
        assert plan(copied, "docs/results/tiny.md").jobs == {}

    def test_how_training_ended(self, finished):
        table = pd.read_csv(finished / "results/tiny/tables/training.csv")
        assert table[["dataset", "model", "seed", "epochs", "best_epoch"]].values.tolist() == [
            ["digits", "OON", 0, 1, 1],
            ["digits", "RES", 0, 1, 1],
        ]
        for row in table.itertuples():
            history = finished / f"results/tiny/digits/{row.model}/seed-0/history.csv"
            (kept,) = csv.DictReader(history.open())
            assert row.validation_accuracy == pytest.approx(float(kept["validation_accuracy"]))
        assert table.nfe_mean.isna().tolist() == [False, True]

    def test_every_job_but_the_report_has_a_cost(self, finished):
        costs = pd.read_csv(finished / "results/tiny/costs.csv")
        assert Counter(costs.rule) == Counter(JOBS) - Counter(report=1, stills=1)
        assert (costs.seconds > 0).all()
        assert costs.started_utc.notna().all()
        assert set(costs.host) == {platform.node()}
        attacks = costs[costs.rule == "attack"]
        assert set(attacks.model[attacks.nfe_mean.notna()]) <= {"OON"}
        assert set(costs.model[costs.rule == "evaluate"]) == {"OON", "RES"}
        manifest = json.loads((finished / "results/tiny/manifest.json").read_text())
        assert manifest["hosts"] == [platform.node()]
        stages = {stage["rule"]: stage for stage in manifest["stages"]}
        assert stages.keys() == set(costs.rule)
        assert stages["attack"]["seconds"] == pytest.approx(attacks.seconds.sum())
        assert stages["train"]["started_utc"] == costs.started_utc[costs.rule == "train"].min()


class TestCells:
    @pytest.mark.parametrize("kind", ["data", "clean", "attack", "probe", "trajectory"])
    def test_plain_h5py_reads_everything(self, finished, kind):
        for path in cells(finished, kind):
            with h5py.File(path) as file:
                assert file.attrs["kind"] == kind
                versions = {"attack": 2, "trajectory": 3}
                assert file.attrs["schema_version"] == versions.get(kind, 1)
                assert file.attrs["software"].startswith("node-robustness ")
                datasets = []
                file.visititems(lambda _, node, into=datasets: into.append(node))
                for node in datasets:
                    if isinstance(node, h5py.Dataset):
                        assert node[()] is not None
                        assert node.attrs["units"]
                        assert node.attrs["description"]

    @pytest.mark.parametrize("kind", ["clean", "attack", "trajectory"])
    def test_settings_are_those_of_the_folder(self, finished, kind):
        keys = {"experiment": "tiny", "dataset": "digits", "seed": 0}
        for path in cells(finished, kind):
            found = settings(path)
            tau = "none" if found["tolerance"] is None else f"{found['tolerance']:g}"
            folder = f"{found['model']}/seed-0/tau-{tau}"
            if kind != "clean":
                folder += f"/{found['attack']}/{found['norm']}/eps-{found['epsilon']:g}"
                assert found["iterations"] == 4
                assert found["step"] == 0.1
            assert path == finished / "results/tiny/digits" / folder / f"{kind}.h5"
            assert keys.items() <= found.items()

    def test_weights_are_those_of_the_model(self, finished):
        for kind in ("clean", "attack", "trajectory"):
            for path in cells(finished, kind):
                found = settings(path)
                model = finished / f"results/tiny/digits/{found['model']}/seed-0/model.safetensors"
                assert found["weights_sha256"] == sha256(model)

    def test_the_same_images_in_every_cell(self, finished):
        with h5py.File(finished / "results/tiny/digits/data.h5") as data:
            expected = data["indices/test"][:IMAGES]
            labels = data["test/labels"][:][expected]
        for path in [*cells(finished, "clean"), *cells(finished, "attack")]:
            with h5py.File(path) as file:
                np.testing.assert_array_equal(file["index"][:], expected)
                np.testing.assert_array_equal(file["labels"][:], labels)

    def test_the_attack_finds_what_evaluation_found(self, finished):
        for path in cells(finished, "attack"):
            with h5py.File(path) as attack, h5py.File(path.parents[3] / "clean.h5") as clean:
                np.testing.assert_array_equal(
                    attack["clean_predictions"][:], clean["predictions"][:]
                )

    def test_perturbations_keep_to_the_norm(self, finished):
        with h5py.File(finished / "results/tiny/digits/data.h5") as data:
            images = data["test/images"][:][data["indices/test"][:IMAGES]] / 255
        for path in cells(finished, "attack"):
            with h5py.File(path) as file:
                change = (file["adversarials"][:] - images).reshape(IMAGES, -1)
            linf = settings(path)["norm"] == "linf"
            size = abs(change).max(1) if linf else np.sqrt((change**2).mean(1))
            assert size.max() <= 0.3 + 1e-6
            assert size.max() > 0


class TestTables:
    """Each table is computed again here, from the cells, in the plainest way."""

    @staticmethod
    def table(folder: Path, name: str, keys: list[str]) -> dict[tuple, dict]:
        """Rows by their keys, read from the CSV; a missing tolerance is None, as in settings."""
        frame = pd.read_csv(folder / f"results/tiny/tables/{name}.csv")
        exact = pd.read_parquet(folder / f"results/tiny/tables/{name}.parquet")
        pd.testing.assert_frame_equal(frame, exact, check_dtype=False, rtol=1e-9)
        rows = frame.astype(object).where(frame.notna(), None).to_dict("records")
        found = {tuple(row[key] for key in keys): row for row in rows}
        assert len(found) == len(rows)
        return found

    def test_clean(self, finished):
        table = self.table(finished, "clean", CELL[:5])
        assert len(table) == 3
        for path in cells(finished, "clean"):
            row = table.pop(tuple(settings(path)[key] for key in CELL[:5]))
            with h5py.File(path) as file:
                correct = file["predictions"][:] == file["labels"][:]
                nfe = file["nfe"][:].mean() if "nfe" in file else None
            assert (row["n"], row["correct"]) == (IMAGES, correct.sum())
            assert row["accuracy"] == pytest.approx(correct.mean(), rel=1e-9)
            assert row["nfe_mean"] == (None if nfe is None else pytest.approx(nfe, rel=1e-9))
        assert not table

    def test_nfe(self, finished):
        frame = pd.read_csv(finished / "results/tiny/tables/nfe.csv")
        counted = {
            (*row[:5], row.nfe): row.images for row in frame.itertuples(index=False, name="Row")
        }
        expected = {}
        for path in cells(finished, "clean"):
            with h5py.File(path) as file:
                found = Counter(file["nfe"][:].tolist() if "nfe" in file else [])
            where = tuple(settings(path)[key] for key in CELL[:5])
            expected |= {(*where, nfe): images for nfe, images in found.items()}
        assert counted == expected

    def test_attacks(self, finished):
        table = self.table(finished, "attacks", CELL)
        for path in cells(finished, "attack"):
            row = table.pop(tuple(settings(path)[key] for key in CELL))
            with h5py.File(path) as file:
                attacked = file["clean_predictions"][:] == file["labels"][:]
                fooled = attacked & (file["adversarial_predictions"][:] != file["labels"][:])
                sizes = file["perturbation_l2"][:].astype(float)[fooled]
            assert (row["n"], row["attacked"]) == (IMAGES, attacked.sum())
            assert (row["successes"], row["robust"]) == (fooled.sum(), (attacked & ~fooled).sum())
            assert row["robust_accuracy"] == pytest.approx(row["robust"] / IMAGES, rel=1e-9)
            if attacked.any():
                rate = fooled.sum() / attacked.sum()
                assert row["success_rate"] == pytest.approx(rate, rel=1e-9)
            if fooled.any():
                assert row["perturbation_l2_mean"] == pytest.approx(sizes.mean(), rel=1e-9)
        assert not table

    def test_trajectories(self, finished):
        table = self.table(finished, "trajectories", [*CELL, "group", "t"])
        for path in cells(finished, "trajectory"):
            where = tuple(settings(path)[key] for key in CELL)
            with h5py.File(path) as file, h5py.File(path.with_name("attack.h5")) as attack:
                followed = attack["index"][:][attack["attacked"][:]]
                np.testing.assert_array_equal(file["index"][:], followed)
                success, times, axis = file["success"][:], file["t"][:], file.attrs["axis"]
                attacked, noisy = (
                    file[f"{pair}/distance/l2"][:].astype(float) for pair in ("attack", "noise")
                )
            assert axis == ("depth" if "RES" in where else "time")
            assert times.tolist() == ([0, 1] if axis == "depth" else [0, 0.25, 0.5, 0.75, 1])
            groups = {"success": attacked[success], "failed": attacked[~success], "noise": noisy}
            for group, distances in groups.items():
                for position, t in enumerate(times):
                    row = table.pop((*where, group, t))
                    assert row["n"] == len(distances)
                    if len(distances):
                        median = np.median(distances[:, position])
                        assert row["l2_median"] == pytest.approx(median, rel=1e-9)
            for t in times:
                assert table.pop((*where, "clean", t))["n"] == len(followed)
        assert not table

    def test_every_kept_image_has_a_page(self, finished):
        found = 0
        for path in cells(finished, "trajectory"):
            with h5py.File(path) as file:
                kept = file["index"][:][file["kept"][:]]
            folder = path.parent.relative_to(finished / "results/tiny")
            for index in kept:
                page = finished / "results/tiny/figures/images" / folder / f"image-{index}.svg"
                assert f"Test image {index}:" in page.read_text()
                found += 1
        assert found == len(list(finished.glob("results/tiny/figures/images/**/*.svg"))) > 0


def _broken(path: Path, tolerance: float, norm: str, epsilon: float) -> set[int]:
    """Rows of the images that a file has an adversarial example of, of that size or smaller."""

    def small(file, name=""):
        size = file[f"perturbation_{'linf' if norm == 'linf' else 'l2'}{name}"][:].astype(float)
        return (size / 8 if norm == "l2_rms" else size) <= epsilon * (1 + 1e-4)

    with h5py.File(path) as file:
        settings = json.loads(file.attrs["settings"])
        same = settings.get("tolerance") == (None if math.isnan(tolerance) else tolerance)
        index = file["index"][:] if "index" in file else np.zeros(0, int)
        if path.name == "reevaluated.h5":
            at = file["tolerances"][:] == tolerance
            wrong = file["adversarial_predictions"][:] != file["labels"][:][:, None]
            with h5py.File(path.with_name("attack.h5")) as attack:
                rows = np.isin(attack["index"][:], index)
                near = small(attack)[rows]
            return set(index[near & (wrong & at).any(1)])
        if path.name == "trajectory.h5":
            file = file["strong"]
        if not same or "perturbation_linf" not in file:
            return set()
        if isinstance(file["success"], h5py.Group):
            return {
                row
                for name in file["success"]
                for row in index[file[f"success/{name}"][:] & small(file, f"/{name}")]
            }
        broken = file["success"][:] & small(file)
        return set(index[broken.reshape(len(index), -1).any(1)])


class TestVerdict:
    def test_the_strongest_is_the_least_over_everything_known(self, finished):
        table = pd.read_csv(finished / "results/tiny/tables/protocols.csv")
        assert len(table) == JOBS["attack"]
        beyond_attacks = 0
        for row in table.itertuples():
            tau = "none" if math.isnan(row.tolerance) else f"{row.tolerance:g}"
            network = finished / f"results/tiny/digits/{row.model}/seed-0"
            own = network / f"tau-{tau}/bim/{row.norm}/eps-{row.epsilon:g}/attack.h5"
            with h5py.File(own) as file:
                index, correct = file["index"][:], file["attacked"][:]
                found = file["success"][:]
            known = set(index[found])
            for path in sorted(network.glob("**/*.h5")):
                known |= _broken(path, row.tolerance, row.norm, row.epsilon)
            broken = np.isin(index, sorted(known))
            beyond_attacks += int((broken & correct & ~found).sum())
            assert row.strongest == pytest.approx((correct & ~broken).mean(), rel=1e-9)
            # The only attack is not the paper's.
            assert math.isnan(row.paper)
        assert beyond_attacks > 0

    def test_nothing_survives_one_attack(self, finished):
        for model in ("RES", "OON"):
            claim = json.loads((finished / f"results/tiny/claims/digits-{model}.json").read_text())
            reasons = {result["because"] for result in claim["results"]}
            # So short a training may leave nothing to attack.
            assert reasons <= {"no_paper", "no_accuracy"}
            assert not any(result["reliable"] for result in claim["results"])
            weights = finished / f"results/tiny/digits/{model}/seed-0/model.safetensors"
            assert claim["seeds"] == {"0": {"weights_sha256": sha256(weights)}}
            assert {entry["attack"] for entry in claim["attacks"]} == {"bim"}


def test_other_batches(finished, copied):
    """The size of batches changes nothing beyond rounding."""
    targets = [f"{OON}/tau-1/clean.h5", f"{OON}/tau-1/bim/l2_rms/eps-0.3/attack.h5"]
    config = tiny(compute__batch_size=7)
    assert snakemake(copied, *targets, config=config, options=("--force",)).jobs == {
        "evaluate": 1,
        "attack": 1,
    }
    for target in targets:
        with h5py.File(copied / target) as ours, h5py.File(finished / target) as theirs:
            assert set(ours) == set(theirs)
            for name in ours:
                expected = theirs[name][:]
                if expected.dtype.kind == "f":
                    assert ours[name][:] == pytest.approx(expected, rel=1e-4, abs=1e-5), name
                else:
                    np.testing.assert_array_equal(ours[name][:], expected)


class TestAgain:
    """The rows of the table in config/README.md, `What a change runs again`."""

    def test_a_second_run_does_nothing(self, finished):
        before = {path: path.stat().st_mtime_ns for path in finished.glob("results/**/*")}
        run = snakemake(finished)
        assert run.jobs == {}
        assert {path: path.stat().st_mtime_ns for path in finished.glob("results/**/*")} == before

    @pytest.mark.parametrize(
        "change",
        [
            {
                "experiments__tiny__tolerances": ["1/1000", "1e0"],
                "experiments__tiny__epsilons": {"linf": ["3/10"], "l2_rms": ["300e-3"]},
                "attacks__bim__step": {"linf": 0.1, "l2_rms": "1/10"},
                "training__learning_rate": "5e-2",
            },
            {
                "datasets__digits__mirrors": ["https://example.org/elsewhere"],
                "compute__batch_size": 3,
                "compute__threads": 2,
                "compute__training_threads": 2,
                "compute__device": "cpu",
            },
        ],
        ids=["another spelling", "mirrors and compute"],
    )
    def test_what_changes_nothing(self, finished, change):
        assert plan(finished, config=tiny(**change)).jobs == {}

    def test_another_kind_of_gradient_does_not_concern_a_model_without_an_ode(self, finished):
        change = {"attacks__bim__gradient": "adjoint", "attacks__bim__adjoint_norm": "seminorm"}
        cells = list(finished.glob("results/**/OON/**/attack.h5"))
        assert cells
        assert plan(finished, config=tiny(**change)).jobs["attack"] == len(cells)

    @pytest.mark.parametrize(
        ("change", "jobs"),
        [
            ({"experiments__tiny__tolerances": [1]}, {"reevaluate": 1}),
            ({"experiments__tiny__paper": "mnist"}, {"report": 1}),
            (
                {"experiments__tiny__trajectories": FOLLOWED | {"times": 7}},
                {"probe": 3, "trajectory": 3},
            ),
            (
                {"experiments__tiny__trajectories": FOLLOWED | {"states": 3}},
                {"trajectory": 3},
            ),
            ({"attacks__bim__iterations": 5}, {"attack": 6, "trajectory": 3, "reevaluate": 2}),
            (
                {"datasets__digits__subset__test": 41},
                {"evaluate": 3, "attack": 6, "trajectory": 3, "reevaluate": 2},
            ),
            (
                {"models__RES__training": {"epochs": 2}},
                {"train": 1, "evaluate": 1, "attack": 2, "probe": 1, "trajectory": 1, "audit": 1},
            ),
            (
                {"datasets__digits__subset__validation": 65},
                {"train": 2, "evaluate": 3, "attack": 6, "probe": 3, "trajectory": 3} | AUDITS,
            ),
            (
                {"datasets__digits__split_seed": 1},
                {"prepare": 1, "train": 2, "evaluate": 3, "attack": 6, "probe": 3, "trajectory": 3}
                | AUDITS,
            ),
        ],
        ids=lambda value: next(iter(value), None),
    )
    def test_what_changes_something(self, finished, change, jobs):
        expected = jobs if set(jobs) == {"report"} else jobs | SUMMARY
        assert plan(finished, config=tiny(**change)).jobs == expected

    def test_one_more_epsilon(self, finished):
        run = plan(finished, config=tiny(experiments__tiny__epsilons=[0.3, "1/10"]))
        assert run.jobs == {"attack": 6, "trajectory": 3} | SUMMARY
        found = re.findall(r"(?:Attacking|Following).* epsilon (\S+)$", run.output, re.M)
        assert found == ["0.1"] * 9

    def test_one_more_seed(self, finished):
        run = plan(finished, config=tiny(experiments__tiny__seeds=[0, 1]))
        assert run.jobs == {
            k: n for k, n in JOBS.items() if k not in ("fetch", "bundle", "prepare")
        }
        found = re.findall(r"^Job \d+: .*seed (\d+)", run.output, re.M)
        assert found == ["1"] * (17 + sum(AUDITS.values()))


def test_damaged_code_that_draws_charts_is_refused_and_written_again(copied):
    code, report = (copied / path for path in ("resources/vega.js", "results/tiny/report.html"))
    whole, page = code.read_bytes(), report.read_text()
    code.write_bytes(whole[:-1])
    run = attempt(copied)
    assert run.returncode != 0
    why = "error: resources/vega.js is damaged: delete it, the next run writes it again"
    assert why in run.output.splitlines()
    code.unlink()
    assert snakemake(copied).jobs == {"bundle": 1, "report": 1}
    assert code.read_bytes() == whole
    drawing = re.compile('id="drawing-code">.*?</script>', re.DOTALL)
    assert drawing.findall(report.read_text()) == drawing.findall(page) != []
