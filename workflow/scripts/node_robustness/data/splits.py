"""Training, validation and test images: how they are split, written and read."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from node_robustness.data.arrays import ImageArray, LabelArray
from node_robustness.errors import UserError
from node_robustness.files.hdf5 import put, write_hdf5
from node_robustness.shapes.datasets import validation_images

_LOG = logging.getLogger(__name__)


def stratified(labels: LabelArray, count: int, seed: int) -> tuple[LabelArray, LabelArray]:
    """Hold some images out, so that each class keeps its share, and shuffle both parts.

    The order is that of PCG64's raw output, which NumPy promises to keep from version to version
    (unlike what its Generator methods make of it).

    Args:
        labels: int64 [N], each in [0, K).
        count: How many images to hold out, from 0 to N.
        seed: Seed of the shuffle.

    Returns:
        The indices that stay, int64 [N - count], and those held out, int64 [count]. A class of
        n images loses count * n / N of them, rounded down or up by largest remainder.
    """
    order = np.argsort(np.random.PCG64(seed).random_raw(len(labels)), kind="stable")
    sizes = np.bincount(labels)
    quotas, remainders = np.divmod(count * sizes, len(labels))
    rounded_up = np.argsort(-remainders, kind="stable")[: count - quotas.sum()]
    quotas[rounded_up] += 1
    shuffled = labels[order]
    held = np.zeros(len(labels), dtype=bool)
    for label, quota in enumerate(quotas):
        held[np.flatnonzero(shuffled == label)[:quota]] = True
    return order[~held], order[held]


def prepare(
    train_images: ImageArray,
    train_labels: LabelArray,
    test_images: ImageArray,
    test_labels: LabelArray,
    class_names: Sequence[str],
    *,
    validation: float,
    seed: int,
    path: Path | str,
    settings: Mapping[str, Any],
) -> None:
    """Split a data set and write it to data.h5.

    The validation images are held out of the training set, class by class; the order within
    each split is random but fixed by the seed, so that the first n are a nested random subset.

    Args:
        train_images: uint8 [N, C, H, W].
        train_labels: int64 [N], in [0, K).
        test_images: uint8 [M, C, H, W].
        test_labels: int64 [M], in [0, K).
        class_names: The K classes.
        validation: Below 1 the share, else the number of training images to hold out.
        seed: Seed of the split and of the orders, at least 0.
        path: The file to be written.
        settings: What the file is made with.

    Raises:
        UserError: ``validation`` leaves no image to one of the two splits; nothing can be learnt
            from the training images; or the disk is full.
    """
    _check_contents(path, train_images, train_labels, test_images, test_labels, class_names)
    total = len(train_images)
    count = validation_images(validation, total)
    if not 0 < count < total:
        raise UserError(
            f"validation: {validation:g} holds {count} of {total} training images out; choose it "
            "so that both splits get some"
        )
    train, held_out = stratified(train_labels, count, seed)
    test, _ = stratified(test_labels, 0, seed)
    with write_hdf5(path, "data", settings) as file:
        for part, images, labels in (
            ("train", train_images, train_labels),
            ("test", test_images, test_labels),
        ):
            put(file, f"{part}/images", images, units="1/255", description="images, N C H W")
            put(file, f"{part}/labels", labels, units="1", description="index into class_names")
        for name, index, part in (
            ("train", train, "train"),
            ("validation", held_out, "train"),
            ("test", test, "test"),
        ):
            put(
                file,
                f"indices/{name}",
                index,
                units="1",
                description=f"rows of {part}/* that make up this split, in random order",
            )
        put(file, "class_names", class_names, units="1", description="names of the classes")


def _check_contents(
    path: Path | str,
    train_images: ImageArray,
    train_labels: LabelArray,
    test_images: ImageArray,
    test_labels: LabelArray,
    class_names: Sequence[str],
) -> None:
    """Raise UserError if nothing can be learnt from the training images, or not what is tested.

    A class without any image may be meant, of a part of a larger data set; the log names it.
    The path, which says whose images they are, begins each message.
    """
    trained, tested = set(train_labels.tolist()), set(test_labels.tolist())
    if len(trained) == 1:
        raise UserError(
            f"{path}: all training images are of class {class_names[trained.pop()]!r}: nothing is "
            "learnt from one class; check the labels"
        )
    strange = sorted(tested - trained)
    if strange:
        count, names = np.isin(test_labels, strange).sum(), [class_names[k] for k in strange]
        raise UserError(
            f"{path}: {count} test images are of classes without a training image "
            f"({', '.join(map(repr, names))}): check the labels, or take these images out"
        )
    absent = [name for label, name in enumerate(class_names) if label not in trained]
    if absent:
        _LOG.warning("class_names has classes without any image: %s", ", ".join(map(repr, absent)))
    largest, of_tests = int(train_images.max()), int(test_images.max())
    if largest <= 1:
        raise UserError(
            f"{path}: the largest value of the training images is {largest}, and white is 255: "
            "multiply the values of all images by 255"
        )
    if of_tests <= 1:
        raise UserError(
            f"{path}: the largest value of the test images is {of_tests}, that of the training "
            f"images {largest}, and white is 255: multiply the values of the test images by 255"
        )
    if not np.ptp(train_images, axis=0).any():
        raise UserError(
            f"{path}: all {len(train_images)} training images are the same, so that nothing is "
            "learnt from them: correct the file of training images"
        )
