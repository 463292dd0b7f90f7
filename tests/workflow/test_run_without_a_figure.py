"""A figure that cannot be drawn is missing in a run, and nothing else is."""

import io
import shutil
import xml.etree.ElementTree as ET
from pathlib import Path

from PIL import Image

from harness import ROOT, snakemake

NOT_MEASURED = {
    *("adjoint_sweep", "certificates", "cost"),
    *("models", "claim_models", "claim_tolerances"),
}
"""The empty figures: what this run does not measure, and models too inaccurate to compare."""


def drawings(folder: Path, suffix: str) -> dict[str, bytes]:
    """The drawings of a run by their path."""
    paths = sorted(folder.rglob(f"*{suffix}"))
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def test_every_drawing_of_a_run_can_be_read(finished):
    svgs = drawings(finished / "results", ".svg")
    pngs = drawings(finished / "results", ".png")
    assert len(svgs) > len(pngs) == 28
    for name, svg in svgs.items():
        marks = list(ET.fromstring(svg).iter("{http://www.w3.org/2000/svg}path"))
        assert (len(marks) > 5) == (Path(name).stem not in NOT_MEASURED), name
    for png in pngs.values():
        Image.open(io.BytesIO(png)).verify()
    for path in finished.rglob("*.html"):
        assert "could not be made" not in path.read_text()
    for path in finished.rglob("*.log"):
        assert "could not be made" not in path.read_text()


def test_a_run_ends_well_without_a_figure_and_the_pages(copied, tmp_path):
    project = tmp_path / "project"
    shutil.copytree(ROOT / "workflow", project / "workflow")
    shutil.copy(ROOT / "Snakefile", project)
    before = drawings(copied / "results/tiny/figures", ".svg")
    for module, function in (("nfe", "figure"), ("images", "_single_page")):
        path = project / f"workflow/scripts/node_robustness/figures/{module}.py"
        broken = f"\n\ndef {function}(*_):\n    raise ValueError('broken on purpose')\n"
        path.write_text(path.read_text() + broken)
    run = snakemake(copied, "all", "docs/results/tiny.md", project=project)
    assert run.jobs == {"figures": 1, "stills": 1, "report": 1, "page": 1}
    why = "could not be made (ValueError: broken on purpose)"
    after = drawings(copied / "results/tiny/figures", ".svg")
    assert after.keys() == before.keys()
    for name, svg in after.items():
        if name == "nfe.svg" or name.startswith("images/"):
            words = " ".join(" ".join(ET.fromstring(svg).itertext()).split())
            assert words.startswith("Not drawn The ")
            assert why in words
        else:
            assert svg == before[name]
    assert f"The figure nfe {why}" in (copied / "results/tiny/report.html").read_text()
    assert f"The figure nfe {why}" in (copied / "docs/results/tiny.md").read_text()
    log = (copied / "results/tiny/logs/figures/figures.log").read_text()
    assert "Traceback" in log
    assert "broken on purpose" in log
