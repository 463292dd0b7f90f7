"""The grid: which cells a configuration asks for, and where their files lie."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node_robustness import grid
from node_robustness.config import Attack, Config, load

TOLERANCES = ["1e-3", 1]


def config(**experiment) -> Config:
    """Models with an ODE (M) and without (R), one attack, two norms; then the changed keys."""
    models = experiment.pop("model_keys", {})
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
            },
            "attacks": {
                "bim": {"method": "bim", "relative_step": 0.1},
                "bim2": {"method": "bim", "relative_step": 0.2},
            },
        }
    )


def test_the_grid_is_a_product_with_one_column_for_a_model_without_an_ode():
    asked = config(datasets=["d", "other"], seeds=[0, 1, 2], attacks=["bim", "bim2"])
    trained = list(grid.trained(asked, "e"))
    solved = list(grid.solved(asked, "e"))
    cells = list(grid.cells(asked, "e"))
    assert len(trained) == 2 * 2 * 3
    assert len(solved) == 2 * 3 * (2 + 1)
    assert len(cells) == len(solved) * 2 * 2 * 2
    assert {s.tolerance for s in solved if s.model == "R"} == {None}
    assert {s.tolerance for s in solved if s.model == "M"} == {0.001, 1.0}
    assert {(c.dataset, c.model, c.seed) for c in cells} == {
        (t.dataset, t.model, t.seed) for t in trained
    }


def test_folders_say_what_a_cell_is():
    cells = [c.folder for c in grid.cells(config(), "e")]
    assert cells[0] == "e/d/M/seed-0/tau-0.001/bim/linf/eps-0.1"
    assert "e/d/M/seed-0/tau-1/bim/l2/eps-8over255" in cells
    assert cells[-1] == "e/d/R/seed-0/tau-none/bim/l2/eps-8over255"
    assert [s.folder for s in grid.solved(config(models=["R"]), "e")] == ["e/d/R/seed-0/tau-none"]
    assert [t.folder for t in grid.trained(config(models=["R"]), "e")] == ["e/d/R/seed-0"]


@given(
    tolerances=st.lists(st.floats(1e-9, 1e9), min_size=1, max_size=6, unique=True),
    epsilons=st.lists(st.floats(1e-9, 1e9), min_size=1, max_size=6, unique=True),
    seeds=st.lists(st.integers(0, 2**40), min_size=1, max_size=3, unique=True),
)
def test_no_two_cells_share_a_folder(tolerances, epsilons, seeds):
    asked = config(tolerances=tolerances, epsilons=epsilons, seeds=seeds)
    folders = [cell.folder for cell in grid.cells(asked, "e")]
    assert len(set(folders)) == len(folders)
    assert len(folders) == (len(tolerances) + 1) * len(seeds) * 2 * len(epsilons)


def test_two_spellings_are_one_cell():
    one = config(tolerances=["1e-3", "1/2"], epsilons=["8/255", 0.1])
    other = config(tolerances=[0.001, 0.5], epsilons=[8 / 255, "1e-1"])
    assert list(grid.cells(one, "e")) == list(grid.cells(other, "e"))


def test_imported_weights_are_one_model_and_not_one_for_each_seed():
    asked = config(seeds=[3, 4], model_keys={"weights": "weights/m.pth"})
    assert [(t.model, t.seed) for t in grid.trained(asked, "e")] == [("M", 3), ("R", 3), ("R", 4)]


def test_imported_weights_that_name_the_seed_are_one_model_for_each():
    asked = config(seeds=[3, 4], model_keys={"weights": "weights/m-{seed}.safetensors"})
    assert [t.seed for t in grid.trained(asked, "e") if t.model == "M"] == [3, 4]


def test_every_norm_may_have_its_own_epsilons():
    asked = config(models=["R"], epsilons={"l2": [1, 2], "linf": [0.3]})
    cells = [(c.norm, c.epsilon) for c in grid.cells(asked, "e")]
    assert cells == [("linf", 0.3), ("l2", 1.0), ("l2", 2.0)]


def test_all_cells_of_ode_models_are_followed_by_default():
    cells = list(grid.cells(config(), "e"))
    followed = list(grid.followed(config(), "e"))
    assert followed == [cell for cell in cells if cell.model == "M"]


def test_nothing_is_followed_without_trajectories():
    assert list(grid.followed(config(trajectories=None), "e")) == []


@pytest.mark.parametrize(
    ("choice", "kept"),
    [
        ({"tolerances": ["1/1000"]}, lambda c: c.tolerance == 0.001),
        ({"epsilons": [8 / 255]}, lambda c: c.epsilon == 8 / 255),
        ({"norms": ["l2"]}, lambda c: c.norm == "l2"),
        ({"attacks": ["bim2"]}, lambda c: c.attack == "bim2"),
        (
            {"attacks": ["bim"], "norms": ["linf"], "epsilons": [0.1], "tolerances": [1]},
            lambda c: (c.attack, c.norm, c.epsilon, c.tolerance) == ("bim", "linf", 0.1, 1.0),
        ),
    ],
)
def test_trajectories_choose_cells(choice, kept):
    asked = config(attacks=["bim", "bim2"], trajectories=choice)
    followed = list(grid.followed(asked, "e"))
    assert followed
    assert followed == [c for c in grid.cells(asked, "e") if c.model == "M" and kept(c)]


def test_step_sizes():
    shared = Attack(method="bim", step=0.05)
    by_norm = Attack(method="bim", step={"linf": 0.05, "l2": "1/4"})
    relative = Attack(method="bim", relative_step=0.25)
    assert grid.step_size(shared, "l2", 0.3) == 0.05
    assert grid.step_size(by_norm, "linf", 0.3) == 0.05
    assert grid.step_size(by_norm, "l2", 0.3) == 0.25
    assert grid.step_size(relative, "linf", 0.5) == 0.125


def test_fixed_steps_have_no_tolerance_and_are_followed():
    asked = config(model_keys={"solver": {"method": "rk4", "steps": 10}}, models=["M"])
    assert {s.tolerance for s in grid.solved(asked, "e")} == {None}
    assert len(list(grid.followed(asked, "e"))) == len(list(grid.cells(asked, "e"))) == 4
