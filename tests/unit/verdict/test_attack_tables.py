import numpy as np
import pytest

from node_robustness.verdict import attack_tables, protocols
from samples import cell, write_attempt

INF = np.inf


@pytest.fixture
def written(tmp_path):
    """The paper's attack at two epsilons, a search for the smallest adversarial, and noise."""
    correct = [True, True, True, False]
    paths = [
        write_attempt(tmp_path, cell("paper", epsilon=0.1), [0.1, INF, INF, INF], correct),
        write_attempt(tmp_path, cell("paper", epsilon=0.3), [0.1, 0.2, INF, INF], correct),
        write_attempt(
            tmp_path, cell("fab", epsilon=0.3) | {"method": "fab"}, [0.15, 0.05, 0.25, INF], correct
        ),
        write_attempt(
            tmp_path, cell("noise", epsilon=0.1) | {"method": "noise"}, [INF] * 4, correct
        ),
    ]
    return protocols.read_attacked(paths)


def test_examples_are_the_smallest_over_all_attacks_and_epsilons(written):
    table = attack_tables.example_sizes(written, "paper")
    assert table["index"].tolist() == [0, 1, 2, 3]
    assert table.correct.tolist() == [True, True, True, False]
    np.testing.assert_allclose(table["size"], [0.1, 0.05, 0.25, np.nan])
    assert table.attack.tolist() == ["paper", "fab", "fab", ""]
    np.testing.assert_allclose(table.paper_size, [0.1, 0.2, INF, np.nan])
    np.testing.assert_array_equal(table.noise_size, [INF, INF, INF, np.nan])


def test_the_suite_shows_a_minimal_attack_at_every_epsilon(written):
    table = attack_tables.suite_table(written)
    found = {(row.attack, row.epsilon): (row.broken, row.alone) for row in table.itertuples()}
    assert found == {
        ("paper", 0.1): (1, 1),
        ("paper", 0.3): (2, 0),
        ("fab", 0.1): (1, 1),
        ("fab", 0.3): (3, 1),
        ("noise", 0.1): (0, 0),
        ("noise", 0.3): (0, 0),
    }
    assert (table.robust == table.correct - table.broken).all()
    np.testing.assert_allclose(table.robust_accuracy, table.robust / 4)


def test_curves_are_steps_at_the_sizes(written):
    table = attack_tables.curve_table(written, "paper")
    strongest = table[table.protocol == "strongest"]
    np.testing.assert_allclose(strongest.epsilon, [0, 0.05, 0.1, 0.25, 0.3])
    np.testing.assert_allclose(strongest.robust_accuracy, [0.75, 0.5, 0.25, 0, 0])
    assert table[table.protocol == "noise"].robust_accuracy.tolist() == [0.75] * 3


def test_the_suite_of_an_attack_that_skips_is_cumulative(tmp_path):
    correct = [True, True, True, False]
    expensive = cell("apgd", epsilon=0.3) | {"skips": {"broken_by": {"bim": 0.1}, "within": 0.1}}
    paths = [
        write_attempt(tmp_path, cell("bim", epsilon=0.1), [0.1, INF, INF, INF], correct),
        write_attempt(
            tmp_path,
            expensive,
            [INF, 0.2, INF, INF],
            correct,
            attacked=np.array([False, True, True, False]),
            skipped=np.array([True, False, False, False]),
        ),
    ]
    (group,) = protocols.read_attacked(paths)
    assert group.correct.tolist() == correct
    table = attack_tables.suite_table([group])
    found = {
        (row.attack, row.epsilon): (row.broken, row.alone, row.robust) for row in table.itertuples()
    }
    assert found == {
        ("apgd", 0.1): (1, 0, 2),
        ("apgd", 0.3): (2, 1, 1),
        ("bim", 0.1): (1, 1, 2),
        ("bim", 0.3): (1, 1, 2),
    }
