"""The shards of a cell: parts of its images, each attacked by one job."""

from dataclasses import dataclass

from node_robustness.config.config import Config
from node_robustness.grid.cells import Cell, source


@dataclass(frozen=True)
class Shard:
    """Some of the test images of a cell: those from `first` to `end`, without that at `end`."""

    first: int
    end: int

    @property
    def name(self) -> str:
        """Its part of the name of its file."""
        return f"{self.first}-{self.end}"

    @classmethod
    def named(cls, name: str) -> "Shard":
        """The shard of a name."""
        return cls(*map(int, name.split("-")))

    @property
    def images(self) -> int:
        """How many they are."""
        return self.end - self.first


def is_split(config: Config, dataset: str) -> bool:
    """Whether attacks on a dataset are made in shards.

    They are if it has more test images than a shard holds. Where shards are kept, they always are,
    as there may be more images later.
    """
    size, images = config.compute.shard_size, config.datasets[dataset].images_to_test
    if size is None or images is None:
        return False
    return config.compute.keep_shards or images > size


def shards(config: Config, cell: Cell) -> list[Shard]:
    """The shards of a cell whose dataset is split, in the order of their images.

    Images that are solved as one equation stay together, as their results depend on each other:
    `shard_size` is rounded up to whole batches.
    """
    size, images = config.compute.shard_size, config.datasets[cell.dataset].images_to_test
    assert size is not None  # see is_split
    assert images is not None
    joint = _joint_images(config, cell)
    size = -(-size // joint) * joint
    return [Shard(first, min(first + size, images)) for first in range(0, images, size)]


def _joint_images(config: Config, cell: Cell) -> int:
    """How many images are one equation in a cell; `memory.images_at_a_time` gives as many."""
    made_on = source(config, cell)
    joint = config.models[cell.model].joint_images
    if joint == 1 and made_on is not None:
        return config.models[made_on.model].joint_images
    return joint
