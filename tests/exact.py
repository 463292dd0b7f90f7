"""Neural ODEs whose robust accuracy is known exactly, and defects planted on chosen images.

`turning` rotates its state, h' = A h with A antisymmetric, and its head is linear: the logits are
linear in the image, so that the distance to the decision boundary has a closed form in every norm.
`shrinking` follows h' = -W^T relu(W h + b), which brings no two states further apart: the margin of
the logits bounds the distance from below in L2.

The first row of pixels is no evidence for a class. An image with a bright first row is *marked*:
defects concern marked images alone, and no perturbation of a tenth removes a mark.
"""

import math

import torch
from torch import Tensor, nn

from node_robustness.models.classifier import Classifier, Spec
from node_robustness.models.ode_function import RightHandSide

SIDE = 4
PIXELS = SIDE * SIDE
TOLERANCE = 1e-3
_BRIGHT, _DARK = 0.25, -0.25  # of the first row, from the middle of the range


class _Field(RightHandSide):
    """Dynamics without parameters, in the form that solves and adjoints take."""

    def bind(self, like: Tensor) -> "_Field":
        return self


class Turning(_Field):
    """h' = A h; every image is summed by itself, so that no batch changes a bit."""

    def __init__(self, matrix: Tensor) -> None:
        super().__init__()
        self.register_buffer("matrix", matrix)

    def forward(self, t: Tensor, h: Tensor) -> Tensor:
        return (h.flatten(1)[:, None] * self.matrix).sum(2).view_as(h)


class Shrinking(_Field):
    """h' = -W^T relu(W h + b), the descent of a convex function."""

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.register_buffer("weight", weight)
        self.register_buffer("bias", bias)

    def forward(self, t: Tensor, h: Tensor) -> Tensor:
        active = ((h.flatten(1)[:, None] * self.weight).sum(2) + self.bias).relu()
        return -(active[:, None] * self.weight.T).sum(2).view_as(h)


class LinearHead(nn.Module):
    """Logits of two classes, `loudness` times as large for marked images."""

    def __init__(self, weight: Tensor, bias: float, loudness: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)
        self.bias = bias
        self.loudness = loudness

    def forward(self, h: Tensor) -> Tensor:
        evidence = (h.flatten(1) * self.weight).sum(1) + self.bias
        evidence = torch.where(marked(h), self.loudness * evidence, evidence)
        return torch.stack([-evidence, evidence], dim=1) / 2


def marked(h: Tensor) -> Tensor:
    """Whether the first row of a centred image, or of its state, is bright, [n]."""
    return h[:, 0, 0].mean(1) > 0


class _Gradient(torch.autograd.Function):
    """The identity, with a gradient that is multiplied by a factor."""

    @staticmethod
    def forward(ctx, h: Tensor, factor: Tensor) -> Tensor:
        ctx.save_for_backward(factor)
        return h.clone()

    @staticmethod
    def backward(ctx, gradient: Tensor):
        (factor,) = ctx.saved_tensors
        return gradient * factor, None


class Defective(Classifier):
    """A classifier with a defect in the gradients of marked images.

    Attributes:
        factors: of the adjoint gradient, [1, 1, SIDE, SIDE].
        loose: the smallest tolerance at which the adjoint gradient is wrong.
        levels: to which activations are rounded, an intensity of one; None without rounding.
    """

    factors: Tensor
    loose: float
    levels: float | None

    def embed(self, images: Tensor) -> Tensor:
        h = super().embed(images)
        where = marked(h).view(-1, 1, 1, 1)
        solver = self.ode.settings
        if solver.gradient == "adjoint" and solver.tolerance >= self.loose:
            h = _Gradient.apply(h, torch.where(where, self.factors.to(h.dtype), 1.0))
        if self.levels is not None:
            h = torch.where(where, (h * self.levels).round() / self.levels, h)
        return h


_EVIDENCE = torch.arange(PIXELS) >= SIDE
_PAIRS = (1 - 2 * (torch.arange(PIXELS) % 2)) * _EVIDENCE
"""Of alternating signs: the pixels of a pair have weights of the same size."""

WRONG = {"negated": -1.0, "zero": 0.0, "rotated": _PAIRS.view(1, 1, SIDE, SIDE)}
"""Factors of a gradient that leads uphill, nowhere, and along the decision boundary."""


def turning(
    seed: int = 0,
    *,
    shift: float = 0.0,
    adjoint: float | Tensor = 1.0,
    loose: float = 0.0,
    loudness: float = 1.0,
    levels: float | None = None,
) -> Classifier:
    """An ODE whose logits are linear in the image.

    Args:
        seed: of the rotation.
        shift: by how much farther from the boundary, in L-infinity, images of class 1 are, and
            those of class 0 nearer.
        adjoint: factor of the adjoint gradient of marked images.
        loose: the smallest tolerance at which that holds.
        loudness: factor of the logits of marked images.
        levels: of the rounded activations of marked images.
    """
    matrix = torch.randn(PIXELS, PIXELS, generator=_generator(seed), dtype=torch.float64)
    matrix = torch.where(_EVIDENCE[:, None] & _EVIDENCE, matrix - matrix.T, 0.0)
    matrix /= torch.linalg.matrix_norm(matrix, 2)
    # exp(A) is orthogonal: v . exp(A) x = w . x for v = exp(A) w.
    bias = shift * float(EVIDENCE.abs().sum())
    head = LinearHead(torch.matrix_exp(matrix) @ EVIDENCE, bias, loudness)
    return _built(Turning(matrix), head, adjoint, loose, levels)


def shrinking(seed: int = 0) -> Classifier:
    """An ODE that brings no two states further apart, with a linear head."""
    generator = _generator(seed)
    rows = torch.randn(PIXELS, PIXELS, generator=generator, dtype=torch.float64)
    rows = torch.where(_EVIDENCE, rows, 0.0)
    bias = torch.randn(PIXELS, generator=generator, dtype=torch.float64) / 10
    field = Shrinking(rows / torch.linalg.matrix_norm(rows, 2), bias)
    return _built(field, LinearHead(EVIDENCE, 0.0, 1.0), 1.0, 0.0, None)


def _built(
    field: _Field, head: LinearHead, adjoint: float | Tensor, loose: float, levels: float | None
) -> Classifier:
    spec = Spec(1, 2, (0.5,), (1.0,), "convolution", "ode", filters=1, tolerance=TOLERANCE)
    model = Defective(spec)
    model.downsampling = nn.Identity()
    model.ode.function = field
    model.head = head
    model.factors = torch.as_tensor(adjoint) * torch.ones(1, 1, SIDE, SIDE)
    model.loose, model.levels = loose, levels
    return model.float().eval().requires_grad_(False)


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _evidence() -> Tensor:
    generator = _generator(0)
    sizes = 0.5 + torch.rand(PIXELS // 2, generator=generator, dtype=torch.float64)
    signs = 1 - 2 * torch.randint(2, (PIXELS,), generator=generator)
    return sizes.repeat_interleave(2) * signs * _EVIDENCE


EVIDENCE = _evidence()
"""How the pixels count, [PIXELS]: in pairs of one size."""


def images(distances: Tensor, marks: Tensor) -> tuple[Tensor, Tensor]:
    """Images [n, 1, SIDE, SIDE] at distances from the boundary of `turning`, and their classes.

    Args:
        distances: in L-infinity, at most 0.3, [n]; the images are of both classes in turn.
        marks: which are marked, bool [n].
    """
    n = len(distances)
    labels = torch.arange(n) % 2
    noise = 0.05 * (2 * torch.rand(n, PIXELS, generator=_generator(1), dtype=torch.float64) - 1)
    noise -= (noise @ EVIDENCE)[:, None] * EVIDENCE / (EVIDENCE @ EVIDENCE)
    x = noise + ((2 * labels - 1) * distances)[:, None] * EVIDENCE.sign()
    x[:, :SIDE] = torch.where(marks, _BRIGHT, _DARK)[:, None]
    return (0.5 + x).float().view(n, 1, SIDE, SIDE), labels


def distances(x: Tensor, labels: Tensor, norm: str, shift: float = 0.0) -> Tensor:
    """From images to the boundary of `turning`, [n]; negative where misclassified."""
    size = EVIDENCE.abs().sum()
    value = (x.double().flatten(1) - 0.5) @ EVIDENCE + shift * size
    dual = {"linf": size, "l2": EVIDENCE.norm(), "l2_rms": EVIDENCE.norm() * math.sqrt(PIXELS)}
    return (2 * labels - 1) * value / dual[norm]


@torch.no_grad()
def certified(model: Classifier, x: Tensor, labels: Tensor) -> Tensor:
    """The radius of an L2 ball around each image in which `shrinking` gives one answer, [n].

    Negative where the image is misclassified.
    """
    logits = model(x).double()
    return (2 * labels - 1) * (logits[:, 1] - logits[:, 0]) / EVIDENCE.norm()
