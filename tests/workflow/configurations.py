"""Configurations and images of all kinds, for runs of seconds: strategies of Hypothesis."""

from dataclasses import dataclass, field, replace
from itertools import product
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from harness import own_dataset
from node_robustness.config.methods import BUILT_IN
from node_robustness.config.models import TORCHDIFFEQ_ONLY
from node_robustness.config.presets import expand
from node_robustness.config.values import FIXED

EXPERIMENT = "any"

# By method, what makes an attack long, made short.
_SHORT: dict[str, dict[str, int]] = {
    "fgsm": {},
    "bim": {"iterations": 2},
    "pgd": {"iterations": 2, "restarts": 2},
    "eot_pgd": {"iterations": 2, "draws": 2},
    "bisection": {"iterations": 2, "halvings": 2},
    "apgd": {"iterations": 3},
    "fab": {"iterations": 2, "targets": 2},
    "cw": {"iterations": 2, "search_steps": 2},
    "square": {"queries": 8},
    "transfer": {},
    "noise": {"draws": 2},
    "torchattacks": {},
}
_ATTACKS = {name: attack | _SHORT[attack["method"]] for name, attack in BUILT_IN.items()}
_SIDE = st.sampled_from([8, 12, 16]) | st.integers(1, 40)
_FEW = st.integers(1, 5)
ANY_NET = Path(__file__).with_name("any_net.py")


@dataclass(frozen=True)
class Pictures:
    """Images of a dataset: random ones, brighter in a part that their class says.

    Attributes:
        shape: of one image: C, H, W, or H, W.
        class_names: names of the classes.
        train: how many are in the training files.
        test: how many are in the test files.
    """

    shape: tuple[int, ...]
    class_names: tuple[str, ...]
    train: int
    test: int

    def write(self, folder: Path) -> dict[str, Any]:
        """Write them into a new folder; return the settings of the dataset."""
        random = np.random.default_rng(0)
        count = self.train + self.test
        # Of every class there are images to train, if there are as many.
        labels = np.concatenate([np.arange(self.test), np.arange(self.train)]).astype(np.uint8)
        labels %= min(len(self.class_names), self.train)
        images = random.integers(0, 100, (count, *self.shape), dtype=np.uint8)
        rows = images.reshape(count, -1)
        parts = np.array_split(np.arange(rows.shape[1]), len(self.class_names))
        for row, label in zip(rows, labels.tolist(), strict=True):
            row[parts[label]] += 150
        return own_dataset(folder, images, labels, self.test, self.class_names)


@dataclass(frozen=True)
class Example:
    """A configuration, and the images of its datasets in the user's files."""

    config: dict[str, Any]
    pictures: dict[str, Pictures] = field(default_factory=dict)

    def write(self, folder: Path) -> dict[str, Any]:
        """Write the images into a folder; return the whole configuration."""
        files = {name: own.write(folder / name) for name, own in self.pictures.items()}
        datasets = self.config["datasets"].items()
        return self.config | {"datasets": {n: files.get(n, {}) | keys for n, keys in datasets}}


def _maybe(**keys: SearchStrategy[Any]) -> SearchStrategy[dict[str, Any]]:
    """A map in which each key may be missing."""
    return st.fixed_dictionaries({}, optional=keys)


def _some(values: list[Any], most: int) -> SearchStrategy[list[Any]]:
    return st.lists(st.sampled_from(values), min_size=1, max_size=most, unique=True)


def _seldom(usual: SearchStrategy[Any], odd: SearchStrategy[Any]) -> SearchStrategy[Any]:
    """Once in twenty times what is odd, and may have to be refused."""
    return st.integers(1, 20).flatmap(lambda n: odd if n == 20 else usual)


_CLASS_NAMES = st.integers(1, 12).map(lambda n: [f"c{i}" for i in range(n)])
_ODD_NAMES = st.lists(
    st.sampled_from(["a", "b", "T-shirt/top", "ä b", "<b>&", "", "'", "a" * 60]),
    min_size=1,
    max_size=8,
)


@st.composite
def _pictures(draw: st.DrawFn) -> Pictures:
    channels = draw(st.sampled_from([(), (1,), (3,)]) | st.integers(1, 8).map(lambda c: (c,)))
    names = st.integers(2, 10).map(lambda n: [f"c{i}" for i in range(n)])
    return Pictures(
        (*channels, draw(_SIDE), draw(_SIDE)),
        tuple(draw(_seldom(names, _CLASS_NAMES | _ODD_NAMES))),
        draw(st.integers(20, 40) | st.integers(2, 40)),
        draw(st.integers(1, 6) | st.integers(1, 30)),
    )


@st.composite
def _solver(draw: st.DrawFn) -> dict[str, Any]:
    batched = ["dopri5", "bosh3", "adaptive_heun", "fehlberg2", "euler", "midpoint", "rk4"]
    library = draw(st.integers(0, 3)) == 0
    method = draw(st.sampled_from([*batched, *TORCHDIFFEQ_ONLY] if library else batched))
    solver: dict[str, Any] = {"method": method}
    if library:
        solver |= {"backend": "torchdiffeq", **draw(_maybe(batch_size=_FEW))}
    if method in FIXED:
        return solver | {"steps": draw(_FEW)}
    steps = _seldom(st.just({}), st.sampled_from([{"max_steps": 1}, {"max_steps": 5}]))
    return solver | draw(_maybe(tolerance=st.sampled_from([1e-4, 1e-2, 1]))) | draw(steps)


@st.composite
def _model(draw: st.DrawFn) -> dict[str, Any]:
    body = draw(st.sampled_from(["ode", "ode", "residual"]))
    model: dict[str, Any] = {
        "body": body,
        "downsampling": draw(st.sampled_from(["residual", "convolution"])),
        "filters": draw(_seldom(st.sampled_from([4, 2, 3, 8]), st.sampled_from([1, 32, 33]))),
        "dropout": draw(st.sampled_from([0, 0.5])),
    }
    if body == "residual":
        return model | {"blocks": draw(st.integers(1, 2))}
    model["solver"] = draw(_solver())
    if model["solver"]["method"] in TORCHDIFFEQ_ONLY:
        model["training"] = {"solver": "torchdiffeq"}
    return model


@st.composite
def _own_model(draw: st.DrawFn) -> dict[str, Any]:
    """A model of a user's file."""
    build = draw(st.sampled_from(["Net", "Net", "Net", "Stepper", "plain"]))
    model: dict[str, Any] = {"module": str(ANY_NET), "build": build}
    if build == "plain":
        return model | {"ode": "none"}
    if build == "Stepper":
        return model
    kinds = dict.fromkeys(["vector", "branches", "adjoint", "several"], st.booleans())
    arguments = draw(
        _maybe(**kinds, solves=st.integers(1, 2), end=st.sampled_from([0.5, 2.0, -1.0]))
    )
    if arguments.get("several"):
        model["output"] = 1
    if draw(st.integers(0, 3)) == 0:
        fixed = {"method": draw(st.sampled_from(FIXED)), "options": {"step_size": 0.25}}
        return model | {"ode": "fixed", "arguments": arguments | fixed}
    tolerances = draw(_maybe(rtol=st.sampled_from([1e-3, 0.1]), atol=st.sampled_from([1e-4, 0.1])))
    return model | {"arguments": arguments | tolerances}


@st.composite
def _training(draw: st.DrawFn, colours: bool) -> dict[str, Any]:
    training = {"epochs": draw(st.sampled_from([1, 1, 2])), "learning_rate": 0.01} | draw(
        _maybe(
            batch_size=st.integers(2, 40),
            schedule=st.sampled_from(["plateau", "one_cycle", "cosine", "constant"]),
            early_stopping=st.just(1),
            patience=st.just(0),
        )
    )
    if draw(st.integers(0, 3)) == 0:
        changes = {"crop_padding": st.sampled_from([1, 50]), "horizontal_flip": st.booleans()}
        if colours or draw(st.integers(0, 9)) == 0:
            changes |= {"hue": st.just(0.1), "saturation": st.just(0.2)}
        training["augmentation"] = draw(_maybe(**changes))
    if draw(st.integers(0, 4)) == 0:
        training |= {"solver": "torchdiffeq", **draw(_maybe(gradient=st.just("adjoint")))}
    return training


@st.composite
def _attack(draw: st.DrawFn, norms: list[str]) -> dict[str, Any]:
    """An attack that is not built in."""
    method = draw(st.sampled_from(list(_SHORT)))
    attack: dict[str, Any] = {"method": method, **_SHORT[method]}
    if method == "transfer":
        return attack | {"by": draw(st.sampled_from(["fgsm", "pgd", "bim_adjoint", "mine"]))}
    if method in ("bim", "pgd", "eot_pgd"):
        size = st.sampled_from([0.01, 0.3, 1])
        sizes = size | st.fixed_dictionaries(dict.fromkeys(norms, size))
        attack |= draw(
            st.fixed_dictionaries({"relative_step": size}) | st.fixed_dictionaries({"step": sizes})
        )
        attack |= draw(_maybe(early_stop=st.booleans()))
    if method == "apgd":
        attack |= draw(st.sampled_from([{}, {"loss": "dlr"}, {"loss": "dlr", "targets": 2}]))
    if method == "torchattacks":
        attack["name"] = draw(st.sampled_from(["FGSM", "PGD", "CW", "FAB", "TIFGSM", "SPSA"]))
    if method not in ("square", "noise") and attack.get("name") != "SPSA":
        kinds = ["direct", "adjoint", "surrogate"]
        attack["gradient"] = draw(st.sampled_from(kinds[:2] if method == "eot_pgd" else kinds))
    if attack.get("gradient") == "surrogate":
        solved = [{"tolerance": 1e-2}, {"method": "euler", "steps": 2}]
        attack["surrogate"] = draw(st.sampled_from(solved))
    return attack


@st.composite
def _sections(draw: st.DrawFn, lists: dict[str, list[Any]], most: int) -> dict[str, Any]:
    """The sections of an experiment, each of them off, as it is by default, or with options.

    Args:
        draw: see Hypothesis.
        lists: the lists of the experiment, to choose from.
        most: images that are measured.
    """
    chosen = {key: _some(values, 2) for key, values in lists.items()}
    images = {"images": st.integers(1, most)}
    perturbed = {key: chosen[key] for key in ("norms", "epsilons")}
    sections = {
        "trajectories": _maybe(
            **chosen,
            **images,
            times=st.sampled_from([2, 3, 5, [0, 1], [0, 0.1, 1]]),
            states=st.integers(0, 3),
            precision=st.sampled_from(["float16", "float32"]),
            growth=st.integers(0, 3),
            causal=st.integers(0, 3),
            intervals=_FEW,
            probe=st.booleans(),
        ),
        "audit": _maybe(**images, directions=_FEW, iterations=_FEW),
        "matrix": _maybe(**perturbed, attacks=chosen["attacks"]),
        "randomisation": _maybe(
            **perturbed,
            **images,
            low=st.sampled_from([1e-4, 1e-2]),
            high=st.sampled_from([1, 10]),
            iterations=_FEW,
            draws=_FEW,
            evaluation_draws=_FEW,
        ),
        "cost": _maybe(**perturbed, **images, tolerances=chosen["tolerances"], queries=_FEW),
        "detection": _maybe(
            **perturbed,
            **images,
            tolerances=chosen["tolerances"],
            iterations=_FEW,
            searches=_FEW,
            search_iterations=_FEW,
        ),
    }
    found = {}
    for name, options in sections.items():
        choice = draw(st.sampled_from(["off", "off", "options", "default"]))
        if choice != "default":
            found[name] = None if choice == "off" else draw(options)
    return found


_LENGTHS = [
    lengths for lengths in product((1, 2), (1, 2), (1, 2), (1, 2), (1, 2, 3)) if prod(lengths) <= 6
]
"""How many models, tolerances, norms, epsilons and attacks there are."""


def _exactly(count: int, values: list[Any]) -> SearchStrategy[list[Any]]:
    return st.lists(st.sampled_from(values), min_size=count, max_size=count, unique=True)


@st.composite
def _dataset(draw: st.DrawFn, images: Pictures, careful: bool, shards: bool) -> dict[str, Any]:
    """What a configuration says of images, except their files."""
    held = st.sampled_from([0.1, 0.5, 1, 3])
    subset = {"test": st.integers(1, images.test)}
    if not careful:
        subset = dict.fromkeys(("train", "validation", "test"), st.integers(1, 40))
    keys = draw(_maybe(validation=held, split_seed=st.integers(0, 3), subset=_maybe(**subset)))
    if shards:
        keys["subset"] = {"test": images.test} | keys.get("subset", {})
    return keys


@st.composite
def examples(draw: st.DrawFn) -> Example:
    """A whole configuration and its images; one in ten is drawn without care."""
    careful = draw(st.integers(1, 10)) < 10
    shards = draw(st.integers(0, 3)) == 0
    lengths = draw(st.sampled_from(_LENGTHS))
    any_model = _model() | _model() | _own_model()
    models = {name: draw(any_model) for name in draw(_exactly(lengths[0], ["RES", "MIX", "OON"]))}
    own = {
        name: draw(_pictures())
        for name in draw(st.sampled_from([["own"]] * 8 + [[], ["own", "two"]]))
    }
    # Those that torchdiffeq may solve image by image.
    if any("module" in model or "backend" in model.get("solver", {}) for model in models.values()):
        own = {name: replace(images, test=min(images.test, 3)) for name, images in own.items()}
    datasets = {name: draw(_dataset(images, careful, shards)) for name, images in own.items()}
    if not own:
        counts = {key: draw(st.integers(10, 30)) for key in ("train", "test")}
        datasets["digits"] = {"source": "digits", "subset": counts}
    tolerances = draw(_exactly(lengths[1], [1e-3, 1e-2, 0.1, 1, 10, 100]))
    norms = draw(_exactly(lengths[2], ["linf", "l2", "l2_rms"]))
    sizes = _exactly(lengths[3], [0.001, 0.03, 0.1, 0.3, 1, *([] if careful else [8])])
    epsilons = draw(sizes | st.fixed_dictionaries(dict.fromkeys(norms, sizes)))
    flat = epsilons if isinstance(epsilons, list) else [e for v in epsilons.values() for e in v]
    mine = draw(_attack(norms))
    attacks = draw(_exactly(lengths[4], [*_ATTACKS, "mine", "paper"]))
    if prod(lengths) == 1:
        attacks = draw(_seldom(st.just(attacks), st.sampled_from([["quick"], ["standard"]])))
    every = expand(attacks)
    methods = {name: (_ATTACKS | {"mine": mine})[name]["method"] for name in every}
    lists = {"attacks": every, "norms": norms, "tolerances": tolerances}
    most = min((images.test for images in own.values()), default=9) if careful else 9
    sections = draw(_sections(lists | {"epsilons": list(dict.fromkeys(flat))}, most))
    if careful and "eot_pgd" in methods.values():
        sections["randomisation"] = {"low": 1e-3, "high": 10, "images": 1}
    if careful and "transfer" in methods.values() and len(models) == 1:
        models["second"] = draw(_model())
    swept: dict[str, Any] = {}
    follows = [name for name in every if methods[name] in ("bim", "pgd", "apgd")]
    if follows and draw(st.integers(0, 3)) == 0:
        keys = {"images": st.integers(1, most), "backward_tolerances": st.just([0.1, 1])}
        swept = {"adjoint_sweep": draw(_maybe(**keys)), "paper_attack": follows[0]}
    experiment = {
        "datasets": list(datasets),
        "models": list(models),
        "tolerances": tolerances,
        "attacks": attacks,
        "norms": norms,
        "epsilons": epsilons,
        **sections,
        **draw(
            _maybe(
                seeds=st.sampled_from([[0], [7], [0, 1]]),
                skip_broken=st.booleans(),
                paper=st.sampled_from(["mnist", "cifar10"]),
                paper_attack=st.sampled_from(every),
            )
        ),
        **swept,
    }
    if len(attacks) > 1 and draw(st.booleans()):
        experiment |= {"attacks": attacks[:1], "primary_attacks": attacks[1:]}
    if draw(st.booleans()):
        of_norm = {
            norm: draw(st.sampled_from(values))
            for norm, values in (
                epsilons if isinstance(epsilons, dict) else dict.fromkeys(norms, epsilons)
            ).items()
        }
        experiment["primary"] = of_norm
    compute = draw(_maybe(batch_size=st.integers(1, 40), memory_mb=st.sampled_from([1, 100])))
    if shards:
        compute |= {"shard_size": draw(st.integers(1, 20)), "keep_shards": draw(st.booleans())}
    colours = bool(own) and all(len(p.shape) == 3 and p.shape[0] == 3 for p in own.values())
    config = {
        "experiments": {EXPERIMENT: experiment},
        "datasets": datasets,
        "models": models,
        "attacks": _ATTACKS | {"mine": mine},
        "training": draw(_training(colours)),
        "compute": compute,
    }
    return Example(config, own)
