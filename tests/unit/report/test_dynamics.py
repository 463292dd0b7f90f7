"""What the report says of trajectories."""

import numpy as np

from node_robustness.report.dynamics import sentences
from node_robustness.tables.trajectories import image_table, probe_table, trajectory_table
from node_robustness.tables.trajectory_summary import summary_table
from node_robustness.verdict.dynamics import dynamics_table
from node_robustness.verdict.followed import read_followed
from samples import EVEN, cell, named, shares_of, solved, steps_of, write_probe, write_trajectory

N = 8


def said(*paths, probes=()) -> str:
    return "\n".join(
        sentences(
            *(
                named(table, ode=["EUL"])
                for table in (
                    summary_table(image_table(paths)),
                    trajectory_table(paths),
                    probe_table(probes),
                    dynamics_table(read_followed(paths), {}),
                )
            )
        )
    )


def written(folder, fractions, n=40, control=EVEN, **where):
    arrays = shares_of([True] * n, fractions, control)
    changes = {name.replace("/", "__"): values for name, values in arrays.items()}
    return write_trajectory(folder, cell(**where), [True] * n, **changes)


def test_nothing_followed():
    assert said() == ""


def test_where_the_margin_is_lost(tmp_path):
    before, window = (0.8, 0.05, 0.05, 0.05, 0.05), (0.1, 0.05, 0.05, 0.75, 0.05)
    paths = [
        written(tmp_path, before, tolerance=0.1),
        written(tmp_path, window, tolerance=1.0),
        written(tmp_path, EVEN, tolerance=10.0),
        written(tmp_path, before, model="RES", tolerance=None, control=before),
        write_trajectory(tmp_path, cell(tolerance=100.0), [True]),
    ]
    text = said(*paths)
    for sentence in (
        "toy, of 5 settings: h(0), which enters the body, has most of the loss of margin in 2, one "
        "window of at most a third of the parts has most of it in 1, neither h(0) nor such a "
        "window has half of it in 1 and the data do not decide in 1.",
        "toy: that part loses clearly more under the attack than under random noise and under the "
        "difference of another image in 2 of 3 settings.",
        "toy, of 4 settings: the window whose repair restores most is necessary and sufficient in "
        "4.",
        "toy: its repair restores clearly more than that of other windows of its length in 4 of 4 "
        "settings.",
        "Distances alone do not say where a decision is lost: where states differ by little, the "
        "adjoint times the difference is the same at every t.",
    ):
        assert sentence in text
    assert "responsible" not in text


def test_growth_and_detection(tmp_path):
    text = said(write_trajectory(tmp_path, cell(), [True] * 7 + [False]))
    for part in (
        "grow clearly more along t than random noise of the same size in 1 of 1 setting, and "
        "clearly less in none.",
        "By more evaluations, adversarial examples are detected better than chance in 1 of 1 "
        "setting.",
        "what it reads earlier is not a decision of the network. No probes were fitted",
        "few accepted steps (medians: 2 at τ = 0.1)",
    ):
        assert part in text


def test_which_solves_are_short(tmp_path):
    adaptive = write_trajectory(tmp_path, cell(), [True] * 7)
    steps = {
        key.replace("/", "__"): values
        for run in ("clean", "attack", "noise")
        for key, values in steps_of(run, [0, 0.5, 1], 7).items()
    }
    equal = write_trajectory(tmp_path, cell(model="EUL", tolerance=None), [True] * 7, **steps)
    at_tolerances = "Solves at loose tolerances have few accepted steps (medians: 2 at τ = 0.1)"
    of_equal_steps = "Solves with equal steps have few of them (2 at least)"
    for files in ([adaptive], [equal], [adaptive, equal]):
        text = said(*files)
        assert (at_tolerances in text) == (adaptive in files)
        assert (of_equal_steps in text) == (equal in files)


def test_how_well_each_t_is_read(tmp_path):
    probes = [write_probe(tmp_path, solved(tolerance=tau)) for tau in (0.1, 1.0)]
    text = said(write_trajectory(tmp_path, cell(), [True] * 7), probes=probes)
    assert (
        "At t = 0 its accuracy on held-out validation images is 10.0 % to 10.0 %; that of linear "
        "probes fitted to states at t = 0 is 90.0 % to 90.0 %." in text
    )


def test_no_difference_is_called_clear_that_is_none(tmp_path):
    # Noise grows as attacks do, and an attack is not felt.
    same = np.tile(np.exp([0, 0.5, 1, 1.5, 2]), (N, 1))
    changes = {"noise__distance__l2": same, "attack__distance__l2": same}
    changes |= {"attack__nfe": [18, 19] * 4, "clean__nfe": [18, 19] * 4}
    text = said(write_trajectory(tmp_path, cell(), [True] * N, **changes))
    assert "noise of the same size in none of 1 setting, and clearly less in none." in text
    assert "By more evaluations, adversarial examples are detected better than chance in none" in (
        text
    )


def test_cells_without_adversarial_examples_are_named(tmp_path):
    empty = write_trajectory(tmp_path, cell(epsilon=0.01), [False, False])
    text = said(empty, write_trajectory(tmp_path, cell(), [True] * 7))
    left_out = (
        "No adversarial example was found in 1 of 2 followed settings, which these sentences leave "
        "out: OON at τ = 0.1, bim, ε = 0.01."
    )
    assert left_out in text
    assert said(empty).splitlines() == [
        "toy, of 1 setting: the data do not decide in 1.",
        left_out.replace("1 of 2", "1 of 1"),
    ]
