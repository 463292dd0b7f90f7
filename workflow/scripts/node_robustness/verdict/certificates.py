"""The table of certificates: what own models prove, held against what attacks found."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd

from node_robustness.errors import UserError
from node_robustness.tables.frame import SOLVED, Rows, collect, rate
from node_robustness.verdict.protocols import AttackedNetwork

_COLUMNS = {
    **SOLVED,
    **{"norm": "str", "epsilon": "float64", "n": "int64"},
    **{f"certified{bound}": "float64" for bound in ("", "_low", "_high")},
    **{f"strongest{bound}": "float64" for bound in ("", "_low", "_high")},
    "contradictions": "int64",
    "level": "str",
}


def certificate_table(
    paths: Iterable[Path | str], attacked: Iterable[AttackedNetwork]
) -> pd.DataFrame:
    """Compare what own models prove with what attacks found, image by image.

    Args:
        paths: Files of kind "certified".
        attacked: Result of `protocols.read_attacked`.

    Returns:
        One row for every network, norm and epsilon: the share of ``n`` images that is
        ``certified``, and the share that is robust under the ``strongest`` attack at the author's
        settings, with exact 95 % intervals. A sound certificate lies below robust accuracy, and
        attacks above. ``contradictions``: certified images that are misclassified, or of which an
        adversarial example within epsilon is known.

    Raises:
        UserError: A file is missing, damaged or of another kind, or other images were attacked.
    """
    own = {_network(item.where): item for item in attacked if item.where["tolerance"] is None}

    def rows(file: h5py.File, settings: dict[str, Any]) -> Rows:
        item = own.get(_network(settings))
        if item is None:
            return
        if not np.array_equal(file["index"][:], item.index):
            raise UserError(
                f"{file.filename}: is of other images than the attacks: delete it and run again"
            )
        certified, robust = file["certified"][:], item.strongest(settings["epsilon"])
        n = len(certified)
        yield {
            "tolerance": None,
            **{name: settings[name] for name in ("norm", "epsilon")},
            "n": n,
            **rate("certified", "certified", int(certified.sum()), n),
            **rate("strongest", "strongest", int(robust.sum()), n),
            "contradictions": int((certified & ~robust).sum()),
            "level": "this network",
        }

    return collect(paths, "certified", rows, _COLUMNS)


def _network(where: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(where[name] for name in ("experiment", "dataset", "model", "seed", "norm"))
