"""What Snakemake needs to know of jobs: code, sizes, costs, places, and the reasons for a rerun."""
