"""The figures of paths of hidden states, and the pages of single images."""

import json
import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest

from node_robustness.figures import growth, images, margins, patches, shares, trajectories
from node_robustness.figures.drawing import still
from node_robustness.figures.experiment import of_experiment
from node_robustness.figures.images import single_pages
from node_robustness.tables.examples import example_table
from node_robustness.tables.image_pages import image_pages
from node_robustness.tables.shares import patch_table, share_table
from node_robustness.tables.trajectories import (
    probe_table,
    trajectory_table,
)
from samples import (
    INTERVALS,
    MODELS,
    cell,
    collect,
    named,
    pages_in,
    shares_of,
    tables_of,
    write_attack,
    write_data,
    write_trajectory,
)
from vega_lite import spec_of

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def cells(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cells")
    collected, _ = collect(folder)
    return collected, pages_in(folder)


def menus(chart) -> dict:
    return {p["name"]: p for p in spec_of(chart)["params"] if "bind" in p}


def texts(chart) -> list[str]:
    """All lines of text in a still image."""
    return texts_in(ET.fromstring(still(spec_of(chart))))


def texts_in(drawing) -> list[str]:
    return [text for element in drawing.iter(f"{SVG}text") for text in element.itertext()]


def test_menus_begin_with_the_largest_epsilon_and_the_smallest_tolerance(cells):
    chart = growth.figure(cells[0]["trajectories"], MODELS)
    found = menus(chart)
    conditions = ["toy, bim, L∞ norm, ε = 0.1", "toy, bim, L∞ norm, ε = 0.3"]
    assert found["condition"]["bind"]["labels"] == conditions
    assert found["condition"]["value"] == 1
    assert found["tau"]["bind"]["options"] == ["0.01", "1"]
    assert found["tau"]["value"] == "0.01"
    assert "Growth of perturbations: τ = 0.01, toy, bim, L∞ norm, ε = 0.3" in texts(chart)


def test_all_groups_of_images_are_drawn_next_to_a_model_without_an_ode(cells):
    found = texts(trajectories.figure(cells[0]["trajectories"], MODELS))
    assert {"attack succeeded", "attack failed", "random noise", "RES", "OON"} <= set(found)
    assert any("Relative L2 distance, toy" in text for text in found)


def test_accepted_nodes_are_dots_on_the_curves(tmp_path):
    path = write_trajectory(tmp_path, cell(), [True])
    chart = trajectories.figure(named(trajectory_table([path])), ["OON"])
    drawing = ET.fromstring(still(spec_of(chart)))
    groups = [e for e in drawing.iter(f"{SVG}g") if "mark-symbol role-mark" in e.get("class", "")]
    # Of attack and noise: steps that end at .25, .75, 1.25 (drawn at 1), and at .5 and 1.
    assert sum(len(group) for group in groups) == 3 + 2


def test_stills_are_without_what_nobody_sees(cells):
    chart = margins.figure(cells[0]["trajectories"], cells[0]["probes"], MODELS)
    assert "mark-symbol role-mark" not in still(spec_of(chart))
    # The figure itself has it, for the tooltips.
    assert json.dumps(spec_of(chart)).count('"opacity": 0,') == 4


def test_margins_are_drawn_without_probes(tmp_path):
    nothing = np.full((2, 5), np.nan)
    changes = {f"{run}__margin__probe": nothing for run in ("clean", "attack", "noise")}
    path = write_trajectory(tmp_path, cell(), [True, False], **changes)
    found = texts(margins.figure(named(trajectory_table([path])), named(probe_table([])), ["OON"]))
    assert "head" in found
    assert "probe" not in found


def test_shares_are_bars_with_their_intervals(tmp_path):
    changes = {name.replace("/", "__"): v for name, v in shares_of([True] * 20).items()}
    path = write_trajectory(tmp_path, cell(), [True] * 20, **changes)
    chart = shares.figure(named(share_table([path])), ["OON"])
    drawing = ET.fromstring(still(spec_of(chart)))
    found = texts_in(drawing)
    assert {"OON, τ = 0.1", "h(0)", "0", "0.25", "0.5", "0.75"} <= set(found)
    assert {"adversarial example", "random noise", "difference of another image"} <= set(found)
    marks = [e.get("class", "") for e in drawing.iter(f"{SVG}g")]
    for kind in ("mark-rect role-mark", "mark-rule role-mark"):
        groups = [e for e in drawing.iter(f"{SVG}g") if kind in e.get("class", "")]
        assert sum(len(group) for group in groups) == 3 * 5, marks


def test_patches_are_a_line_a_length(tmp_path):
    # A quarter of the adversarial examples is restored by the last interval alone.
    repaired = np.zeros((8, len(INTERVALS)))
    repaired[:2, -1] = 1
    path = write_trajectory(tmp_path, cell(), [True] * 8, causal__repaired=repaired)
    chart = patches.figure(named(patch_table([path])), ["OON"])
    drawing = ET.fromstring(still(spec_of(chart)))
    points = [e for e in drawing.iter(f"{SVG}g") if "mark-symbol role-mark" in e.get("class", "")]
    assert sum(len(group) for group in points) == len(INTERVALS)
    lines = [e for e in drawing.iter(f"{SVG}g") if "mark-line role-mark" in e.get("class", "")]
    assert len(lines) == 4
    assert {"OON, τ = 0.1", "Start of the interval, t"} <= set(texts_in(drawing))
    assert set(menus(chart)) == {"patch", "condition"}


def test_pages_are_those_of_the_kept_images(cells):
    pages = cells[1]
    # Two of four images in each of six cells: the successes first.
    assert pages.images.page.tolist() == list(range(1, 13))
    first = pages.images[pages.images.epsilon == 0.3].groupby("model")["index"].apply(list)
    assert first["RES"] == [0, 1]
    assert len(pages.pictures) == 4 * len(pages.images)
    assert pages.pictures.url.str.startswith("data:image/png;base64,").all()
    names = pages.images.name[pages.images.model == "OON"]
    assert names.iloc[0] == "toy/OON/seed-0/tau-0.01/bim/linf/eps-0.1/image-0"
    assert names.is_unique


def test_a_page_tells_what_became_of_its_image(tmp_path):
    settings = cell()
    changes = {"attack__flip_time__probe": [0.5, np.nan], "kept": [0, 1]}
    changes |= {f"states__{run}": np.ones((2, 5, 8, 2, 2)) for run in ("clean", "attack")}
    changes |= {"causal__channels": np.ones((2, 8)), "causal__places": np.ones((2, 2, 2))}
    path = write_trajectory(tmp_path, settings, [True, False], **changes)
    attack = write_attack(tmp_path, settings, [True, True], [True, False])
    pages = image_pages([(path, attack, write_data(tmp_path))])
    assert pages.images.headline.tolist() == [
        "Test image 0: zero taken for one from t = 0.75 (head) or 0.5 (probe). "
        "Margin: 2 clean, -2 at full strength",
        "Test image 1: one stays so. Margin: 2.1 clean, 0.5 at full strength",
    ]
    captions = pages.pictures.set_index(["page", "part"]).caption
    assert captions[1, "adversarial"] == "one"
    assert captions[1, "perturbation"] == "±0.5"
    assert captions[2, "attack failed"] == "one"
    # A last step beyond the end is drawn at the end.
    assert pages.nodes[pages.nodes.page == 1].t.tolist() == [0, 0.25, 0.75, 1]


@pytest.mark.parametrize("tolerance", [0.1, None], ids=["an ODE", "no ODE"])
def test_a_page_has_the_shares_and_patches_of_its_image(tmp_path, tolerance):
    """The perturbations whose shares are not defined are named, and so is a lack of patches."""
    settings = cell(model="OON" if tolerance else "RES", tolerance=tolerance)
    parts = np.array([[0.1, 0.2, -0.3, 0.4], [1, 2, 3, 4]])
    outcomes = np.array([np.arange(10) % 2, np.full(10, -1)])
    path = write_trajectory(
        tmp_path,
        settings,
        [True, False],
        kept=[0, 1],
        states__clean=np.ones((2, 5, 8, 2, 2)),
        states__attack=np.ones((2, 5, 8, 2, 2)),
        causal__channels=np.ones((2, 8)),
        causal__places=np.ones((2, 2, 2)),
        causal__repaired=outcomes,
        causal__inserted=1 - outcomes * (outcomes >= 0),
        shares__strong__start=[1.5, 0.5],
        shares__strong__parts=parts,
        shares__swapped__start=[0.5, np.nan],
        strong__margin=[-3, np.nan],
    )
    attack = write_attack(tmp_path, settings, [True, True], [True, False])
    pages = image_pages([(path, attack, write_data(tmp_path))])
    own = pages.shares[pages.shares.page == 1]
    np.testing.assert_array_equal(own.strong, [1.5, *parts[0]])
    labels = ["0–0.25", "0.25–0.5", "0.5–0.75", "0.75–1"]
    blocks = ["block 1", "block 2", "block 3", "block 4"]
    assert own.player.tolist() == ["h(0)", *(labels if tolerance else blocks)]
    patches = pages.patches[pages.patches.page == 1]
    assert list(zip(patches.start, patches.start + patches.length, strict=True)) == INTERVALS
    assert patches.repaired.tolist() == outcomes[0].tolist()
    assert patches.inserted.tolist() == (1 - outcomes[0]).tolist()
    assert set(pages.patches.part) == {0.25}
    assert pages.images.undefined.tolist() == ["", "not defined: another image"]
    assert pages.images.unpatched.tolist() == ["", "no interval was patched"]
    assert pages.images.headline[0].endswith("Margin: 2 clean, -3 at full strength")
    assert pages.images.headline[1].endswith("At full strength every solve failed")
    (_, first), (_, second) = single_pages(pages)
    found = texts(first())
    assert {"adversarial", "noise", "another image", "yes", "no", "undetermined"} <= set(found)
    assert "no interval was patched" not in found
    found = texts(second())
    assert found.count("no interval was patched") == 2
    assert "not defined: another image" in found


def test_menus_choose_a_page_by_model_tolerance_condition_and_image(cells):
    chart = images.figure(cells[1], MODELS)
    found = menus(chart)
    assert list(found) == ["model", "tau", "condition", "image"]
    assert found["model"]["bind"]["options"] == MODELS
    (page,) = [p["expr"] for p in spec_of(chart)["params"] if p["name"] == "page"]
    known = json.loads(re.match(r"{.*?}", page)[0])
    assert known["OON|1|1|0"] in set(cells[1].images.page)
    assert known["RES|no ODE|0|0"] == cells[1].images.page[cells[1].images.model == "RES"].min()
    # It begins with an adversarial of an ODE.
    title = "OON, τ = 0.01. Test image 0: zero taken for one"
    assert any(text.startswith(title) for text in texts(chart))


def test_the_report_has_no_more_pages_than_it_can_hold(cells, monkeypatch):
    monkeypatch.setattr(images, "MOST", 8)
    chart = images.figure(cells[1], MODELS)
    assert "8 of 12 pages; figures/images/ has all of them." in texts(chart)
    # One of every cell, then the second of the first two.
    (page,) = [p["expr"] for p in spec_of(chart)["params"] if p["name"] == "page"]
    shown = json.loads(re.match(r"{.*?}", page)[0]).values()
    assert sorted(shown) == [1, 2, 3, 4, 5, 7, 9, 11]


def test_every_page_is_a_picture_of_its_own(cells):
    name, make = next(iter(single_pages(cells[1])))
    drawing = ET.fromstring(still(spec_of(make())))
    assert name.endswith("image-0")
    found = texts_in(drawing)
    assert any(text.startswith("Test image 0: zero taken for one") for text in found)
    assert any(text.startswith("toy, OON, seed 0, τ = 0.01, bim, L∞ norm") for text in found)
    assert {"clean", "perturbation", "adversarial", "places"} <= set(found)
    assert len(list(drawing.iter(f"{SVG}image"))) == 5


def test_names_are_escaped_in_pages(cells):
    pages = cells[1].only([1])
    pages.images["headline"] = "<script>alert(1)</script>"
    ((_, make),) = single_pages(pages)
    svg = still(spec_of(make()))
    assert "<script>" not in svg
    assert "&lt;script&gt;" in svg


def test_no_pages_are_drawn_too(tmp_path):
    chart = images.figure(image_pages([]), MODELS)
    assert "Nothing was kept of this image here" in texts(chart)


FOLLOWED = ["trajectories", "growth", "margins", "shares", "patches", "adaptive_cost", "images"]


@pytest.mark.parametrize("success", [[], [False, False]], ids=["no images", "no adversarials"])
def test_cells_without_adversarials_are_drawn(success, tmp_path):
    for settings in (cell(), cell(model="RES", tolerance=None)):
        write_trajectory(tmp_path, settings, success)
        write_attack(tmp_path, settings, [True, True], [False, False])
    paths = sorted(tmp_path.glob("trajectory-*.h5"))
    collected, pages = tables_of(trajectories=paths), pages_in(tmp_path)
    charts = of_experiment(collected, lambda: example_table([]), lambda: pages, MODELS)
    for name in FOLLOWED:
        assert still(spec_of(charts[name]())).startswith("<svg")
