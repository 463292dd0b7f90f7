"""What Snakemake is told about jobs: code, sizes, places, and the reasons for a rerun."""
