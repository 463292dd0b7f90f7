"""The networks that the benchmarks measure: the paper's MIX and OON, 64 filters, briefly trained.

Images have MNIST's shape. They are MNIST's own where a prepared `data.h5` of it is given, else the
digits of scikit-learn, enlarged. Weights are kept in a folder and trained only once.
"""

import argparse
import logging
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from results import FOLDER, ROOT

sys.path.insert(0, str(ROOT / "workflow" / "scripts"))

from node_robustness.config.models import Training
from node_robustness.data.prepared import load_split
from node_robustness.data.sources import find_source
from node_robustness.data.splits import prepare
from node_robustness.models import checkpoints, classifier
from node_robustness.training.train import train

DESIGNS = {"MIX": "residual", "OON": "convolution"}
TRAINING_IMAGES = 38_400  # 300 steps of 128
TRAINING = Training(
    epochs=1, batch_size=128, learning_rate=0.1, schedule="one_cycle", gradient="direct"
)


@dataclass(frozen=True)
class Nets:
    """Networks in evaluation mode, and test images that they have not seen.

    Attributes:
        data: where the images come from, in words.
        models: by name.
        accuracy: on the test images, by name.
        images: float32 [n, 1, 28, 28] in [0, 1].
        labels: int64 [n].
    """

    data: str
    models: dict[str, classifier.Classifier]
    accuracy: dict[str, float]
    images: Tensor
    labels: Tensor


def enlarged_digits(path: Path) -> None:
    """Write scikit-learn's digits as images of 28x28: enlarged to 20x20, with a margin of 4."""
    source = find_source("digits")
    read = source.read(path.parent)
    parts = []
    for images, labels in (read[:2], read[2:]):
        large = F.interpolate(torch.from_numpy(images.astype(np.float32)), (20, 20), mode="bicubic")
        large = F.pad(large.clamp(0, 255).round(), (4, 4, 4, 4)).numpy().astype(np.uint8)
        parts += [large, labels]
    settings = {"dataset": "digits28", "mean": [0.0], "std": [1.0]}
    prepare(*parts, source.class_names, validation=100, seed=0, path=str(path), settings=settings)


def load(data: Path | None, count: int, names: list[str], device: torch.device) -> Nets:
    """The networks, trained now if they have not been before, and `count` test images."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    if data is None:
        data = FOLDER / "digits28.h5"
        if not data.exists():
            enlarged_digits(data)
    description = data.stem if data.stem != "data" else data.parent.name
    test = load_split(data, "test", count)
    images = torch.from_numpy(test.images).float() / 255
    labels = torch.from_numpy(test.labels)
    nets, accuracy = {}, {}
    for name in names:
        model = _trained(data, description, name, device).to(device)
        with torch.no_grad():
            right = model(images.to(device)).argmax(1).cpu() == labels
        nets[name], accuracy[name] = model, right.float().mean().item()
    return Nets(description, nets, accuracy, images.to(device), labels.to(device))


def _trained(
    data: Path, description: str, name: str, device: torch.device
) -> classifier.Classifier:
    weights = FOLDER / f"{description}-{name}.safetensors"
    spec = weights.with_suffix(".json")
    if not weights.exists():
        print(f"training {name} on {description} ...", file=sys.stderr)
        torch.manual_seed(0)
        # The paper's dropout would need more steps than a benchmark can spare.
        architecture = {"downsampling": DESIGNS[name], "body": "ode", "filters": 64, "dropout": 0.0}
        model = classifier.Classifier(classifier.spec_for(name, architecture, data))
        fit, validation = load_split(data, "train"), load_split(data, "validation", 100)
        order = np.arange(TRAINING_IMAGES) % len(fit.labels)
        train(
            model,
            (torch.from_numpy(fit.images[order]), torch.from_numpy(fit.labels[order])),
            (torch.from_numpy(validation.images), torch.from_numpy(validation.labels)),
            TRAINING,
            seed=0,
            checkpoint=weights.with_suffix(".checkpoint"),
            device=device,
        )
        checkpoints.save(model, weights, spec)
        weights.with_suffix(".checkpoint").unlink()
    return checkpoints.load(weights, spec)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="a prepared data.h5")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO)
    torch.set_num_threads(arguments.threads)
    found = load(arguments.data, 128, list(DESIGNS), torch.device("cpu"))
    print(found.data, found.accuracy)
