"""The grid: which cells a configuration asks for, and where their files lie."""

from types import MappingProxyType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node_robustness.config.attacks.bim import BIMSettings
from node_robustness.config.config import Config
from node_robustness.config.loading import load
from node_robustness.errors import UserError
from node_robustness.grid import attack_settings, shards, sources, stages
from node_robustness.grid import cells as grid_cells
from node_robustness.grid.paths import TRAINED

TOLERANCES = ["1e-3", 1]


def config(**experiment) -> Config:
    """Models with an ODE (M) and without (R), one attack, two norms.

    Then the changed keys of the experiment, of M (`model_keys`), more attacks (`own`) and more
    models (`others`).
    """
    models = experiment.pop("model_keys", {})
    others = experiment.pop("others", {})
    own = experiment.pop("own", {})
    return load(
        {
            "experiments": {
                "e": {
                    "datasets": ["d"],
                    "models": ["M", "R"],
                    "tolerances": TOLERANCES,
                    "attacks": ["bim"],
                    "norms": ["linf", "l2"],
                    "epsilons": [0.1, "8/255"],
                }
                | experiment
            },
            "datasets": {"d": {"source": "digits"}, "other": {"source": "digits"}},
            "models": {
                "M": {"downsampling": "residual", "body": "ode"} | models,
                "R": {"downsampling": "residual", "body": "residual"},
            }
            | others,
            "attacks": {
                "bim": {"method": "bim", "relative_step": 0.1},
                "bim2": {"method": "bim", "relative_step": 0.2},
            }
            | own,
        }
    )


def test_the_grid_is_a_product_with_one_column_for_a_model_without_an_ode():
    asked = config(datasets=["d", "other"], seeds=[0, 1, 2], attacks=["bim", "bim2"])
    trained = list(grid_cells.trained(asked, "e"))
    solved = list(grid_cells.solved(asked, "e"))
    cells = list(grid_cells.cells(asked, "e"))
    assert len(trained) == 2 * 2 * 3
    assert len(solved) == 2 * 3 * (2 + 1)
    assert len(cells) == len(solved) * 2 * 2 * 2
    assert {s.tolerance for s in solved if s.model == "R"} == {None}
    assert {s.tolerance for s in solved if s.model == "M"} == {0.001, 1.0}
    assert {(c.dataset, c.model, c.seed) for c in cells} == {
        (t.dataset, t.model, t.seed) for t in trained
    }


def test_folders_say_what_a_cell_is():
    cells = [c.folder for c in grid_cells.cells(config(), "e")]
    assert cells[0] == "e/d/M/seed-0/tau-0.001/bim/linf/eps-0.1"
    assert "e/d/M/seed-0/tau-1/bim/l2/eps-8over255" in cells
    assert cells[-1] == "e/d/R/seed-0/tau-none/bim/l2/eps-8over255"
    assert [s.folder for s in grid_cells.solved(config(models=["R"]), "e")] == [
        "e/d/R/seed-0/tau-none"
    ]
    assert [t.folder for t in grid_cells.trained(config(models=["R"]), "e")] == ["e/d/R/seed-0"]


@given(
    tolerances=st.lists(st.floats(1e-9, 999), min_size=1, max_size=6, unique=True),
    epsilons=st.lists(st.floats(1e-9, 1), min_size=1, max_size=6, unique=True),
    seeds=st.lists(st.integers(0, 2**40), min_size=1, max_size=3, unique=True),
)
def test_no_two_cells_share_a_folder(tolerances, epsilons, seeds):
    asked = config(tolerances=tolerances, epsilons=epsilons, seeds=seeds)
    folders = [cell.folder for cell in grid_cells.cells(asked, "e")]
    assert len(set(folders)) == len(folders)
    assert len(folders) == (len(tolerances) + 1) * len(seeds) * 2 * len(epsilons)


def test_two_spellings_are_one_cell():
    one = config(tolerances=["1e-3", "1/2"], epsilons=["8/255", 0.1])
    other = config(tolerances=[0.001, 0.5], epsilons=[8 / 255, "1e-1"])
    assert list(grid_cells.cells(one, "e")) == list(grid_cells.cells(other, "e"))


def test_imported_weights_are_one_model_and_not_one_for_each_seed():
    asked = config(seeds=[3, 4], model_keys={"weights": "weights/m.pth"})
    assert [(t.model, t.seed) for t in grid_cells.trained(asked, "e")] == [
        ("M", 3),
        ("R", 3),
        ("R", 4),
    ]


def test_imported_weights_that_name_the_seed_are_one_model_for_each():
    asked = config(seeds=[3, 4], model_keys={"weights": "weights/m-{seed}.safetensors"})
    assert [t.seed for t in grid_cells.trained(asked, "e") if t.model == "M"] == [3, 4]


def test_every_norm_may_have_its_own_epsilons():
    asked = config(models=["R"], epsilons={"l2": [1, 2], "linf": [0.3]})
    cells = [(c.norm, c.epsilon) for c in grid_cells.cells(asked, "e")]
    assert cells == [("linf", 0.3), ("l2", 1.0), ("l2", 2.0)]


def test_some_attacks_run_at_the_primary_epsilons_alone():
    asked = config(
        epsilons=[0.1, 0.2, 0.3],
        primary={"linf": 0.3, "l2": 0.1},
        primary_attacks=["bim2", "bisection", "bim"],
    )
    found = {(c.attack, c.norm, c.epsilon) for c in grid_cells.cells(asked, "e")}
    everywhere = {("bim", norm, e) for norm in ("linf", "l2") for e in (0.1, 0.2, 0.3)}
    primary = {(a, *at) for a in ("bim2", "bisection") for at in (("linf", 0.3), ("l2", 0.1))}
    assert found == everywhere | primary


def test_all_cells_are_followed_by_default():
    assert list(stages.followed(config(), "e")) == list(grid_cells.cells(config(), "e"))


def test_nothing_is_followed_without_trajectories():
    assert list(stages.followed(config(trajectories=None), "e")) == []


@pytest.mark.parametrize(
    ("choice", "kept"),
    [
        ({"tolerances": ["1/1000"]}, lambda c: c.tolerance in (None, 0.001)),
        ({"epsilons": [8 / 255]}, lambda c: c.epsilon == 8 / 255),
        ({"norms": ["l2"]}, lambda c: c.norm == "l2"),
        ({"attacks": ["bim2"]}, lambda c: c.attack == "bim2"),
        (
            {"attacks": ["bim"], "norms": ["linf"], "epsilons": [0.1], "tolerances": [1]},
            lambda c: (
                (c.attack, c.norm, c.epsilon, c.tolerance or 1.0) == ("bim", "linf", 0.1, 1.0)
            ),
        ),
    ],
)
def test_trajectories_choose_cells(choice, kept):
    asked = config(attacks=["bim", "bim2"], trajectories=choice)
    followed = list(stages.followed(asked, "e"))
    assert followed
    assert followed == [c for c in grid_cells.cells(asked, "e") if kept(c)]


def test_step_sizes():
    shared = BIMSettings(method="bim", step=0.05)
    by_norm = BIMSettings(method="bim", step={"linf": 0.05, "l2": "1/4"})
    relative = BIMSettings(method="bim", relative_step=0.25)
    assert attack_settings.step_size(shared, "l2", 0.3) == 0.05
    assert attack_settings.step_size(by_norm, "linf", 0.3) == 0.05
    assert attack_settings.step_size(by_norm, "l2", 0.3) == 0.25
    assert attack_settings.step_size(relative, "linf", 0.5) == 0.125


def test_fixed_steps_have_no_tolerance_and_are_followed():
    asked = config(model_keys={"solver": {"method": "rk4", "steps": 10}}, models=["M"])
    assert {s.tolerance for s in grid_cells.solved(asked, "e")} == {None}
    assert len(list(stages.followed(asked, "e"))) == len(list(grid_cells.cells(asked, "e"))) == 4


def keys(cells, *names):
    return [tuple(getattr(cell, name) for name in names) for cell in cells]


def test_an_attack_that_looks_for_the_smallest_perturbation_has_the_largest_epsilon_alone():
    asked = config(
        models=["R"],
        attacks=["bisection", "bim"],
        epsilons={"linf": [0.1, 0.3, 0.2], "l2": [2, 1]},
    )
    found = keys(grid_cells.cells(asked, "e"), "attack", "norm", "epsilon")
    assert [key for key in found if key[0] == "bisection"] == [
        ("bisection", "linf", 0.3),
        ("bisection", "l2", 2.0),
    ]
    assert len(found) == 2 + 5


def test_an_attack_has_no_cell_of_a_norm_that_it_does_not_know():
    asked = config(models=["R"], attacks=["cw"], norms=["linf", "l2"])
    assert keys(grid_cells.cells(asked, "e"), "norm", "epsilon") == [("l2", 0.1)]


def test_a_model_is_not_attacked_with_its_own_adversarials():
    by_default = config(attacks=["transfer"])
    assert {cell.model for cell in grid_cells.cells(by_default, "e")} == {"R"}
    named = config(attacks=["t"], own={"t": {"method": "transfer", "by": "bim", "source": "R"}})
    assert {cell.model for cell in grid_cells.cells(named, "e")} == {"M"}
    alone = config(attacks=["quick"], models=["M"])
    assert "transfer" in alone.experiments["e"].attacks
    assert "transfer" not in {cell.attack for cell in grid_cells.cells(alone, "e")}


def cell(asked, **values):
    """The first cell with these values."""
    return next(
        c
        for c in grid_cells.cells(asked, "e")
        if all(getattr(c, k) == v for k, v in values.items())
    )


def test_the_source_of_a_transfer():
    own = {"from_r": {"method": "transfer", "by": "bim", "source": "R"}}
    asked = config(attacks=["bim", "transfer", "from_r"], own=own)
    assert grid_cells.source(asked, cell(asked, attack="bim")) is None
    without_ode = grid_cells.source(asked, cell(asked, attack="from_r", tolerance=1.0))
    assert (without_ode.model, without_ode.seed, without_ode.tolerance) == ("R", 0, None)
    # Without a tolerance of the target, that of the source's training.
    trained_at = grid_cells.source(asked, cell(asked, attack="transfer", model="R"))
    assert (trained_at.model, trained_at.tolerance) == ("M", 1e-3)
    assert trained_at.result("model.json", TRAINED) == "results/e/d/M/seed-0/model.json"
    steps = config(attacks=["transfer"], model_keys={"solver": {"method": "rk4", "steps": 9}})
    assert grid_cells.source(steps, cell(steps, model="R")).tolerance is None


def test_the_source_has_the_targets_seed_where_it_has_it():
    own = {"from_r": {"method": "transfer", "by": "bim", "source": "R"}}
    asked = config(attacks=["from_r"], own=own, seeds=[3, 4])
    assert {grid_cells.source(asked, c).seed == c.seed for c in grid_cells.cells(asked, "e")} == {
        True
    }
    imported = config(attacks=["transfer"], seeds=[3, 4], model_keys={"weights": "m.pth"})
    assert {
        (c.seed, grid_cells.source(imported, c).seed) for c in grid_cells.cells(imported, "e")
    } == {
        (3, 3),
        (4, 3),
    }


def test_res_is_the_source_by_default():
    asked = config(attacks=["transfer"])
    models = asked.models | {"RES": asked.models["R"]}
    experiment = asked.experiments["e"].model_copy(update={"models": ["M", "R", "RES"]})
    asked = asked.model_copy(update={"models": models, "experiments": {"e": experiment}})
    assert {grid_cells.source(asked, c).model for c in grid_cells.cells(asked, "e")} == {"RES"}


SUITE = ["bim_adjoint", "bim", "bisection", "fgsm", "transfer", "noise", "apgd_ce", "fab_t"]


def spared_by(asked, **values):
    return keys(attack_settings.cheaper(asked, cell(asked, **values)), "attack", "epsilon")


def test_expensive_attacks_leave_out_what_attacks_by_gradients_broke():
    attacks = [*SUITE, "square", "cw", "apgd_t", "apgd_surrogate"]
    asked = config(attacks=attacks, epsilons=[0.2, 0.1, 0.3])
    everywhere = list(grid_cells.cells(asked, "e"))
    for one in everywhere:
        # Attacks for the smallest perturbation leave out what is broken at every epsilon.
        within = 0.1 if one.attack in ("fab_t", "cw") else one.epsilon
        gradients = [(name, within) for name in ("bim_adjoint", "bim")]
        gradients += [("bisection", 0.3), ("fgsm", within), ("apgd_ce", within)]
        if one.attack == "square":  # a black box comes after all gradients
            gradients += [("fab_t", 0.3), ("cw", 0.3)][: 1 + (one.norm != "linf")]
            gradients += [("apgd_t", within), ("apgd_surrogate", within)]
        expensive = one.attack in ("apgd_t", "apgd_surrogate", "fab_t", "square", "cw")
        found = attack_settings.cheaper(asked, one)
        assert keys(found, "attack", "epsilon") == (gradients if expensive else [])
        assert set(found) <= set(everywhere)
        where = ("dataset", "model", "seed", "tolerance", "norm")
        assert {*keys(found, *where)} <= {*keys([one], *where)}
        settings = attack_settings.attack_settings(asked, one)
        expected = {"broken_by": dict(gradients), "within": within} if expensive else None
        assert settings.get("skips") == expected


def test_only_what_ran_at_an_epsilon_spares_an_attack_there():
    asked = config(
        attacks=["bim", "square"],
        primary_attacks=["bim2", "bisection"],
        epsilons=[0.1, 0.2, 0.3],
        primary=0.2,
    )
    found = {e: dict(spared_by(asked, attack="square", epsilon=e)) for e in (0.1, 0.2, 0.3)}
    # Bisection's sizes at 0.2 count at 0.1, too.
    assert found == {
        0.1: {"bim": 0.1, "bisection": 0.2},
        0.2: {"bim": 0.2, "bim2": 0.2, "bisection": 0.2},
        0.3: {"bim": 0.3},
    }


def test_nothing_is_left_out_where_nothing_may_be():
    assert spared_by(config(attacks=["bim", "square"]), attack="square") == [("bim", 0.1)]
    off = config(attacks=["bim", "square"], skip_broken=False)
    assert spared_by(off, attack="square") == []
    assert "skips" not in attack_settings.attack_settings(off, cell(off, attack="square"))
    black_box = config(attacks=["square", "transfer", "noise"])
    assert spared_by(black_box, attack="square") == []


def test_the_papers_attack_and_those_reevaluated_at_other_tolerances_attack_every_image():
    attacks = ["bim", "apgd_t", "fab_t"]
    own = {"adjoint": {"method": "apgd", "loss": "dlr", "targets": 9, "gradient": "adjoint"}}
    papers = config(attacks=[*attacks, "adjoint"], own=own, paper_attack="adjoint")
    # The paper's attack with another gradient shows what its own gradient hides, on every image.
    assert spared_by(papers, attack="adjoint") == spared_by(papers, attack="apgd_t") == []
    assert spared_by(papers, attack="fab_t") != []
    reevaluated = config(attacks=attacks, matrix={"attacks": ["fab_t", "apgd_t"]})
    for one in stages.reevaluated(reevaluated, "e"):
        assert attack_settings.cheaper(reevaluated, one) == []
    # At every epsilon alike, so that rates at several epsilons are of the same images.
    for epsilon in (0.1, 8 / 255):
        assert spared_by(reevaluated, attack="apgd_t", epsilon=epsilon) == []
    assert spared_by(reevaluated, attack="apgd_t", norm="l2") != []
    assert spared_by(reevaluated, attack="apgd_t", tolerance=None) != []


def settings_of(asked, **values):
    return attack_settings.attack_settings(asked, cell(asked, **values))


def test_settings_hold_what_counts_and_no_more():
    own = {
        "adjoint": {"method": "bim", "step": {"linf": 0.05, "l2": 2}, "gradient": "adjoint"},
        "steps": {"method": "fgsm", "gradient": "surrogate"}
        | {"surrogate": {"method": "rk4", "steps": "9"}},
    }
    attacks = ["bim", "adjoint", "steps", "bim_surrogate", "square", "fab_t"]
    asked = config(attacks=attacks, own=own, skip_broken=False)
    bim = {"method": "bim", "iterations": 10, "early_stop": True}
    direct = {"gradient": "direct"}
    adjoint = {"gradient": "adjoint", "adjoint_tolerance": None, "adjoint_norm": "full"}
    for model in ("M", "R"):
        step = {"step": 0.1 * (8 / 255)}
        found = settings_of(asked, attack="bim", model=model, epsilon=8 / 255)
        assert found == bim | direct | step
        found = settings_of(asked, attack="adjoint", model=model, norm="l2")
        assert found == bim | {"step": 2.0} | (adjoint if model == "M" else direct)
    assert settings_of(asked, attack="steps", model="M") == {
        "method": "fgsm",
        "gradient": "surrogate",
        "surrogate": {"method": "rk4", "steps": 9},
    }
    tight = {"method": "dopri5", "tolerance": 1e-4, "steps": None}
    found = settings_of(asked, attack="bim_surrogate", model="M", epsilon=0.1)
    assert found == bim | {"step": 0.025, "gradient": "surrogate", "surrogate": tight}
    assert (
        settings_of(asked, attack="bim_surrogate", model="R", epsilon=0.1)["gradient"] == "direct"
    )
    assert settings_of(asked, attack="square") == {
        "method": "square",
        "queries": 5000,
        "gradient": "none",
    }
    assert settings_of(asked, attack="fab_t") == {
        "method": "fab",
        "iterations": 100,
        "targets": 9,
        "gradient": "direct",
    }


@pytest.mark.parametrize(
    ("solver", "method"),
    [({"method": "bosh3"}, "bosh3"), ({"method": "rk4", "steps": 9}, "dopri5")],
)
def test_a_surrogate_adapts_its_steps_by_the_models_solver_if_that_can(solver, method):
    asked = config(attacks=["bim_surrogate"], models=["M"], model_keys={"solver": solver})
    assert settings_of(asked)["surrogate"]["method"] == method


def test_settings_of_a_transfer_are_those_of_the_attack_on_the_source():
    own = {
        "adjoint": {"method": "bim", "relative_step": 0.5, "gradient": "adjoint"},
        "from_r": {"method": "transfer", "by": "adjoint", "source": "R"},
        "from_m": {"method": "transfer", "by": "adjoint", "source": "M"},
    }
    asked = config(attacks=["from_r", "from_m"], own=own)
    by = {"method": "bim", "iterations": 10, "step": 0.05, "early_stop": False}
    assert settings_of(asked, attack="from_r", tolerance=1.0) == {
        "method": "transfer",
        "gradient": "none",
        "by": by | {"gradient": "direct"},
        "source": {"model": "R", "seed": 0, "tolerance": None},
    }
    adjoint = {"gradient": "adjoint", "adjoint_tolerance": None, "adjoint_norm": "full"}
    found = settings_of(asked, attack="from_m")
    assert found["by"] == by | adjoint
    assert found["source"] == {"model": "M", "seed": 0, "tolerance": 1e-3}


def test_drawn_tolerances_are_those_of_the_experiments_distribution():
    asked = config(attacks=["eot_pgd", "square"], randomisation={"high": 30})
    found = settings_of(asked, attack="eot_pgd", model="M", tolerance=1.0)
    assert found["drawn"] == {"distribution": "log_uniform", "low": 1e-3, "high": 30}
    assert (found["draws"], found["gradient"], found["step"]) == (5, "direct", 0.125 * 0.1)
    # One gradient alone, which is that of the model.
    without = settings_of(asked, attack="eot_pgd", model="R")
    assert not {"drawn", "draws"} & set(without)
    steps = {"solver": {"method": "rk4", "steps": 9}}
    assert "drawn" not in settings_of(config(attacks=["eot_pgd"], model_keys=steps), model="M")


def test_no_tolerances_are_drawn_for_images_that_share_their_steps():
    joint = {"solver": {"backend": "torchdiffeq"}}
    asked = config(attacks=["eot_pgd", "square"], model_keys=joint)
    assert {(c.model, c.attack) for c in grid_cells.cells(asked, "e")} == {
        ("M", "square"),
        ("R", "square"),
        ("R", "eot_pgd"),
    }
    assert spared_by(asked, attack="square", model="M") == []
    assert spared_by(asked, attack="square", model="R") == [("eot_pgd", 0.1)]


def test_images_are_shown_of_the_middle_epsilon_where_there_is_one():
    asked = config(attacks=["bisection", "bim"], epsilons=[0.1, 0.2, 0.3])
    assert keys(stages.shown(asked, "e"), "model", "attack", "norm", "epsilon") == [
        ("M", "bim", "linf", 0.2),
        ("R", "bim", "linf", 0.2),
    ]
    largest = config(attacks=["cw"], norms=["linf", "l2"], models=["M"])
    assert keys(stages.shown(largest, "e"), "attack", "norm", "epsilon") == [("cw", "l2", 0.1)]


def test_the_cells_are_gone_through_once_to_find_those_that_are_shown(monkeypatch):
    """Ten models of thousands of cells each would otherwise take ten times as long."""
    asked, every, calls = config(), stages.cells, []
    monkeypatch.setattr(stages, "cells", lambda *of: calls.append(of) or every(*of))
    assert len(list(stages.shown(asked, "e"))) == 2
    assert len(calls) == 1


def test_every_model_is_audited_at_every_tolerance():
    asked = config(seeds=[0, 1])
    assert list(stages.audited(asked, "e")) == list(grid_cells.solved(asked, "e"))
    assert list(stages.audited(config(audit=None), "e")) == []


def test_by_default_an_adjoint_and_a_direct_attack_are_reevaluated_at_the_middle_epsilon():
    names = ["square", "bim_adjoint", "bim", "bim2"]
    asked = config(attacks=names, epsilons=[0.3, 0.1, 0.2, 0.4], norms=["l2", "linf"])
    assert [
        (c.model, c.tolerance, c.attack, c.norm, c.epsilon) for c in stages.reevaluated(asked, "e")
    ] == [
        ("M", tau, attack, "l2", 0.3) for tau in (0.001, 1.0) for attack in ("bim_adjoint", "bim")
    ]
    assert list(stages.reevaluated(config(matrix=None), "e")) == []


def test_chosen_attacks_are_reevaluated_and_a_minimal_one_in_its_only_cell():
    chosen = {"attacks": ["bisection", "bim2"], "norms": ["linf"]}
    asked = config(attacks=["bisection", "bim", "bim2"], epsilons=[0.1, 0.2, 0.4], matrix=chosen)
    found = {(c.attack, c.norm, c.epsilon) for c in stages.reevaluated(asked, "e")}
    assert found == {("bisection", "linf", 0.4), ("bim2", "linf", 0.2)}
    chosen = {"epsilons": [0.1], "norms": ["l2"]}
    found = {(c.attack, c.norm, c.epsilon) for c in stages.reevaluated(config(matrix=chosen), "e")}
    assert found == {("bim", "l2", 0.1)}


def test_defences_by_the_tolerance():
    asked = config(seeds=[0, 1], epsilons=[0.1, 0.2])
    assert [r.folder for r in stages.randomised(asked, "e")] == [
        f"e/d/M/seed-{seed}/randomised/linf/eps-0.2" for seed in (0, 1)
    ]
    assert [d.folder for d in stages.detected(asked, "e")] == [
        f"e/d/M/seed-{seed}/tau-{tau}/detection/linf/eps-0.2"
        for seed in (0, 1)
        for tau in ("0.001", "1")
    ]
    chosen = {"norms": ["l2"], "epsilons": [0.1, "8/255"]}
    detection = chosen | {"tolerances": [1]}
    sweep = detection | {"backward_tolerances": [10]}
    asked = config(
        randomisation=chosen, detection=detection, adjoint_sweep=sweep, paper_attack="bim"
    )
    assert {(r.norm, r.epsilon) for r in stages.randomised(asked, "e")} == {
        ("l2", 0.1),
        ("l2", 8 / 255),
    }
    for stage in (stages.detected, stages.swept):
        assert {(d.tolerance, d.norm) for d in stage(asked, "e")} == {(1.0, "l2")}


def test_sections_measure_at_the_primary_epsilon():
    asked = config(
        epsilons=[0.1, 0.2, 0.3],
        primary={"linf": 0.3, "l2": 0.1},
        detection={"norms": ["linf", "l2"]},
        primary_attacks=["bim2"],
        matrix={"attacks": ["bim2"]},
    )
    assert {(d.norm, d.epsilon) for d in stages.detected(asked, "e")} == {
        ("linf", 0.3),
        ("l2", 0.1),
    }
    assert {c.epsilon for c in stages.reevaluated(asked, "e")} == {0.3}
    assert {c.epsilon for c in stages.shown(asked, "e")} == {0.3}


def test_the_cost_is_attacked_where_it_is_asked_for():
    assert list(stages.cost_attacked(config(), "e")) == []
    asked = config(cost={"tolerances": [1], "norms": ["l2"]})
    assert [c.folder for c in stages.cost_attacked(asked, "e")] == [
        "e/d/M/seed-0/tau-1/cost/l2/eps-0.1"
    ]


def test_the_adjoint_is_swept_where_it_is_asked_for():
    assert list(stages.swept(config(paper_attack="bim"), "e")) == []
    asked = config(paper_attack="bim", adjoint_sweep={})
    assert [s.folder for s in stages.swept(asked, "e")] == [
        f"e/d/M/seed-0/tau-{tau}/adjoint_sweep/linf/eps-0.1" for tau in ("0.001", "1")
    ]
    fixed = {"solver": {"method": "rk4", "steps": 9}}
    assert (
        list(stages.swept(config(paper_attack="bim", adjoint_sweep={}, model_keys=fixed), "e"))
        == []
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"randomisation": None, "detection": None},
        {"tolerances": [0.1]},
        {"models": ["R"]},
        {"model_keys": {"solver": {"method": "rk4", "steps": 9}}},
    ],
)
def test_no_defence_without_tolerances_to_choose_from(changes):
    assert list(stages.randomised(config(**changes), "e")) == []
    assert list(stages.detected(config(**changes), "e")) == []


def test_one_tolerance_may_be_drawn_from_a_range_of_its_own():
    asked = config(tolerances=[0.1], randomisation={"low": "1e-3"})
    assert len(list(stages.randomised(asked, "e"))) == 1


def test_what_needs_the_steps_of_every_image_leaves_out_who_is_solved_by_torchdiffeq():
    asked = config(model_keys={"solver": {"backend": "torchdiffeq", "batch_size": 8}})
    assert {item.model for item in grid_cells.cells(asked, "e")} == {"M", "R"}
    assert {item.model for item in stages.reevaluated(asked, "e")} == {"M"}
    assert {item.model for item in stages.audited(asked, "e")} == {"R"}
    assert {item.model for item in stages.followed(asked, "e")} == {"R"}
    for stage in (stages.randomised, stages.detected):
        assert list(stage(asked, "e")) == []
        assert {item.model for item in stage(config(), "e")} == {"M"}


def sharded(size, images=None, solver=None, attacks=("bim",), keep=False):
    """The grid of an experiment on some of the 359 test images of digits."""
    asked = config(attacks=[*attacks], model_keys={"solver": solver or {}})
    subset = {"d": {"source": "digits", "subset": {"test": images}}}
    raw = asked.model_dump(exclude_unset=True)
    compute = {"shard_size": size, "keep_shards": keep}
    return load(raw | {"datasets": raw["datasets"] | subset, "compute": compute})


@pytest.mark.parametrize(
    ("size", "images", "expected"),
    [
        (16, 40, ["0-16", "16-32", "32-40"]),
        (20, 40, ["0-20", "20-40"]),
        (39, 40, ["0-39", "39-40"]),
        (200, None, ["0-200", "200-359"]),
    ],
)
def test_the_shards_of_a_cell(size, images, expected):
    asked = sharded(size, images)
    assert shards.is_split(asked, "d")
    found = shards.shards(asked, cell(asked, model="M"))
    assert [shard.name for shard in found] == expected
    assert [shards.Shard.named(name) for name in expected] == found
    assert sum(shard.images for shard in found) == (images or 359)


@pytest.mark.parametrize(("size", "images"), [(40, 40), (41, 40), (359, None), (None, 40)])
def test_what_fits_into_one_shard_is_not_split(size, images):
    assert not shards.is_split(sharded(size, images), "d")


def test_where_shards_are_kept_one_is_a_shard_too():
    asked = sharded(40, 40, keep=True)
    assert shards.is_split(asked, "d")
    assert [shard.name for shard in shards.shards(asked, cell(asked, model="M"))] == ["0-40"]


@given(st.integers(1, 50), st.integers(51, 300), st.integers(1, 60))
def test_shards_hold_every_image_once_and_cut_no_equation(size, images, joint):
    solver = {"backend": "torchdiffeq", "batch_size": joint}
    asked = sharded(size, images, solver, attacks=["bim", "transfer"])
    made_on = {"M": joint, "R": 1}
    for one in grid_cells.cells(asked, "e"):
        found = shards.shards(asked, one)
        held = [row for shard in found for row in range(shard.first, shard.end)]
        assert held == list(range(images))
        source = grid_cells.source(asked, one)
        equation = max(made_on[one.model], made_on[source.model] if source else 1)
        assert all(shard.first % equation == 0 for shard in found)
        assert all(shard.images <= max(size + equation - 1, 1) for shard in found)


class TestDistancesInL2:
    """No two images of n values in [0, 1] are farther apart than the root of n."""

    @staticmethod
    def checked(source="digits", epsilon=8.0, step=1.0, **keys):
        asked = config(norms=["l2"], epsilons=[epsilon])
        attack = asked.attacks["bim"].model_copy(update={"relative_step": None, "step": step})
        dataset = asked.datasets["d"].model_copy(update={"source": source, **keys})
        asked = asked.model_copy(
            update={"attacks": {**asked.attacks, "bim": attack}, "datasets": {"d": dataset}}
        )
        grid_cells.check_images(asked)

    def test_as_far_as_images_are_apart(self):
        self.checked(epsilon=8.0, step=8.0)
        self.checked("cifar10", epsilon=55.4, step=8.5)

    @pytest.mark.parametrize(
        ("changes", "line"),
        [
            (
                {"epsilon": 128.0},
                "config: experiments.e.epsilons, for d: 128 in l2 is more than 8, the largest "
                "distance of images in [0, 1]: lower it (write 128/255 for 128 of 255 levels)",
            ),
            ({"epsilon": 8.01}, "config: experiments.e.epsilons, for d: 8.01 in l2 is more than 8"),
            ({"step": 10.0}, "config: attacks.bim.step, for d: 10 in l2 is more than 8"),
            (
                {"source": "cifar10", "epsilon": 56.0},
                "config: experiments.e.epsilons, for d: 56 in l2 is more than 55.4256",
            ),
            (
                {"source": "cifar_binary", "image_shape": (3, 16, 16), "epsilon": 28.0},
                "config: experiments.e.epsilons, for d: 28 in l2 is more than 27.7128",
            ),
        ],
    )
    def test_farther(self, changes, line):
        with pytest.raises(UserError) as caught:
            self.checked(**changes)
        assert str(caught.value).startswith(line)

    def test_of_the_attack_that_a_transfer_uses(self):
        own = {"by": {"method": "bim", "step": 8.5}, "t": {"method": "transfer", "by": "by"}}
        asked = config(norms=["l2"], attacks=["t"], own=own)
        with pytest.raises(UserError, match=r"^config: attacks\.by\.step, for d: 8\.5 in l2 is"):
            grid_cells.check_images(asked)

    def test_of_data_that_are_prepared(self):
        asked = config(norms=["l2"], epsilons=[11])
        grid_cells.check_images_of(asked, "e", "d", (2, 8, 8))
        with pytest.raises(UserError, match=r"^experiments\.e\.epsilons, for d: 11 in l2 is more"):
            grid_cells.check_images_of(asked, "e", "d", (1, 10, 10))


def test_an_attack_that_needs_three_colours():
    own = {"t": {"method": "torchattacks", "name": "TIFGSM"}}
    asked = config(attacks=["t"], own=own)
    grid_cells.check_images_of(asked, "e", "d", (3, 8, 8))
    with pytest.raises(UserError) as caught:
        grid_cells.check_images_of(asked, "e", "d", (1, 8, 8), "config: ")
    assert str(caught.value) == (
        "config: attacks.t: takes images of 3 channels, and those of d have 1: remove t from "
        "experiments.e.attacks"
    )


@pytest.mark.parametrize("name", ["{g}", "<j>", "a{b", "a>b"])
def test_a_path_of_weights_that_is_a_pattern_to_snakemake(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / f"{name}.pth").touch()
    (tmp_path / "0.pth").touch()
    sources.check_checkpoints(config(model_keys={"weights": "{seed}.pth"}))
    with pytest.raises(UserError, match=f"models.M.weights: {name}.pth has '.' in it, which is a"):
        sources.check_checkpoints(config(model_keys={"weights": f"{name}.pth"}))


class TestOwnModels:
    """An own model (THEIRS), which solves with torchdiffeq, next to M and R."""

    @pytest.fixture(autouse=True)
    def _file(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        (tmp_path / "net.py").write_text("import torchdiffeq\ndef build(): ...")

    def config(self, keys=MappingProxyType({}), **experiment) -> Config:
        others = {"THEIRS": {"module": "net.py"} | keys, **experiment.pop("more", {})}
        return config(**{"models": ["M", "R", "THEIRS"]} | experiment, others=others)

    def test_the_settings_of_the_author_are_one_more_column(self):
        solved = stages.audited(self.config(), "e")
        assert [(s.model, s.tolerance) for s in solved] == [
            *(("M", 0.001), ("M", 1.0), ("R", None)),
            *(("THEIRS", 0.001), ("THEIRS", 1.0), ("THEIRS", None)),
        ]

    def test_stages_that_need_a_tolerance_have_no_column_of_the_author(self):
        asked = self.config(cost={}, adjoint_sweep={}, paper_attack="bim")
        for stage in (stages.detected, stages.swept, stages.cost_attacked, stages.reevaluated):
            found = {(c.model, c.tolerance) for c in stage(asked, "e")}
            assert found == {("M", 0.001), ("M", 1.0), ("THEIRS", 0.001), ("THEIRS", 1.0)}
        assert [c.model for c in stages.randomised(asked, "e")] == ["M", "THEIRS"]

    @pytest.mark.parametrize(
        ("kind", "columns"), [("adaptive", [0.001, 1.0, None]), ("fixed", [None]), ("none", [])]
    )
    def test_trajectories_follow_an_ode_alone(self, kind, columns):
        asked = self.config({"ode": kind}, norms=["linf"], epsilons=[0.1])
        found = [c.tolerance for c in stages.followed(asked, "e") if c.model == "THEIRS"]
        assert found == columns

    def test_the_column_of_the_author_is_followed_whatever_tolerances_are(self):
        asked = self.config(trajectories={"tolerances": [1]})
        found = {c.tolerance for c in stages.followed(asked, "e") if c.model == "THEIRS"}
        assert found == {1.0, None}

    def test_weights(self):
        asked = self.config({"weights": "w.bin"}, seeds=[3, 4])
        trained = [(t.model, t.seed) for t in grid_cells.trained(asked, "e")]
        assert trained == [("M", 3), ("M", 4), ("R", 3), ("R", 4), ("THEIRS", 3)]
        assert {t.model for t in stages.fitted(asked, "e")} == {"M", "R"}
        assert sources.checkpoint(asked, "THEIRS", 3) == "w.bin"

    @pytest.mark.parametrize(
        ("made_on", "expected"),
        [
            ("THEIRS", {("M", 0.001): 0.001, ("M", 1.0): 1.0, ("R", None): None}),
            ("M", {("THEIRS", 1.0): 1.0, ("R", None): 0.001, ("THEIRS", None): 0.001}),
        ],
    )
    def test_transfer(self, made_on, expected):
        transfer = {"t": {"method": "transfer", "by": "bim", "source": made_on}}
        asked = self.config(attacks=["bim", "t"], own=transfer)
        found = {
            (c.model, c.tolerance): grid_cells.source(asked, c)
            for c in grid_cells.cells(asked, "e")
            if c.attack == "t"
        }
        assert {where: found[where].tolerance for where in expected} == expected
        assert {source.model for source in found.values()} == {made_on}

    def test_gradients(self):
        own = {
            "adjoint": {"method": "bim", "relative_step": 0.1, "gradient": "adjoint"},
            "smooth": {
                "method": "bim",
                "relative_step": 0.1,
                "gradient": "surrogate",
                "surrogate": {"tolerance": 1e-5},
            },
        }

        def settings(kind: str) -> dict[str, dict]:
            asked = self.config({"ode": kind}, models=["THEIRS"], attacks=[*own], own=own)
            found = grid_cells.cells(asked, "e")
            return {c.attack: attack_settings.attack_settings(asked, c) for c in found}

        assert settings("adaptive")["adjoint"]["gradient"] == "adjoint"
        tight = {"tolerance": 1e-5, "steps": None}
        assert settings("adaptive")["smooth"]["surrogate"] == tight
        assert settings("fixed")["smooth"]["surrogate"] == tight | {"method": "dopri5"}
        assert {s["gradient"] for s in settings("none").values()} == {"direct"}

    def test_a_file_that_is_not_there(self):
        sources.check_files(self.config())
        sources.check_files(self.config({"module": "no.py"}, models=["M"]))
        other = {"OTHER": {"module": "net.py", "build": "Net"}}
        with pytest.raises(UserError) as caught:
            sources.check_files(
                self.config({"module": "no.py"}, models=["THEIRS", "OTHER"], more=other)
            )
        first, second = str(caught.value).split("\n")
        assert first.startswith("config: models.THEIRS.module: there is no file no.py in ")
        assert second.startswith("config: models.OTHER.build: ")
