"""Make the network of a configured model, built in or the user's own."""

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from node_robustness.code.model_file import GIVEN
from node_robustness.data.prepared import load_split
from node_robustness.errors import UserError
from node_robustness.files.hdf5 import open_hdf5
from node_robustness.models.classifier import Classifier, spec_for
from node_robustness.models.own.inspection import IMAGES, inspect_module
from node_robustness.models.own.modules import build_module
from node_robustness.models.own.network import OwnNetwork
from node_robustness.models.own.spec import OwnSpec, named

logger = logging.getLogger(__name__)


def make_network(name: str, architecture: Mapping[str, Any], data: Path) -> Classifier | OwnNetwork:
    """The network of a configured model for the images of a prepared dataset.

    Its weights come from the global random generator.

    Args:
        name: of the model.
        architecture: the keys of the model that define it.
        data: a data.h5 file.

    Returns:
        The network on the CPU, in evaluation mode.

    Raises:
        UserError: the model does not fit the images, or its code fails.
    """
    if "module" in architecture:
        with named(name):
            return _own(name, architecture, data)
    return Classifier(spec_for(name, architecture, data)).eval()


def inspected(network: Classifier | OwnNetwork, data: Path) -> Classifier | OwnNetwork:
    """The network with what an inspection finds in it now that it has its weights.

    Args:
        network: a user's own is run on validation images; a built-in one needs no inspection.
        data: a data.h5 file.
    """
    if isinstance(network, Classifier):
        return network
    network.eval()
    spec = network.spec
    with named(spec.name):
        found = inspect_module(
            network.module,
            _some_images(data).to(network.device),
            output=spec.output,
            solve=spec.solve,
            max_steps=spec.max_steps,
        )
    return OwnNetwork(network.module, replace(spec, found=found)).eval()


def _own(name: str, architecture: Mapping[str, Any], data: Path) -> OwnNetwork:
    images = _some_images(data)
    with open_hdf5(data, "data") as file:
        classes = len(file["class_names"])
    module, build = architecture["module"], architecture["build"]
    arguments = architecture["arguments"]
    given = dict(zip(GIVEN, (images.shape[1], classes), strict=True))
    logger.info("%s is code and runs with your rights", module)
    built = build_module(module, build, arguments, given)
    keys = {key: architecture[key] for key in ("output", "solve", "max_steps")}
    found = inspect_module(built, images, **keys)
    if found.classes != classes:
        raise UserError(
            f"{module}: gives {found.classes} logits, the dataset has {classes} classes: take "
            "`classes` as an argument, or set `arguments`"
        )
    spec = OwnSpec(
        found=found,
        name=name,
        module=module,
        build=build,
        arguments=arguments,
        given=given,
        code=architecture["code"],
        **keys,
    )
    return OwnNetwork(built, spec).eval()


def _some_images(data: Path) -> Tensor:
    """The first validation images, float [n, C, H, W] in [0, 1]."""
    split = load_split(data, "validation", IMAGES, or_fewer=True)
    return torch.from_numpy(split.images).float() / 255
