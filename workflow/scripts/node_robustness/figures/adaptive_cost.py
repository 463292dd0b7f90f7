"""The figure of whether the solver notices a perturbation."""

from collections.abc import Sequence

import altair as alt
import pandas as pd

from node_robustness.figures.menus import (
    GROUPS,
    OF_CONDITION,
    Menu,
    chosen_tau,
    condition_menu,
    group_colour,
    group_dash,
    groups_in,
    of_tau,
    over_seeds,
    quartiles,
    tau_menu,
    time_axis,
    with_menus,
)
from node_robustness.figures.style import (
    PANEL,
    Layers,
    inline,
    roc_curves,
    tau_colour,
    tau_labels,
)

_SCORES = {"nfe": "more evaluations", "first_step": "a shorter first step"}
_DASHES = [[1, 0], [5, 3]]
_QUARTILES = {"median": 0.5, "q25": 0.25, "q75": 0.75}


def figure(
    images: pd.DataFrame, trajectories: pd.DataFrame, roc: pd.DataFrame, models: Sequence[str]
) -> alt.VConcatChart:
    """Draw what clean and perturbed images cost the solver, and how well it detects them.

    Args:
        images: Result of `trajectories.image_table`.
        trajectories: Result of `trajectories.trajectory_table`.
        roc: Result of `trajectory_summary.roc_table`.
        models: All models of the experiment.

    Returns:
        A column a model with an ODE: evaluations at each tolerance (median and quartiles over the
        images of all seeds), the size of steps along t, and ROC curves of detectors of adversarial
        examples by either, one a seed. Lists choose the tolerance of the middle row, and dataset,
        attack, norm and epsilon.
    """
    frame, menu = condition_menu(images[images.nfe_clean.notna()])
    names = {"condition": menu, "tau": tau_menu(frame)}
    where = frame[["dataset", "attack", "norm", "epsilon", "condition"]].drop_duplicates()
    solved = [model for model in models if model in set(frame.model)]
    column = alt.Column("model:N", title=None, sort=solved)
    steps = trajectories[trajectories.step_median.notna()].merge(where)
    curves = roc[roc.group == "success"].merge(where)
    return with_menus(
        [
            _evaluations(frame).facet(
                data=inline(_costs(frame)), column=column, title="Evaluations of the ODE function"
            ),
            _steps(steps).facet(
                data=inline(_sizes(steps)),
                column=column,
                title=alt.TitleParams(alt.ExprRef(_title(names["tau"]))),
            ),
            _roc(curves).facet(
                data=inline(curves.assign(score=curves.score.map(_SCORES))[_ROC]),
                column=column,
                title="Adversarial examples detected by the solver's steps (ROC)",
            ),
        ],
        [names["tau"], menu],
        "Does the solver notice the attack?",
        [
            "Median over images with quartiles. On the grey line a detector does no better than "
            "chance."
        ],
        color="independent",
        strokeDash="independent",
    )


_ROC = ["condition", "model", "seed", "tau", "score", "false_positive_rate", "true_positive_rate"]


def _title(menu: Menu) -> str:
    return f"'Size of the accepted steps along t, ' + {chosen_tau(menu)}"


def _costs(frame: pd.DataFrame) -> pd.DataFrame:
    """Median and quartiles of the evaluations, by group."""
    clean = frame.assign(group="clean", nfe=frame.nfe_clean)
    noise = frame.assign(group="noise", nfe=frame.nfe_noise)
    every = pd.concat([clean, frame.assign(nfe=frame.nfe_attack), noise])
    by = ["condition", "model", "tau", "group"]
    groups = every.groupby(by, sort=False).nfe
    quartiles = {name: groups.quantile(q) for name, q in _QUARTILES.items()}
    return pd.DataFrame({**quartiles, "n": groups.count()}).reset_index()


def _evaluations(frame: pd.DataFrame) -> Layers:
    groups = [group for group in GROUPS if group in {"clean", "noise", *frame.group}]
    base = (
        alt.Chart()
        .transform_filter(OF_CONDITION)
        .encode(
            x=alt.X(
                "tau:N",
                title="Solver tolerance τ",
                sort=tau_labels(frame),
                axis=alt.Axis(labelAngle=0),
            ),
            xOffset=alt.XOffset("group:N", sort=groups),
            color=group_colour(groups, "circle"),
        )
    )
    title = "Evaluations"
    return alt.layer(
        base.mark_rule(size=1.5, opacity=0.6).encode(y=alt.Y("q25:Q", title=title), y2="q75:Q"),
        base.mark_point(filled=True, opacity=1, size=55).encode(
            y=alt.Y("median:Q", title=title),
            tooltip=[
                alt.Tooltip("model:N", title="Model"),
                alt.Tooltip("tau:N", title="Tolerance τ"),
                alt.Tooltip("group:N", title="Images"),
                alt.Tooltip("n:Q", title="Number of images"),
                *quartiles("Median", ".4~g"),
            ],
        ),
    ).properties(width=1.3 * PANEL, height=0.75 * PANEL)


def _sizes(frame: pd.DataFrame) -> pd.DataFrame:
    columns = {f"step_{part}": part for part in _QUARTILES}
    by = ["condition", "model", "tau", "group", "t"]
    return over_seeds(frame.rename(columns=columns), by, list(_QUARTILES))


def _steps(frame: pd.DataFrame) -> Layers:
    groups = groups_in(frame)
    base, colour = alt.Chart().encode(x=time_axis("Time t of the ODE")), group_colour(groups)
    title = "Step size"
    layers = alt.layer(
        base.mark_area(opacity=0.12).encode(
            y=alt.Y("q25:Q", title=title), y2="q75:Q", color=colour
        ),
        base.mark_line().encode(
            y=alt.Y("median:Q", title=title), color=colour, strokeDash=group_dash(groups)
        ),
        base.mark_point(filled=True, opacity=0, size=60).encode(
            y=alt.Y("median:Q", title=title),
            tooltip=[
                alt.Tooltip("model:N", title="Model"),
                alt.Tooltip("group:N", title="Images"),
                alt.Tooltip("t:Q", title="Time t", format=".2f"),
                *quartiles("Step, median", ".3~g"),
            ],
        ),
    )
    chosen = layers.transform_filter(f"{OF_CONDITION} && {of_tau(frame)}")
    return chosen.properties(width=1.3 * PANEL, height=0.6 * PANEL)


def _roc(frame: pd.DataFrame) -> Layers:
    scale = alt.Scale(domain=list(_SCORES.values()), range=_DASHES)
    dashes = alt.StrokeDash("score:N", title="Suspect", scale=scale)
    lines = alt.Chart().transform_filter(OF_CONDITION)
    return roc_curves(lines, tau_colour(tau_labels(frame)), dashes).properties(
        width=1.3 * PANEL, height=PANEL
    )
