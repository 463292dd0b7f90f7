"""Write the code that draws the charts of reports in a browser."""

from node_robustness.jobs.log import job
from node_robustness.report import drawing_code

with job(snakemake.log[0]):
    drawing_code.write(drawing_code.bundle(), snakemake.output.code)
