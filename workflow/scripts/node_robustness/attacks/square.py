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
from node_robustness.models.memory import images_in_an_equation
from node_robustness.perturbations.ball import into_ball
from node_robustness.perturbations.norms import Norm, column
from node_robustness.perturbations.streams import Streams

_HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
"""After how many of 10,000 queries the share of pixels in a square is halved (Section 3.1)."""
_SCHEDULED = 10_000
_TILES = 5  # across the image, of the pattern that the search in L2 starts from
_SMALLEST_PATTERN = 3
_PIXELS = 2**15
"""Pixels of the candidates in a pass over several queries of each image, at most.

For small images a pass costs hardly less with fewer of them, and proposals that are forgotten cost
little. For large ones they would cost more than they save.
"""
_DRAWS = 2**22  # proposals whose random numbers are kept, at most
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

    @property
    def largest_batch(self) -> int:
        """See `BoundsBatches`: all that is drawn for the images of a batch is kept."""
        return max(_DRAWS // self.queries, 1)

    def search(self, model: nn.Module, images: Tensor, labels: Tensor, streams: Streams) -> Found:
        """See `Method`.

        A proposal depends on its image, the number of the query and the point that it changes
        alone. Most are worse than that point: several in a row are evaluated in one pass, the
        first better one is taken, and those after it are forgotten. What is found is the same as
        with one at a time.
        """
        best = Best(images, labels, self.norm, self.epsilon)
        rows = best.going()
        current = self._start(images, streams)
        passed = Pass.over(model, current, differentiable=False)
        best.consider(rows, passed, steps=1)
        highest = margin(passed.logits, labels)
        draws = streams.uniform((self.queries - 1, self._draws(images)), images)
        sides = self._sides(images)
        asked = torch.ones_like(rows)
        most = 1 if images_in_an_equation(model) else _PIXELS // images[0, 0].numel()
        ahead = 1
        while True:
            stay = ~best.success[rows] & (asked < self.queries)
            rows, current = rows[stay], current[stay]
            highest, asked = highest[stay], asked[stay]
            if len(rows) == 0:
                return best.found()
            ahead = max(min(ahead, most // len(rows), self.queries - int(asked.min())), 1)
            # The last query may be in a row several times; only the first of them counts.
            queries = asked[:, None] + torch.arange(ahead, device=asked.device)
            queries = queries.clamp(max=self.queries - 1)
            candidates = self._propose(
                images[rows].repeat_interleave(ahead, 0),
                current.repeat_interleave(ahead, 0),
                sides[queries.flatten().cpu()],
                draws[rows[:, None], queries - 1].flatten(0, 1),
            )
            passed = Pass.over(model, candidates, differentiable=False)
            margins = margin(passed.logits, labels[rows].repeat_interleave(ahead))
            margins = margins.view(len(rows), ahead)
            # A margin that is not a number is that of a failed solve, and at zero a tie decides.
            ends = ~(margins <= highest[:, None]) | (margins >= 0) | (queries == self.queries - 1)
            ends[:, -1] = True
            last = ends.int().argmax(1)
            taken = torch.arange(len(rows), device=rows.device) * ahead + last
            best.consider(rows, passed[taken], steps=last + 1)
            margins = margins.gather(1, last[:, None]).squeeze(1)
            better = margins > highest
            current = torch.where(column(better), candidates[taken], current)
            highest = torch.where(better, margins, highest)
            asked = asked + last + 1
            # About half as many as are expected up to the next better one.
            ahead = int((last + 1).sum()) // (2 * int(better.sum()) + 1)

    def _start(self, images: Tensor, streams: Streams) -> Tensor:
        """Stripes for linf, a pattern of tiles for L2, [m, C, H, W] at the distance epsilon."""
        if self.norm.name == "linf":
            shape = (images.shape[1], 1, images.shape[3])
            return self._at_epsilon(images, _signs(streams.uniform(shape, images)))
        return self._at_epsilon(images, _tiles(images, streams))

    def _draws(self, images: Tensor) -> int:
        """How many random numbers a proposal takes."""
        return (2 if self.norm.name == "linf" else 5) + images.shape[1]

    def _propose(self, images: Tensor, current: Tensor, sides: Tensor, draws: Tensor) -> Tensor:
        """Candidates by squares of these sides, int64 [k] on the CPU, [k, C, H, W]."""
        propose = self._propose_square if self.norm.name == "linf" else self._propose_pattern
        if bool((sides == sides[0]).all()):
            return propose(images, current, int(sides[0]), draws)
        candidates = torch.empty_like(images)
        for side in sides.unique().tolist():
            own = (sides == side).to(images.device)
            candidates[own] = propose(images[own], current[own], side, draws[own])
        return candidates

    def _sides(self, images: Tensor) -> Tensor:
        """The side of the square of every query, int64 [queries]; the first has none."""
        height, width = images.shape[2:]
        sides = [0]
        for query in range(1, self.queries):
            share = self.p_init * scheduled_share(query, self.queries)
            side = max(round(math.sqrt(share * height * width)), 1)
            if self.norm.name != "linf":
                side = max(side + 1 - side % 2, _SMALLEST_PATTERN)
            sides.append(min(side, height, width))
        return torch.tensor(sides)

    def _propose_square(self, images: Tensor, current: Tensor, side: int, draws: Tensor) -> Tensor:
        """Algorithm 2: a square in which every channel goes to one end of its range."""
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

    def _propose_pattern(self, images: Tensor, current: Tensor, side: int, draws: Tensor) -> Tensor:
        """Algorithm 3: move the change of one window into another, as a pattern."""
        channels = images.shape[1]
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
