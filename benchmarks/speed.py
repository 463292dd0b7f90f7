"""How fast the core is, next to what one would use without it.

    python benchmarks/speed.py [--data results/mnist_paper/mnist/data.h5] [--device cpu]
                               [--output results/benchmarks/speed.json] [--only gradient]

Every ratio is of two times that were measured in turn in this run, the best of several repetitions
each. The rows are printed and written to a JSON file. Nothing else should run meanwhile: two
threads of PyTorch become ten times slower when a third process wants a core.
"""

import argparse
import multiprocessing
import platform
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch.profiler import ProfilerActivity, profile

import contestants
import nets
import results
from contestants import seconds
from node_robustness.jobs import devices

TOLERANCES = [1e-3, 1e-1, 10.0]
PAPER_TOLERANCES = [1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0]
EPSILONS = [0.05, 0.1, 0.3]
Table = list[dict[str, Any]]

# By the names of PyTorch's operators, in this order.
_PARTS = {
    "convolutions, forward": ("convolution_overrideable", "mkldnn_convolution", "cudnn_conv"),
    "convolutions, backward": ("convolution_backward",),
    "group normalisation": ("group_norm",),
    "combinations of stages": ("addcmul", "aten::mul", "vector_norm", "maximum", "aten::abs"),
    "ReLU": ("relu", "clamp_min", "threshold"),
    "choosing and copying": ("copy_", "where", "index", "cat", "contiguous", "empty", "fill"),
}


def best(works: dict[str, Callable[[], Any]], repeats: int, device: torch.device) -> dict[str, Any]:
    """The shortest time of each, taken in turn so that a slow moment affects all of them."""
    times: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(repeats):
        for name, work in works.items():
            times[name].append(seconds(work, device))
    return {name: min(values) for name, values in times.items()}


def quickest(
    works: Mapping[str, Callable[[], contestants.Attacked]], repeats: int
) -> dict[str, contestants.Attacked]:
    """The shortest run of each attack, taken in turn."""
    runs = [{name: work() for name, work in works.items()} for _ in range(repeats)]
    return {name: min((run[name] for run in runs), key=lambda run: run.seconds) for name in works}


def attack_table(found: nets.Nets, repeats: int, one_by_one: int, batch_size: int) -> Table:
    """Seconds per image and successes of the attack, at every tolerance and epsilon.

    Each contestant counts successes in its own way: torchattacks on the batch solved as one.
    """
    rows = []
    for model in found.models.values():  # the first run of anything is slow
        contestants.ours(model, found.images, found.labels, 0.3, batch_size=batch_size)
    few = slice(0, one_by_one)
    for name, model in found.models.items():
        for tolerance in TOLERANCES:
            for epsilon in EPSILONS:
                work = model, found.images, found.labels, epsilon
                ours = partial(contestants.ours, *work, batch_size=batch_size, tolerance=tolerance)
                theirs = partial(contestants.by_torchattacks, *work, tolerance)
                best_of = quickest({"ours": ours, "torchattacks": theirs}, repeats)
                row = {
                    "model": name,
                    "tolerance": tolerance,
                    "epsilon": epsilon,
                    "ours": best_of["ours"].seconds_an_image,
                    "torchattacks": best_of["torchattacks"].seconds_an_image,
                    "successes": int(best_of["ours"].success.sum()),
                    "successes_torchattacks": int(best_of["torchattacks"].success.sum()),
                }
                row["times_torchattacks"] = row["torchattacks"] / row["ours"]
                if epsilon == 0.1:
                    paper = contestants.by_the_paper(
                        model, found.images[few], found.labels[few], epsilon, tolerance
                    )
                    same = ours(gradient="adjoint")
                    row |= {
                        "paper": paper.seconds_an_image,
                        "times_paper": paper.seconds_an_image / row["ours"],
                        "ours_adjoint": same.seconds_an_image,
                        "times_paper_adjoint": paper.seconds_an_image / same.seconds_an_image,
                        "paper_images": one_by_one,
                        "successes_paper": int(paper.success.sum()),
                        "successes_same_images": int(best_of["ours"].success[few].sum()),
                        "successes_adjoint": int(same.success[few].sum()),
                    }
                rows.append(row)
                _say("attack", row)
    return rows


def gradient_table(found: nets.Nets, repeats: int, one_by_one: int) -> Table:
    """Seconds per image of a gradient, at the paper's tolerances.

    `same_work`: the paper's adjoint on both sides. `same_goal`: the gradient that an attack uses
    here, the direct one, against the paper's procedure.
    """
    rows = []
    few = slice(0, one_by_one)
    for name, model in found.models.items():
        for tolerance in PAPER_TOLERANCES:
            ours = partial(
                contestants.gradients, model, found.images, found.labels, tolerance=tolerance
            )
            works = {
                "direct": ours(),
                "seminorm": ours(gradient="adjoint", adjoint_norm="seminorm"),
                "full_norm": ours(gradient="adjoint", adjoint_norm="full"),
                "paper": contestants.gradients_by_the_paper(
                    model, found.images[few], found.labels[few], tolerance
                ),
            }
            times = best(works, repeats, found.images.device)
            row = {"model": name, "tolerance": tolerance, "images": len(found.images)}
            row |= {key: taken / len(found.images) for key, taken in times.items()}
            row |= {"paper": times["paper"] / one_by_one, "paper_images": one_by_one}
            row["full_to_seminorm"] = row["full_norm"] / row["seminorm"]
            row["same_work"] = row["paper"] / row["full_norm"]
            row["same_goal"] = row["paper"] / row["direct"]
            rows.append(row)
            _say("gradient", row)
    return rows


def over_three_epsilons(rows: Table) -> Table:
    """The ratio to torchattacks over all epsilons together."""
    frame = pd.DataFrame(rows).groupby(["model", "tolerance"])[["ours", "torchattacks"]].sum()
    frame["times_torchattacks"] = frame.torchattacks / frame.ours
    table: Table = frame.reset_index().to_dict("records")
    return table


def training_table(found: nets.Nets, repeats: int) -> Table:
    """Seconds of a training step at tau = 1e-3, for the whole batch."""
    rows = []
    for name, model in found.models.items():
        model.train()
        batch = found.images, found.labels
        works = {
            "ours": contestants.training_step(model, *batch, tolerance=1e-3),
            "torchdiffeq_direct": contestants.training_step(
                model, *batch, tolerance=1e-3, backend="torchdiffeq"
            ),
            "torchdiffeq_adjoint": contestants.training_step(
                model, *batch, tolerance=1e-3, backend="torchdiffeq", gradient="adjoint"
            ),
        }
        times = best(works, repeats, found.images.device)
        model.eval()
        row = {"model": name, **times}
        row["times_direct"] = times["torchdiffeq_direct"] / times["ours"]
        row["times_adjoint"] = times["torchdiffeq_adjoint"] / times["ours"]
        rows.append(row)
        _say("training step", row)
    return rows


def forward_table(found: nets.Nets, repeats: int) -> Table:
    """Seconds of a forward pass, and of its convolutions alone on the same shapes."""
    rows = []
    for name, model in found.models.items():
        for tolerance in TOLERANCES:
            ours = contestants.forward(model, found.images, tolerance=tolerance)
            convolutions, operations = contestants.convolutions(ours)
            assert model.nfe is not None
            evaluations = model.nfe.double().mean().item()
            works = {
                "ours": ours,
                "convolutions": convolutions,
                "torchdiffeq": contestants.forward(
                    model, found.images, tolerance=tolerance, backend="torchdiffeq"
                ),
            }
            try:
                torchode = contestants.by_torchode(model, found.images, tolerance)
                torchode()
                works["torchode"] = torchode
            except ImportError:
                print("torchode is not installed: skipped", file=sys.stderr)
            times = best(works, repeats, found.images.device)
            row = {
                "model": name,
                "tolerance": tolerance,
                "nfe_mean": evaluations,
                **times,
                "convolutions_share": times["convolutions"] / times["ours"],
                "gflops_convolutions": operations / times["convolutions"] / 1e9,
                "times_torchdiffeq": times["torchdiffeq"] / times["ours"],
            }
            if "torchode" in times:
                row["times_torchode"] = times["torchode"] / times["ours"]
            rows.append(row)
            _say("forward", row)
    return rows


def memory_table(arguments: argparse.Namespace, names: list[str]) -> Table:
    """Peak memory of an attack above that of the loaded network, each in its own process."""
    context = multiprocessing.get_context("spawn")
    rows = []
    for name in names:
        for tolerance in TOLERANCES:
            row: dict[str, Any] = {"model": name, "tolerance": tolerance}
            for contestant in ("ours", "ours_checkpointed", "torchattacks"):
                with context.Pool(1) as pool:
                    job = (arguments, name, tolerance, contestant)
                    row[contestant] = pool.apply(_peak_megabytes, job)
            rows.append(row)
            _say("memory, MB", row)
    return rows


def _peak_megabytes(
    arguments: argparse.Namespace, name: str, tolerance: float, contestant: str
) -> float:
    device = _prepare(arguments)
    found = nets.load(arguments.data, arguments.images, [name], device)
    model, batch = found.models[name], (found.images, found.labels)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device) / 2**20
    else:
        _forget_the_peak()
        before = _peak_of_this_process()
    if contestant == "torchattacks":
        contestants.by_torchattacks(model, *batch, 0.1, tolerance)
    else:
        contestants.ours(
            model,
            *batch,
            0.1,
            batch_size=len(found.images),
            tolerance=tolerance,
            checkpoint=contestant == "ours_checkpointed",
        )
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20 - before
    return _peak_of_this_process() - before


def _forget_the_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def _peak_of_this_process() -> float:
    """In megabytes; not ru_maxrss, which on Linux a process inherits from its parent."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / 2**10
    raise OSError("/proc/self/status has no VmHWM")


def batch_table(found: nets.Nets, sizes: list[int], repeats: int) -> Table:
    """Images a second of the attack by batch size: where it saturates."""
    rows = []
    for name, model in found.models.items():
        for size in sizes:
            copies = -(-size // len(found.images))
            images = found.images.repeat(copies, 1, 1, 1)[: max(size, len(found.images))]
            labels = found.labels.repeat(copies)[: len(images)]
            ours = partial(
                contestants.ours, model, images, labels, 0.1, batch_size=size, tolerance=0.1
            )
            taken = quickest({"ours": ours}, repeats)["ours"].seconds
            row = {"model": name, "batch_size": size, "images_a_second": len(images) / taken}
            rows.append(row)
            _say("batch size", row)
    return rows


def layout_table(found: nets.Nets, repeats: int) -> Table:
    """Seconds of one evaluation of the ODE function, by the layout of the state in memory."""
    rows = []
    for name, model in found.models.items():
        assert model.ode is not None
        function = model.ode.function
        with torch.no_grad():
            state = model.embed(found.images)
        for layout in (torch.contiguous_format, torch.channels_last):
            states = state.contiguous(memory_format=layout)
            time = torch.zeros(len(states), device=states.device)

            def evaluate(function: Any = function, t: Any = time, h: Any = states) -> None:
                with torch.no_grad():
                    function(t, h)

            taken = best({"evaluation": evaluate}, 3 * repeats, states.device)["evaluation"]
            row = {"model": name, "layout": str(layout).removeprefix("torch."), "seconds": taken}
            rows.append(row)
            _say("layout", row)
    return rows


def profile_table(found: nets.Nets, batch_size: int) -> Table:
    """Where the time of an attack goes, by kinds of operators."""
    activities = [ProfilerActivity.CPU]
    if found.images.device.type == "cuda":
        activities.append(ProfilerActivity.CUDA)
    rows = []
    for name, model in found.models.items():
        with profile(activities=activities) as profiler:
            contestants.ours(
                model, found.images, found.labels, 0.1, batch_size=batch_size, tolerance=0.1
            )
        # A GPU's kernels are listed a second time, next to the operators that started them.
        events = [
            event
            for event in profiler.key_averages()
            if event.device_type == torch.autograd.DeviceType.CPU
        ]
        own = "self_device_time_total" if len(activities) > 1 else "self_cpu_time_total"
        total = sum(getattr(event, own) for event in events)
        left = {event.key: getattr(event, own) / total for event in events}
        for part, words in _PARTS.items():
            mine = [key for key in left if any(word in key for word in words)]
            rows.append({"model": name, "part": part, "share": sum(map(left.pop, mine))})
            _say("profile", rows[-1])
        rows.append({"model": name, "part": "everything else", "share": sum(left.values())})
        _say("profile", rows[-1])
    return rows


def precision_table(found: nets.Nets, repeats: int, batch_size: int) -> Table:
    """TF32 off and on, on a CUDA device."""
    rows = []
    for allowed in (False, True):
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = allowed
        for name, model in found.models.items():
            work = model, found.images, found.labels, 0.1
            ours = partial(contestants.ours, *work, batch_size=batch_size, tolerance=0.1)
            run = quickest({"ours": ours}, repeats)["ours"]
            row = {
                "model": name,
                "tf32": allowed,
                "seconds_an_image": run.seconds_an_image,
                "successes": int(run.success.sum()),
            }
            rows.append(row)
            _say("TF32", row)
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    return rows


def _say(what: str, row: dict[str, Any]) -> None:
    words = (f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items())
    print(f"{what}: {', '.join(words)}", flush=True)


def _prepare(arguments: argparse.Namespace) -> torch.device:
    devices.keep_freed_memory()  # as jobs do
    torch.set_num_threads(arguments.threads)
    return devices.choose_device(arguments.device)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="a prepared data.h5; else enlarged digits")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda", "mps", "auto"])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--images", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--one-by-one", type=int, default=12, help="images by the paper's loop")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--models", nargs="+", default=["MIX", "OON"], choices=list(nets.DESIGNS))
    parser.add_argument(
        "--output", type=Path, default=results.FOLDER / "speed.json", help="the JSON file"
    )
    parser.add_argument("--only", nargs="+", help="tables to measure, by their first word")
    arguments = parser.parse_args()
    device = _prepare(arguments)
    found = nets.load(arguments.data, arguments.images, arguments.models, device)
    repeats, size = arguments.repeats, arguments.batch_size
    cuda = device.type == "cuda"
    sizes = [2**k for k in range(4, 13 if cuda else 9)]
    tables: dict[str, Callable[[], Table | str]] = {
        "Attack, seconds an image": lambda: attack_table(
            found, repeats, arguments.one_by_one, size
        ),
        "Gradient, seconds an image": lambda: gradient_table(found, repeats, arguments.one_by_one),
        "Training step, seconds": lambda: training_table(found, repeats),
        "Forward pass": lambda: forward_table(found, 2 * repeats),
        "Memory of the attack, MB above the loaded network": lambda: memory_table(
            arguments, arguments.models
        ),
        "Batch size": lambda: batch_table(found, sizes, repeats),
        "Layout": lambda: layout_table(found, repeats),
        "Profile of the attack": lambda: profile_table(found, size),
        "TF32": lambda: (
            precision_table(found, repeats, size)
            if cuda
            else "Skipped: TF32 exists only on CUDA devices."
        ),
    }
    measured: dict[str, Table | str] = {}
    for title, measure in tables.items():
        if arguments.only is None or title.split()[0].strip(",").lower() in arguments.only:
            measured[title] = measure()
            rows = measured[title]
            if title.startswith("Attack") and not isinstance(rows, str):
                measured["Attack over three epsilons"] = over_three_epsilons(rows)
    report = {
        "machine": {
            "device": devices.describe(device),
            "threads": arguments.threads,
            "torch": torch.__version__,
            "python": platform.python_version(),
            "images": f"{len(found.images)} of {found.data}",
            "accuracy": " ".join(f"{k} {v:.3f}" for k, v in found.accuracy.items()),
        },
        "tables": measured,
    }
    results.write(report, arguments.output)


if __name__ == "__main__":
    main()
