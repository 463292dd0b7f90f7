"""What Snakemake needs to know of jobs: code, sizes, places, and the reasons for a rerun."""
