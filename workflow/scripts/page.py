"""Write the page of results of an experiment, and the folder that it is made from."""

from pathlib import Path

from node_robustness.files.atomic import atomic_path
from node_robustness.jobs.log import job
from node_robustness.report import markdown

with job(snakemake.log[0]):
    folder = Path(snakemake.output.folder)
    folder.mkdir(parents=True, exist_ok=True)
    files = snakemake.input
    markdown.gather(map(Path, files.tables), map(Path, files.figures), Path(files.manifest), folder)
    text = markdown.render(snakemake.wildcards.experiment, folder)
    with atomic_path(snakemake.output.page) as path:
        path.write_text(text, encoding="utf-8")
