"""What it takes to follow perturbations: seconds against plain forward solves, and memory.

    python benchmarks/trajectories.py [--images 1000] [--tolerance 0.1] [--threads 2]

The paper's MIX with 64 filters on images of MNIST's shape (`nets.py`), perturbed by random signs of
0.3: what is measured costs the same whether a perturbation is an adversarial or not. Ratios are of
the time of all cores, which other work on the machine hardly changes. Peak memory is that of the
whole process, Python and PyTorch included.
"""

import argparse
import resource
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import nets
from node_robustness.models import classifier
from node_robustness.perturbations.norms import Norm
from node_robustness.trajectories import writer
from node_robustness.trajectories.causal import find_causes, flow_of, intervals
from node_robustness.trajectories.decision import margins
from node_robustness.trajectories.distances import distances
from node_robustness.trajectories.layout import SHARED
from node_robustness.trajectories.measure import FollowedImages, Measurement, Selection
from node_robustness.trajectories.runs import follow, grid
from node_robustness.trajectories.shares import shares, solve_margins

TIMES = grid(51)
EPSILON = 0.3
STRENGTHEN = 20
BATCH = 100
CAUSAL_IMAGES = 100
SHARED_IMAGES = 100
PARTS = tuple(k / 10 for k in range(11))


def seconds(function: Callable[[], object]) -> tuple[float, float]:
    """Wall time of a call, and time of all cores."""
    wall, cores = time.perf_counter(), time.process_time()
    function()
    return time.perf_counter() - wall, time.process_time() - cores


def forward(model: classifier.Classifier, sides: tuple[Tensor, ...]) -> None:
    """Plain solves of all images."""
    with torch.no_grad():
        for images in sides:
            for batch in images.split(BATCH):
                model(batch)


def followed(model: classifier.Classifier, clean: Tensor, moved: Tensor) -> None:
    """Distances and margins of all pairs at all times, and the accepted nodes."""
    with torch.no_grad():
        for before, after in zip(clean.split(BATCH), moved.split(BATCH), strict=True):
            runs = follow(model, {"clean": before, "attack": after}, TIMES)
            distances(runs.states["clean"], runs.states["attack"])
            decided = None
            for states in runs.states.values():
                logits = model.head(states.flatten(0, 1)).unflatten(0, (-1, len(before)))
                decided = logits[-1].argmax(1) if decided is None else decided
                margins(logits, decided)


def whole(model: classifier.Classifier, clean: Tensor, moved: Tensor, growth: int) -> None:
    """A trajectory.h5 as a run writes it, but for probes and the patches."""
    n = len(clean)
    success = np.ones(n, bool)
    zeros = np.zeros(n, np.int64)
    shape = (clean.shape[1], clean.shape[2], clean.shape[3])
    images = FollowedImages(
        np.arange(n), zeros, success, zeros, shape, lambda r: (clean.numpy()[r], moved.numpy()[r])
    )
    choice = Selection.of(success, states=4, growth=growth, causal=0)
    tool = Measurement(model, TIMES, 10, Norm("linf"), EPSILON, STRENGTHEN, 0, 1e-5)
    sizes = tool.sizes(n, 4, shape, "float16")
    with (
        tempfile.TemporaryDirectory() as folder,
        writer.writing(
            Path(folder) / "trajectory.h5",
            {},
            sizes,
            tool.axis,
            tool.grid,
            tool.ends,
            device="cpu",
        ) as written,
    ):
        tool.record(images, choice, written)


def share_out(model: classifier.Classifier, clean: Tensor, moved: Tensor) -> None:
    """The shares of ten parts in the loss of margin by as many perturbations as a run has."""
    with torch.no_grad():
        decided = model(clean).argmax(1)
    before = solve_margins(model, clean, decided)
    for _ in SHARED:
        shares(model, before, solve_margins(model, moved, decided), decided, PARTS)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="a prepared data.h5")
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--tolerance", type=float, default=0.1)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    found = nets.load(arguments.data, arguments.images, ["MIX", "OON"], torch.device("cpu"))
    model, other = (found.models[name].at(tolerance=arguments.tolerance) for name in found.models)
    # The digits are fewer than a thousand.
    clean = found.images.repeat(-(-arguments.images // len(found.images)), 1, 1, 1)
    clean = clean[: arguments.images].contiguous()
    generator = torch.Generator().manual_seed(0)
    signs = torch.randint(0, 2, clean.shape, generator=generator) * 2 - 1
    moved = (clean + EPSILON * signs).clamp(0, 1)
    print(f"{found.data}, {len(clean)} images, tau {arguments.tolerance:g}, "
          f"{arguments.threads} threads, torch {torch.__version__}\n")  # fmt: skip
    print("| what | seconds | seconds of all cores | times two forward solves |")
    print("|---|---|---|---|")
    with classifier.frozen(model):
        forward(model, (clean[:BATCH],))  # the first call is slower
        wall, base = seconds(lambda: forward(model, (clean, moved)))
        print(f"| two forward solves | {wall:.2f} | {base:.2f} | 1 |", flush=True)

        def row(what: str, function: Callable[[], object]) -> None:
            wall, cores = seconds(function)
            print(f"| {what} | {wall:.2f} | {cores:.2f} | {cores / base:.2f} |", flush=True)

        row("distances, margins and nodes, 51 times", lambda: followed(model, clean, moved))
        for growth in (0, 16):
            what = f"trajectory.h5 with noise and rates, growth of {growth} taken apart"
            row(what, partial(whole, model, clean, moved, growth))
        some = clean[:CAUSAL_IMAGES], moved[:CAUSAL_IMAGES]
        for parts in (6, 20):
            flow = flow_of(model, parts)
            what = f"causal test of {len(intervals(flow.ends))} intervals, {len(some[0])} images"
            row(what, partial(find_causes, model, flow, *some))
        some = clean[:SHARED_IMAGES], moved[:SHARED_IMAGES]
        for name, own in (("MIX", model), ("OON", other)):
            what = f"shares of {len(PARTS) - 1} parts, {len(SHARED)} perturbations, {name}"
            row(f"{what}, {len(some[0])} images", partial(share_out, own, *some))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"\npeak memory of the process: {peak:.0f} MB")


if __name__ == "__main__":
    main()
