"""All figures of an experiment: which there are, and which tables each is drawn from."""

from collections.abc import Callable, Mapping, Sequence

import altair as alt
import pandas as pd

from node_robustness.figures.adaptive_cost import adaptive_cost_figure
from node_robustness.figures.attacks import (
    example_figure,
    published,
    robust_figure,
    success_figure,
)
from node_robustness.figures.audits import (
    audit_figure,
    detection_figure,
    matrix_figure,
    randomisation_figure,
)
from node_robustness.figures.clean import clean_figure, nfe_figure
from node_robustness.figures.growth import growth_figure
from node_robustness.figures.image_pages import image_figure
from node_robustness.figures.margins import margin_figure
from node_robustness.figures.responsible import responsible_figure
from node_robustness.figures.trajectories import trajectory_figure
from node_robustness.figures.verdicts import (
    check_figure,
    curve_figure,
    ladder_figure,
    protocol_figure,
    verdict_figure,
)
from node_robustness.tables.image_pages import Pages


def of_experiment(
    tables: Mapping[str, pd.DataFrame],
    examples: Callable[[], pd.DataFrame],
    pages: Callable[[], Pages],
    models: Sequence[str],
) -> dict[str, Callable[[], alt.VConcatChart]]:
    """Return what makes each figure, by the figure's name, so that each can fail alone.

    Args:
        tables: The tables of the experiment by name.
        examples: Returns the result of `examples.example_table`.
        pages: Returns the result of `image_pages.image_pages`.
        models: All models of the experiment.
    """

    def success() -> alt.VConcatChart:
        return success_figure(published(tables["attacks"], tables["ladder"]), models)

    def robust() -> alt.VConcatChart:
        attacks = published(tables["attacks"], tables["ladder"])
        return robust_figure(attacks, tables["clean"], models)

    def of(figure: Callable[..., alt.VConcatChart], *names: str) -> Callable[[], alt.VConcatChart]:
        return lambda: figure(*(tables[name] for name in names), models)

    followed = "trajectories"
    return {
        "verdicts": of(verdict_figure, "verdicts"),
        "protocols": of(protocol_figure, "verdicts"),
        "ladder": of(ladder_figure, "ladder"),
        "curves": of(curve_figure, "curves"),
        "audit": of(audit_figure, "audit"),
        "matrix": of(matrix_figure, "matrix"),
        "randomisation": of(randomisation_figure, "randomisation"),
        "detection": of(detection_figure, "roc"),
        "checks": of(check_figure, "checks"),
        "clean": of(clean_figure, "clean"),
        "nfe": of(nfe_figure, "nfe"),
        "success": success,
        "robust": robust,
        "trajectories": of(trajectory_figure, followed),
        "growth": of(growth_figure, followed),
        "margins": of(margin_figure, followed, "probes"),
        "responsible": of(responsible_figure, "responsible", followed, "trajectory_summary"),
        "adaptive_cost": of(adaptive_cost_figure, "trajectory_images", followed, "trajectory_roc"),
        "images": lambda: image_figure(pages(), models),
        "examples": lambda: example_figure(examples(), models),
    }
