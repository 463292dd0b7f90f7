"""What the results of a job depend on, and which files it reads: values of a configuration."""

import pytest

from node_robustness.config.config import Config
from node_robustness.config.loading import load
from node_robustness.grid import cells, inputs, params, stages

OWN = {
    "source": "idx",
    "mirrors": ["https://example.org/"],
    "class_names": ["a", "b"],
    "files": {
        role: {"name": f"{role}.gz", "sha256": digit * 64}
        for role, digit in zip(
            ("train_images", "train_labels", "test_images", "test_labels"), "0123", strict=True
        )
    },
}
AT = {"experiment": "e", "dataset": "d", "model": "M", "seed": 3, "tolerance": 1e-3}
CELL = AT | {"attack": "steps", "norm": "linf", "epsilon": 0.2}


def config(test: int | None = 40, **experiment: object) -> Config:
    """Models with an ODE (M) and without (R), and all stages on so many images; changes of `e`."""
    return load(
        {
            "experiments": {
                "e": {
                    "datasets": ["d"],
                    "models": ["M", "R"],
                    "seeds": [3, 4],
                    "tolerances": [1, 1e-3, 0.1],
                    "attacks": ["steps", "moved", "squares"],
                    "norms": ["linf", "l2"],
                    "epsilons": [0.1, 0.2, 0.3],
                    "skip_broken": True,
                }
                | experiment
            },
            "datasets": {
                "d": {"source": "digits", "subset": {"train": 90, "validation": 30, "test": test}},
                "own": OWN,
            },
            "models": {
                "M": {"downsampling": "residual", "body": "ode", "training": {"epochs": 7}},
                "R": {"downsampling": "residual", "body": "residual", "weights": "w/{seed}.pth"},
            },
            "training": {"solver": "torchdiffeq", "gradient": "adjoint"},
            "attacks": {
                "steps": {"method": "bim", "iterations": 3, "relative_step": 0.5},
                "moved": {"method": "transfer", "by": "steps"},
                "squares": {"method": "square"},
            },
            "compute": {"shard_size": 16},
        }
    )


def test_a_shard_has_the_coordinates_of_its_cell():
    assert params.coordinates(config(), CELL | {"shard": "16-32"}) == CELL
    assert params.cell(config(), CELL | {"shard": "16-32"}) == cells.Cell(**CELL)


def test_the_images_of_a_shard():
    at = CELL | {"shard": "16-32"}
    assert params.part(config(), at) == [16, 32]
    assert params.images_of_part(config(), at) == 32


def test_what_is_read_of_a_source():
    files = {role: (file["name"], file["sha256"]) for role, file in OWN["files"].items()}
    found = params.source(config(), {"dataset": "own"})
    assert found == {
        "name": "idx",
        "files": files,
        "class_names": ["a", "b"],
        "image_shape": None,
        "label_bytes": 1,
    }
    assert params.source_in_folder(config(), {"folder": "own"}) == found
    assert params.source_in_folder(config(), {"folder": "digits"})["name"] == "digits"
    assert inputs.record(config(), {"dataset": "own"}) == "resources/own/verified.json"
    assert inputs.record(config(), {"dataset": "d"}) == "resources/digits/verified.json"


def test_architecture_and_training_have_what_the_model_uses():
    ode, residual = (params.architecture(config(), AT | {"model": name}) for name in "MR")
    assert "solver" in ode
    assert "blocks" in residual
    assert not {"blocks", "training", "weights"} & ode.keys()
    assert not {"solver", "training", "weights"} & residual.keys()
    ode, residual = (params.training(config(), AT | {"model": name}) for name in "MR")
    assert (ode["epochs"], ode["solver"], ode["gradient"]) == (7, "torchdiffeq", "adjoint")
    assert (residual["solver"], residual["gradient"]) == ("batched", "direct")
    assert params.training_subset(config(), AT) == {"train": 90, "validation": 30}
    assert params.checkpoint(config(), AT | {"model": "R"}) == "w/3.pth"
    assert params.checkpoint(config(), AT) is None


@pytest.mark.parametrize(("images", "test", "expected"), [(9, 40, 9), (50, 40, 40), (50, None, 50)])
def test_no_section_measures_more_images_than_are_attacked(images, test, expected):
    asked = config(test, audit={"images": images})
    assert params.tested_images(asked, AT) == test
    assert params.audit(asked, AT)["images"] == expected


def test_an_audit_attacks_in_every_norm_at_its_middle_epsilon():
    epsilons = {"linf": [0.1, 0.2, 0.3], "l2": [1.0, 2.0, 3.0]}
    asked = config(norms=["linf", "l2"], epsilons=epsilons, audit={"directions": 5})
    assert params.audit(asked, AT) == {
        "images": 40,
        "differences": 16,
        "directions": 5,
        "iterations": 10,
        "apgd_iterations": 25,
        "epsilons": {"linf": 0.2, "l2": 2.0},
        "tight_tolerance": cells.TIGHT_TOLERANCE,
        "rk4_steps": cells.RK4_STEPS,
    }


def test_the_matrix_begins_with_a_tight_tolerance():
    assert params.matrix_tolerances(config(), CELL) == [1e-5, 1e-3, 0.1, 1]
    assert params.matrix_tolerances(config(tolerances=[1, 1e-5]), CELL) == [1e-5, 1]


def test_a_drawn_tolerance_and_the_step_of_its_attackers():
    found = params.randomisation(config(randomisation={"low": 0.01, "relative_step": 0.5}), CELL)
    assert (found["low"], found["high"], found["step"], found["images"]) == (0.01, 1, 0.1, 40)
    assert not {"norms", "epsilons", "relative_step"} & found.keys()


def test_a_detector_compares_all_tolerances():
    assert params.detection(config(detection={"iterations": 4, "images": 6}), CELL) == {
        "iterations": 4,
        "searches": 3,
        "search_iterations": 5,
        "images": 6,
        "tolerances": [1e-3, 0.1, 1],
        "step": 0.05,
    }


def test_a_sweep_has_the_steps_of_the_papers_attack_and_no_gradient():
    asked = config(paper_attack="steps", adjoint_sweep={"backward_tolerances": [1, 1e-4]})
    at = AT | {"norm": "linf", "epsilon": 0.2}
    assert params.adjoint_sweep(asked, at) == {
        "attack": "steps",
        "method": "bim",
        "iterations": 3,
        "step": 0.1,
        "early_stop": True,
        "adjoint_norm": "full",
        "images": 40,
        "backward_tolerances": [1e-4, 1],
    }
    assert params.methods(asked, at) == ["node_robustness.attacks.bim"]


def test_the_attack_on_the_cost_has_a_step_in_the_norm():
    assert params.cost(config(cost={"queries": 7}), CELL) == {
        "queries": 7,
        "iterations": 10,
        "images": 40,
        "step": 0.05,
    }


def test_what_is_followed_and_probed():
    asked = config(trajectories={"times": 5, "epsilons": [0.2]})
    found = params.follow(asked, CELL)
    assert (found["times"], found["tight_tolerance"]) == (5, cells.TIGHT_TOLERANCE)
    assert not {"attacks", "norms", "epsilons", "tolerances"} & found.keys()
    assert params.probe(asked, AT) == {"times": 5, "images": 30}


def test_what_tables_and_reports_say_of_an_experiment():
    asked, at = config(paper="mnist", paper_attack="steps"), {"experiment": "e"}
    assert params.models(asked, at) == ["M", "R"]
    assert params.paper(asked, at) == "mnist"
    assert params.papers_attack(asked, at) == "steps"
    assert params.training_tolerances(asked, at) == {"M": 1e-3}


def test_the_model_that_makes_adversarial_examples_for_another():
    assert inputs.source_model(config(), CELL) == []
    at = CELL | {"attack": "moved", "model": "R", "tolerance": None}
    assert inputs.source_model(config(attacks=["steps", "moved"]), at) == [
        "results/e/d/M/seed-3/model.safetensors",
        "results/e/d/M/seed-3/model.json",
    ]


def test_cheaper_attacks_at_the_epsilon_of_a_cell():
    at = CELL | {"attack": "squares"}
    cheaper = "results/e/d/M/seed-3/tau-0.001/steps/linf/eps-0.2/attack.h5"
    assert inputs.cheaper_attacks(config(), at) == [cheaper]
    assert inputs.cheaper_attacks(config(skip_broken=False), at) == []


def test_shards_in_the_order_of_their_images():
    folder = "results/e/d/M/seed-3/tau-0.001/steps/linf/eps-0.2"
    parts = ["0-16", "16-32", "32-40"]
    assert inputs.shards_of(config(), CELL) == [f"{folder}/attack-{part}.h5" for part in parts]


def test_probes_of_what_is_followed_without_repetition():
    asked = config(trajectories={"tolerances": [0.1]}, seeds=[3])
    path = "results/e/d/M/seed-3/tau-0.1/probe.h5"
    assert path in inputs.probes(asked, {"experiment": "e"})
    assert len(inputs.probes(asked, {"experiment": "e"})) == 2  # and that of R
    assert inputs.probe(asked, CELL | {"tolerance": 0.1}) == path
    for none in (config(trajectories=None), config(trajectories={"probe": False})):
        assert inputs.probes(none, {"experiment": "e"}) == []
    assert inputs.probe(none, CELL) == []


def test_one_file_of_all_items_of_an_experiment():
    asked, at = config(attacks=["steps"], models=["R"], norms=["linf"]), {"experiment": "e"}
    cell = "results/e/d/R/seed-{}/tau-none/steps/linf/eps-0.2/attack.h5"
    shown = inputs.of_experiment(stages.shown, "attack.h5")(asked, at)
    assert shown == [cell.format(3)]
    data = inputs.of_experiment(stages.shown, "data.h5", "{dataset}")(asked, at)
    assert data == ["results/e/d/data.h5"]


def test_the_targets_of_a_run():
    assert inputs.targets(config()) == [
        "results/e/report.html",
        "results/e/figures/images",
        "results/e/claims/d-M.json",
        "results/e/claims/d-R.json",
    ]


class TestOwnModels:
    """A configuration with an own model (THEIRS) next to M and R, and what its jobs are given."""

    @pytest.fixture(autouse=True)
    def _file(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        (tmp_path / "net.py").write_text("import torchdiffeq\ndef build(): ...")

    def config(self, **keys: object) -> Config:
        raw = config().model_dump(mode="json", exclude_unset=True)
        raw["models"]["THEIRS"] = {"module": "net.py"} | keys
        raw["experiments"]["e"]["models"].append("THEIRS")
        raw["attacks"]["theirs"] = {"method": "transfer", "by": "steps", "source": "THEIRS"}
        return load(raw)

    @pytest.mark.parametrize(
        ("at", "expected"),
        [
            ({}, []),
            ({"model": "THEIRS"}, ["THEIRS"]),
            (CELL, []),
            (CELL | {"model": "THEIRS"}, ["THEIRS"]),
            (CELL | {"model": "THEIRS", "tolerance": None, "shard": "0-16"}, ["THEIRS"]),
            (CELL | {"attack": "theirs"}, ["THEIRS"]),
            (CELL | {"attack": "moved", "model": "THEIRS"}, ["THEIRS"]),
        ],
    )
    def test_jobs_that_work_with_an_own_model_wait_for_its_checks(self, at, expected):
        found = inputs.checked(self.config(), AT | at)
        assert found == [f"results/e/d/{name}/seed-3/checked.json" for name in expected]

    def test_which_models_are_checked(self):
        assert [(t.model, t.seed) for t in stages.own(self.config(), "e")] == [
            ("THEIRS", 3),
            ("THEIRS", 4),
        ]

    def test_training(self):
        at = AT | {"model": "THEIRS"}
        assert params.training(self.config(), at)["solver"] == "torchdiffeq"
        without = params.training(self.config(ode="none"), at)
        assert (without["solver"], without["gradient"]) == ("batched", "direct")

    def test_tolerances_in_training(self):
        expected = {"M": 1e-3, "THEIRS": None}
        assert params.training_tolerances(self.config(), {"experiment": "e"}) == expected
        assert params.training_tolerances(self.config(ode="fixed"), {"experiment": "e"}) == {
            "M": 1e-3
        }

    def test_what_was_published(self):
        said = {"claim": "robust", "source": "a paper", "accuracy": 0.5}
        found = params.published(self.config(published=said), {"experiment": "e"})
        nothing = dict.fromkeys(["robust_accuracy", "certified", "norm", "epsilon"])
        assert found == {"THEIRS": said | nothing}
