"""Adjusted p-values: of a family, and of parallel sequences."""

from collections.abc import Sequence


def holm(p_values: Sequence[float]) -> list[float]:
    """Return Holm's adjusted p-values (Scand. J. Stat. 1979), in the order given."""
    return [p for (p,) in holm_chains([[p] for p in p_values])]


def holm_chains(chains: Sequence[Sequence[float]]) -> list[list[float]]:
    """Adjust the p-values of parallel fixed sequences (Bretz et al., Stat. Med. 2009).

    Every chain starts with the same weight. A hypothesis is tested once those before it in its
    chain are rejected, with the weight of its chain. The weight of a chain that is rejected to its
    end is shared among the others. Chains of one hypothesis are Holm's procedure; one chain is a
    fixed sequence.

    Args:
        chains: The p-values of every chain, in the order of testing.

    Returns:
        Adjusted p-values, shaped like the chains.
    """
    adjusted: list[list[float]] = [[] for _ in chains]
    tested = [k for k, chain in enumerate(chains) if len(chain)]
    weights = {k: 1 / len(tested) for k in tested}
    largest = 0.0
    while weights:
        needed = {k: chains[k][len(adjusted[k])] / weight for k, weight in weights.items()}
        next_chain = min(needed, key=needed.__getitem__)
        largest = max(largest, min(needed[next_chain], 1.0))
        adjusted[next_chain].append(largest)
        if len(adjusted[next_chain]) == len(chains[next_chain]):
            shared = weights.pop(next_chain)
            weights = {k: weight + shared / len(weights) for k, weight in weights.items()}
    return adjusted
