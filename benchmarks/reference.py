"""Our strongest attack against other implementations, and verdicts on nets of known robustness.

    python benchmarks/reference.py [--norm linf] [--images 200] [--models RES OON ...]

Small nets on scikit-learn's digits (`known.py`): RES and OON without a defence, the latter at a
loose tolerance; HARDENED, trained on adversarial images; SATURATED and QUANTISED, whose gradients
are masked on purpose. The preset `standard` attacks all of them, as in a run of the workflow.
Others attack the same images at the same epsilon: torchattacks' AutoAttack (standard version, its
own parameters) and several attacks of foolbox, if it is installed (`pip install --no-deps foolbox
eagerpy`). Their examples count if they are within epsilon and misclassified. The exit status is 1
if robust accuracy under our strongest attack is above another's by more than the 95 % interval of
the paired difference, or if a verdict in L-infinity is not the known one.
"""

import argparse
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pandas as pd
import torch
import torchattacks
from torch import Tensor, nn
from tqdm import tqdm

import known
import results
from node_robustness.config.config import Config
from node_robustness.config.loading import load
from node_robustness.models.classifier import frozen
from node_robustness.perturbations.norms import Norm
from node_robustness.perturbations.sizes import within
from node_robustness.statistics import paired
from node_robustness.verdict import verdicts
from node_robustness.verdict.protocols import AttackedNetwork

EPSILONS = {"linf": 0.1, "l2": 0.6}
TOLERANCE = 10.0
DESIGNS = {
    "RES": {"body": "residual"},
    "OON": {"body": "ode"},
    "HARDENED": {"body": "residual", "epsilon": EPSILONS["linf"]},
}
MASKS = {"SATURATED": known.saturated, "QUANTISED": known.Quantised.of}
EPOCHS = 10
EXPECTED = {
    "RES": {verdicts.SURVIVES, verdicts.UNDECIDED},
    "HARDENED": {verdicts.SURVIVES},
    "SATURATED": {verdicts.MASKED},
    "QUANTISED": {verdicts.MASKED},
}
"""In L-infinity, in which HARDENED was trained; of OON nothing is known."""

Attack = Callable[[nn.Module, Tensor, Tensor, str, float], Iterator[Tensor]]
"""From a net, images that it classifies correctly, labels, norm and epsilon to candidates."""


@dataclass(frozen=True)
class Row:
    """Robust accuracy of one net under our strongest attack and another's, on the same images.

    Attributes:
        ours: share of all images.
        theirs: share of all images.
        difference: ours minus theirs, with the bounds `low` and `high` of its 95 % interval.
        only_ours: images that only we break.
        only_theirs: images that only they break.
        seconds: that they took.
    """

    model: str
    tolerance: float | None
    norm: str
    other: str
    images: int
    ours: float
    theirs: float
    difference: float
    low: float
    high: float
    only_ours: int
    only_theirs: int
    seconds: float


def autoattack(
    model: nn.Module, images: Tensor, labels: Tensor, norm: str, epsilon: float
) -> Iterator[Tensor]:
    """AutoAttack's standard version from torchattacks, which by itself takes ten iterations."""
    common = {"norm": {"linf": "Linf", "l2": "L2"}[norm], "eps": epsilon, "seed": 0}
    ensemble = [
        torchattacks.APGD(model, steps=100, loss="ce", **common),
        torchattacks.APGDT(model, steps=100, n_classes=10, **common),
        torchattacks.FAB(model, steps=100, multi_targeted=True, n_classes=10, **common),
        torchattacks.Square(model, n_queries=5000, resc_schedule=False, **common),
    ]
    yield torchattacks.MultiAttack(ensemble)(images, labels)


def by_foolbox(
    model: nn.Module, images: Tensor, labels: Tensor, norm: str, epsilon: float
) -> Iterator[Tensor]:
    """Gradient attacks of foolbox, among them two for the smallest perturbation."""
    import foolbox

    torch.manual_seed(0)
    attacks = {
        "linf": [
            foolbox.attacks.LinfBasicIterativeAttack(steps=100, rel_stepsize=0.05),
            foolbox.attacks.LinfPGD(steps=100),
            foolbox.attacks.LinfDeepFoolAttack(),
            foolbox.attacks.LInfFMNAttack(),
        ],
        "l2": [
            foolbox.attacks.L2PGD(steps=100),
            foolbox.attacks.L2CarliniWagnerAttack(binary_search_steps=6, steps=200),
            foolbox.attacks.DDNAttack(),
            foolbox.attacks.L2FMNAttack(),
        ],
    }
    victim = foolbox.PyTorchModel(model, bounds=(0, 1))
    criterion = foolbox.criteria.Misclassification(labels)
    for attack in attacks[norm]:
        _, clipped, _ = attack(victim, images, criterion, epsilons=epsilon)
        yield clipped


def others() -> dict[str, Attack]:
    """What is installed to compare with."""
    found: dict[str, Attack] = {"AutoAttack (torchattacks)": autoattack}
    if find_spec("foolbox"):
        return found | {"foolbox": by_foolbox}
    print("foolbox is not installed: left out", file=sys.stderr)
    return found


def broken(
    model: nn.Module, images: Tensor, labels: Tensor, norm: str, epsilon: float, attack: Attack
) -> Tensor:
    """Which images an attack breaks within epsilon, as we check it, bool [n]."""
    with torch.no_grad():
        right = model(images).argmax(1) == labels
    found = torch.zeros_like(right)
    for returned in attack(model, images[right], labels[right], norm, epsilon):
        candidates = returned.detach()
        change = Norm(norm).size(candidates - images[right]).numpy()
        inside = torch.from_numpy(within(change.astype(float), epsilon))
        inside &= ((candidates >= 0) & (candidates <= 1)).flatten(1).all(1)
        with torch.no_grad():
            wrong = model(candidates).argmax(1) != labels[right]
        found[right] |= inside & wrong
    return found


def compare(
    group: AttackedNetwork,
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    name: str,
    attack: Attack,
) -> Row:
    """Our attacks on a net at one tolerance in one norm against another implementation."""
    where = group.where
    epsilon = EPSILONS[where["norm"]]
    started = time.perf_counter()
    with frozen(model):
        theirs = broken(model, images, labels, where["norm"], epsilon, attack).numpy()
    seconds = time.perf_counter() - started
    ours, left = group.strongest(epsilon), group.correct & ~theirs
    only_ours, only_theirs = int((left & ~ours).sum()), int((ours & ~left).sum())
    low, high = paired.interval(only_theirs, only_ours, len(labels))
    return Row(
        model=where["model"],
        tolerance=where["tolerance"],
        norm=where["norm"],
        other=name,
        images=len(labels),
        ours=float(ours.mean()),
        theirs=float(left.mean()),
        difference=(only_theirs - only_ours) / len(labels),
        low=low,
        high=high,
        only_ours=only_ours,
        only_theirs=only_theirs,
        seconds=seconds,
    )


def nets(names: list[str]) -> dict[str, known.Classifier]:
    """The nets of these names, trained now, and RES, the source of transferred examples."""
    made = {}
    for name, design in tqdm(DESIGNS.items(), "training"):
        if name in ("RES", *names):
            made[name] = known.trained(seed=0, epochs=EPOCHS, **design)
    for name, mask in MASKS.items():
        if name in names:
            made[name] = mask(made["RES"])
    return made


def configuration(models: dict[str, known.Classifier], norm: str, images: int) -> Config:
    """The experiment: the preset `standard` on all nets."""
    keys = ("downsampling", "body", "filters", "blocks", "dropout")
    experiment: dict[str, Any] = {
        "datasets": ["digits"],
        "models": list(models),
        "tolerances": [TOLERANCE],
        "attacks": ["standard"],
        "norms": [norm],
        "epsilons": [EPSILONS[norm]],
        "audit": {"images": min(images, 100)},
        "matrix": None,
    }
    described = {
        name: {key: getattr(model.spec, key) for key in keys} for name, model in models.items()
    }
    return load(
        {
            "experiments": {"known": experiment},
            "datasets": {"digits": {"source": "digits"}},
            "models": described,
        }
    )


def main() -> int:
    """Train, attack, compare, write and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--norm", choices=list(EPSILONS), default="linf")
    parser.add_argument("--images", type=int, default=200, help="of 500")
    every = [*DESIGNS, *MASKS]
    parser.add_argument("--models", nargs="+", choices=every, default=every)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--output", type=Path, help="results/benchmarks/reference-{norm}.json")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    _, (images, labels) = known.digits()
    images, labels = images[: arguments.images], labels[: arguments.images]
    models = nets(arguments.models)
    config = configuration(models, arguments.norm, len(labels))
    with tempfile.TemporaryDirectory() as folder, tqdm(desc="our cells") as progress:

        def report_cell(cell: str) -> None:
            progress.set_postfix_str(cell)
            progress.update()

        by_seed = {(name, 0): model for name, model in models.items()}
        found = known.evaluated(Path(folder), config, by_seed, images, labels, report_cell)
    rows = []
    for group in tqdm(found.attacked, "theirs"):
        model = models[group.where["model"]].at(tolerance=group.where["tolerance"])
        for name, attack in others().items():
            rows.append(compare(group, model, images, labels, name, attack))
    verdict_rows = found.verdicts.to_dict("records")
    report = {
        "machine": {"torch": torch.__version__, "python": platform.python_version()},
        "epsilon": EPSILONS[arguments.norm],
        "rows": [asdict(row) for row in rows],
        "verdicts": verdict_rows,
    }
    output = arguments.output or results.FOLDER / f"reference-{arguments.norm}.json"
    results.write(report, output)
    for table in (report["rows"], verdict_rows):
        print(pd.DataFrame(table).round(3).to_string(index=False), end="\n\n")
    weaker = any(row.low > 0 for row in rows)
    wrong = arguments.norm == "linf" and any(
        row["verdict"] not in EXPECTED.get(row["model"], row["verdict"]) for row in verdict_rows
    )
    return int(weaker or wrong)


if __name__ == "__main__":
    sys.exit(main())
