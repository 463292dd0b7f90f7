"""What a run cost, from the logs of its jobs; and what its manifest says."""

import json
import math
import subprocess
from pathlib import Path

import pandas as pd
import pytest

from node_robustness.figures import costs as drawn_costs
from node_robustness.provenance import command_line, costs, manifest
from node_robustness.provenance.software import git_commit
from node_robustness.scheduling.job_costs import Spent
from samples import MODELS, masked_tables, spent, tiny_tables, write_logs

ATTACK = "attack/toy/OON/seed-0/tau-0.01/bim/linf/eps-0.1"


@pytest.fixture(scope="module")
def tables():
    """RES, and OON at the tolerances 0.01 and 1, under bim at the epsilons 0.1 and 0.3."""
    return tiny_tables()


def of_jobs(folder: Path, tables: dict, *places: str, **seconds: float) -> pd.DataFrame:
    """The costs of jobs at these places; those of which nothing is said took a second."""
    spends = {name: spent(value) for name, value in (dict.fromkeys(places, 1.0) | seconds).items()}
    return costs.job_costs(write_logs(folder, **spends), tables)


def test_a_row_for_each_job_with_its_coordinates_and_costs(tmp_path, tables):
    # An experiment may be called like the folder.
    jobs = write_logs(
        tmp_path / "logs",
        **{
            "tables/tables": spent(1.5),
            ATTACK: Spent("2026-01-02T03:04:05+00:00", "node 1", 2.5, 1.5, 0.75, 4.5, 100.25),
            "train/toy/RES/seed-0": spent(9),
            "evaluate/toy/RES/seed-0/tau-none": spent(3),
        },
    )
    found = costs.job_costs(jobs, tables)
    assert list(found.columns) == list(costs.COLUMNS)
    assert found.rule.tolist() == ["attack", "evaluate", "tables", "train"]
    attack, evaluate, summary, train = found.to_dict("records")
    assert (attack["dataset"], attack["model"], attack["seed"]) == ("toy", "OON", 0)
    assert (attack["tolerance"], attack["attack"]) == (0.01, "bim")
    assert (attack["norm"], attack["epsilon"]) == ("linf", 0.1)
    assert (attack["started_utc"], attack["host"]) == ("2026-01-02T03:04:05+00:00", "node 1")
    assert (attack["seconds"], attack["start_seconds"]) == (2.5, 1.5)
    assert (attack["computing_seconds"], attack["cpu_seconds"]) == (0.75, 4.5)
    assert attack["max_rss_mb"] == 100.25
    assert evaluate["model"] == train["model"] == "RES"
    assert math.isnan(evaluate["tolerance"])
    assert pd.isna([summary[key] for key in ("dataset", "model", "seed", "attack")]).all()
    assert pd.isna([train[key] for key in ("tolerance", "attack", "norm", "epsilon")]).all()


def test_evaluations_are_those_of_the_tables(tmp_path, tables):
    places = [
        "evaluate/toy/OON/seed-0/tau-1",
        "evaluate/toy/RES/seed-0/tau-none",
        ATTACK,
        # It attacks nothing itself.
        ATTACK.replace("attack", "reevaluate"),
    ]
    found = of_jobs(tmp_path, tables, *places).set_index(["rule", "model"]).nfe_mean
    # 8, 8, 14 and 20 of four images; 20 of the first image, the only success.
    assert found["evaluate", "OON"] == 12.5
    assert found["attack", "OON"] == 20
    assert math.isnan(found["evaluate", "RES"])
    assert math.isnan(found["reevaluate", "OON"])


@pytest.mark.parametrize(
    "gone",
    [
        "train/toy/OON/seed-7",
        "train/toy/MIX/seed-0",
        "evaluate/toy/OON/seed-0/tau-0.5",
        ATTACK.replace("0.1", "0.25"),
        ATTACK.replace("bim", "pgd"),
        "detect/toy/OON/seed-0/tau-0.01/linf/eps-0.2",
        "randomise/toy/OON/seed-0/linf/eps-0.2",
        "sweep/toy/OON/seed-0/tau-0.01/adjoint_sweep/linf/eps-0.2",
        "attack_cost/toy/OON/seed-0/tau-0.01/cost/linf/eps-0.2",
    ],
)
def test_what_the_experiment_had_once_does_not_count(tmp_path, gone):
    tables = masked_tables(8)
    there = [
        "train/toy/OON/seed-0",
        ATTACK.replace("bim", "apgd_ce"),
        "detect/toy/OON/seed-0/tau-0.01/linf/eps-0.1",
        "randomise/toy/OON/seed-0/linf/eps-0.1",
        "sweep/toy/OON/seed-0/tau-0.01/adjoint_sweep/linf/eps-0.1",
        "attack_cost/toy/OON/seed-0/tau-0.01/cost/linf/eps-0.1",
    ]
    assert len(of_jobs(tmp_path, tables, *there)) == len(there)
    assert len(of_jobs(tmp_path, tables, *there, gone)) == len(there)


def test_a_shard_says_which_images_it_had_and_is_merged_to_a_cell(tmp_path, tables):
    shard = ATTACK.replace("attack", "attack_shard")
    places = [f"{shard}/{part}" for part in ("2-4", "0-2")]
    found = of_jobs(tmp_path, tables, *places, ATTACK.replace("attack", "merge"))
    assert found.images.tolist()[:2] == ["0-2", "2-4"]
    assert pd.isna(found.images[2])
    assert found.epsilon.tolist() == [0.1] * 3
    assert found.nfe_mean.isna().tolist() == [True, True, False]


def test_epsilons_and_tolerances_are_exact(tmp_path, tables):
    eps = 8 / 255
    attacks = tables["attacks"].assign(epsilon=eps, tolerance=1 / 7)
    name = "attack/toy/OON/seed-0/tau-1over7/bim/linf/eps-8over255"
    row = of_jobs(tmp_path, tables | {"attacks": attacks}, name).iloc[0]
    assert (row.epsilon, row.tolerance) == (eps, 1 / 7)


def test_stages_sum_their_jobs(tmp_path, tables):
    late, early = "2026-01-01T00:00:03+00:00", "2026-01-01T00:00:02+00:00"
    jobs = write_logs(
        tmp_path,
        **{
            "train/toy/OON/seed-0": Spent(late, "a", 4.0, 1.5, 2.0, 4.5, 300.5),
            "train/toy/RES/seed-0": Spent(early, "b", 1.0, 0.5, 0.25, 1.5, 100.0),
            "tables/tables": Spent(late, "a", 0.5, 0.25, 0.0, 0.25, 50.0),
        },
    )
    found = costs.job_costs(jobs, tables)
    assert costs.stages(found) == [
        {
            "rule": "tables",
            "jobs": 1,
            "started_utc": late,
            "seconds": 0.5,
            "start_seconds": 0.25,
            "computing_seconds": 0.0,
            "cpu_seconds": 0.25,
            "max_rss_mb": 50.0,
        },
        {
            "rule": "train",
            "jobs": 2,
            "started_utc": early,
            "seconds": 5.0,
            "start_seconds": 2.0,
            "computing_seconds": 2.25,
            "cpu_seconds": 6.0,
            "max_rss_mb": 300.5,
        },
    ]
    assert costs.share_outside_computation(found) == pytest.approx(1 - 2.25 / 5.5)
    nothing = costs.job_costs([], tables)
    assert (costs.stages(nothing), costs.share_outside_computation(nothing)) == ([], None)


def test_the_figure_has_a_bar_for_each_stage_and_model(tmp_path, tables):
    places = {
        "train/toy/OON/seed-0": 60,
        "train/toy/RES/seed-0": 30,
        ATTACK: 5,
        ATTACK.replace("eps-0.1", "eps-0.3"): 7,
        "tables/tables": 2,
    }
    chart = drawn_costs.figure(of_jobs(tmp_path, tables, **places), MODELS)
    (data,) = chart.to_dict()["datasets"].values()
    rows = [line.split(",") for line in data.splitlines()]
    seconds = {(rule, model): float(s) for rule, model, _, s, *_ in rows[1:]}
    assert seconds == {
        ("attack", "OON"): 12,
        ("tables", "shared"): 2,
        ("train", "OON"): 60,
        ("train", "RES"): 30,
    }


def test_the_manifest_describes_the_run(tmp_path, tables, monkeypatch):
    jobs = of_jobs(tmp_path, tables, ATTACK, "tables/tables")
    jobs["host"] = ["node02", "node01"]
    monkeypatch.setenv("NODE_ROBUSTNESS_COMMAND_LINE", "snakemake -n")
    budgets = pd.DataFrame(
        [("digits", "OON", seed, f"{seed}f") for seed in (0, 0, 1)],
        columns=["dataset", "model", "seed", "weights_sha256"],
    )
    own = {"toy/theirs/seed-0": {"audit_level": 1.0}}
    found = manifest.manifest({"compute": {}}, jobs, budgets, own, "cpu (x86_64)")
    assert found["checkpoints"] == {"digits/OON/seed-0": "0f", "digits/OON/seed-1": "1f"}
    assert found["device"] == "cpu (x86_64)"
    assert [stage["rule"] for stage in found["stages"]] == ["attack", "tables"]
    assert found["hosts"] == ["node01", "node02"]
    assert found["command_line"] == "snakemake -n"
    assert found["versions"]["h5py"]
    json.dumps(found, allow_nan=False)


def test_the_command_line_is_that_of_the_first_snakemake(monkeypatch):
    monkeypatch.delenv("NODE_ROBUSTNESS_COMMAND_LINE", raising=False)
    assert command_line.recall() is None
    # Set by hand first, so that monkeypatch takes away what `remember` sets.
    monkeypatch.setenv("NODE_ROBUSTNESS_COMMAND_LINE", "")
    monkeypatch.delenv("NODE_ROBUSTNESS_COMMAND_LINE")
    for arguments in (["--cores", "2", "--config", "a={b: 1}"], ["--target-jobs", "attack:"]):
        monkeypatch.setattr("sys.argv", ["/bin/snakemake", *arguments])
        command_line.remember()
        assert command_line.recall() == "snakemake --cores 2 --config 'a={b: 1}'"


def test_the_commit_and_whether_files_differ_from_it(tmp_path, monkeypatch):
    assert git_commit(tmp_path) is None

    def git(*arguments: str) -> str:
        identity = ("-c", "user.name=a", "-c", "user.email=a@b")
        command = ["git", "-C", str(tmp_path), *identity, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    git("init")
    (tmp_path / "file").write_text("one")
    git("add", "file")
    git("commit", "--message", "a")
    commit = git("rev-parse", "HEAD")
    assert git_commit(tmp_path) == commit
    (tmp_path / "file").write_text("two")
    assert git_commit(tmp_path) == f"{commit}-dirty"
    monkeypatch.setenv("PATH", "")
    assert git_commit(tmp_path) is None
