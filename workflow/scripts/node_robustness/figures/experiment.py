"""All figures of an experiment, from the entries of the catalogue."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import altair as alt
import pandas as pd

from node_robustness.figures import (
    adaptive_cost,
    adjoint_sweep,
    attack_suite,
    audit,
    certificates,
    checks,
    claim_dynamics,
    claim_models,
    claim_tolerances,
    clean,
    cost,
    curves,
    detection,
    examples,
    growth,
    images,
    loss_curves,
    margins,
    matrix,
    models,
    nfe,
    patches,
    randomisation,
    shares,
    success,
    tolerances,
    trajectories,
    verdicts,
)
from node_robustness.figures.catalogue import DRAWN, EXAMPLE_PICTURES, FIGURES, IMAGE_PAGES
from node_robustness.tables.image_pages import Pages

_MODULES = (
    *(adaptive_cost, adjoint_sweep, attack_suite, audit, certificates, checks),
    *(claim_dynamics, claim_models, claim_tolerances),
    *(clean, cost, curves, detection),
    *(examples, growth, images, loss_curves, margins, matrix, models, nfe, patches),
    *(randomisation, shares, success, tolerances, trajectories, verdicts),
)
_BY_NAME = {module.__name__.rpartition(".")[2]: module for module in _MODULES}

Source = Callable[[], pd.DataFrame | Pages]


def of_experiment(
    tables: Mapping[str, pd.DataFrame],
    example_pictures: Callable[[], pd.DataFrame],
    image_pages: Callable[[], Pages],
    models: Sequence[str],
) -> dict[str, Callable[[], alt.VConcatChart]]:
    """Return what makes each figure, by the figure's name, so that each can fail alone.

    Args:
        tables: The tables of the experiment by name.
        example_pictures: Returns the result of `examples.example_table`.
        image_pages: Returns the result of `image_pages.image_pages`.
        models: All models of the experiment.
    """
    sources: dict[str, Source] = {EXAMPLE_PICTURES: example_pictures, IMAGE_PAGES: image_pages}
    sources |= {name: partial(tables.__getitem__, name) for name in tables}
    return {name: partial(_figure, name, sources, models) for name in DRAWN}


def _figure(name: str, sources: Mapping[str, Source], models: Sequence[str]) -> alt.VConcatChart:
    make: Callable[..., alt.VConcatChart] = _BY_NAME[name].figure
    return make(*(sources[need]() for need in FIGURES[name].needs), models)
