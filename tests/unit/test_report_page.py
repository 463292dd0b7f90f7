import re
from pathlib import Path

import pytest
from samples import cell, collect, solved, write_attack, write_clean, write_report

from node_robustness import findings, provenance, tables
from node_robustness.paper import ACCURACY


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    return write_report(folder, "<script>alert(1)</script>").read_text()


def test_names_and_configuration_are_escaped(page):
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "</pre><b>" not in page


def test_the_page_needs_nothing_else(page):
    assert "default-src 'none'" in page
    markup = re.sub(r"<script>.*?</script>", "", page, flags=re.DOTALL)
    loaded = re.findall(r'<(?:img|script|link)[^>]*(?:src|href)="([^"]*)"', markup)
    assert loaded
    assert all(address.startswith("data:") for address in loaded)


def test_the_page_tells_what_ran(page):
    assert "1:02:05" in page
    assert "torch 2.0" in page
    assert "not in a git checkout" in page


def test_digits_are_not_in_the_paper(page):
    assert "The paper has no results for toy" in page


def test_the_papers_figures_stand_beside_ours(tmp_path):
    page = write_report(tmp_path, "tiny", "mnist").read_text()
    # RES: 3 of 4 images are right, the paper reports 99.6 %.
    assert re.search(r"<td>toy</td><td>RES</td><td>–</td><td>99.6 %</td><td>75.0 % \(", page)
    assert "<td>−24.6</td>" in page
    assert "WIFS" in page


def test_papers_figures_are_complete():
    for models in ACCURACY.values():
        assert list(models) == ["RES", "MIX", "OON"]
        assert list(models["RES"]) == [None]
        assert all(0.88 < value < 1 for by in models.values() for value in by.values())


def attack_table(folder: Path, rows):
    """One row for each (model, tolerance, gradient, seed, successes of 40)."""
    return tables.attack_table(
        write_attack(
            folder,
            cell(f"bim_{gradient}", gradient, model=model, tolerance=tolerance, seed=seed),
            [True] * 40,
            [i < successes for i in range(40)],
        )
        for model, tolerance, gradient, seed, successes in rows
    )


def said(folder: Path, rows) -> str:
    clean = [
        write_clean(folder, solved("OON", tolerance=t), p, None)
        for t, p in [(0.01, [0, 1]), (1.0, [0, 0])]
    ]
    return "\n".join(findings.sentences(tables.clean_table(clean), attack_table(folder, rows)))


def test_findings_compare_models_tolerances_and_gradients(tmp_path):
    rows = [
        ("RES", None, "direct", 0, 30),
        ("OON", 0.01, "adjoint", 0, 20),
        ("OON", 0.01, "direct", 0, 10),
        ("OON", 1.0, "adjoint", 0, 2),
        ("OON", 1.0, "direct", 0, 11),
    ]
    text = said(tmp_path, rows)
    assert "2 clean test images of toy: OON 100.0 % at τ = 0.01 and 50.0 % at τ = 1." in text
    assert "compared with RES, attacks with direct gradients succeeded on OON clearly less" in text
    assert "adjoint gradients on OON fell clearly in 1 of 1 setting." in text
    assert "direct gradients on OON did not change clearly in 1 of 1 setting." in text
    assert "adjoint gradients in 1 of 1 comparison, clearly less often in 0." in text
    assert "masked" in text
    assert "not yet evidence of robustness" in text


def test_findings_warn_where_only_adjoint_gradients_attacked(tmp_path):
    text = said(tmp_path, [("OON", 0.01, "adjoint", 0, 30), ("OON", 1.0, "adjoint", 0, 1)])
    assert "no attack with direct gradients" in text


def test_findings_do_not_warn_without_a_fall(tmp_path):
    text = said(tmp_path, [("OON", 0.01, "direct", 0, 30), ("OON", 1.0, "direct", 0, 30)])
    assert "Caution" not in text


def test_changes_over_seeds_pair_the_seeds(tmp_path):
    rows = [("OON", t, "direct", seed, n) for t, n in ((0.01, 10), (1.0, 20)) for seed in (0, 1)]
    (change,) = findings.tolerance_changes(attack_table(tmp_path, rows))
    assert change.before == (0.25, 0.25, 0.25)
    assert change.after == (0.5, 0.5, 0.5)
    assert change.change == (0.25, 0.25, 0.25)
    assert change.direction == 1


def test_findings_of_one_tolerance_compare_none(tmp_path):
    table = attack_table(tmp_path, [("OON", 0.01, "direct", 0, 3)])
    assert findings.extremes(table) is None
    assert findings.tolerance_changes(table) == []


def test_findings_of_no_attacks(tmp_path):
    collected, _ = collect(tmp_path)
    assert findings.sentences(collected["clean"], collected["attacks"].iloc[:0]) == [
        "Accuracy on 4 clean test images of toy: OON 75.0 % at τ = 0.01 and 75.0 % at τ = 1; "
        "RES 75.0 %."
    ]


def benchmark(path: Path, *rows: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(["s\th:m:s\tmax_rss\tmax_vms", *rows]) + "\n")
    return path


def test_stages_sum_benchmarks_by_rule(tmp_path):
    folder = tmp_path / "benchmarks" / "benchmarks"
    paths = [
        benchmark(folder / "train/b.tsv", "2.5000\t0:00:02\t100.25\t1", "1.5\t0:00:01\t300.5\t1"),
        benchmark(folder / "train/toy/a.tsv", "1.0\t0:00:01\tNA\tNA"),
        benchmark(folder / "attack/c.tsv", "0.25\t0:00:00\tNA\tNA"),
    ]
    assert provenance.stages(paths) == [
        {"rule": "attack", "jobs": 1, "seconds": 0.25, "max_rss_mb": None},
        {"rule": "train", "jobs": 3, "seconds": 5.0, "max_rss_mb": 300.5},
    ]


def test_the_manifest_describes_the_run(tmp_path):
    found = provenance.manifest({"compute": {}}, [], "cpu (x86_64)")
    assert found["device"] == "cpu (x86_64)"
    assert found["stages"] == []
    assert found["versions"]["h5py"]


def test_no_commit_outside_a_checkout(tmp_path):
    assert provenance.git_commit(tmp_path) is None
