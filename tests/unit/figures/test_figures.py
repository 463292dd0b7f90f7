import base64
import io
import json
import xml.etree.ElementTree as ET
from functools import cache

import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageColor

from node_robustness.figures import certificates
from node_robustness.figures import checks as drawn_checks
from node_robustness.figures import examples as drawn_examples
from node_robustness.figures import images as drawn_images
from node_robustness.figures import models as drawn_models
from node_robustness.figures import randomisation as drawn_randomisation
from node_robustness.figures import tolerances as drawn_tolerances
from node_robustness.figures import verdicts as drawn_verdicts
from node_robustness.figures.drawing import render, save_drawing, save_pixels, still
from node_robustness.figures.images import single_pages
from node_robustness.figures.style import by_papers_method
from node_robustness.report import overviews
from node_robustness.tables.examples import as_shown, example_table, picture
from node_robustness.tables.image_pages import image_pages
from node_robustness.verdict.verdicts import UNDECIDED, VERDICTS
from samples import (
    MODELS,
    cell,
    collect,
    draw,
    masked_tables,
    own_tables,
    pages_in,
    write,
    write_attack,
    write_data,
    write_trajectory,
)
from vega_lite import spec_of

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def charts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cells")
    collected, shown = collect(folder, (0, 1))
    examples = example_table([(path, write_data(folder)) for path in shown[:1]])
    return draw(collected, examples, pages_in(folder))


VERDICT = [
    "verdicts",
    "models",
    "tolerances",
    "attack_suite",
    "curves",
    "audit",
    "loss_curves",
    "matrix",
    "randomisation",
    "detection",
    "adjoint_sweep",
    "cost",
    "checks",
]


@pytest.fixture(scope="module")
def verdict_charts():
    collected = masked_tables(seeds=(0, 1))
    return draw(collected, example_table([]))


@pytest.fixture(scope="module")
def verdict_stills(verdict_charts):
    """Draws each figure of the verdict once."""
    return cache(lambda name: drawn(verdict_charts[name]))


@pytest.mark.parametrize("name", VERDICT)
def test_figures_of_the_verdict_are_drawn(verdict_stills, name):
    assert len(verdict_stills(name).findall(f".//{SVG}path")) > 5


def test_the_verdict_is_shown_by_symbols_and_colours(verdict_stills):
    for name, words in {
        "verdicts": ["◐", "90 → 35 %", "masked", "?", "no ODE"],
        "checks": ["✓", "✕", "?", "toy, seed 1"],
    }.items():
        assert set(words) <= set(words_in(verdict_stills(name)))


@pytest.mark.parametrize("verdict", VERDICTS)
def test_every_verdict_is_drawn_with_its_symbol_and_its_word(verdict):
    rows = masked_tables(40)["verdicts"].assign(verdict=verdict, because="margin")
    texts = words_of(drawn_verdicts.figure(rows, MODELS))
    assert texts.count(drawn_verdicts._SYMBOLS[verdict]) == len(rows)
    word = drawn_verdicts._BECAUSE["margin"] if verdict == UNDECIDED else verdict
    assert texts.count(word) >= len(rows)


def luminance(colour):
    """Relative luminance in sRGB (WCAG 2)."""
    channels = [channel / 255 for channel in ImageColor.getrgb(colour)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("verdict", VERDICTS)
def test_a_verdict_can_be_read_on_its_colour(verdict):
    """On a light page and on a dark one, which leave the fields as they are: 4.5 to 1 (WCAG AA)."""
    field, words = map(luminance, drawn_verdicts._COLOURS[verdict])
    assert (max(field, words) + 0.05) / (min(field, words) + 0.05) >= 4.5


def test_no_two_verdicts_look_alike():
    colours, symbols = drawn_verdicts._COLOURS, drawn_verdicts._SYMBOLS
    assert colours.keys() == symbols.keys() == set(VERDICTS)
    assert len({field for field, _ in colours.values()}) == len(set(symbols.values())) == 5


def test_checks_of_several_norms_have_a_line_each():
    checks = masked_tables(seeds=(0, 1))["checks"]
    both = pd.concat([checks, checks[checks.norm != ""].assign(norm="l2")])
    assert "L2 norm" not in json.dumps(spec_of(drawn_checks.figure(checks, ["RES", "OON"])))
    text = json.dumps(spec_of(drawn_checks.figure(both, ["RES", "OON"])), ensure_ascii=False)
    assert "Several steps break what one step breaks (L2 norm)" in text
    assert "Several steps break what one step breaks (L∞ norm)" in text
    assert '"The solver does not fail"' in text


def test_an_undecided_field_says_why(verdict_stills):
    texts = words_in(verdict_stills("verdicts"))
    reasons = drawn_verdicts._BECAUSE
    assert reasons.keys() == overviews.BECAUSE.keys()
    assert len([text for text in texts if text in reasons.values()]) == texts.count("?")


def drawn(chart):
    return ET.fromstring(still(spec_of(chart)))


def words_in(svg):
    return [e.text for e in svg.iter(f"{SVG}text")]


def words_of(chart):
    return words_in(drawn(chart))


def test_the_first_claim_is_written_in_its_panel(verdict_stills):
    texts = words_in(verdict_stills("models"))
    claimed = masked_tables(seeds=(0, 1))["models"]
    for claim in claimed.to_dict("records"):
        change = f"{claim['paper_claim']} → {claim['strongest_claim']}"
        assert f"OON against RES: {change}" in texts
    assert {"τ = 0.01", "τ = 1", "paper's procedure", "strongest attack"} <= set(texts)


def test_a_reversed_ranking_is_named():
    tables = masked_tables(40)
    claimed = tables["models"].assign(paper_claim="more", strongest_claim="less", reversed=True)
    texts = words_of(drawn_models.figure(tables["protocols"], claimed, MODELS))
    assert texts.count("OON against RES: more → less, reversed") == 2


def test_the_second_claim_and_its_causes_are_written_in_the_panel(verdict_stills):
    texts = words_in(verdict_stills("tolerances"))
    assert texts.count("masked gradient") == 2  # in the legend and in the area
    assert "weak search" in texts
    assert set(masked_tables(seeds=(0, 1))["tolerances"].claim) <= set(texts)
    assert "cause not known" not in texts


def test_without_a_corrected_gradient_the_cause_is_not_known():
    tables = masked_tables(40)
    verdicts = tables["verdicts"].assign(corrected=np.nan, masked=np.nan, weak=np.nan)
    chart = drawn_tolerances.figure(tables["protocols"], verdicts, tables["tolerances"], MODELS)
    texts = words_of(chart)
    assert texts.count("cause not known") == 2


def test_claims_draw_a_thin_line_a_network(verdict_stills):
    for name, panels in (("models", 2), ("tolerances", 1)):
        lines = verdict_stills(name).findall(f".//{SVG}path[@stroke-width]")
        thin = [line for line in lines if line.get("stroke-width") in ("1.2", "0.8")]
        # Two networks of each of two models in every panel; of one model under three protocols.
        assert len(thin) == {"models": 2 * 2 * panels, "tolerances": 3 * 2 * panels}[name]


def test_an_interval_of_several_networks_contains_that_of_each():
    table = masked_tables(seeds=(0, 1))["randomisation"]
    other = table.seed == 1
    table.loc[other, ["accuracy", "accuracy_low", "accuracy_high"]] = [0.9, 0.8, 0.95]
    data = drawn_randomisation.figure(table, MODELS).data.values
    shown = pd.read_csv(io.StringIO(data)).set_index("attacker")
    for attacker, own in table.groupby("attacker"):
        bounds = shown.loc[attacker]
        assert bounds.value == pytest.approx(own.accuracy.mean(), abs=1e-4)
        assert bounds.low <= own.accuracy_low.min() + 1e-4
        assert bounds.high >= own.accuracy_high.max() - 1e-4


def test_only_the_papers_method_is_drawn_as_curves():
    collected = masked_tables(40)
    chosen = by_papers_method(collected["attacks"], collected["attack_suite"])
    assert set(chosen.attack) == {"bim_adjoint", "bim_direct"}
    nothing = by_papers_method(collected["attacks"], collected["attack_suite"].iloc[:0])
    assert len(nothing) == len(collected["attacks"])


def save(chart, svg, png, spec):
    save_drawing(render(chart), svg, spec)
    save_pixels("The PNG", svg, png)


DYNAMICS = ["trajectories", "growth", "margins", "shares", "patches", "adaptive_cost", "images"]


@pytest.mark.parametrize("name", ["clean", "nfe", "success", *DYNAMICS, "examples"])
def test_figures_are_drawn(charts, name, tmp_path):
    paths = [tmp_path / f"figure.{suffix}" for suffix in ("svg", "png", "json")]
    save(charts[name], *paths)
    svg, png, spec = (path.read_bytes() for path in paths)
    assert len(ET.fromstring(svg).findall(f".//{SVG}path")) > 5
    assert png.startswith(b"\x89PNG")
    assert json.loads(spec)["$schema"].startswith("https://vega.github.io/schema/vega-lite/")
    save(charts[name], *paths)
    assert [path.read_bytes() for path in paths] == [svg, png, spec]


def test_the_models_keep_their_colours(charts):
    text = json.dumps({name: spec_of(chart) for name, chart in charts.items()})
    assert text.count('"domain": ["RES", "OON"], "range": ["#0072B2", "#D55E00"]') > 3


def test_examples_are_the_first_successes(tmp_path):
    data = write_data(tmp_path)
    path = write_attack(tmp_path, cell(), [True] * 4, [False, True, True, True])
    table = example_table([(path, data)], each=2)
    assert table["index"].tolist() == [1, 2]
    assert table["row"].tolist() == [0, 1]
    assert table.clean_caption.tolist() == ["one", "two"]
    assert table.adversarial_caption.tolist() == ["two", "zero"]
    assert table.perturbation_caption.tolist() == ["±0.5", "±0.5"]
    assert table.clean.str.startswith("data:image/png;base64,").all()
    assert table.clean[0] != table.adversarial[0] != table.perturbation[0]


def test_an_example_whose_solve_failed_says_so(tmp_path):
    arrays = {
        "success": [True],
        "index": [0],
        "clean_predictions": [1],
        "adversarial_predictions": [-1],
        "adversarials": np.ones((1, 1, 4, 4), np.float32),
    }
    path = write(tmp_path / "attack.h5", "attack", cell(), arrays)
    table = example_table([(path, write_data(tmp_path))])
    assert table.adversarial_caption.tolist() == ["no prediction"]


def test_no_examples():
    assert example_table([]).empty


@pytest.mark.parametrize("channels", [1, 3])
def test_pictures_have_sharp_pixels(channels):
    image = np.zeros((channels, 8, 8))
    image[0, 0, 0] = 1
    encoded = picture(image).removeprefix("data:image/png;base64,")
    read = np.asarray(Image.open(io.BytesIO(base64.b64decode(encoded))))
    assert read.shape[:2] == (96, 96)
    first = read if channels == 1 else read[..., 0]
    assert (first[:12, :12] == 255).all()
    assert first.sum() == 255 * 144


def pixels(address: str) -> Image.Image:
    encoded = address.removeprefix("data:image/png;base64,")
    return Image.open(io.BytesIO(base64.b64decode(encoded)))


def test_other_numbers_of_channels_stand_side_by_side():
    image = np.arange(1, 6).reshape(5, 1, 1) * np.ones((5, 1, 2))
    assert as_shown(image).tolist() == [[[1, 1, 2, 2, 3, 3], [4, 4, 5, 5, 0, 0]]]
    assert as_shown(image[:2]).tolist() == [[[1, 1, 2, 2]]]
    assert as_shown(image[:4]).tolist() == [[[1, 1, 2, 2], [3, 3, 4, 4]]]
    for own in (image[:1], image[:3]):
        assert as_shown(own).tolist() == own.tolist()


@pytest.mark.parametrize(
    "shape",
    [(1, 1, 1), (1, 1, 200), (2, 4, 4), (3, 1, 200), (4, 1, 1), (5, 4, 4), (13, 1, 200)],
    ids=str,
)
def test_images_of_any_shape_are_drawn(shape, tmp_path):
    channels = shape[0]
    data = write_data(tmp_path, shape)
    won = [True, False]
    attack = write_attack(tmp_path, cell(), won, won, shape=shape)
    followed = write_trajectory(tmp_path, cell(), won)
    examples = example_table([(attack, data)])
    pages = image_pages([(followed, attack, data)])
    shown = [*examples[["clean", "adversarial", "perturbation"]].iloc[0], *pages.pictures.url]
    assert {pixels(address).mode for address in shown} <= {"L", "RGB"}
    grey, half = (pixels(examples[part][0]) for part in ("clean", "adversarial"))
    assert grey.size == half.size
    assert max(grey.size) < 1000
    assert half.convert("L").getextrema() == ((0 if channels in (5, 13) else 128), 128)
    note = f"Images of {channels} channels: each in grey, side by side."
    ((_, page),) = single_pages(pages)
    for make in (
        lambda: drawn_examples.figure(examples, ["OON"]),
        lambda: drawn_images.figure(pages, ["OON"]),
        page,
    ):
        svg = still(spec_of(make()))
        assert (note in svg) == (channels not in (1, 3))


def test_robust_accuracy_lies_between_proof_and_attack():
    tables = own_tables()
    proven = {"dataset": "toy", "model": "theirs", "norm": "linf", "epsilon": 0.1, "certified": 0.1}
    chart = certificates.figure(tables["verdicts"], pd.DataFrame([proven]), MODELS)
    texts = words_of(chart)
    assert {"theirs", "steps", "plain", "RES", "proven", "strongest attack"} <= set(texts)
    spec = chart.to_dict()
    (panel,) = spec["vconcat"]
    bar, marks = (
        spec["datasets"][layer["data"]["name"]].splitlines()[1:] for layer in panel["layer"][:2]
    )
    assert bar == ["theirs,0.1,0.21333"]
    drawn = [line.split(",")[:2] for line in marks]
    assert [model for model, by in drawn if by == "proven"] == ["theirs"]
    assert sum(by == "strongest attack" for _, by in drawn) == 4
