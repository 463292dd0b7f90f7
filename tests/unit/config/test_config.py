"""The configuration: every mistake becomes one line that names the key and the remedy."""

import math
import re
from copy import deepcopy
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from node_robustness.config import torchattacks_classes
from node_robustness.config.config import Config
from node_robustness.config.enough_images import shortages
from node_robustness.config.loading import load
from node_robustness.config.methods import BUILT_IN
from node_robustness.config.presets import PRESETS
from node_robustness.errors import UserError

SHA256 = "0123456789abcdef" * 4
NOT_A_NUMBER = "is not a number (write for example 0.1, 1e-3 or 8/255)"
NOT_FINITE = "is not finite (write for example 0.1, 1e-3 or 8/255)"
NOT_WHOLE = "is not a whole number (write for example 100)"
NOT_A_NAME = "does not fit: write letters, digits and underscores, beginning with a letter"
NORMS = "choose from 'linf', 'l2' or 'l2_rms'"
METHODS = (
    "choose from 'apgd', 'bim', 'bisection', 'cw', 'eot_pgd', 'fab', 'fgsm', 'noise', 'pgd', "
    "'square', 'torchattacks' or 'transfer'"
)
CLASSES = f"choose from {', '.join(torchattacks_classes.CLASSES)}"
SOURCES = "'digits', 'mnist', 'fashion_mnist', 'cifar10', 'cifar100', 'idx' or 'cifar_binary'"
A_LIST = "must be a list, such as [a, b]"
NO_VALIDATION = "validation must be a share between 0 and 1 or a whole number of images"

BASE: dict[str, Any] = {
    "experiments": {
        "e": {
            "datasets": ["d"],
            "models": ["M", "R"],
            "tolerances": ["1e-3", 1],
            "attacks": ["bim"],
            "norms": ["linf", "l2_rms"],
            "epsilons": [0.1, "8/255"],
        }
    },
    "datasets": {
        "d": {"source": "digits"},
        "own": {
            "source": "idx",
            "mirrors": ["file:///data"],
            "class_names": ["a", "b"],
            "files": {
                role: {"name": f"{role}.gz", "sha256": f"{number:x}{SHA256[1:]}"}
                for number, role in enumerate(
                    ("train_images", "train_labels", "test_images", "test_labels")
                )
            },
        },
        "tiles": {
            "source": "cifar_binary",
            "mirrors": ["file:///data"],
            "class_names": ["a", "b"],
            "image_shape": [3, 8, 8],
            "files": {"archive": {"name": "tiles.tar", "sha256": SHA256}},
        },
    },
    "models": {
        "M": {"downsampling": "residual", "body": "ode", "solver": {"tolerance": "1e-3"}},
        "R": {"downsampling": "residual", "body": "residual"},
    },
    "attacks": {"bim": {"method": "bim", "step": 0.05}},
    "training": {"augmentation": {"hue": 0.05}},
    "compute": {"device": "cpu"},
}


def changed(path: str | list[Any], value: object) -> dict[str, Any]:
    """The base with one key set; keys on the way are made."""
    raw = deepcopy(BASE)
    *parents, last = path.split(".") if isinstance(path, str) else path
    node = raw
    for key in parents:
        node = node.setdefault(key, {})
    node[last] = value
    return raw


def mistakes(raw: Any) -> list[str]:
    with pytest.raises(UserError) as caught:
        load(raw)
    return str(caught.value).split("\n")


def test_the_base_is_right():
    config = load(BASE)
    assert config.experiments["e"].epsilons == [0.1, 8 / 255]
    assert config.experiments["e"].seeds == [0]
    assert config.models["M"].solver.tolerance == 1e-3


# The key, the wrong value, and the line after `config: `. One that begins with a colon, a bracket
# or a dot follows the key; one that ends on ", " is only the beginning of the line.
WRONG: list[tuple[str, object, str]] = [
    # unknown keys, at every level
    (
        "extra",
        {},
        ": unknown key; known keys: experiments, datasets, models, attacks, training, compute",
    ),
    ("dataset", {}, ": unknown key; did you mean 'datasets'?"),
    ("[key]", {}, ": unknown key; known keys: experiments, datasets, models, attacks, "),
    ("experiments.e.tolerance", [1], ": unknown key; did you mean 'tolerances'?"),
    (
        "experiments.e.foo bar",
        1,
        ": unknown key; known keys: datasets, models, seeds, tolerances, "
        "attacks, primary_attacks, norms, epsilons, primary, skip_broken, trajectories, audit, "
        "matrix, randomisation, detection, adjoint_sweep, cost, paper, paper_attack",
    ),
    ("experiments.e.trajectories.time", 5, ": unknown key; did you mean 'times'?"),
    ("datasets.d.sauce", "x", ": unknown key; did you mean 'source'?"),
    ("datasets.d.subset.tests", 5, ": unknown key; did you mean 'test'?"),
    ("datasets.own.files.train_images.sha", "", ": unknown key; did you mean 'sha256'?"),
    ("models.M.filter", 64, ": unknown key; did you mean 'filters'?"),
    (
        "models.M.solver.tau",
        1,
        ": unknown key; known keys: backend, method, tolerance, max_steps, steps, batch_size",
    ),
    ("models.M.training.epoch", 5, ": unknown key; did you mean 'epochs'?"),
    ("models.M.training.augmentation.hues", 0, ": unknown key; did you mean 'hue'?"),
    ("attacks.bim.steps", 0.1, ": unknown key; did you mean 'step'?"),
    ("training.lr", 0.1, ": unknown key; known keys: epochs, batch_size, learning_rate, "),
    (
        "training.augmentation.flip",
        True,
        ": unknown key; known keys: crop_padding, horizontal_flip, hue, saturation",
    ),
    ("compute.devices", "cpu", ": unknown key; did you mean 'device'?"),
    # names that nothing defines
    (
        "experiments.e.datasets",
        ["x"],
        ": 'x' is not defined under datasets (there is: d, own, tiles)",
    ),
    ("experiments.e.models", ["X"], ": 'X' is not defined under models (there is: M, R)"),
    (
        "experiments.e.attacks",
        ["gpd"],
        ": 'gpd' is not defined under attacks or presets (there is: "
        f"{', '.join([*BUILT_IN, 'bim', *PRESETS])})",
    ),
    (
        "datasets",
        {},
        "experiments.e.datasets: 'd' is not defined under datasets (there is: nothing)",
    ),
    # numbers out of range
    ("experiments.e.epsilons", [0], ": 0 must be greater than 0"),
    ("experiments.e.epsilons", [0.1, -0.1], ": -0.1 must be greater than 0"),
    ("experiments.e.epsilons", {"linf": [0], "l2_rms": [1]}, ".linf: 0 must be greater than 0"),
    ("experiments.e.tolerances", [0.0], ": 0.0 must be greater than 0"),
    ("experiments.e.tolerances", ["-1e-3"], ": '-1e-3' must be greater than 0"),
    ("experiments.e.seeds", [-1], "[0]: -1 must be 0 or more"),
    (
        "experiments.e.seeds",
        [2**63],
        "[0]: 9223372036854775808 is too large for a seed: write a whole number below 2**63",
    ),
    ("experiments.e.trajectories.times", 1, ": 1 must be 2 or more"),
    ("experiments.e.trajectories.times", [0, 0.5, 1.5], "[2]: 1.5 must be 1 or less"),
    ("experiments.e.trajectories.times", [-0.1, 1], "[0]: -0.1 must be 0 or more"),
    (
        "experiments.e.trajectories.times",
        [0, 0.7, 0.5, 1],
        ": must rise from 0 to 1, both included (given: [0.0, 0.7, 0.5, 1.0])",
    ),
    (
        "experiments.e.trajectories.times",
        [0, 0.5],
        ": must rise from 0 to 1, both included (given: [0.0, 0.5])",
    ),
    ("experiments.e.trajectories.states", -1, ": -1 must be 0 or more"),
    ("datasets.d.split_seed", -1, ": -1 must be 0 or more"),
    ("datasets.d.subset.test", 0, ": 0 must be 1 or more"),
    ("datasets.tiles.label_bytes", 3, ": 3 must be 2 or less"),
    ("datasets.tiles.image_shape", [3, 0, 8], "[1]: 0 must be 1 or more"),
    ("models.M.filters", 0, ": 0 must be 1 or more"),
    (
        "models.M.filters",
        48,
        "models.M: filters: 48 must be at most 32, or a multiple of 32 (for GroupNorm)",
    ),
    ("models.M.dropout", 1, ": 1 must be less than 1"),
    ("models.M.dropout", -0.5, ": -0.5 must be 0 or more"),
    ("models.M.solver.tolerance", 0, ": 0 must be greater than 0"),
    ("models.M.solver.max_steps", 0, ": 0 must be 1 or more"),
    ("attacks.bim.step", 0, ": 0 must be greater than 0"),
    ("attacks.bim.step", {"linf": -1}, ".linf: -1 must be greater than 0"),
    ("attacks.bim.iterations", 0, ": 0 must be 1 or more"),
    ("training.epochs", 0, ": 0 must be 1 or more"),
    ("training.learning_rate", 0, ": 0 must be greater than 0"),
    ("training.momentum", 1, ": 1 must be less than 1"),
    ("training.patience", -1, ": -1 must be 0 or more"),
    ("training.early_stopping", 0, ": 0 must be 1 or more"),
    ("training.augmentation.hue", 0.6, ": 0.6 must be 0.5 or less"),
    ("compute.threads", 0, ": 0 must be 1 or more"),
    # empty lists and maps
    ("experiments", {}, ": is empty: list at least one"),
    *(
        (f"experiments.e.{key}", [], ": is empty: list at least one")
        for key in ("datasets", "models", "seeds", "tolerances", "attacks", "norms", "epsilons")
    ),
    *(
        (f"experiments.e.trajectories.{key}", [], ": is empty: list at least one")
        for key in ("attacks", "norms", "tolerances", "epsilons")
    ),
    ("experiments.e.epsilons", {"linf": [], "l2_rms": [1]}, ".linf: is empty: list at least one"),
    ("experiments.e.epsilons", {}, "experiments.e: epsilons has no list for norm linf: add one"),
    ("attacks.bim.step", {}, "attacks.bim.step has no entry for norm linf: add one"),
    # listed twice
    (
        "experiments.e.tolerances",
        ["1e-3", 0.001],
        ": 0.001 is listed twice (as 1e-3 and as 0.001): remove one",
    ),
    ("experiments.e.tolerances", [10, 10], ": 10 is listed twice (as 10 and as 10): remove one"),
    (
        "experiments.e.epsilons",
        ["8/255", "16/510"],
        ": 8/255 is listed twice (as 8/255 and as 16/510): remove one",
    ),
    ("experiments.e.seeds", [0, "0"], ": 0 is listed twice: remove one"),
    ("experiments.e.datasets", ["d", "d"], ": 'd' is listed twice: remove one"),
    ("experiments.e.norms", ["linf", "linf"], ": 'linf' is listed twice: remove one"),
    # wrong names
    ("experiments.my exp", BASE["experiments"]["e"], f": 'my exp' {NOT_A_NAME}"),
    ("datasets.7", {"source": "digits"}, f": '7' {NOT_A_NAME}"),
    ("models.a/x", BASE["models"]["R"], f": 'a/x' {NOT_A_NAME}"),
    ("attacks.bim-2", {"method": "bim", "step": 1}, f": 'bim-2' {NOT_A_NAME}"),
    ("attacks.", {"method": "bim", "step": 1}, f": '' {NOT_A_NAME}"),
    ("experiments.e.models", ["M", "R "], f"[1]: 'R ' {NOT_A_NAME}"),
    (
        "datasets.own.files.train_images.name",
        "a/b",
        ": 'a/b' does not fit: write a plain file name, without folders",
    ),
    (
        "datasets.own.files.train_images.sha256",
        "abc",
        ": 'abc' does not fit: write 64 hexadecimal digits in lower case",
    ),
    (
        "datasets.d.mirrors",
        ["/data"],
        "[0]: '/data' does not fit: write https://..., http://... or file:///folder",
    ),
    (
        "models.M.weights",
        "oon.pt",
        ": 'oon.pt' does not fit: write the path of a .pth or .safetensors file",
    ),
    # choices
    ("datasets.d.source", "imagenet", f": 'imagenet' is not known; choose from {SOURCES}"),
    ("experiments.e.norms", ["l1"], f"[0]: 'l1' is not known; {NORMS}"),
    ("experiments.e.norms", [["linf"]], f"[0]: ['linf'] is not known; {NORMS}"),
    ("experiments.e.epsilons", {"l1": [1]}, f".l1: 'l1' is not known; {NORMS}"),
    (
        "experiments.e.paper",
        "imagenet",
        ": 'imagenet' is not known; choose from 'mnist' or 'cifar10'",
    ),
    (
        "experiments.e.trajectories.precision",
        16,
        ": 16 is not known; choose from 'float16' or 'float32'",
    ),
    ("models.M.body", "resnet", ": 'resnet' is not known; choose from 'residual' or 'ode'"),
    (
        "models.M.solver.method",
        "euler9",
        ": 'euler9' is not known; choose from 'dopri5', 'bosh3', "
        "'adaptive_heun', 'fehlberg2', 'euler', 'midpoint', 'rk4', 'dopri8', 'heun2', 'heun3', "
        "'explicit_adams' or 'implicit_adams'",
    ),
    ("attacks.bim.method", "mim", f": 'mim' is not known; {METHODS}"),
    ("attacks.bim.method", 5, f": 5 is not known; {METHODS}"),
    (
        "attacks.bim.gradient",
        None,
        ": nothing is not known; choose from 'direct', 'adjoint' or 'surrogate'",
    ),
    ("compute.device", "gpu", ": 'gpu' is not known; choose from 'auto', 'cpu', 'cuda' or 'mps'"),
    ("compute.device", 0, ": 0 is not known; choose from 'auto', 'cpu', 'cuda' or 'mps'"),
    # wrong types
    ("experiments.e.datasets", "d", f": {A_LIST} (given: 'd')"),
    ("experiments.e.datasets", [1], "[0]: must be text, in quotes if necessary (given: 1)"),
    ("experiments.e.seeds", 0, f": {A_LIST} (given: 0)"),
    ("experiments.e.seeds", [0.5], f"[0]: 0.5 {NOT_WHOLE}"),
    ("experiments.e.seeds", [True], f"[0]: True {NOT_WHOLE}"),
    ("experiments.e.epsilons", 0.1, f": {A_LIST} (given: 0.1)"),
    ("experiments.e.epsilons", ["a"], f": 'a' {NOT_A_NUMBER}"),
    ("experiments.e.epsilons", ["1/0"], f": '1/0' {NOT_A_NUMBER}"),
    ("experiments.e.epsilons", [True], f": True {NOT_A_NUMBER}"),
    ("experiments.e.epsilons", [None], f": None {NOT_A_NUMBER}"),
    ("experiments.e.epsilons", [[0.1]], f": [0.1] {NOT_A_NUMBER}"),
    ("experiments.e.epsilons", [math.nan], f": nan {NOT_FINITE}"),
    ("experiments.e.epsilons", ["1e999999999"], f": '1e999999999' {NOT_FINITE}"),
    ("experiments.e.trajectories", [], ": must be a map of keys (given: [])"),
    ("experiments.e.trajectories", True, ": must be a map of keys (given: True)"),
    ("datasets.d.mirrors", "http://x", f": {A_LIST} (given: 'http://x')"),
    ("datasets.d.subset", 100, ": must be a map of keys (given: 100)"),
    ("datasets.d.subset.test", "all", f": 'all' {NOT_WHOLE}"),
    ("datasets.own.class_names", [0, "b"], "[0]: must be text, in quotes if necessary (given: 0)"),
    ("datasets.own.files", ["a"], ": must be a map of keys (given: ['a'])"),
    ("datasets.tiles.image_shape", 3, f": {A_LIST} (given: 3)"),
    ("datasets.tiles.image_shape", [3, 8], "[2]: is missing: the list is too short"),
    ("datasets.tiles.image_shape", [3, 8, 8, 8], ": must have 3 entries (given: [3, 8, 8, 8])"),
    ("models", [], ": must be a map of keys (given: [])"),
    ("models.M.solver", "dopri5", ": must be a map of keys (given: 'dopri5')"),
    ("models.M.weights", 5, ": must be text, in quotes if necessary (given: 5)"),
    ("attacks.bim.step", [0.1], f": [0.1] {NOT_A_NUMBER}"),
    ("attacks.bim.early_stop", "maybe", ": must be true or false (given: 'maybe')"),
    ("attacks.bim.early_stop", 2, ": must be true or false (given: 2)"),
    ("attacks.bim.early_stop", [], ": must be true or false (given: [])"),
    ("training.epochs", True, f": True {NOT_WHOLE}"),
    ("training.learning_rate", "fast", f": 'fast' {NOT_A_NUMBER}"),
    ("compute.batch_size", "all", f": 'all' {NOT_WHOLE}"),
    # sections without content, as an indentation slip leaves them
    *(
        (path, None, f"{path}: must be a map of keys (given: nothing)")
        for path in (
            "experiments",
            "experiments.e",
            "datasets",
            "datasets.d",
            "datasets.d.subset",
            "datasets.own.files",
            "models",
            "models.M",
            "models.M.solver",
            "models.M.training",
            "attacks",
            "attacks.bim",
            "training",
            "training.augmentation",
            "compute",
        )
    ),
    ("experiments.e.datasets", None, f": {A_LIST} (given: nothing)"),
    ("experiments.e.epsilons", None, f": {A_LIST} (given: nothing)"),
    # missing keys
    ("datasets.d", {}, ".source: this key is missing; see docs/reference/configuration.md"),
    (
        "attacks.bim",
        {"step": 1},
        ".method: this key is missing; see docs/reference/configuration.md",
    ),
    (
        "models.M",
        {"body": "ode"},
        ".downsampling: this key is missing; see docs/reference/configuration.md",
    ),
    # keys that must agree
    (
        "experiments.e.epsilons",
        {"linf": [1]},
        "experiments.e: epsilons has no list for norm l2_rms: add one",
    ),
    (
        "experiments.e.epsilons",
        {"linf": [1], "l2_rms": [1], "l2": [1]},
        "experiments.e: epsilons has a list for l2: remove it, or add l2 to norms",
    ),
    ("attacks.bim.step", {"linf": 0.1}, "attacks.bim.step has no entry for norm l2_rms: add one"),
    ("attacks.bim", {"method": "bim"}, ": give one of step and relative_step"),
    ("attacks.bim.relative_step", 0.1, "attacks.bim: give one of step and relative_step"),
    (
        "attacks.bim",
        {"method": "bim", "step": 1, "adjoint_tolerance": 1e-3},
        ": gradient direct takes no adjoint_tolerance: remove it",
    ),
    (
        "attacks.bim",
        {"method": "fab", "surrogate": {"tolerance": 1e-4}},
        ": gradient direct takes no surrogate: remove it",
    ),
    (
        "attacks.bim",
        {"method": "fgsm", "gradient": "surrogate"},
        ": gradient surrogate needs the key surrogate, for example {tolerance: 1e-4}",
    ),
    *(
        (
            "attacks.bim",
            {"method": "cw", "gradient": "surrogate", "surrogate": surrogate},
            f".surrogate: {found}",
        )
        for surrogate, found in (
            ({"method": "rk4"}, "method rk4 needs steps, and takes no tolerance"),
            (
                {"method": "rk4", "steps": 9, "tolerance": 1},
                "method rk4 needs steps, and takes no tolerance",
            ),
            ({}, "give a tolerance, or one of euler, midpoint and rk4 with steps"),
            ({"steps": 9}, "give a tolerance, or one of euler, midpoint and rk4 with steps"),
        )
    ),
    (
        "attacks.bim.surrogate",
        {"tau": 1},
        ".tau: unknown key; known keys: method, tolerance, steps",
    ),
    ("attacks.bim", {"method": "apgd", "loss": "ce", "targets": 9}, ": targets needs loss: dlr"),
    (
        "attacks.bim",
        {"method": "square", "query": 9},
        ".query: unknown key; did you mean 'queries'?",
    ),
    ("attacks.quick", {"method": "fgsm"}, ": 'quick' is a preset: choose another name"),
    (
        "attacks.bim",
        {"method": "eot_pgd", "relative_step": 0.1, "gradient": "surrogate"}
        | {"surrogate": {"tolerance": 1}},
        ": method eot_pgd draws the tolerances of its gradients and takes no surrogate: "
        "give gradient direct or adjoint",
    ),
    *(
        ("attacks.bim", {"method": "torchattacks", **keys}, f"attacks.bim{found}")
        for keys, found in (
            ({}, ".name: this key is missing; see docs/reference/configuration.md"),
            ({"name": "PDG"}, f".name: PDG is not a class of torchattacks: {CLASSES}"),
            ({"name": "JSMA"}, f".name: JSMA measures in L0: {CLASSES}"),
            (
                {"name": "PGD", "parameters": {"eps": 0.1}},
                ".parameters: eps is set by the workflow, which takes epsilons and norms from the "
                "experiment: remove it",
            ),
            (
                {"name": "PGD", "parameters": {"step": 3}},
                ".parameters: 'step' is not a parameter of this attack (there is: alpha, steps, "
                "random_start)",
            ),
            (
                {"name": "PGD", "parameters": {"steps": 0.5}},
                f".parameters: steps: 0.5 {NOT_WHOLE}",
            ),
            (
                {"name": "PGD", "parameters": {"steps": 0}},
                ".parameters: steps: 0 must be 1 or more",
            ),
            (
                {"name": "PGD", "parameters": {"alpha": -1}},
                ".parameters: alpha: -1 must be 0 or more",
            ),
            (
                {"name": "PGD", "parameters": {"random_start": 1}},
                ".parameters: random_start: must be true or false (given: 1)",
            ),
            (
                {"name": "APGD", "parameters": {"loss": "dl"}},
                ".parameters: loss: 'dl' is not one of ce, dlr",
            ),
            ({"name": "PGD", "parameters": [1]}, ".parameters: must be a map of keys (given: [1])"),
            (
                {"name": "Square", "gradient": "adjoint"},
                ": Square uses no gradient: remove gradient",
            ),
            (
                {"name": "FGSM", "relative_step": 0.1},
                ": FGSM takes no alpha: remove relative_step",
            ),
            (
                {"name": "BIM", "relative_step": 0.1, "parameters": {"alpha": 0.1}},
                ": give one of relative_step and the parameter alpha",
            ),
        )
    ),
    (
        "attacks.bim",
        {"method": "transfer", "by": "gpd"},
        f".by: 'gpd' is not defined under attacks (there is: {', '.join([*BUILT_IN, 'bim'])})",
    ),
    (
        "attacks.bim",
        {"method": "transfer", "by": "noise"},
        ".by: noise has method noise: name an attack of method bim, fgsm or pgd",
    ),
    (
        "attacks.bim",
        {"method": "transfer", "by": "pgd", "source": "RES"},
        ".source: 'RES' is not defined under experiments.e.models (there is: M, R)",
    ),
    ("models.M.solver", {"method": "rk4"}, ": method rk4 needs steps, for example 20"),
    (
        "models.M.solver",
        {"method": "dopri5", "steps": 20},
        ": method dopri5 chooses its steps itself: remove steps",
    ),
    ("models.M.solver", {"method": "dopri8"}, ": method dopri8 needs backend: torchdiffeq"),
    (
        "models.M.solver",
        {"batch_size": 16},
        ": batch_size is for backend: torchdiffeq; batched gives every image its "
        "own steps: remove batch_size",
    ),
    (
        "models.M.solver",
        {"method": "heun3", "backend": "torchdiffeq"},
        ": method heun3 needs steps, for example 20",
    ),
    (
        "models.M.solver",
        {"method": "dopri8", "backend": "torchdiffeq"},
        "training, for model M: method dopri8 needs solver: torchdiffeq",
    ),
    ("experiments.e.audit", {"images": 0}, ".images: 0 must be 1 or more"),
    ("experiments.e.audit", {"image": 4}, ".image: unknown key; did you mean 'images'?"),
    (
        "experiments.e.matrix",
        {"attacks": ["pgd"]},
        ".attacks: pgd is not in experiments.e.attacks (bim)",
    ),
    (
        "experiments.e.matrix",
        {"epsilons": ["9/255"]},
        ".epsilons: 9/255 is not in experiments.e.epsilons (0.1, 8/255)",
    ),
    (
        "experiments.e.randomisation",
        {"norms": ["l2"]},
        ".norms: l2 is not in experiments.e.norms (linf, l2_rms)",
    ),
    (
        "experiments.e.randomisation",
        {"distribution": "normal"},
        ".distribution: 'normal' is not known; choose from 'log_uniform'",
    ),
    (
        "experiments.e.randomisation",
        {"low": 1},
        "experiments.e: randomisation: low (1) must be less than high (1)",
    ),
    (
        "experiments.e.randomisation",
        {"low": 0.1, "high": "1e-2"},
        "experiments.e: randomisation: low (0.1) must be less than high (0.01)",
    ),
    (
        "experiments.e.detection",
        {"tolerances": [0.5]},
        ".tolerances: 0.5 is not in experiments.e.tolerances (0.001, 1)",
    ),
    ("experiments.e.detection", {"searches": 0}, ".searches: 0 must be 1 or more"),
    (
        "experiments.e.cost",
        {"tolerances": [0.5]},
        ".tolerances: 0.5 is not in experiments.e.tolerances (0.001, 1)",
    ),
    ("experiments.e.cost", {"queries": 0}, ".queries: 0 must be 1 or more"),
    (
        "experiments.e.adjoint_sweep",
        {"tolerances": [0.5]},
        ".tolerances: 0.5 is not in experiments.e.tolerances (0.001, 1)",
    ),
    (
        "experiments.e.adjoint_sweep",
        {},
        ": it solves the adjoint of the paper's attack at other tolerances, and none of the "
        "attacks is the paper's: name an attack by gradients with paper_attack, or remove "
        "adjoint_sweep",
    ),
    (
        "experiments.e.trajectories.tolerances",
        [0.5],
        ": 0.5 is not in experiments.e.tolerances (0.001, 1)",
    ),
    (
        "experiments.e.trajectories.epsilons",
        ["9/255"],
        ": 9/255 is not in experiments.e.epsilons (0.1, 8/255)",
    ),
    ("experiments.e.trajectories.attacks", ["pgd"], ": pgd is not in experiments.e.attacks (bim)"),
    (
        "experiments.e.trajectories.norms",
        ["l2"],
        ": l2 is not in experiments.e.norms (linf, l2_rms)",
    ),
    (
        "models.M.training.gradient",
        "adjoint",
        "training, for model M: gradient: adjoint needs solver: torchdiffeq",
    ),
    (
        "training.gradient",
        "adjoint",
        "training, for model M: gradient: adjoint needs solver: torchdiffeq",
    ),
    # validation
    ("datasets.d.validation", 0, f"datasets.d: {NO_VALIDATION}"),
    ("datasets.d.validation", 1.5, f"datasets.d: {NO_VALIDATION}"),
    ("datasets.d.validation", -1, ": -1 must be 0 or more"),
    ("datasets.d.validation", "10%", f": '10%' {NOT_A_NUMBER}"),
    ("datasets.d.validation", None, f": None {NOT_A_NUMBER}"),
    # your own datasets
    ("datasets.d.class_names", ["a"], "datasets.d: source digits takes no class_names: remove it"),
    ("datasets.d.label_bytes", 2, "datasets.d: source digits takes no label_bytes: remove it"),
    (
        "datasets.own.image_shape",
        [1, 8, 8],
        "datasets.own: source idx takes no image_shape: remove it",
    ),
    ("datasets.own.mirrors", [], "datasets.own: source idx needs mirrors, files and class_names"),
    (
        "datasets.own.files",
        {"archive": {"name": "a", "sha256": SHA256}},
        "datasets.own: files of source idx must be: test_images and test_labels and "
        "train_images and train_labels",
    ),
    (
        "datasets.tiles.files",
        {"train": {"name": "a", "sha256": SHA256}},
        "datasets.tiles: files of source cifar_binary must be: archive, or test and train",
    ),
    (
        "datasets.tiles.image_shape",
        None,
        "datasets.tiles: source cifar_binary needs image_shape, for example [3, 32, 32]",
    ),
    (
        "datasets.tiles.image_shape",
        [8, 8, 3],
        "datasets.tiles: image_shape: [8, 8, 3] has its channels last: give the channels first, "
        "then height and width, [3, 8, 8], in the file too",
    ),
]


UNSEEN = (
    "is no change of an image that a model in single precision sees: write 1e-09 at least (8/255 "
    "for 8 of 255 levels)"
)


def too_far(value, norm, limit, levels):
    return (
        f"{value} in {norm} is more than {limit}, the largest distance of images in [0, 1]: lower "
        f"it (write {levels}/255 for {levels} of 255 levels)"
    )


RANGE = (
    "is no tolerance that bounds a solve in single precision: write a number from 1e-09 to less "
    "than 1000, such as 1e-3"
)
WRONG += [
    *(
        (
            "datasets.d.mirrors",
            [mirror],
            f"[0]: {mirror!r} does not fit: write https://..., http://... or file:///folder",
        )
        for mirror in ("file://data/mnist", "file://./data", "https:///data", "ftp://x", "")
    ),
    # the scale of images
    ("experiments.e.epsilons", [8], f": {too_far(8, 'linf', 1, 8)}"),
    ("experiments.e.epsilons", [1.5], f": {too_far(1.5, 'linf', 1, 8)}"),
    ("experiments.e.epsilons", ["256/255"], ": 256/255 in linf is more than 1, "),
    (
        "experiments.e.epsilons",
        {"linf": ["8/255"], "l2_rms": [0.1, 16]},
        f": {too_far(16, 'l2_rms', 1, 16)}",
    ),
    ("attacks.bim.step", 2, f": {too_far(2, 'linf', 1, 2)}"),
    ("experiments.e.epsilons", ["1e-12"], f": 1e-12 {UNSEEN}"),
    ("experiments.e.epsilons", [0.1, 5e-324], f": 5e-324 {UNSEEN}"),
    ("attacks.bim.step", 9e-10, f": 9e-10 {UNSEEN}"),
    ("attacks.bim.step", {"linf": 0.1, "l2_rms": 2}, f": {too_far(2, 'l2_rms', 1, 2)}"),
    ("attacks.bim", {"method": "pgd", "relative_step": 25}, ".relative_step: 25 must be 2 or less"),
    ("experiments.e.detection", {"relative_step": 2.5}, ".relative_step: 2.5 must be 2 or less"),
    # tolerances
    ("experiments.e.tolerances", ["1e3"], f"[0]: 1000 {RANGE}"),
    ("experiments.e.tolerances", [1, "1e-30"], f"[1]: 1e-30 {RANGE}"),
    ("models.M.solver.tolerance", 1e4, f": 10000 {RANGE}"),
    (
        "attacks.bim",
        {"method": "fgsm", "gradient": "surrogate", "surrogate": {"tolerance": "1e4"}},
        f".surrogate.tolerance: 10000 {RANGE}",
    ),
    (
        "attacks.bim",
        {"method": "fgsm", "gradient": "adjoint", "adjoint_tolerance": "1e-12"},
        f".adjoint_tolerance: 1e-12 {RANGE}",
    ),
    ("experiments.e.randomisation", {"high": "1e5"}, f".high: 100000 {RANGE}"),
    # classes
    (
        "datasets.own.class_names",
        ["a"],
        "datasets.own: class_names: 'a' is the only class, and a classifier needs two: "
        "name two at least",
    ),
    (
        "datasets.own.class_names",
        ["a", "b", "a"],
        "datasets.own: class_names: 'a' is listed twice, for the labels 0 and 2: rename one of "
        "them",
    ),
    *(
        (
            "datasets.own.class_names",
            [first, second],
            f"datasets.own: class_names: {second!r} is listed twice, for the labels 0 and 1: "
            "rename one of them",
        )
        for first, second in (("a", " a "), ("a  b", "a b"), ("\u00e9", "e\u0301"))
    ),
    *(
        (
            "datasets.tiles.class_names",
            ["a", name],
            f"datasets.tiles: class_names: {name!r} is not a name: write what class 1 is called",
        )
        for name in ("", "  ", "a\nb")
    ),
    (
        "datasets.tiles.class_names",
        [f"c{i}" for i in range(257)],
        "datasets.tiles: class_names: a label of source cifar_binary is a byte, which has 256 "
        "values, and there are 257: write fewer, or use source idx",
    ),
]


@pytest.mark.parametrize(("path", "value", "line"), WRONG)
def test_a_mistake_is_one_line(path, value, line):
    (found,) = mistakes(changed(path, value))
    expected = f"config: {path if line.startswith((':', '[', '.')) else ''}{line}"
    assert found.startswith(expected) if line.endswith(", ") else found == expected


def with_attacks(attacks, own=None, **changes):
    """The base with other attacks and other keys of its experiment."""
    raw = changed("experiments.e.attacks", attacks)
    raw["experiments"]["e"] |= changes
    raw["attacks"] |= own or {}
    return raw


def test_a_preset_stands_for_its_attacks_once_each():
    experiment = load(with_attacks(["paper", "bim", "quick", "apgd_ce"])).experiments["e"]
    assert experiment.attacks[:2] == ["bim_adjoint", "bim"]
    assert sorted(experiment.attacks) == sorted({*PRESETS["quick"], "bim"})


def test_every_built_in_attack_is_one():
    config = load(with_attacks([*BUILT_IN], norms=["l2"]))
    assert config.experiments["e"].attacks == [*BUILT_IN]
    assert config.attacks["square"].queries == 5000
    assert {attack for names in PRESETS.values() for attack in names} <= set(BUILT_IN)


def test_the_papers_protocol_is_the_named_attack_or_the_built_in_one():
    def papers(attacks, **changes):
        return load(with_attacks(attacks, **changes)).experiments["e"].papers_attack

    assert papers(["quick"]) == "bim_adjoint"
    assert papers(["bim"]) is None
    assert papers(["bim", "paper"], paper_attack="bim") == "bim"
    assert mistakes(with_attacks(["bim"], paper_attack="pgd")) == [
        "config: experiments.e: paper_attack: pgd is not among the attacks (bim): add it to "
        "attacks, or name one of these"
    ]


def test_attacks_at_the_primary_epsilons_come_after_those_at_every_one():
    experiment = load(with_attacks(["bim"], primary_attacks=["paper", "bim"])).experiments["e"]
    assert experiment.every_attack == ["bim", "bim_adjoint"]
    assert experiment.papers_attack == "bim_adjoint"
    assert mistakes(with_attacks(["bim"], primary_attacks=["bin"]))[0].startswith(
        "config: experiments.e.primary_attacks: 'bin' is not defined under attacks or presets"
    )
    assert mistakes(with_attacks(["bim"], primary_attacks=["cw"], norms=["linf"])) == [
        "config: experiments.e.primary_attacks: cw knows none of the norms linf: remove it, or add "
        "l2 or l2_rms to norms"
    ]


def test_the_primary_epsilon_is_the_middle_one_unless_it_is_set():
    def primary(**changes):
        experiment = load(with_attacks(["bim"], norms=["linf", "l2"], **changes)).experiments["e"]
        return [experiment.primary_epsilon(norm) for norm in experiment.norms]

    assert primary(epsilons=[0.3, 0.1, 0.2]) == [0.2, 0.2]
    assert primary(epsilons={"linf": [0.1, 0.2], "l2": [1, 2, 3]}) == [0.2, 2]
    assert primary(epsilons=[0.3, 0.1], primary=0.1) == [0.1, 0.1]
    assert primary(epsilons=[0.3, 0.1], primary={"linf": 0.1, "l2": "3e-1"}) == [0.1, 0.3]


@pytest.mark.parametrize(
    ("primary", "line"),
    [
        (0.2, "0.2 is not in the epsilons for linf (0.1, 0.3): name one of these"),
        ({"linf": 0.1, "l2": 1}, "1 is not in the epsilons for l2 (0.1, 0.3): name one of these"),
    ],
)
def test_a_primary_epsilon_is_one_of_the_epsilons(primary, line):
    asked = with_attacks(["bim"], norms=["linf", "l2"], epsilons=[0.1, 0.3], primary=primary)
    assert mistakes(asked) == [f"config: experiments.e: primary: {line}"]


def test_every_norm_has_a_primary_epsilon_and_no_other():
    given = {"linf": 0.1, "l2": 0.1}
    few = with_attacks(["bim"], norms=["linf", "l2"], epsilons=[0.1], primary={"linf": 0.1})
    assert mistakes(few) == ["config: experiments.e: primary has no epsilon for norm l2: add one"]
    many = with_attacks(["bim"], norms=["linf"], epsilons=[0.1], primary=given)
    assert mistakes(many) == [
        "config: experiments.e: primary has an epsilon for l2: remove it, or add l2 to norms"
    ]


def test_ones_own_attack_takes_the_place_of_a_built_in_one():
    config = load(with_attacks(["paper"], {"bim_adjoint": {"method": "bim", "step": 0.05}}))
    assert config.attacks["bim_adjoint"].gradient == "direct"
    assert config.attacks["bim_direct"].method == "bim"


def test_attacks_may_be_built_in_ones_alone():
    raw = with_attacks(["paper"])
    del raw["attacks"]
    assert load(raw).attacks["bim_adjoint"].gradient == "adjoint"


def test_an_attack_of_a_preset_may_know_none_of_the_norms_but_one_that_is_named_may_not():
    preset = load(with_attacks(["torchattacks"], norms=["linf"])).experiments["e"].attacks
    assert "torchattacks_pgdl2" in preset
    line = "experiments.e.attacks: cw knows none of the norms linf: remove it, or add l2 or l2_rms"
    found = mistakes(with_attacks(["bim", "cw"], norms=["linf"]))
    assert found == [f"config: {line} to norms"]


def test_an_attack_of_a_library_knows_the_norms_of_its_class():
    own = {"nearest": {"method": "torchattacks", "name": "DeepFool"}}
    assert mistakes(with_attacks(["nearest"], own, norms=["linf"])) == [
        "config: experiments.e.attacks: nearest knows none of the norms linf: remove it, or add l2 "
        "or l2_rms to norms"
    ]
    assert load(with_attacks(["nearest"], own)).attacks["nearest"].minimal


def test_a_transfer_that_is_named_needs_two_models_but_one_of_a_preset_does_not():
    preset = load(with_attacks(["quick"], models=["M"])).experiments["e"].attacks
    assert "transfer" in preset
    found = mistakes(with_attacks(["bim", "transfer"], models=["M"]))
    assert found == [
        "config: experiments.e.attacks: transfer takes adversarial examples of M to other models, "
        "and there are none: remove it, or add one to experiments.e.models"
    ]


def test_the_adjoint_is_swept_of_an_attack_that_can_follow_it():
    swept = {"paper_attack": "bim", "adjoint_sweep": {}}
    assert load(with_attacks(["bim"], **swept)).experiments["e"].adjoint_sweep
    named = with_attacks(["square"], **swept | {"paper_attack": "square"})
    assert mistakes(named) == [
        "config: experiments.e.adjoint_sweep: it solves the adjoint of the paper's attack at other "
        "tolerances, and square takes none: name an attack by gradients with paper_attack, or "
        "remove adjoint_sweep"
    ]
    assert mistakes(with_attacks(["bim"], **swept | {"adjoint_sweep": {"images": 360}})) == [
        "config: experiments.e.adjoint_sweep.images: 360 images are asked for, d has 359 to test: "
        "lower it or leave it out"
    ]


@pytest.mark.parametrize(
    "changes", [{"randomisation": None}, {"tolerances": [1]}], ids=["null", "one tolerance"]
)
def test_drawn_tolerances_need_a_distribution(changes):
    found = mistakes(with_attacks(["bim", "eot_pgd"], **changes))
    assert found == [
        "config: experiments.e.attacks: eot_pgd averages gradients over drawn tolerances, and "
        "there is no distribution of them: give experiments.e.randomisation a low and a high, or "
        "remove eot_pgd"
    ]
    drawn = {"tolerances": [1], "randomisation": {"low": "1e-3", "high": 10}}
    assert load(with_attacks(["eot_pgd"], **drawn)).experiments["e"].distribution == {
        "distribution": "log_uniform",
        "low": 1e-3,
        "high": 10,
    }


def test_the_largest_distance_of_images_may_be_asked_for():
    raw = changed("experiments.e.epsilons", {"linf": [1], "l2_rms": [1]})
    raw["attacks"]["bim"] = {"method": "bim", "step": 1}
    raw["experiments"]["e"]["tolerances"] = ["1e-9", 999]
    assert load(raw)


def test_the_attack_that_a_transfer_uses_has_a_step_in_the_range_of_images():
    own = {"by": {"method": "bim", "step": 2}, "t": {"method": "transfer", "by": "by"}}
    assert mistakes(with_attacks(["t"], own)) == [
        f"config: attacks.by.step: {too_far(2, 'linf', 1, 2)}"
    ]


def test_the_attack_that_a_transfer_uses_needs_a_step_for_every_norm():
    own = {"by": {"method": "bim", "step": {"linf": 0.1}}, "t": {"method": "transfer", "by": "by"}}
    found = mistakes(with_attacks(["t"], own))
    assert found == ["config: attacks.by.step has no entry for norm l2_rms: add one"]


@pytest.mark.parametrize(
    ("path", "line"),
    [
        (["experiments", 1], "experiments[1]: this name must be text: put it in quotes"),
        (["models", True], "models[1]: this name must be text: put it in quotes"),
        ([True], "[1]: keys must be text: remove this one, or put it in quotes"),
        (["training", 3], "training[3]: keys must be text: remove this one, or put it in quotes"),
        (["models", "a\nb"], f"models.a b: 'a\\nb' {NOT_A_NAME}"),
    ],
)
def test_keys_that_yaml_does_not_read_as_one_line_of_text(path, line):
    value = BASE["experiments"]["e"] if path[0] == "experiments" else BASE["models"]["R"]
    assert mistakes(changed(path, value)) == [f"config: {line}"]


def test_an_empty_configuration_names_every_section():
    assert mistakes({}) == [
        f"config: {key}: this key is missing; see docs/reference/configuration.md"
        for key in ("experiments", "datasets", "models")
    ]


def test_every_mistake_has_its_line():
    raw = changed("training.epochs", 0) | {"compute": {"device": "gpu"}}
    assert [line.split(":")[1].strip() for line in mistakes(raw)] == [
        "training.epochs",
        "compute.device",
    ]


def test_long_values_are_shortened():
    (line,) = mistakes(changed("experiments.e.datasets", "x" * 10_000))
    assert len(line) < 150


# Values as `snakemake --config` hands them over: all text.
@pytest.mark.parametrize(
    ("path", "value", "read"),
    [
        ("datasets.d.subset.test", "50", lambda c: c.datasets["d"].subset.test == 50),
        ("datasets.d.subset.test", "null", lambda c: c.datasets["d"].subset.test is None),
        ("datasets.tiles.label_bytes", "2", lambda c: c.datasets["tiles"].label_bytes == 2),
        (
            "datasets.tiles.image_shape",
            ["1", "9", "7"],
            lambda c: c.datasets["tiles"].image_shape == (1, 9, 7),
        ),
        ("attacks.bim.early_stop", "false", lambda c: not c.attacks["bim"].early_stop),
        ("attacks.bim.step", "1/10", lambda c: c.attacks["bim"].step == 0.1),
        (
            "attacks.bim.step",
            {"linf": "1", "l2_rms": "0.5"},
            lambda c: c.attacks["bim"].step["l2_rms"] == 0.5,
        ),
        ("experiments.e.seeds", ["0", "1"], lambda c: c.experiments["e"].seeds == [0, 1]),
        ("experiments.e.trajectories", "null", lambda c: c.experiments["e"].trajectories is None),
        ("models.M.dropout", "0.2", lambda c: c.models["M"].dropout == 0.2),
        ("training.epochs", "1e2", lambda c: c.training.epochs == 100),
    ],
)
def test_text_is_read_as_what_it_says(path, value, read):
    assert read(load(changed(path, value)))


@pytest.mark.parametrize("validation", [0.2, "1/10", 500, "5e3", 1])
def test_validation_is_a_share_or_a_number_of_images(validation):
    raw = changed("datasets.d", {"source": "mnist", "validation": validation})
    assert load(raw).datasets["d"].validation > 0


def test_a_model_overrides_single_keys_of_training():
    raw = changed("training", {"epochs": 7, "augmentation": {"hue": 0.1, "crop_padding": 2}})
    raw["models"]["M"]["training"] = {"learning_rate": "1e-2", "augmentation": {"hue": 0.2}}
    config = load(raw)
    common, own = config.training_of("R"), config.training_of("M")
    assert common == config.training
    assert (own.epochs, own.learning_rate) == (7, 0.01)
    assert (own.augmentation.hue, own.augmentation.crop_padding) == (0.2, 2)


def test_a_model_may_set_half_of_what_adjoint_gradients_need():
    raw = changed("training", {"solver": "torchdiffeq"})
    raw["models"]["M"]["training"] = {"gradient": "adjoint"}
    training = load(raw).training_of("M")
    assert (training.solver, training.gradient) == ("torchdiffeq", "adjoint")


def test_settings_do_not_change_once_read():
    with pytest.raises(ValueError, match="frozen"):
        load(BASE).training.epochs = 3


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=5) | st.integers() | st.booleans(), inner, max_size=3)
    ),
    max_leaves=6,
)


def _paths(node: object, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items = node.items() if isinstance(node, dict) else ()
    items = enumerate(node) if isinstance(node, list) else items
    return [path, *(deeper for key, item in items for deeper in _paths(item, (*path, key)))]


FULL = Config.model_validate(BASE).model_dump(mode="json", exclude_unset=False)
for _own in ("d", "own"):
    for _key in ("image_shape", "label_bytes"):
        del FULL["datasets"][_own][_key]


@settings(max_examples=400, suppress_health_check=[HealthCheck.too_slow])
@given(path=st.sampled_from(_paths(FULL)), value=anything, key=st.none() | st.text(max_size=4))
def test_no_value_anywhere_gives_a_traceback_or_cryptic_lines(path, value, key):
    raw: Any = {"root": deepcopy(FULL)}
    node, last = raw, "root"
    for part in path:
        node, last = node[last], part
    if key is not None and isinstance(node[last], dict):
        node[last][key] = value
    else:
        node[last] = value
    try:
        load(raw["root"])
    except UserError as error:
        for line in str(error).split("\n"):
            assert line.startswith("config: ")
            assert len(line) < 400
            for cryptic in ("Input should", "should be", "validation error", "[type=", "instance"):
                assert cryptic not in line


def test_the_full_base_is_right():
    assert load(FULL)


@pytest.mark.parametrize(
    ("section", "name"),
    [
        *(("datasets", name) for name in ("tables", "figures", "claims", "logs")),
        ("datasets", "Tables"),
        ("datasets", "LOGS"),
        ("attacks", "detection"),
        ("attacks", "Detection"),
        ("attacks", "adjoint_sweep"),
        ("attacks", "cost"),
        ("attacks", "Cost"),
    ],
)
def test_no_name_is_that_of_a_folder_of_ours_in_any_case(section, name):
    raw = deepcopy(BASE)
    raw[section][name] = next(iter(BASE[section].values()))
    assert mistakes(raw) == [
        f"config: {section}.{name}: the folder of that name holds other files of a run: choose "
        "another name"
    ]


class TestEnoughImages:
    """Of the digits 1,438 are for training, of which a tenth is held out, and 359 for testing."""

    @pytest.mark.parametrize(
        ("path", "value", "line"),
        [
            ("datasets.d.validation", 1438, "1438 holds 1438 of 1438"),
            ("datasets.d.validation", 5000, "5000 holds 5000 of 1438"),
            ("datasets.d.validation", 0.0003, "0.0003 holds 0 of 1438"),
            ("datasets.d.validation", 0.9999, "0.9999 holds 1438 of 1438"),
            ("datasets.d.subset.train", 1295, "1295 .* 1294 are available"),
            ("datasets.d.subset.validation", 145, "145 .* 144 are"),
            ("datasets.d.subset.test", 360, "360 .* 359 are available"),
            *(
                (f"experiments.e.{section}.images", 360, "360 .* asked for, d has 359 to test")
                for section in ("trajectories", "audit", "randomisation", "detection", "cost")
            ),
        ],
    )
    def test_what_is_written_is_refused(self, path, value, line):
        (found,) = mistakes(changed(path, value))
        assert re.match(f"config: {re.escape(path)}: {line}", found)
        assert re.search(": (lower it or leave it out|choose it so that both .*)$", found)

    @pytest.mark.parametrize(
        ("path", "value"),
        [
            ("datasets.d.validation", 1437),
            ("datasets.d.subset.train", 1294),
            ("datasets.d.subset.validation", 144),
            ("datasets.d.subset.test", 359),
            ("experiments.e.trajectories.images", 359),
            ("experiments.e.audit.images", 359),
        ],
    )
    def test_all_there_are_may_be_asked_for(self, path, value):
        assert load(changed(path, value))

    def test_a_subset_may_have_fewer_images_than_a_section_asks_for(self):
        raw = changed("datasets.d.subset.test", 10)
        raw["experiments"]["e"]["audit"] = {"images": 20}
        assert load(raw).experiments["e"].audit.images == 20

    @pytest.mark.parametrize("keys", [{"validation": 19}, {"subset": {"validation": 19}}])
    def test_probes_that_are_asked_for_need_validation_images(self, keys):
        raw = deepcopy(BASE)
        raw["datasets"]["d"] |= keys
        assert load(raw).experiments["e"].trajectories.probe  # as far as there are
        raw["experiments"]["e"]["trajectories"] = {"probe": False}
        assert load(raw)
        raw["experiments"]["e"]["trajectories"] = {"probe": True}
        assert mistakes(raw) == [
            "config: experiments.e.trajectories.probe: d has 19 validation images, and a probe "
            "needs 20: hold out more (validation, and subset.validation, of the dataset) or leave "
            "probe out"
        ]

    def test_data_of_your_own_are_counted_later(self):
        raw = changed("experiments.e.datasets", ["own"])
        raw["datasets"]["own"]["subset"] = {"test": 10**6}
        raw["experiments"]["e"]["audit"] = {"images": 10**6}
        config = load(raw)
        assert list(shortages(config, "own", 100, 30)) == [
            "datasets.own.subset.test: 1000000 images are asked for, 30 are available: lower it or "
            "leave it out",
            "experiments.e.audit.images: 1000000 images are asked for, own has 30 to test: lower "
            "it or leave it out",
        ]


@pytest.mark.parametrize(
    ("section", "like"), [("datasets", "own"), ("models", "M"), ("attacks", "bim")]
)
@pytest.mark.parametrize("name", ["constructor", "toString", "valueOf"])
def test_no_panel_of_a_figure_has_a_name_of_javascripts(section, like, name):
    assert mistakes(changed(f"{section}.{name}", BASE[section][like])) == [
        f"config: {section}.{name}: is a property of every object in the JavaScript of "
        "figures: choose another name"
    ]


class TestFoldersOfDatasets:
    """Nothing else has the folder of a dataset, whatever the file system makes of names."""

    @pytest.mark.parametrize("kind", ["own", "tiles"])
    @pytest.mark.parametrize(
        "name", ["digits", "mnist", "fashion_mnist", "cifar10", "cifar100", "Digits", "MNIST"]
    )
    def test_your_own_data_is_not_called_like_a_known_dataset(self, name, kind):
        """Whether or not the known one is in use: another configuration may share the folder."""
        assert mistakes(changed(f"datasets.{name}", BASE["datasets"][kind])) == [
            f"config: datasets.{name}: resources/{name.lower()} is for the files of the known "
            "dataset of that name: choose another name"
        ]

    def test_known_datasets_may_be(self):
        raw = changed("datasets.MNIST", {"source": "digits"})
        raw["datasets"]["digits"] = {"source": "fashion_mnist"}
        assert load(raw).datasets["MNIST"].source == "digits"

    @pytest.mark.parametrize(
        ("section", "names"),
        [("experiments", ("e", "E")), ("datasets", ("own", "OWN")), ("models", ("M", "m"))],
    )
    def test_names_differ_in_more_than_case(self, section, names):
        one, other = names
        raw = deepcopy(BASE)
        raw[section][other] = raw[section][one]
        assert mistakes(raw) == [
            f"config: {section}: {one} and {other} differ only in case, and on some file systems "
            "their folders would be one: rename one of them"
        ]

    def test_so_do_the_attacks_of_an_experiment(self):
        own = {"PGD": {"method": "pgd", "relative_step": 0.1}}
        assert load(with_attacks(["PGD", "bim"], own))
        assert mistakes(with_attacks(["PGD", "bim", "pgd"], own)) == [
            "config: experiments.e.attacks: PGD and pgd differ only in case, and on some file "
            "systems their folders would be one: rename one of them"
        ]

    def test_names_are_short_enough_for_files(self):
        assert load(changed(f"datasets.{'d' * 100}", {"source": "digits"}))
        (line,) = mistakes(changed(f"datasets.{'d' * 101}", {"source": "digits"}))
        assert line.endswith(" is too long: use at most 100 characters")


class TestFilesOfADataset:
    """A folder holds one file of a name."""

    @staticmethod
    def with_files(source="own", **changes):
        raw = deepcopy(BASE)
        for role, keys in changes.items():
            raw["datasets"][source]["files"][role] |= keys
        return raw

    @pytest.mark.parametrize(
        ("names", "why"),
        [
            (("labels", "labels"), "of the same name (labels)"),
            (("labels", "Labels"), "whose names are the same on some file systems (Labels)"),
            # One character, or an e and an accent.
            (
                ("l\u00e9", "l\u0065\u0301"),
                "whose names are the same on some file systems (le\u0301)",
            ),
        ],
    )
    def test_two_files_of_one_name(self, names, why):
        one, other = names
        raw = self.with_files(train_labels={"name": one}, test_labels={"name": other})
        assert mistakes(raw) == [
            f"config: datasets.own: files.train_labels and files.test_labels are two files {why}: "
            "rename one on the mirror"
        ]

    def test_the_same_labels_may_be_one_file(self):
        same = {"name": "labels", "sha256": SHA256}
        assert load(self.with_files(train_labels=same, test_labels=same))

    def test_the_test_images_are_not_the_training_images(self):
        assert mistakes(
            self.with_files(train_images={"sha256": SHA256}, test_images={"sha256": SHA256})
        ) == [
            "config: datasets.own: files.train_images and files.test_images are the same file "
            "(the same sha256): give the test images in another file"
        ]

    @pytest.mark.parametrize("name", ["verified.json", "Verified.JSON"])
    def test_the_name_of_our_record(self, name):
        assert mistakes(self.with_files(train_images={"name": name})) == [
            "config: datasets.own.files.train_images.name: verified.json is the name of a file "
            "that the workflow writes in the same folder: rename it on the mirror"
        ]

    @pytest.mark.parametrize("name", [".", "..", "a\nb", "a\0b", "x" * 201, "é" * 101])
    def test_what_is_not_a_file_name(self, name):
        (line,) = mistakes(self.with_files(train_images={"name": name}))
        assert line.startswith("config: datasets.own.files.train_images.name: ")
        assert line.endswith("write at most 200 bytes without control characters")

    @pytest.mark.parametrize("name", ["my images #1.gz", "100%.gz", "é.gz", "a?b&c=d", "[a]{b}*"])
    def test_odd_names_are_fine(self, name):
        assert load(self.with_files(train_images={"name": name}))


def test_a_removed_section_is_refused_with_what_replaces_it():
    raw = deepcopy(BASE)
    raw["experiments"]["e"]["pace"] = {"images": 3}
    assert mistakes(raw) == [
        "config: experiments.e.pace: is no longer a key: remove it (benchmarks/speed.py times the "
        "paper's attack)"
    ]


def test_shards_to_keep():
    raw = deepcopy(BASE) | {"compute": {"keep_shards": True}}
    assert mistakes(raw) == [
        "config: compute: keep_shards needs shard_size: say how many images a shard holds"
    ]
    raw["compute"]["shard_size"] = 100
    assert load(raw).compute.keep_shards


def test_shards_of_images_that_are_not_counted():
    raw = deepcopy(BASE) | {"compute": {"shard_size": 100}}
    assert load(raw).compute.shard_size == 100
    raw["experiments"]["e"]["datasets"] = ["d", "own"]
    assert mistakes(raw) == [
        "config: compute.shard_size: how many test images own has is known only once it is "
        "prepared: set datasets.own.subset.test to their number, or remove shard_size"
    ]
    raw["datasets"]["own"]["subset"] = {"test": 1000}
    assert load(raw).compute.shard_size == 100
