"""Certificates held against adversarial examples, image by image."""

import numpy as np
import pytest

from node_robustness.errors import UserError
from node_robustness.verdict.certificates import certificate_table
from node_robustness.verdict.protocols import read_attacked
from samples import cell, write, write_attempt

INF = np.inf


def certified(folder, proven, *, index=None, **changes):
    settings = {
        name: value
        for name, value in cell(tolerance=None, **changes).items()
        if name in ("experiment", "dataset", "model", "seed", "norm", "epsilon")
    }
    arrays = {
        "index": np.arange(len(proven)) if index is None else index,
        "labels": np.zeros(len(proven), int),
        "certified": np.array(proven, bool),
    }
    return write(folder / "certified.h5", "certified", settings, arrays)


def attacked(folder, sizes, correct=None, **where):
    where = {"tolerance": None} | where
    return read_attacked([write_attempt(folder, cell(**where), sizes, correct, ode=True)])


@pytest.mark.parametrize(
    ("proven", "sizes", "correct", "contradictions"),
    [
        ([True, True, False, False], [INF, INF, INF, 0.05], None, 0),
        ([True, True, False, True], [INF, 0.05, INF, 0.05], None, 2),
        # A larger adversarial example contradicts nothing; a wrong prediction does.
        ([True, True, True, True], [INF, 0.2, INF, INF], [True, True, False, True], 1),
    ],
)
def test_contradictions_are_counted(tmp_path, proven, sizes, correct, contradictions):
    networks = attacked(tmp_path, sizes, correct)
    (row,) = certificate_table([certified(tmp_path, proven)], networks).itertuples()
    assert row.contradictions == contradictions
    assert row.certified == np.mean(proven)
    assert row.certified_low < row.certified <= row.certified_high
    assert row.strongest == networks[0].strongest(0.1).mean()
    assert (row.n, row.level) == (4, "this network")


def test_only_attacks_at_the_authors_settings_contradict(tmp_path):
    """At another tolerance it is another model."""
    networks = attacked(tmp_path, [0.05] * 4, tolerance=1.0)
    assert certificate_table([certified(tmp_path, [True] * 4)], networks).empty
    networks += attacked(tmp_path, [INF] * 4)
    (row,) = certificate_table([certified(tmp_path, [True] * 4)], networks).itertuples()
    assert row.contradictions == 0


def test_other_images_are_refused(tmp_path):
    networks = attacked(tmp_path, [INF] * 4)
    path = certified(tmp_path, [True] * 4, index=np.arange(4) + 1)
    with pytest.raises(UserError, match="other images than the attacks"):
        certificate_table([path], networks)


def test_without_certificates_there_is_no_row(tmp_path):
    assert certificate_table([], attacked(tmp_path, [INF] * 4)).empty
