"""Whether the disk will hold the trajectories of a run, asked before the run starts.

Like `config`, this module must import quickly.
"""

import shutil
from collections import Counter
from collections.abc import Iterable
from math import comb, isqrt
from pathlib import Path

from node_robustness.config.config import Config
from node_robustness.config.models import Model
from node_robustness.errors import UserError
from node_robustness.grid.cells import Cell
from node_robustness.shapes.datasets import Size, images_to_test, size_of
from node_robustness.shapes.networks import state_size
from node_robustness.trajectories.layout import TrajectorySizes


def sizes_of(config: Config, cell: Cell) -> TrajectorySizes | None:
    """The largest that the trajectory file of a cell can become; None if its dataset is unknown.

    Data of one's own are counted only once they are prepared. Images that the model gets wrong
    without an attack are not followed, which is not known before, either.
    """
    dataset = config.datasets[cell.dataset]
    size, tested = size_of(dataset), images_to_test(dataset)
    follow = config.experiments[cell.experiment].trajectories
    if size is None or tested is None or follow is None:
        return None
    model = config.models[cell.model]
    ode = model.body == "ode"
    times = follow.times if isinstance(follow.times, int) else len(follow.times)
    images = min(tested, follow.images or tested)
    return TrajectorySizes(
        images=images,
        kept=min(follow.states, images),
        times=times if ode else model.blocks + 1,
        state=_state_shape(model, size),
        intervals=comb((follow.intervals if ode else model.blocks) + 1, 2),
        ode=ode,
        precision=follow.precision,
    )


def _state_shape(model: Model, image: Size) -> tuple[int, int, int]:
    """[C, H, W] of h(t), of square images: what `Classifier.embed` makes of them."""
    side = isqrt(image.pixels)
    return model.filters, *state_size(model.downsampling, side, side)


def check_room(config: Config, cells: Iterable[Cell], results: Path) -> list[str]:
    """Compare the trajectory files that a run is to write with the space on the disk.

    Args:
        config: the configuration.
        cells: those whose files are to be written.
        results: the folder of all results; it may not be there yet.

    Returns:
        What they take, line by line, for the user; nothing if there are no cells.

    Raises:
        UserError: more than there is, with what is there now of the same files.
    """
    counted: Counter[tuple[str, str, TrajectorySizes | None]] = Counter()
    keys: dict[str, None] = {}
    freed = 0
    for cell in cells:
        keys[f"experiments.{cell.experiment}.trajectories"] = None
        counted[cell.dataset, cell.model, sizes_of(config, cell)] += 1
        path = results / cell.folder / "trajectory.h5"
        freed += path.stat().st_size if path.exists() else 0
    if not counted:
        return []
    lines = [
        f"Trajectories of {model} on {dataset}, {_files(number)}: "
        + ("not known before the data are prepared" if sizes is None else _words(sizes))
        for (dataset, model, sizes), number in counted.items()
    ]
    needed = sum(sizes.row_bytes * n for (*_, sizes), n in counted.items() if sizes is not None)
    disk = next(folder for folder in (results, *results.absolute().parents) if folder.exists())
    free = shutil.disk_usage(disk).free + freed
    verdict = f"{_megabytes(needed)} at most, and there are {_megabytes(free)} free"
    if needed > free:
        raise UserError(
            f"config: {', '.join(keys)}: the files take {verdict} on the disk of {results}: free "
            "space, or ask for less (fewer images, states, times or cells)"
        )
    return [*lines, f"Trajectories of this run: {verdict}"]


def _words(sizes: TrajectorySizes) -> str:
    each, kept = sizes.bytes_an_image / 1e3, sizes.bytes_a_kept_image / 1e3
    return (
        f"up to {sizes.images:,} images of {each:,.1f} kB each, {sizes.kept:,} of them with "
        f"states of {kept:,.1f} kB more"
    )


def _files(number: int) -> str:
    return "1 file" if number == 1 else f"{number:,} files"


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"
