"""Download the files of a dataset, or take those that are there, and record their checksums."""

import json
from pathlib import Path

from node_robustness.config import loading
from node_robustness.data.downloads import fetch
from node_robustness.data.sources import find_source
from node_robustness.files.atomic import atomic_path
from node_robustness.grid.sources import mirrors_of
from node_robustness.jobs.log import job

with job(snakemake.log[0]):
    record = Path(snakemake.output.record)
    # Not a param: another mirror of the same files is no reason to fetch them again.
    mirrors = mirrors_of(loading.load(snakemake.config), snakemake.wildcards.folder)
    source = find_source(**snakemake.params.source, mirrors=mirrors)
    files = {remote.name: remote.sha256 for remote in source.files}
    for remote in source.files:
        fetch(remote, record.parent)
    with atomic_path(record) as path:
        path.write_text(json.dumps(files, indent=2) + "\n")
