"""What Snakemake parses in the main process and in every job imports nothing heavy."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]
SCRIPTS = ROOT / "workflow/scripts"
TENSORS = {"torch", "torchdiffeq", "safetensors"}
TABLES = {"pandas", "pyarrow", "sklearn", "scipy", "altair", "vl_convert"}
HEAVY = TENSORS | TABLES | {"numpy", "h5py", "PIL", "matplotlib", "requests", "tqdm"}


def imported(program: str) -> set[str]:
    """Which modules a program has imported by its end."""
    lines = f"import sys\nsys.path.append({str(SCRIPTS)!r})\n{program}\nprint(*sys.modules)"
    command = [sys.executable, "-c", lines]
    run = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    return set(run.stdout.splitlines()[-1].split())


def parsed(snakefile: Path) -> set[str]:
    """Which modules Snakemake has imported once it has parsed a Snakefile."""
    return imported(
        "from snakemake.cli import main\n"
        f"try:\n    main(['--snakefile', {str(snakefile)!r}, '--list-rules'])\n"
        "except SystemExit as end:\n    assert not end.code"
    )


def test_modules_of_the_configuration_and_the_grid():
    package = SCRIPTS / "node_robustness"
    names = ["provenance.command_line", "errors", "numbers"]
    names += ["tables.catalogue", "figures.catalogue", "data.enough_images"]
    for room in ("code", "config", "grid", "scheduling", "shapes", "warm"):
        names += [f"{room}.{path.stem}" for path in package.joinpath(room).glob("[a-z]*.py")]
    names.remove("scheduling.plan")  # it starts Snakemake, which imports more
    found = imported("".join(f"import node_robustness.{name}\n" for name in names))
    assert {f"node_robustness.{name}" for name in names} <= found
    assert not found & HEAVY


def test_the_rules_bring_nothing_that_snakemake_does_not_bring_itself(tmp_path):
    bare = tmp_path / "Snakefile"
    bare.write_text('rule all:\n    output:\n        "a",\n')
    found = parsed(ROOT / "Snakefile")
    assert {"node_robustness.grid.cells", "node_robustness.code.digest"} <= found
    assert not (found - parsed(bare)) & HEAVY


def of_scripts(*names: str) -> set[str]:
    """Which modules scripts have imported before their work begins."""
    texts = [(SCRIPTS / f"{name}.py").read_text() for name in names]
    found = imported("\n".join(text[: text.index("\nwith job(")] for text in texts))
    assert "node_robustness.jobs.log" in found
    return found


def test_torch_is_imported_only_where_tensors_are():
    names = ["fetch", "bundle", "prepare", "tables", "claim", "figures", "stills", "report"]
    assert not of_scripts(*names) & TENSORS


def test_jobs_that_compute_import_no_tables():
    names = [
        "train",
        "evaluate",
        "attack",
        "trajectory",
        "audit",
        "reevaluate",
        "randomise",
        "detect",
        "sweep",
        "attack_cost",
        "certify",
    ]
    assert not of_scripts(*names) & TABLES
