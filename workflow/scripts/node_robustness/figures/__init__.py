"""Figures of an experiment: pure functions from tables to Altair charts.

All charts share one look and take the text colour of the page that shows them. A model keeps its
colour through all figures: every function takes all models of the experiment, in one order.
"""

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
from node_robustness.figures.drawing import (
    Drawing,
    draw,
    draw_still,
    render,
    save_drawing,
    save_still,
    still,
    why_not_drawn,
    why_not_drawn_still,
)
from node_robustness.figures.experiment import of_experiment
from node_robustness.figures.growth import growth_figure
from node_robustness.figures.image_pages import image_figure, single_pages
from node_robustness.figures.margins import margin_figure
from node_robustness.figures.menus import GROUPS
from node_robustness.figures.responsible import responsible_figure
from node_robustness.figures.style import NORMS
from node_robustness.figures.trajectories import trajectory_figure
from node_robustness.figures.verdicts import (
    check_figure,
    curve_figure,
    ladder_figure,
    protocol_figure,
    verdict_figure,
)

__all__ = [
    "GROUPS",
    "NORMS",
    "Drawing",
    "adaptive_cost_figure",
    "audit_figure",
    "check_figure",
    "clean_figure",
    "curve_figure",
    "detection_figure",
    "draw",
    "draw_still",
    "example_figure",
    "growth_figure",
    "image_figure",
    "ladder_figure",
    "margin_figure",
    "matrix_figure",
    "nfe_figure",
    "of_experiment",
    "protocol_figure",
    "published",
    "randomisation_figure",
    "render",
    "responsible_figure",
    "robust_figure",
    "save_drawing",
    "save_still",
    "single_pages",
    "still",
    "success_figure",
    "trajectory_figure",
    "verdict_figure",
    "why_not_drawn",
    "why_not_drawn_still",
]
