"""The report of models of the user: first answers, limits, panels and the leaderboard."""

import json

import pandas as pd
import pytest

from node_robustness.report import findings, panels, summary
from node_robustness.report.html import render_report
from node_robustness.report.leaderboard import CONTRADICTION, leaderboards
from node_robustness.report.limits import limits
from node_robustness.report.markdown import _table, escaped
from node_robustness.report.own_models import own_models
from node_robustness.report.tables import show
from node_robustness.tables.networks import own_models as own_models_of
from samples import MANIFEST, own_tables

PUBLISHED = {"claim": "robust <b>|*", "source": "https://x.org/a_b"}
IN_A_BALL = {"norm": "linf", "epsilon": 0.1}


def answers(*models: str) -> dict[str, summary.Claim]:
    return {claim.key: claim for claim in summary.claims(own_tables(models=models))}


@pytest.mark.parametrize(
    ("models", "asked", "compared", "larger"),
    [
        (
            ["theirs"],
            "How robust is theirs (with an ODE), 1 network, on toy to perturbations of L∞ ε = "
            "0.1, at 2 solver tolerances τ = 0.001 to 0.1 and own settings, under",
            "No model of this run is without an ODE.",
            None,
        ),
        (
            ["steps"],
            "on toy to perturbations of L∞ ε = 0.1, at own settings, under",
            "No model of this run is without an ODE.",
            "No model of this run has an ODE that is solved to a tolerance.",
        ),
        (
            ["plain"],
            "How robust is plain (without an ODE), 1 network, on toy to perturbations of L∞ ε = "
            "0.1, under",
            "No model of this run is known to have an ODE.",
            "No model of this run is known to have an ODE.",
        ),
        (
            ["RES", "steps"],
            "How robust are steps (with an ODE) and RES (without), 1 network each,",
            None,
            "No model of this run has an ODE that is solved to a tolerance.",
        ),
    ],
)
def test_the_first_screen_of_any_models(models, asked, compared, larger):
    assert asked in summary.asked(own_tables(models=tuple(models)))
    found = answers(*models)
    for key, why in (("models", compared), ("tolerances", larger)):
        assert (found[key].sure == "not measured") == (why is not None)
        assert why is None or found[key].how_sure == why


def test_tolerances_below_the_own_settings_are_no_larger_ones():
    tables = own_tables(models=("theirs",))
    smaller = {name: tables[name][tables[name].tau != "0.1"] for name in ("verdicts", "tolerances")}
    found = {claim.key: claim for claim in summary.claims(tables | smaller)}
    assert found["tolerances"].how_sure == (
        "No model of this run was attacked at a tolerance above that of its own settings."
    )


def test_settings_are_told_apart():
    tables = own_tables()
    (grid,) = panels.grid(tables)
    assert [(row.model, row.solved_at) for row in grid.rows] == [
        ("RES", "no ODE"),
        ("plain", "no ODE"),
        ("steps", "own settings"),
        ("theirs", "own settings"),
        ("theirs", "τ = 0.001"),
        ("theirs", "τ = 0.1"),
    ]
    ids = [field.id for row in grid.rows for field in row.fields]
    assert ids[-3] == "toy/theirs/tau-none/linf/0.1"
    assert len(set(ids)) == len(ids)
    titles = [panel["title"] for panel in panels.panels(tables, {})]
    assert titles[-2:] == [
        "theirs at τ = 0.1, L∞ ε = 0.1",
        "theirs at own settings, L∞ ε = 0.1",
    ]
    (*_, larger, _own) = panels.panels(tables, {})
    assert "Against own settings" in [claim["about"] for claim in larger["claims"]]


def test_tables_name_own_settings():
    tables = own_tables()
    assert [row[1:3] for row in show("verdicts", tables).rows][-1] == ["theirs", "own"]
    (row,) = show("tolerances", tables).rows
    assert row[show("tolerances", tables).header.index("Over τ")] == "own"


def test_models_without_an_ode_are_those_that_others_are_compared_with():
    """Own settings have no tolerance either."""
    found = {
        (reference, change.model)
        for reference, change in findings.native_changes(own_tables()["attacks"])
    }
    assert found == {(a, b) for a in ("RES", "plain") for b in ("theirs", "steps")}
    places = {found.compared for found in findings.directions(own_tables()["attacks"])}
    assert "steps, own settings, against RES" in places
    assert "theirs, τ = 0.001, against RES" in places


def test_limits_say_what_own_models_are_and_lack():
    said = own_models(own_tables()["networks"], str)
    assert said[:2] == [
        "plain (models/plain.py) is measured at level 0: from images to logits: no ODE in it is "
        "known.",
        "Of 2 checks of plain before the attacks, some warn: A <b>gradient</b> is 0.",
    ]
    assert (
        "steps: torchdiffeq solves image by image, because it has events. Its solve cannot be "
        "followed." in said
    )
    assert said[-2].endswith(
        "solves by module and method: net.1 (dopri5), net.5 (dopri5); times of one image: "
        "broadcast and vmap; own settings: rtol 0.01, atol 0.001."
    )
    assert "A \\<b\\>gradient\\</b\\> is 0." in own_models(own_tables()["networks"], escaped)[1]
    known = limits(own_tables(), MANIFEST, None)
    assert set(said) <= set(known)


def test_what_all_solves_have_in_common_is_said_once():
    networks = own_tables()["networks"]
    ways = networks.ways.replace("broadcast; vmap", "vmap; vmap")
    said = own_models(networks.assign(ways=ways, own_rtol=0.0), str)[-2]
    assert "times of one image: vmap; own settings: rtol 0, atol 0.001." in said


def test_short_versions_of_standard_attacks_ran():
    tables = own_tables()
    attacks = tables["attacks"]
    others = attacks[~attacks.attack.isin(["square", "fab_t"])]
    short = pd.concat([others, others.iloc[:1].assign(attack="square_short")])
    (said,) = [
        sentence
        for sentence in limits(tables | {"attacks": short}, MANIFEST, None)
        if sentence.startswith("Of the standard attacks ")
    ]
    assert "fab_t" in said.split(" did not run, and ")[0]
    assert " did not run, and square ran only in short versions: an attacker " in said


def board(**published):
    models = {"theirs": {"published": PUBLISHED | published}, "RES": {}}
    (table,) = leaderboards(own_tables(), models)
    return table


def found(**published) -> str:
    rows = {row[0]: row[-1] for row in board(**published).rows}
    assert all(text == "–" for model, text in rows.items() if model != "theirs")
    return rows["theirs"]


def test_the_leaderboard_ranks_models_at_their_own_settings():
    table = board()
    assert [row[:2] for row in table.rows] == [
        ["steps", "own"],
        ["plain", "no ODE"],
        ["theirs", "own"],
        ["RES", "no ODE"],
    ]
    assert table.rows[2][2:8] == [
        "100.0 % (97.6 to 100.0)",
        "40.0 % (32.1 to 48.3)",
        "40.0 % (32.1 to 48.3)",
        "21.3 % (15.1 to 28.8)",
        "under-searched",
        "30 (10 + 20)",
    ]
    assert leaderboards(own_tables(), {"theirs": {}}) == []


@pytest.mark.parametrize(
    ("published", "expected"),
    [
        ({}, "–"),
        ({"accuracy": 0.99}, "–"),
        ({"accuracy": 0.9}, "another accuracy: check the import and the images"),
        ({"certified": 0.2, **IN_A_BALL}, "no contradiction"),
        ({"certified": 0.3, **IN_A_BALL}, f"{CONTRADICTION} (at most 28.8 % are left)"),
        ({"certified": 0.3, "norm": "linf", "epsilon": 0.2}, f"{CONTRADICTION} (at most 28.8 % "),
        ({"certified": 0.3, "norm": "linf", "epsilon": 0.05}, "not comparable"),
        ({"certified": 0.3, "norm": "l2", "epsilon": 0.1}, "not comparable"),
        ({"robust_accuracy": 0.2, **IN_A_BALL}, "agrees"),
        ({"robust_accuracy": 0.5, **IN_A_BALL}, "less is left: at most 28.8 %"),
        ({"robust_accuracy": 0.1, **IN_A_BALL}, "our attacks leave more"),
    ],
)
def test_published_claims_are_compared(published, expected):
    assert found(**published).startswith(expected)


@pytest.mark.parametrize(
    ("share", "contradictions", "said"),
    [
        (0.0, 0, "nothing is proven"),
        (
            0.1,
            0,
            "no certified image is broken: robust accuracy on these images is 10.0 % to 21.3 %",
        ),
        (0.1, 1, "the certificate does not hold: 1 certified image misclassified or broken"),
        (0.5, 42, "the certificate does not hold: 42 certified images misclassified or broken"),
    ],
)
def test_a_certificate_is_a_lower_bound(share, contradictions, said):
    tables = own_tables()
    assert "Certified" not in board().header
    row = {"dataset": "toy", "model": "theirs", "norm": "linf", "epsilon": 0.1}
    proven = {"certified": share, "certified_low": share / 2, "certified_high": share * 1.5}
    certificates = pd.DataFrame([row | proven | {"contradictions": contradictions}])
    tables |= {"certificates": certificates}
    for published in ({"published": PUBLISHED}, {}):
        models = {"theirs": published, "RES": {"published": PUBLISHED}}
        (table,) = leaderboards(tables, models)
        by_model = {row[0]: dict(zip(table.header, row, strict=True)) for row in table.rows}
        assert by_model["theirs"]["Found here"] == said
        assert by_model["theirs"]["Certified"].startswith(f"{100 * share:.1f} % (")
        assert by_model["RES"]["Certified"] == "–"


def test_what_users_write_is_escaped(tmp_path):
    line = _table(board())
    assert "robust \\<b\\>\\|\\*" in line
    assert "<https://x.org/a_b>" in line
    tables = own_tables() | {"costs": own_tables()["clean"].iloc[:0]}
    config = MANIFEST["config"] | {"models": {"theirs": {"published": PUBLISHED}}}
    path = tmp_path / "report.html"
    render_report("tiny", tables, {}, MANIFEST | {"config": config}, None, path)
    text = path.read_text(encoding="utf-8")
    assert "robust &lt;b&gt;|*" in text
    assert "robust <b>|*" not in text.replace("\\u003c", "<").partition("<script")[0]
    assert "A &lt;b&gt;gradient&lt;/b&gt; is 0." in text


def test_the_manifest_has_own_models():
    described = own_models_of(own_tables()["networks"])
    assert set(described) == {f"toy/{model}/seed-0" for model in ("theirs", "steps", "plain")}
    assert described["toy/theirs/seed-0"]["own_rtol"] == 0.01
    assert json.dumps(described, allow_nan=False)
