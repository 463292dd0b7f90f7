"""The figure of what a run cost."""

from collections.abc import Sequence

import altair as alt
import pandas as pd

from node_robustness.figures.style import GREY, MODEL_COLOURS, PANEL, inline, styled

_SHARED = "shared"


def figure(costs: pd.DataFrame, models: Sequence[str]) -> alt.VConcatChart:
    """Draw where the time went.

    Args:
        costs: Result of `costs.job_costs`.
        models: All models of the experiment.

    Returns:
        A bar for every stage, the longest first: seconds of its jobs together, a colour for each
        model; grey is what serves all models.
    """
    by_model = costs.assign(model=costs.model.fillna(_SHARED)).groupby(["rule", "model"])
    sums = by_model.agg(
        jobs=("seconds", "size"),
        **{name: (name, "sum") for name in ("seconds", "computing_seconds", "cpu_seconds")},
    ).reset_index()
    names = [*models, _SHARED]
    sums["place"] = sums.model.map(names.index)
    colours = [MODEL_COLOURS[i % len(MODEL_COLOURS)] for i in range(len(models))]
    bars = (
        alt.Chart(inline(sums))
        .mark_bar()
        .encode(
            x=alt.X("seconds:Q", title="Seconds of all jobs together", stack="zero"),
            y=alt.Y(
                "rule:N",
                title=None,
                sort=alt.EncodingSortField("seconds", op="sum", order="descending"),
            ),
            color=alt.Color(
                "model:N", title="Model", scale=alt.Scale(domain=names, range=[*colours, GREY])
            ),
            order=alt.Order("place:Q"),
            tooltip=[
                alt.Tooltip("rule:N", title="Stage"),
                alt.Tooltip("model:N", title="Model"),
                alt.Tooltip("jobs:Q", title="Jobs"),
                alt.Tooltip("seconds:Q", title="Seconds", format=",.0f"),
                alt.Tooltip("computing_seconds:Q", title="Model computation, s", format=",.0f"),
                alt.Tooltip("cpu_seconds:Q", title="CPU seconds", format=",.0f"),
            ],
        )
        .properties(width=3 * PANEL, height=alt.Step(22))
    )
    return styled(
        alt.vconcat(bars),
        "Where the time went",
        ["Wall time of the jobs, added up over all cores."],
    )
