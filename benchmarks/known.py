"""Small nets on scikit-learn's digits whose robustness is known, and their evaluation in one go.

A net without a defence, one trained on adversarial images, and two whose gradients are masked on
purpose: `saturated`, whose logits are so large that the cross-entropy of most images is zero in
single precision, and `Quantised`, whose rounded activations let no gradient through. `evaluated`
makes the files that the workflow makes of an experiment, with the same functions, in this process.
"""

import copy
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from graphlib import TopologicalSorter
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "workflow" / "scripts"))

from node_robustness.attacks.engine import attack
from node_robustness.attacks.files import write_attack
from node_robustness.attacks.gradients import gradient_settings, with_gradient
from node_robustness.attacks.make import make
from node_robustness.audits.files import write_audit
from node_robustness.audits.network import audit_network
from node_robustness.config.config import Config
from node_robustness.grid import attack_settings, params, stages
from node_robustness.grid import cells as grid_cells
from node_robustness.models import evaluation
from node_robustness.models.classifier import Classifier, Spec
from node_robustness.models.evaluation import evaluate
from node_robustness.perturbations.norms import Norm
from node_robustness.perturbations.sizes import broken_within
from node_robustness.verdict import attack_tables, pairs, protocols, tolerances, verdicts
from node_robustness.verdict.checks import check_table
from node_robustness.verdict.known import recorded

TRAINING_IMAGES = 1297
FACTOR = 1e4
"""By how much the logits of a saturated net are larger: float32's exp is 0 below -104."""
LEVELS = 4
"""Of an activation of size one."""

_BATCH, _STEPS, _STEP = 64, 7, 0.25

Nets = Mapping[tuple[str, int], Classifier]
"""By the name of the model and the seed."""


def spec(body: str, filters: int = 16) -> Spec:
    """Of a small net for the digits: one convolution, then residual blocks or an ODE."""
    return Spec(1, 10, (0.3,), (0.37,), "convolution", body, filters, blocks=2, dropout=0.0)


def digits() -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Images [n, 1, 8, 8] in [0, 1] and their classes: for training, and the 500 others."""
    data = load_digits()
    order = np.random.default_rng(0).permutation(len(data.target))
    images = torch.tensor(data.images[order] / 16, dtype=torch.float32)[:, None]
    labels = torch.tensor(data.target[order])
    kept = TRAINING_IMAGES
    return (images[:kept], labels[:kept]), (images[kept:], labels[kept:])


def trained(
    body: str, *, seed: int, epochs: int, epsilon: float | None = None, filters: int = 16
) -> Classifier:
    """A net trained on the digits, or on adversarial examples in L-infinity at an epsilon.

    Madry et al., Towards deep learning models resistant to adversarial attacks, 2018.
    """
    (images, labels), _ = digits()
    torch.manual_seed(seed)
    model = Classifier(spec(body, filters))
    steps = epochs * (len(images) // _BATCH)
    optimizer = torch.optim.Adam(model.parameters(), 5e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, steps)
    for _ in range(epochs):
        for rows in torch.randperm(len(images))[: _BATCH * (len(images) // _BATCH)].split(_BATCH):
            batch, answers = images[rows], labels[rows]
            if epsilon is not None:
                batch = _adversarial_examples(model, batch, answers, epsilon)
            optimizer.zero_grad()
            F.cross_entropy(model(batch), answers).backward()
            optimizer.step()
            schedule.step()
    return model.eval().requires_grad_(False)


def _adversarial_examples(
    model: Classifier, images: Tensor, labels: Tensor, epsilon: float
) -> Tensor:
    norm = Norm("linf")
    current = images + epsilon * (2 * torch.rand_like(images) - 1)
    for _ in range(_STEPS):
        at = current.clamp(0, 1).requires_grad_()
        (gradient,) = torch.autograd.grad(F.cross_entropy(model(at), labels), at)
        moved = current + _STEP * epsilon * norm.direction(gradient)
        current = images + norm.project(moved - images, epsilon)
    return current.clamp(0, 1)


def saturated(model: Classifier) -> Classifier:
    """The same decisions by logits `FACTOR` times as large."""
    scaled = copy.deepcopy(model)
    with torch.no_grad():
        scaled.head.linear.weight *= FACTOR
        scaled.head.linear.bias *= FACTOR
    return scaled


class Quantised(Classifier):
    """A classifier whose first activations are rounded, as a defence: their gradient is zero."""

    @classmethod
    def of(cls, model: Classifier) -> "Quantised":
        """With the weights of a classifier."""
        rounded = cls(model.spec)
        rounded.load_state_dict(model.state_dict())
        return rounded.eval().requires_grad_(False)

    def embed(self, images: Tensor) -> Tensor:
        """See `Classifier.embed`."""
        return (super().embed(images) * LEVELS).round() / LEVELS


@dataclass(frozen=True)
class Evaluated:
    """The tables of an evaluation; see the modules of their names, and `attack_tables`."""

    attacked: list[protocols.AttackedNetwork]
    attack_suite: pd.DataFrame
    protocols: pd.DataFrame
    checks: pd.DataFrame
    verdicts: pd.DataFrame
    tolerances: pd.DataFrame


def evaluated(
    folder: Path,
    config: Config,
    nets: Nets,
    images: Tensor,
    labels: Tensor,
    report_cell: Callable[[str], object] = lambda _: None,
) -> Evaluated:
    """Attack and audit nets as the only experiment of a configuration asks.

    Args:
        folder: where the files of all cells go.
        config: its models describe the nets.
        nets: in evaluation mode.
        images: float32 [n, 1, 8, 8] in [0, 1].
        labels: int64 [n].
        report_cell: called with the folder of each cell before its work begins.
    """
    (name,) = config.experiments
    experiment = config.experiments[name]
    clean, audits, attacked = [], [], []
    for item in grid_cells.solved(config, name):
        report_cell(item.folder)
        clean.append(_clean(folder, item, nets, images, labels))
    for item in stages.audited(config, name):
        report_cell(f"{item.folder}/audit")
        audits.append(_audit(folder, config, item, nets, images, labels))
    # Expensive attacks read what others have broken.
    before = {
        cell: attack_settings.cheaper(config, cell) for cell in grid_cells.cells(config, name)
    }
    for cell in TopologicalSorter(before).static_order():
        report_cell(cell.folder)
        attacked.append(_attack(folder, config, cell, nets, images, labels))
    groups = protocols.read_attacked(attacked, others=recorded(audits, "audit"))
    checked = check_table(clean, groups, audits, [])
    networks = protocols.protocol_table(groups, experiment.papers_attack)
    found = verdicts.verdict_table(networks, checked)
    trained = {
        name: model.training_tolerance
        for name, model in config.models.items()
        if model.training_tolerance is not None
    }
    compared = pairs.pair_table(groups, experiment.papers_attack, pairs.References(trained))
    primary = params.primary_epsilons(config, {"experiment": name})
    return Evaluated(
        groups,
        attack_tables.suite_table(groups),
        networks,
        checked,
        found,
        tolerances.tolerance_table(compared, found, primary),
    )


def _settings(item: grid_cells.Solved) -> dict[str, object]:
    names = ("experiment", "dataset", "model", "seed", "tolerance")
    return {name: getattr(item, name) for name in names}


def _clean(
    folder: Path, item: grid_cells.Solved, nets: Nets, images: Tensor, labels: Tensor
) -> Path:
    path = folder / item.folder / "clean.h5"
    model = nets[item.model, item.seed].at(tolerance=item.tolerance)
    found = evaluate(model, images, batch_size=len(images))
    index = np.arange(len(images))
    evaluation.write_clean(
        path, _settings(item), index, labels.numpy(), found, seconds=0, device=""
    )
    return path


def _audit(
    folder: Path,
    config: Config,
    item: grid_cells.Solved,
    nets: Nets,
    images: Tensor,
    labels: Tensor,
) -> Path:
    path = folder / item.folder / "audit.h5"
    model = nets[item.model, item.seed].at(tolerance=item.tolerance)
    settings = params.audit(config, {"experiment": item.experiment, "dataset": item.dataset})
    x, y = images[: settings["images"]], labels[: settings["images"]]
    rows = range(len(x))
    found = audit_network(model, x, y, rows, settings, seed=item.seed, batch_size=len(x))
    write_audit(
        path,
        _settings(item) | settings,
        np.arange(len(x)),
        y.numpy(),
        found,
        seconds=0,
        device="",
    )
    return path


def _attack(
    folder: Path, config: Config, cell: grid_cells.Cell, nets: Nets, images: Tensor, labels: Tensor
) -> Path:
    path, model = folder / cell.folder / "attack.h5", nets[cell.model, cell.seed]
    settings, made_on = (
        attack_settings.attack_settings(config, cell),
        grid_cells.source(config, cell),
    )
    index, source = np.arange(len(images)), None
    if made_on is not None:
        other = nets[made_on.model, made_on.seed]
        source = with_gradient(other, made_on.tolerance, settings["by"])
    if "drawn" in settings:
        source = model.at(**gradient_settings(settings))
    cheaper = [
        folder / other.folder / "attack.h5" for other in attack_settings.cheaper(config, cell)
    ]
    within = settings.get("skips", {}).get("within", 0)
    found = attack(
        with_gradient(model, cell.tolerance, settings),
        images,
        labels,
        make(settings, cell.norm, cell.epsilon, source),
        seed=cell.seed,
        skip=torch.from_numpy(broken_within(cheaper, within, index)),
        batch_size=len(images),
    )
    where = {"attack": cell.attack, "norm": cell.norm, "epsilon": cell.epsilon}
    write_attack(
        path,
        {**_settings(cell), **where, **settings},
        index,
        labels.numpy(),
        images,
        found,
        seconds=0,
        device="",
    )
    return path
