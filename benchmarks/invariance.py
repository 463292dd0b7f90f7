"""Whether results have the same bits in batches of every size, on more images than a test can.

    python benchmarks/invariance.py [--device cpu] [--precision single]

With `ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 MKL_ENABLE_INSTRUCTIONS=AVX2` before it, or
`default`, `SSE41` and `SSE4_2`, it measures the kernels of older x86 processors.

Images have MNIST's shape, networks are small and have random weights: training changes nothing
here. Each network is evaluated, and attacked by the basic iterative method with direct and with
adjoint gradients, in shuffled batches of 1, 7, 64 and 1,000. Everything is compared with batches of
1,000 in the original order. Rows are printed and written to a JSON file. The exit status is 1 if a
success, a prediction or a number of function evaluations differed anywhere.
"""

import argparse
import json
import platform
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

import nets
import results
from nets import classifier
from node_robustness.attacks.bim import BasicIterativeMethod
from node_robustness.attacks.engine import attack
from node_robustness.jobs import devices
from node_robustness.models.evaluation import evaluate
from node_robustness.perturbations.norms import Norm

SIZES = (1, 7, 64, 1000)
TOLERANCE = 0.1
EPSILON, STEP, ITERATIONS = 0.002, 0.001, 3  # some attacks succeed, some do not
FILTERS = 8


@dataclass(frozen=True)
class Outcome:
    """What one run found of n images: tensors [n, ...] by name, in the original order."""

    decisions: dict[str, Tensor]
    values: dict[str, Tensor]


@dataclass(frozen=True)
class Row:
    """How a run in other batches compares; numbers of images.

    Attributes:
        decisions_differ: successes, predictions, iterations or function evaluations.
        bits_differ: logits or adversarial examples.
        largest_difference: of these.
    """

    model: str
    what: str
    batch_size: int
    images: int
    successes: int | None
    decisions_differ: int
    bits_differ: int
    largest_difference: float
    seconds: float


PRECISIONS = {"single": torch.float32, "double": torch.float64}


def network(name: str, device: torch.device, precision: torch.dtype) -> classifier.Classifier:
    """MIX or OON with few filters and random weights that predict every class."""
    torch.manual_seed(0)
    spec = classifier.Spec(1, 10, (0.1307,), (0.3081,), nets.DESIGNS[name], "ode", FILTERS)
    model = classifier.Classifier(spec).eval()
    with torch.no_grad():
        model.head.linear.bias -= model(torch.rand(64, 1, 28, 28)).mean(0)
    return model.to(device, precision)


def run(
    model: classifier.Classifier, images: Tensor, gradient: str | None, order: Tensor, size: int
) -> Outcome:
    """Evaluate, or attack with a gradient, in the given order; the result in the original one."""
    back = torch.argsort(order)
    model = model.at(tolerance=TOLERANCE, gradient=gradient or "direct")
    clean = evaluate(model, images[order], batch_size=size)
    assert clean.nfe is not None
    if gradient is None:
        decisions = {"predictions": clean.predictions, "nfe": clean.nfe}
        values = {"logits": clean.logits}
    else:
        method = BasicIterativeMethod(Norm("linf"), EPSILON, STEP, ITERATIONS)
        found = attack(model, images[order], clean.predictions, method, batch_size=size)
        assert found.nfe_adversarial is not None
        decisions = {
            "success": found.success,
            "predictions": found.adversarial_predictions,
            "iterations": found.iterations,
            "nfe": found.nfe_adversarial,
        }
        values = {"adversarials": found.adversarials}
    return Outcome(
        {name: tensor[back] for name, tensor in decisions.items()},
        {name: tensor[back] for name, tensor in values.items()},
    )


def differing(some: dict[str, Tensor], others: dict[str, Tensor]) -> int:
    """In how many images any of the tensors differ."""
    differ = [
        (some[name] != others[name]).flatten(1).any(1) for name in some if some[name].ndim > 1
    ]
    differ += [some[name] != others[name] for name in some if some[name].ndim == 1]
    return int(torch.stack(differ).any(0).sum())


def compare(
    name: str, model: classifier.Classifier, images: Tensor, gradient: str | None
) -> list[Row]:
    """One network and one kind of run in batches of all sizes."""
    everyone = torch.arange(len(images))
    reference = run(model, images, gradient, everyone, len(images))
    rows = []
    for size in SIZES:
        order = torch.randperm(len(images), generator=torch.Generator().manual_seed(size))
        started = time.perf_counter()
        found = run(model, images, gradient, order, size)
        successes = found.decisions.get("success")
        row = Row(
            name,
            f"attack, {gradient}" if gradient else "evaluation",
            size,
            len(images),
            None if successes is None else int(successes.sum()),
            differing(found.decisions, reference.decisions),
            differing(found.values, reference.values),
            max(
                (found.values[key] - reference.values[key]).abs().max().item()
                for key in found.values
            ),
            time.perf_counter() - started,
        )
        print(json.dumps(asdict(row)), flush=True)
        rows.append(row)
    return rows


def main() -> int:
    """Measure, write and print; 1 if a decision differed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda", "mps", "auto"])
    parser.add_argument("--precision", default="single", choices=list(PRECISIONS))
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--output", type=Path, default=results.FOLDER / "invariance.json")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    device = devices.choose_device(arguments.device)
    generator = torch.Generator().manual_seed(1)
    precision = PRECISIONS[arguments.precision]
    images = torch.rand(arguments.images, 1, 28, 28, generator=generator).to(device, precision)
    rows = []
    for name in nets.DESIGNS:
        model = network(name, device, precision)
        for gradient in (None, "direct", "adjoint"):
            rows += compare(name, model, images, gradient)
    report = {
        "machine": {
            "device": devices.describe(device),
            "kernels": torch.backends.cpu.get_cpu_capability(),
            "precision": arguments.precision,
            "threads": arguments.threads,
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
        "rows": [asdict(row) for row in rows],
    }
    results.write(report, arguments.output)
    return int(any(row.decisions_differ for row in rows))


if __name__ == "__main__":
    sys.exit(main())
