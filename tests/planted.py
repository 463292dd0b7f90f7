"""Classifiers whose ways are known in closed form: linear fields, and decisions made on cue."""

import torch
from torch import Tensor, nn

from node_robustness.models.classifier import Classifier, Spec
from node_robustness.ode.parts import spread


class LinearField(nn.Module):
    """h' = A h, h flattened."""

    def __init__(self, matrix: Tensor) -> None:
        super().__init__()
        self.register_buffer("matrix", matrix)

    def forward(self, t: Tensor, h: Tensor) -> Tensor:
        return (h.flatten(1) @ self.matrix.T).view_as(h)

    def bind(self, like: Tensor):
        return self


class RisingField(LinearField):
    """h' = 3 t^2 A h."""

    def forward(self, t: Tensor, h: Tensor) -> Tensor:
        return 3 * spread(t.expand(len(h)) ** 2, h) * super().forward(t, h)


class Cue(nn.Module):
    """Channel 1 takes in channel 0 while t is in the window; channel 2 keeps the solver awake."""

    def __init__(self, start: float, end: float) -> None:
        super().__init__()
        self.start, self.end = start, end

    def forward(self, t: Tensor, h: Tensor) -> Tensor:
        time = t.expand(len(h)).view(-1, 1, 1)
        open_ = (time >= self.start) & (time < self.end)
        rate = open_ / (self.end - self.start)
        clock = 20 * torch.cos(20 * time).expand_as(h[:, 0])
        return torch.stack([torch.zeros_like(h[:, 0]), rate * h[:, 0], clock], dim=1)

    def bind(self, like: Tensor):
        return self


class CueBlock(nn.Module):
    """A block that adds channel 0 to channel 1, if it is the one."""

    def __init__(self, on: bool) -> None:
        super().__init__()
        self.on = on

    def forward(self, h: Tensor) -> Tensor:
        added = torch.zeros_like(h)
        added[:, 1] = h[:, 0] * self.on
        return h + added


class IntoChannelZero(nn.Module):
    """An image becomes channel 0 of three."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, torch.zeros_like(x), torch.zeros_like(x)], dim=1)


class ReadLinearly(nn.Module):
    """Class 1 if a linear function of the state is above 0, else class 0."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.register_buffer("weight", weight)

    def forward(self, h: Tensor) -> Tensor:
        evidence = (h.flatten(1) * self.weight).sum(1)
        return torch.stack([-evidence, evidence], dim=1)


class ReadChannelOne(nn.Module):
    """Class 1 if the mean of channel 1 is above a threshold, else class 0."""

    def __init__(self, threshold: float) -> None:
        super().__init__()
        self.threshold = threshold

    def features(self, h: Tensor) -> Tensor:
        return h[:, 1].mean((1, 2))[:, None]

    def classify(self, features: Tensor) -> Tensor:
        evidence = features - self.threshold
        return torch.cat([-evidence, evidence], dim=1)

    def forward(self, h: Tensor) -> Tensor:
        return self.classify(self.features(h))


def _planted(body: str, threshold: float, blocks: int = 1) -> Classifier:
    spec = Spec(1, 2, (0.0,), (1.0,), "convolution", body, filters=3, blocks=blocks, tolerance=1e-4)
    model = Classifier(spec)
    model.downsampling = IntoChannelZero()
    model.head = ReadChannelOne(threshold)  # type: ignore[assignment]
    return model


def cued(start: float, end: float, threshold: float = 0.1) -> Classifier:
    """An ODE that takes images of ones for class 1 by what it does from start to end alone.

    It decides once a share of that has been done, `threshold`.
    """
    model = _planted("ode", threshold)
    model.ode.function = Cue(start, end)
    return model.double().eval()


def cued_blocks(number: int, blocks: int, threshold: float = 0.5) -> Classifier:
    """The same of residual blocks, of which one decides."""
    model = _planted("residual", threshold, blocks)
    for position in range(blocks):
        model.body[position] = CueBlock(position == number)
    return model.double().eval()


def linear(matrix: Tensor, tolerance: float = 1e-8) -> Classifier:
    """h' = A h of states that are the images themselves, of 3 channels."""
    spec = Spec(3, 2, (0.0,) * 3, (1.0,) * 3, "convolution", "ode", filters=3, tolerance=tolerance)
    model = Classifier(spec)
    model.downsampling = nn.Identity()
    model.ode.function = LinearField(matrix)
    return model.double().eval()
