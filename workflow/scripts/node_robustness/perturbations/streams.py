"""Random numbers for attacks: a separate stream for every image.

A stream is seeded from the seed and from the image's row in the test set, so that what is drawn for
an image depends neither on its batch, nor on the order of the images, nor on the number of shards.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Generator, Tensor


class Streams:
    """One random generator, on the CPU, for each of m images.

    Draws are made in float64 on the CPU and then cast, so that they are the same on every device
    and, up to rounding, in every precision.
    """

    def __init__(self, generators: Sequence[Generator]) -> None:
        self._generators = list(generators)

    @classmethod
    def of(cls, seed: int, rows: Sequence[int], purpose: str = "") -> "Streams":
        """The streams of the images at `rows` of the test set.

        Args:
            seed: not negative.
            rows: where each image stands in the test set, not negative.
            purpose: what is drawn from them; two purposes have nothing in common.
        """
        return cls([_generator(seed, row, purpose) for row in rows])

    def __len__(self) -> int:
        return len(self._generators)

    def __getitem__(self, images: Tensor) -> "Streams":
        """The streams of some images, by bool mask [m] or by int64 positions [k].

        They are the same streams, not copies: a draw from one moves the other on.
        """
        positions = images.nonzero().flatten() if images.dtype == torch.bool else images
        return Streams([self._generators[position] for position in positions.tolist()])

    def uniform(self, shape: Sequence[int], like: Tensor) -> Tensor:
        """Numbers from [0, 1], [m, *shape], with the dtype and device of `like`."""

        def draw(generator: Generator) -> Tensor:
            return torch.rand(tuple(shape), generator=generator, dtype=torch.float64)

        return self._drawn(draw, shape).to(like.dtype).to(like.device)

    def normal(self, shape: Sequence[int], like: Tensor) -> Tensor:
        """Standard normal numbers, [m, *shape], with the dtype and device of `like`."""

        def draw(generator: Generator) -> Tensor:
            return torch.randn(tuple(shape), generator=generator, dtype=torch.float64)

        return self._drawn(draw, shape).to(like.dtype).to(like.device)

    def integers(self, low: int, high: int, shape: Sequence[int]) -> Tensor:
        """Whole numbers from low to high - 1, all equally likely, int64 [m, *shape] on the CPU."""

        def draw(generator: Generator) -> Tensor:
            return torch.randint(low, high, tuple(shape), generator=generator)

        return self._drawn(draw, shape).to(torch.int64)

    def _drawn(self, draw: Callable[[Generator], Tensor], shape: Sequence[int]) -> Tensor:
        if not self._generators:
            return torch.empty(0, *shape, dtype=torch.float64)
        return torch.stack([draw(generator) for generator in self._generators])


def _generator(seed: int, row: int, purpose: str) -> Generator:
    """A generator whose seed is well mixed: neighbouring seeds and rows give unrelated streams."""
    entropy = [seed, row, *purpose.encode()]
    state = np.random.SeedSequence(entropy).generate_state(1, np.uint64)
    return Generator().manual_seed(int(state[0]))
