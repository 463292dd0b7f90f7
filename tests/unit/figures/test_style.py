import pandas as pd
import pytest

from node_robustness.figures.style import intervals_note, with_seeds


def rates(*networks: tuple[str, int]) -> pd.DataFrame:
    """Rates of networks, by model and seed: .5 for seed 0, .6 for seed 1, and so on."""
    rows = [("toy", model, seed, 0.1, 0.5 + seed / 10) for model, seed in networks]
    frame = pd.DataFrame(rows, columns=["dataset", "model", "seed", "tolerance", "rate"])
    return frame.assign(rate_low=frame.rate - 0.1, rate_high=frame.rate + 0.2)


def test_means_over_networks_stand_above_the_networks():
    frame = rates(("A", 0), ("A", 1), ("B", 0))
    found = with_seeds(frame, ["dataset", "model", "tolerance"], "rate", "rate")
    summary, each = found[found.seed.isna()], found[found.seed.notna()]
    assert summary.networks.tolist() == [2, 1]
    assert summary.value.tolist() == pytest.approx([0.55, 0.5])
    assert summary.low.tolist() == pytest.approx([0.4, 0.4])
    assert summary.high.tolist() == pytest.approx([0.8, 0.7])
    assert each[["model", "seed"]].to_numpy().tolist() == [["A", 0], ["A", 1]]


@pytest.mark.parametrize(
    ("networks", "level"),
    [
        ([("A", 0), ("B", 0)], "for this network"),
        ([("A", 0), ("A", 1)], "over these 2 networks"),
        ([("A", 0), ("A", 1), ("B", 0)], "over the networks"),
    ],
)
def test_notes_name_the_networks(networks, level):
    assert level in intervals_note(rates(*networks))
