"""The plan of a run: changed params, new coordinates, and jobs grouped by reason."""

import pytest

from node_robustness.scheduling.plan import FOLLOWS, main, newest_part, param_changes, summary

CODE = {"attack.py": "a", "node_robustness/ode/solve.py": "b", "torch": "2.13.0"}
SETTINGS = {"iterations": 12, "step": {"linf": 0.1}, "loss": "ce"}
OLD = {
    "code": CODE,
    "inputs": {"sha256": "c"},
    "settings": SETTINGS,
    "images": 40,
    "validation": 0.1,
    "architecture": {"module": "net.py", "width": 3, "code": {"net.py": "a", "torch": "2.13.0"}},
}


@pytest.mark.parametrize(
    ("new", "expected"),
    [
        ({"images": None}, ["images 40 -> None"]),
        ({"images": 41, "validation": 0.2}, ["images 40 -> 41", "validation 0.1 -> 0.2"]),
        ({"settings": SETTINGS | {"iterations": 13}}, ["settings.iterations 12 -> 13"]),
        (
            {"settings": SETTINGS | {"step": {"linf": 0.2, "l2": 1}}},
            ["settings.step.l2 None -> 1", "settings.step.linf 0.1 -> 0.2"],
        ),
        ({"code": CODE | {"attack.py": "c"}}, ["code changed: attack.py"]),
        (
            {"code": {"attack.py": "c", "node_robustness/new.py": "d", "torch": "2.14.0"}},
            [
                "code changed: attack.py, node_robustness/new.py, node_robustness/ode/solve.py",
                "torch 2.13.0 -> 2.14.0",
            ],
        ),
        (
            {"code": CODE | {"numpy": "2"}, "images": 7},
            ["numpy unused -> 2", "images 40 -> 7"],
        ),
        (
            {"code": CODE | {f"{name}.py": "e" for name in "uvwxyz"}},
            ["code changed: u.py, v.py, w.py, x.py and 2 more"],
        ),
        (
            {
                "architecture": {
                    "module": "net.py",
                    "width": 4,
                    "code": {"net.py": "b", "layers.py": "c", "torch": "2.14.0"},
                }
            },
            [
                "code changed: layers.py, net.py",
                "torch 2.13.0 -> 2.14.0",
                "architecture.width 3 -> 4",
            ],
        ),
        ({"inputs": {"sha256": "d"}}, ["another set of inputs"]),
        ({"rest": {"entirely": "new"}}, ["no record of rest in the earlier run"]),
    ],
)
def test_changed_params(new, expected):
    recorded = sorted(map(repr, OLD.values()))
    assert param_changes(recorded, OLD | new) == expected


def test_params_that_are_gone_or_have_no_literal():
    recorded = [*map(repr, OLD.values()), "inf"]
    assert param_changes(recorded, OLD) == ["a setting is gone"]
    assert param_changes(recorded, OLD | {"more": float("-inf")}) == ["more inf -> -inf"]


@pytest.mark.parametrize(
    ("there", "expected"),
    [
        (".", "experiment digits is new"),
        ("results/digits", "dataset digits is new"),
        ("results/digits/digits", "seed 1 is new"),
        ("results/digits/digits/seed-1/tables", None),
    ],
)
def test_the_coordinate_that_is_new(tmp_path, monkeypatch, there, expected):
    (tmp_path / there).mkdir(parents=True, exist_ok=True)
    monkeypatch.chdir(tmp_path)
    path = "results/digits/digits/seed-1/tables/{}.csv"
    template = "results/{experiment,[a-z]+}/{dataset}/seed-{seed}/tables/{}.csv"
    wildcards = {"experiment": "digits", "dataset": "digits", "seed": "1"}
    assert newest_part(path, template, wildcards) == expected


def test_a_configuration_that_is_not_there(tmp_path, capsys):
    missing = str(tmp_path / "none.yaml")
    assert main(["--configfile", missing]) == 1
    assert capsys.readouterr().err.endswith(f"error: --configfile: {missing} is no file\n")


def test_jobs_are_grouped_by_reason_and_those_that_follow_come_last():
    jobs = [("tables", FOLLOWS), ("train", "a"), ("attack", "b"), ("attack", "a"), ("attack", "a")]
    assert summary(jobs).splitlines() == [
        "1 train, 2 attack jobs: a",
        "1 attack job: b",
        f"1 tables job: {FOLLOWS}",
        "5 jobs in all.",
    ]
    assert summary([]) == "Nothing to do: everything is there and up to date."
