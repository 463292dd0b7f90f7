"""The Square attack: random search over squares, which asks for logits and never for a gradient.

Andriushchenko, Croce, Flammarion & Hein, Square Attack: a query-efficient black-box adversarial
attack via random search, ECCV 2020: Algorithm 1 (the search), Algorithm 2 (proposals for linf),
Algorithm 3 and equation 2 (proposals for l2). Every image has its own squares.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from node_robustness.attacks.best import Best
from node_robustness.attacks.logits import margin
from node_robustness.attacks.method import Found, Pass
from node_robustness.perturbations.ball import into_ball
from node_robustness.perturbations.norms import Norm, column
from node_robustness.perturbations.streams import Streams

_HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
"""After how many of 10,000 queries the share of pixels in a square is halved (Section 3.1)."""
_SCHEDULED = 10_000
_TILES = 5  # across the image, of the pattern that the search in L2 starts from
_SMALLEST_PATTERN = 3
_TINY = 1e-12  # guards the division by the norm of a window without change


@dataclass(frozen=True)
class Square:
    """The Square attack with the margin loss.

    The squares shrink by the paper's schedule for 10,000 queries, rescaled to `queries` as in the
    authors' program: after the same share of the queries they have the same size. An image is done
    at its first adversarial example.

    Attributes:
        norm: in which epsilon is measured.
        epsilon: largest norm of a perturbation.
        queries: forward passes an image at most, that of the start included.
        p_init: share of the pixels that a square covers at first, in (0, 1].
    """

    norm: Norm
    epsilon: float
    queries: int = 5000
    p_init: float = 0.8

    @property
    def passes(self) -> int:
        """See `Method.passes`."""
        return self.queries

    def search(self, model: nn.Module, images: Tensor, labels: Tensor, streams: Streams) -> Found:
        """See `Method`."""
        best = Best(images, labels, self.norm, self.epsilon)
        rows = best.going()
        candidates = current = self._start(images, streams)
        highest = images.new_full(labels.shape, -torch.inf)
        for query in range(self.queries):
            if query > 0:
                candidates = self._propose(images[rows], current, query, streams[rows])
            passed = Pass.over(model, candidates, differentiable=False)
            best.consider(rows, passed, steps=1)
            margins = margin(passed.logits, labels[rows])
            better = margins > highest
            current = torch.where(column(better), candidates, current)
            highest = torch.where(better, margins, highest)
            stay = ~best.success[rows]
            rows, current, highest = rows[stay], current[stay], highest[stay]
            if len(rows) == 0:
                break
        return best.found()

    def _start(self, images: Tensor, streams: Streams) -> Tensor:
        """Stripes for linf, a pattern of tiles for L2, [m, C, H, W] at the distance epsilon."""
        if self.norm.name == "linf":
            shape = (images.shape[1], 1, images.shape[3])
            return self._at_epsilon(images, _signs(streams.uniform(shape, images)))
        return self._at_epsilon(images, _tiles(images, streams))

    def _propose(self, images: Tensor, current: Tensor, query: int, streams: Streams) -> Tensor:
        """The next candidates, [k, C, H, W]."""
        height, width = images.shape[2:]
        share = self.p_init * scheduled_share(query, self.queries)
        side = max(round(math.sqrt(share * height * width)), 1)
        if self.norm.name == "linf":
            return self._propose_square(images, current, min(side, height, width), streams)
        odd = max(side + 1 - side % 2, _SMALLEST_PATTERN)
        return self._propose_pattern(images, current, min(odd, height, width), streams)

    def _propose_square(
        self, images: Tensor, current: Tensor, side: int, streams: Streams
    ) -> Tensor:
        """Algorithm 2: a square in which every channel goes to one end of its range."""
        draws = streams.uniform((2 + images.shape[1],), images)
        window = _window(images, draws[:, :2], side)
        signs = _signs(draws[:, 2:])[:, :, None, None]
        candidates = self._painted(images, current, window, signs)
        # To ask again about the current point would be a wasted query.
        same = (candidates == current).flatten(1).all(1)
        signs = torch.where(column(same), -signs, signs)
        return self._painted(images, current, window, signs)

    def _painted(self, images: Tensor, current: Tensor, window: Tensor, signs: Tensor) -> Tensor:
        painted = torch.where(window, images + self.epsilon * signs, current)
        return into_ball(images, painted, self.norm, self.epsilon)

    def _propose_pattern(
        self, images: Tensor, current: Tensor, side: int, streams: Streams
    ) -> Tensor:
        """Algorithm 3: move the change of one window into another, as a pattern."""
        channels = images.shape[1]
        draws = streams.uniform((5 + channels,), images)
        signs = _signs(draws[:, 5:])[:, :, None, None]
        change = current - images
        to, source = _window(images, draws[:, :2], side), _window(images, draws[:, 2:4], side)
        within = _squares(change * to).sqrt()
        shape = _placed(images, draws[:, :2], _pattern(images, side, draws[:, 4]))
        shape = signs * shape + change * to / (within + _TINY)
        shape = shape / (_squares(shape).sqrt() + _TINY)
        unused = (self._radius(images) ** 2 - _squares(change).sum(1, keepdim=True)).clamp(min=0)
        available = (_squares(change * (to | source)) + unused / channels).sqrt()
        change = torch.where(to, shape * available, torch.where(source, 0, change))
        return self._at_epsilon(images, change)

    def _radius(self, images: Tensor) -> float:
        """Epsilon as a plain L2 norm."""
        scale = math.sqrt(images[0].numel()) if self.norm.name == "l2_rms" else 1.0
        return self.epsilon * scale

    def _at_epsilon(self, images: Tensor, change: Tensor) -> Tensor:
        """The images with the change, made as large as epsilon allows."""
        scale = self.epsilon / self.norm.size(change).clamp(min=_TINY)
        return into_ball(images, images + column(scale) * change, self.norm, self.epsilon)


def scheduled_share(query: int, queries: int) -> float:
    """The share of its first area that a square still covers at a query, from 1 on, of so many."""
    scheduled = query * _SCHEDULED // queries
    return float(0.5 ** sum(scheduled > halving for halving in _HALVINGS))


def _signs(draws: Tensor) -> Tensor:
    """Minus or plus one for numbers drawn from [0, 1]."""
    return torch.where(draws < 0.5, -1.0, 1.0).to(draws)


def _squares(change: Tensor) -> Tensor:
    """The sum of squares in each channel, [k, C, 1, 1]."""
    return change.square().sum((2, 3), keepdim=True)


def _corner(images: Tensor, draws: Tensor, side: int) -> Tensor:
    """The row and the column of a window's first pixel, int64 [k, 2], for draws from [0, 1]."""
    room = torch.tensor(images.shape[2:], device=images.device) - side
    return torch.minimum((draws * (room + 1)).long(), room)


def _window(images: Tensor, draws: Tensor, side: int) -> Tensor:
    """A square window of each image at a random place, bool [k, 1, H, W]."""
    top, left = _corner(images, draws, side).T[:, :, None]
    rows = torch.arange(images.shape[2], device=images.device)
    columns = torch.arange(images.shape[3], device=images.device)
    in_rows = (rows >= top) & (rows < top + side)
    in_columns = (columns >= left) & (columns < left + side)
    window: Tensor = in_rows[:, None, :, None] & in_columns[:, None, None, :]
    return window


def _placed(images: Tensor, draws: Tensor, patterns: Tensor) -> Tensor:
    """Patterns [k, side, side] in the windows of `_window`, 0 around them, [k, 1, H, W]."""
    side = patterns.shape[1]
    placed = images.new_zeros(len(images), 1, *images.shape[2:])
    window = _window(images, draws, side)
    return placed.masked_scatter(window, patterns)


def _pattern(images: Tensor, side: int, draws: Tensor) -> Tensor:
    """Equation 2: a pyramid above a pyramid upside down, or left of it, of norm one.

    Args:
        images: for the dtype and the device.
        side: of the pattern.
        draws: from [0, 1]; which of the two, any shape.

    Returns:
        [*draws.shape, side, side].
    """
    upper = _pyramid(side // 2, side)
    lower = -_pyramid(side - side // 2, side)
    pattern = torch.cat([upper, lower])
    pattern = (pattern / pattern.norm()).to(images)
    return torch.where(draws[..., None, None] < 0.5, pattern, pattern.T)


def _pyramid(height: int, width: int) -> Tensor:
    """Squares around the centre, one inside the other, float64 [height, width] of norm one."""
    from_centre = torch.maximum(
        (torch.arange(height) - height // 2).abs()[:, None],
        (torch.arange(width) - width // 2).abs()[None, :],
    )
    rings = 1 / torch.arange(1, max(height, width) // 2 + 2, dtype=torch.float64) ** 2
    values = rings.flip(0).cumsum(0).flip(0)[from_centre]
    pyramid: Tensor = values / values.norm().clamp(min=_TINY)
    return pyramid


def _tiles(images: Tensor, streams: Streams) -> Tensor:
    """A change made of patterns side by side, around the middle of the image, [m, C, H, W]."""
    count, channels, height, width = images.shape
    side = max(min(height, width) // _TILES, 1)
    down, across = height // side, width // side
    draws = streams.uniform((1 + channels, down, across), images)
    patterns = _pattern(images, side, draws[:, 0])  # [m, down, across, side, side]
    tiles = _signs(draws[:, 1:])[..., None, None] * patterns[:, None]
    tiles = tiles.transpose(3, 4).reshape(count, channels, down * side, across * side)
    top, left = (height - down * side) // 2, (width - across * side) // 2
    change = torch.zeros_like(images)
    change[:, :, top : top + down * side, left : left + across * side] = tiles
    return change
