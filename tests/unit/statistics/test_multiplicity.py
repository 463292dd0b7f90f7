import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from node_robustness.statistics.multiplicity import holm, holm_chains

P_VALUES = st.lists(st.floats(1e-6, 1), min_size=1, max_size=6)


def test_holm():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([]) == []


@pytest.mark.parametrize("n", [1, 7, 78])
def test_chains_of_one_are_holms(n):
    p_values = np.random.default_rng(n).random(n) ** 4
    # Holm: the smallest times n, the next times n - 1, and so on; none less than the one before.
    order = np.argsort(p_values)
    expected = np.empty(n)
    steps = np.maximum.accumulate(p_values[order] * np.arange(n, 0, -1))
    expected[order] = np.minimum(steps, 1)
    assert [p for (p,) in holm_chains([[float(p)] for p in p_values])] == pytest.approx(expected)


@given(P_VALUES)
def test_one_chain_is_a_fixed_sequence(p_values):
    expected = [max(p_values[: i + 1]) for i in range(len(p_values))]
    assert holm_chains([p_values]) == [pytest.approx(expected)]


def test_weight_is_passed_on_along_a_chain_and_then_to_the_others():
    # .01 and .02 at half the level, .001 too; the other chain then has all of it.
    found = holm_chains([[0.01, 0.03, 0.2], [0.02, 0.001]])
    assert found == [pytest.approx([0.02, 0.04, 0.2]), pytest.approx([0.04, 0.04])]


def test_nothing_is_tested_before_those_before_it():
    found = holm_chains([[0.9, 1e-9], [1e-9], []])
    assert found == [pytest.approx([0.9, 0.9]), pytest.approx([2e-9]), []]
    assert holm_chains([]) == []


@given(st.lists(st.lists(st.floats(1e-6, 1), max_size=4), max_size=4))
def test_the_procedure_is_that_of_the_graph(chains):
    """Bretz et al. 2009, algorithm 1, on the graph of the chains, at every level that matters."""
    adjusted = holm_chains(chains)
    for level in {p * factor for chain in adjusted for p in chain for factor in (0.999, 1.001)}:
        rejected = rejected_by_graph(chains, level)
        assert (
            rejected
            == {
                (k, i)
                for k, chain in enumerate(adjusted)
                for i, p in enumerate(chain)
                if p <= level
            }
            or level > 1
        )


def rejected_by_graph(chains, level):
    tested = [k for k, chain in enumerate(chains) if chain]
    weights, edges, p = {}, {}, {}
    for k in tested:
        for i, value in enumerate(chains[k]):
            node = (k, i)
            p[node], weights[node] = value, 1 / len(tested) if i == 0 else 0.0
            last = i == len(chains[k]) - 1
            others = [(j, 0) for j in tested if j != k]
            edges[node] = dict.fromkeys(others, 1 / len(others) if others else 0)
            if not last:
                edges[node] = {(k, i + 1): 1.0}
    rejected = set()
    while found := [node for node in weights if p[node] <= weights[node] * level + 1e-15]:
        out = found[0]
        rest = [node for node in weights if node != out]
        passed = {node: edges[out].get(node, 0.0) for node in rest}
        new = {}
        for a in rest:
            back = edges[a].get(out, 0.0) * edges[out].get(a, 0.0)
            new[a] = {
                b: (edges[a].get(b, 0.0) + edges[a].get(out, 0.0) * passed[b]) / (1 - back)
                if back < 1
                else 0.0
                for b in rest
                if b != a
            }
        weights = {node: weights[node] + weights[out] * passed[node] for node in rest}
        edges = new
        rejected.add(out)
    return rejected
