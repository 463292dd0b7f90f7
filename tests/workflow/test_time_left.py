"""A run says how long it takes, before it starts and while it runs."""

import re

import pytest

from harness import ROOT, snakemake

# With lines as often as can be.
IMPATIENT = f"""
import sys

sys.path.append({str(ROOT / "workflow/scripts")!r})
from node_robustness.scheduling import time_left

time_left._SECONDS_BETWEEN_LINES = 0.0

include: {str(ROOT / "workflow/Snakefile")!r}
"""
DATA = "results/tiny/digits/data.h5"


@pytest.fixture
def impatient(tmp_path):
    snakefile = tmp_path / "Snakefile"
    snakefile.write_text(IMPATIENT)
    return snakefile


def lines(run):
    return [line for line in run.output.splitlines() if line.startswith("Time ")]


def test_before_and_while_it_runs_and_not_if_it_is_to_be_quiet(fresh, impatient):
    run = snakemake(fresh, DATA, snakefile=impatient, cores=2)
    before, left = lines(run)
    assert re.fullmatch(
        r"Time needed: less than a minute on \d cores? for 2 jobs, by the speed of this processor",
        before,
    )
    assert left == "Time left: less than a minute"
    assert run.output.index(before) < run.output.index("Fetching") < run.output.index(left)
    again = snakemake(fresh, DATA, snakefile=impatient, options=("--forceall",))
    assert lines(again)[0].endswith(" for 2 jobs, by what 2 earlier jobs took")
    for quiet in ("progress", "all"):
        options = ("--forceall", "--quiet", quiet)
        assert lines(snakemake(fresh, DATA, snakefile=impatient, options=options)) == []
