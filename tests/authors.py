"""The nets of Carrara et al. as their code names and computes them: the reference for imports."""

import torch
import torchdiffeq
from torch import Tensor, nn

KINDS = {
    "RES": ("residual", "residual"),
    "MIX": ("residual", "ode"),
    "OON": ("convolution", "ode"),
}


def authors_net(kind: str, filters: int, channels: int, dropout: bool) -> nn.Module:
    """A net with the authors' names and plain formulas: the reference for imports."""

    def norm(n: int) -> nn.GroupNorm:
        return nn.GroupNorm(min(32, n), n)

    class Block(nn.Module):
        def __init__(self, i: int, o: int, stride: int = 1) -> None:
            super().__init__()
            self.norm1, self.conv1 = norm(i), nn.Conv2d(i, o, 3, stride, 1, bias=False)
            self.norm2, self.conv2 = norm(o), nn.Conv2d(o, o, 3, 1, 1, bias=False)
            if stride > 1:
                self.downsample = nn.Conv2d(i, o, 1, stride, bias=False)

        def forward(self, x: Tensor) -> Tensor:
            a = self.norm1(x).relu()
            skip = self.downsample(a) if hasattr(self, "downsample") else x
            return self.conv2(self.norm2(self.conv1(a)).relu()) + skip

    class Concatenated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self._layer = nn.Conv2d(filters + 1, filters, 3, padding=1)

        def forward(self, t: Tensor, x: Tensor) -> Tensor:
            return self._layer(torch.cat([t.expand(len(x), 1, *x.shape[2:]), x], 1))

    class Dynamics(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm1, self.norm2, self.norm3 = norm(filters), norm(filters), norm(filters)
            self.conv1, self.conv2 = Concatenated(), Concatenated()

        def forward(self, t: Tensor, x: Tensor) -> Tensor:
            x = self.conv1(t, self.norm1(x).relu())
            return self.norm3(self.conv2(t, self.norm2(x).relu()))

    class Holder(nn.Module):
        def __init__(self, name: str, module: nn.Module) -> None:
            super().__init__()
            setattr(self, name, module)

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            if KINDS[kind][0] == "residual":
                down: nn.Module = nn.Sequential(
                    nn.Conv2d(channels, 64, 3), Block(64, 64, 2), Block(64, filters, 2)
                )
            else:
                down = nn.Conv2d(channels, filters, 4, 2, 1)
            self.downsample = Holder("module", down)
            if kind == "RES":
                self.features = nn.Sequential(*(Block(filters, filters) for _ in range(6)))
            else:
                self.odeblock = Holder("odefunc", Dynamics())
            layers = [norm(filters), nn.ReLU(), nn.AdaptiveAvgPool2d(1)]
            layers += [nn.Dropout()] if dropout else []
            self.classifier = Holder(
                "module", nn.Sequential(*layers, nn.Flatten(), nn.Linear(filters, 10))
            )

        def forward(self, x: Tensor, tau: float) -> Tensor:
            h = self.downsample.module(x)
            if kind == "RES":
                h = self.features(h)
            else:
                h = torchdiffeq.odeint(
                    self.odeblock.odefunc, h, torch.tensor([0.0, 1.0]), rtol=tau, atol=tau
                )[-1]
            return self.classifier.module(h)

    return Net().eval()
