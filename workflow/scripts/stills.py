"""Make what is seen without the report: figures as PNG, and a page for every followed image."""

from pathlib import Path

from node_robustness.figures.drawing import draw_still, save_pixels, save_still
from node_robustness.figures.images import single_pages
from node_robustness.jobs import forks
from node_robustness.jobs.failures import attempt
from node_robustness.jobs.log import job
from node_robustness.tables.image_pages import image_pages

with job(snakemake.log[0]):
    files = snakemake.input
    pages = attempt(
        "The pages of images",
        lambda: dict(
            single_pages(
                image_pages(
                    zip(
                        files.trajectories, files.followed_attacks, files.followed_data, strict=True
                    )
                )
            )
        ),
        lambda _: {},
    )
    images = Path(snakemake.output.images)
    images.mkdir(parents=True, exist_ok=True)

    def save_page(name: str) -> None:
        """Draw the page of an image and write it."""
        save_still(draw_still(f"The page {name}", pages[name]), images / f"{name}.svg")

    def save_figure(svg: Path) -> None:
        """Write a figure as PNG."""
        save_pixels(f"The PNG of the figure {svg.stem}", svg, svg.with_suffix(".png"))

    forks.for_each(
        [(save_figure, Path(svg)) for svg in files.figures] + [(save_page, name) for name in pages],
        lambda task: task[0](task[1]),
        snakemake.threads,
    )
