"""What it costs that a network is a user's own: seconds of attack steps, and memory.

    python benchmarks/own_models.py [--images 32] [--repeats 5] [--threads 1]

The paper's OON and MIX, 64 filters, and the same nets written with torchdiffeq as its example is:
the time is concatenated to the state as a channel. One attack step is a forward pass and a gradient
for the images. Ratios are of the time of all cores, which other work on the machine hardly changes.
They are against the same operations in the built-in body, and against the built-in network, whose
convolutions do not see a concatenated channel.
"""

import argparse
import time
from dataclasses import replace
from pathlib import Path

import torch
import torchdiffeq
from torch import Tensor, nn

import results
from nets import DESIGNS
from node_robustness.models.classifier import Classifier, Spec, frozen
from node_robustness.models.memory import bytes_per_image
from node_robustness.models.ode_body import ODEBody
from node_robustness.models.ode_function import ODEFunction, RightHandSide
from node_robustness.models.own.network import OwnNetwork
from node_robustness.ode.rows import Way

TOLERANCES = (1e-3, 0.1, 1.0)


class ConcatConv2d(nn.Module):
    """A convolution that sees the time as its first channel."""

    def __init__(self, layer: nn.Conv2d) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, t: Tensor, x: Tensor) -> Tensor:
        """Scalar t."""
        found: Tensor = self.layer(torch.cat([torch.ones_like(x[:, :1]) * t, x], 1))
        return found


class Dynamics(nn.Module):
    """The built-in dynamics, as torchdiffeq's example writes them."""

    def __init__(self, same: ODEFunction) -> None:
        super().__init__()
        self.norm1, self.norm2, self.norm3 = same.norm1, same.norm2, same.norm3
        self.conv1, self.conv2 = ConcatConv2d(same.conv1), ConcatConv2d(same.conv2)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, t: Tensor, x: Tensor) -> Tensor:
        """Scalar t."""
        out = self.conv1(t, self.relu(self.norm1(x)))
        found: Tensor = self.norm3(self.conv2(t, self.relu(self.norm2(out))))
        return found


class Theirs(nn.Module):
    """A built-in network with the weights and layers of another, solved by torchdiffeq."""

    def __init__(self, same: Classifier, tolerance: float) -> None:
        super().__init__()
        assert same.ode is not None
        assert isinstance(same.ode.function, ODEFunction)
        self.embed, self.head = same.embed, same.head
        self.dynamics = Dynamics(same.ode.function)
        self.tolerance = tolerance

    def forward(self, x: Tensor) -> Tensor:
        """Images to logits."""
        t = torch.tensor([0.0, 1.0], device=x.device)
        tau = self.tolerance
        h = torchdiffeq.odeint(self.dynamics, self.embed(x), t, rtol=tau, atol=tau)
        logits: Tensor = self.head(h[-1])
        return logits


class Broadcast(RightHandSide):
    """The dynamics with a time for each image, without a check of whether that is right."""

    def __init__(self, dynamics: Dynamics) -> None:
        super().__init__()
        self.dynamics = dynamics

    def bind(self, like: Tensor):  # noqa: ANN201 (the base class has the type)
        """See `RightHandSide.bind`."""
        return lambda t, h: self.dynamics(t.view(-1, 1, 1, 1), h)


def contestants(design: str, images: Tensor) -> dict[str, nn.Module]:
    """The networks that are compared, by name."""
    torch.manual_seed(0)
    model = Classifier(Spec(1, 10, (0.13,), (0.31,), DESIGNS[design], "ode")).eval()
    own = OwnNetwork.of(Theirs(model, model.spec.tolerance), images)
    (solve,) = own.spec.found.solves
    assert solve.way is Way.BROADCAST
    vectorised = replace(own.spec.found, solves=(replace(solve, way=Way.VMAP),))
    assert model.ode is not None
    same = model.at()
    same._modules["body"] = ODEBody(Broadcast(own.module.dynamics), model.ode.settings)
    return {
        "built_in": model,
        "same_operations": same,
        "broadcast": own,
        "vmap": OwnNetwork(own.module, replace(own.spec, found=vectorised)).eval(),
    }


def step(model: nn.Module, images: Tensor) -> float:
    """Seconds of all cores for one attack step."""
    with frozen(model):
        images = images.clone().requires_grad_()
        started = time.process_time()
        torch.autograd.grad(model(images).sum(), images)
        return time.process_time() - started


def table(design: str, images: Tensor, repeats: int) -> list[dict[str, float | str]]:
    """The fastest step of each contestant, at each tolerance, and ratios."""
    rows = []
    compared = contestants(design, images)
    for tolerance in TOLERANCES:
        views = {name: model.at(tolerance=tolerance) for name, model in compared.items()}
        seconds = {
            name: min(step(view, images) for _ in range(repeats)) for name, view in views.items()
        }
        memory = {name: bytes_per_image(view, images[:4]) for name, view in views.items()}
        row: dict[str, float | str] = {"model": design, "tolerance": tolerance, **seconds}
        for name in ("broadcast", "vmap"):
            for against in ("same_operations", "built_in"):
                row[f"{name}_to_{against}"] = seconds[name] / seconds[against]
            row[f"{name}_memory"] = memory[name] / memory["same_operations"]
        rows.append(row)
        print({key: round(v, 3) if isinstance(v, float) else v for key, v in row.items()})
    return rows


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--models", nargs="+", choices=list(DESIGNS), default=list(DESIGNS))
    parser.add_argument("--output", type=Path, default=results.FOLDER / "own_models.json")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    images = torch.rand(arguments.images, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    rows = [row for name in arguments.models for row in table(name, images, arguments.repeats)]
    results.write({"tables": {"Attack step, seconds of all cores": rows}}, arguments.output)


if __name__ == "__main__":
    main()
