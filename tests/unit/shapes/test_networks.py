"""Which images a model can learn from: what is claimed of a network is what the network does."""

import re
from contextlib import nullcontext
from itertools import product
from math import prod

import numpy as np
import pytest
import torch
import yaml
from torch import nn

from authors import KINDS
from node_robustness.config import config, loading
from node_robustness.config import datasets as config_datasets
from node_robustness.config import models as config_models
from node_robustness.errors import UserError
from node_robustness.files.hdf5 import put, write_hdf5
from node_robustness.grid import cells
from node_robustness.models.classifier import Classifier, Spec, spec_for
from node_robustness.shapes.networks import (
    FEWEST_VALUES,
    check_images,
    fewest_values,
    smallest_images,
    state_size,
)

FILTERS = (1, 4, 32, 64, 96, 256)
SIZES = [*product(range(1, 9), range(1, 9)), (1, 40), (2, 40), (3, 40), (40, 3), (11, 3), (9, 12)]


def network(kind: str, filters: int) -> Classifier:
    torch.manual_seed(0)
    design = KINDS[kind]
    spec = Spec(1, 3, (0.0,), (1.0,), *design, filters=filters, blocks=1, method="euler", steps=1)
    return Classifier(spec).eval().double()


@pytest.mark.parametrize("filters", FILTERS)
@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_the_real_network_has_so_many_values_in_a_group(kind, filters):
    """Counted by its own layers on their way; a network that takes no such images has none."""
    model = network(kind, filters)
    counted: list[int] = []

    def count(norm: nn.Module, inputs: tuple[torch.Tensor]) -> None:
        assert isinstance(norm, nn.GroupNorm)
        counted.append(inputs[0][0].numel() // norm.num_groups)

    for module in model.modules():
        if isinstance(module, nn.GroupNorm):
            module.register_forward_pre_hook(count)
    design = KINDS[kind][0]
    for size in SIZES:
        counted.clear()
        images = torch.rand(2, 1, *size, dtype=torch.float64)
        if fewest_values(design, filters, *size) == 0:
            with pytest.raises(RuntimeError, match="Kernel size can't be greater"):
                model(images)
            assert min(state_size(design, *size)) == 0
        else:
            assert tuple(model.embed(images).shape[2:]) == state_size(design, *size)
            model(images)
            assert min(counted) == fewest_values(design, filters, *size)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("filters", FILTERS)
def test_one_value_in_a_group_is_a_constant_and_three_are_none(kind, filters):
    model, design = network(kind, filters), KINDS[kind][0]
    for size in SIZES:
        values = fewest_values(design, filters, *size)
        images = torch.rand(3, 1, *size, dtype=torch.float64)
        if values == 1:
            logits = model(images)
            assert (logits - logits[:1]).abs().max() < 1e-9
        if values >= FEWEST_VALUES:
            images.requires_grad_()
            logits = model(images)
            (gradient,) = torch.autograd.grad(logits[:, 0].sum() - logits[:, 1].sum(), images)
            assert (logits - logits[:1])[1:].abs().amax(1).min() > 1e-4
            assert gradient.abs().amax((1, 2, 3)).min() > 1e-4


@pytest.mark.parametrize(
    ("kind", "filters", "size", "smallest"),
    [
        ("RES", 4, (6, 6), (7, 7)),
        ("MIX", 32, (6, 6), (7, 7)),
        ("MIX", 64, (6, 6), (7, 7)),
        ("MIX", 256, (4, 4), (5, 5)),
        ("RES", 4, (2, 9), (3, 11)),
        ("RES", 4, (1, 40), (3, 40)),
        ("OON", 4, (2, 2), (4, 4)),
        ("OON", 64, (1, 1), (4, 4)),
        ("OON", 96, (1, 1), (2, 2)),
        ("OON", 4, (1, 40), (2, 40)),
        ("OON", 4, (3, 2), (6, 2)),
        ("OON", 4, (5, 2), (6, 2)),
    ],
)
def test_the_smallest_images_that_work(kind, filters, size, smallest):
    design = KINDS[kind][0]
    assert smallest_images(design, filters, *size) == smallest
    assert fewest_values(design, filters, *size) < FEWEST_VALUES
    assert fewest_values(design, filters, *smallest) >= FEWEST_VALUES


@pytest.mark.parametrize(("kind", "filters"), [*product(KINDS, FILTERS)])
def test_larger_images_always_work_and_no_smaller_ones_do(kind, filters):
    design = KINDS[kind][0]
    for size in SIZES:
        least = smallest_images(design, filters, *size)
        works = fewest_values(design, filters, *size) >= FEWEST_VALUES
        assert (least == size) == works or size[0] == size[1]
        assert all(a >= b for a, b in zip(least, size, strict=True))
        for more in product(range(4), range(4)):
            grown = (least[0] + more[0], least[1] + more[1])
            assert fewest_values(design, filters, *grown) >= FEWEST_VALUES
        if size[0] == size[1] and not works:
            assert fewest_values(design, filters, *(side - 1 for side in least)) < FEWEST_VALUES
        if size[0] != size[1]:
            between = product(*(range(a, b + 1) for a, b in zip(size, least, strict=True)))
            smaller = (s for s in between if prod(s) < prod(least))
            assert all(fewest_values(design, filters, *s) < FEWEST_VALUES for s in smaller)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (
            ("residual", 4, 6, 6),
            "are 6x6 (height x width): GroupNorm has 1 of 3 values in a group: give it images of "
            "7x7 or larger, or set filters to 96, or set downsampling to convolution",
        ),
        (
            ("convolution", 4, 1, 40),
            "are 1x40 (height x width): its downsampling leaves nothing of them: give it images of "
            "2x40 or larger",
        ),
        (
            ("convolution", 64, 2, 2),
            "are 2x2 (height x width): GroupNorm has 2 of 3 values in a group: give it images of "
            "4x4 or larger, or set filters to 96",
        ),
    ],
)
def test_a_refusal_says_what_helps(arguments, line):
    with pytest.raises(UserError) as raised:
        check_images("models.X", "the images of own", *arguments)
    assert str(raised.value) == f"models.X: cannot learn from the images of own, which {line}"
    downsampling, filters, *size = arguments
    for text in re.findall("filters to ([0-9]+)", line):
        check_images("models.X", "own", downsampling, int(text), *size)
    for text in re.findall("downsampling to ([a-z]+)", line):
        check_images("models.X", "own", text, filters, *size)


def test_data_that_were_prepared_before_the_model_was_there(tmp_path):
    settings = {"mean": [0.0], "std": [1.0]}
    with write_hdf5(tmp_path / "data.h5", "data", settings) as file:
        put(file, "train/images", np.zeros((5, 1, 3, 3), np.uint8), units="1", description="")
        put(file, "class_names", ["a", "b"], units="1", description="")
    architecture = {"downsampling": "convolution", "body": "ode", "filters": 4}
    with pytest.raises(UserError, match=r"^models\.OON: cannot learn from .*/data\.h5, which are "):
        spec_for("OON", architecture, tmp_path / "data.h5")
    assert spec_for("OON", architecture | {"filters": 96}, tmp_path / "data.h5").classes == 2


def configured(image_shape: list[int]) -> config.Config:
    raw = yaml.safe_load("""
        experiments: {t: {datasets: [own], models: [OON], tolerances: [1], attacks: [bim],
                          norms: [linf], epsilons: [0.1]}}
        models: {OON: {downsampling: convolution, body: ode, filters: 4},
                 RES: {downsampling: residual, body: residual, filters: 4}}
        attacks: {bim: {method: bim, step: 0.1}}
    """)
    files = {n: {"name": n, "sha256": d * 64} for n, d in (("train", "0"), ("test", "1"))}
    own = {"source": "cifar_binary", "mirrors": ["file:///data"], "class_names": ["a", "b"]}
    raw["datasets"] = {"own": {**own, "files": files, "image_shape": image_shape}}
    return loading.load(raw)


def test_images_whose_size_is_configured_are_refused_beforehand():
    cells.check_images(configured([3, 4, 4]))
    with pytest.raises(UserError, match=r"^config: models\.OON: cannot learn from the images of "):
        cells.check_images(configured([3, 2, 4]))


@pytest.mark.parametrize("key", ["hue", "saturation"])
@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("by_model", [False, True])
def test_colours_can_change_only_where_there_are_some(key, channels, by_model):
    known = configured([channels, 4, 4])
    training = config_models.Training(augmentation=config_models.Augmentation(**{key: 0.1}))
    if by_model:
        models = {"OON": known.models["OON"].model_copy(update={"training": training})}
        changed = known.model_copy(update={"models": models})
    else:
        changed = known.model_copy(update={"training": training})
    refused = pytest.raises(
        UserError,
        match=rf"^config: training, for model OON: augmentation\.{key}: needs RGB images, and "
        rf"those of own have {channels} channel\(s\): set it to 0$",
    )
    with nullcontext() if channels == 3 else refused:
        cells.check_images(changed)
    imported = changed.models["OON"].model_copy(update={"weights": "authors.pth"})
    cells.check_images(changed.model_copy(update={"models": {"OON": imported}}))


def test_every_known_dataset_is_large_enough_for_every_model():
    for source in ("digits", "mnist", "fashion_mnist", "cifar10", "cifar100"):
        known = configured([3, 4, 4])
        datasets = {"own": config_datasets.Dataset(source=source)}
        experiment = known.experiments["t"].model_copy(update={"models": ["OON", "RES"]})
        cells.check_images(
            known.model_copy(update={"datasets": datasets, "experiments": {"t": experiment}})
        )
