"""How many images there are, as far as that is known without their files."""

import pytest

from node_robustness.config.datasets import Dataset
from node_robustness.data.sources import find_source
from node_robustness.shapes.datasets import Size, held_out, size_of


def own(**keys):
    files = {
        role: {"name": role, "sha256": str(number) * 64}
        for number, role in enumerate(
            ("train_images", "train_labels", "test_images", "test_labels")
        )
    }
    return Dataset(
        source="idx", mirrors=["file:///data"], class_names=["a", "b"], files=files, **keys
    )


def test_the_size_is_that_of_the_images(tmp_path):
    images = find_source("digits").read(tmp_path)
    assert size_of("digits") == Size(len(images.train_images), len(images.test_images), 1, 8 * 8)


@pytest.mark.parametrize("source", ["mnist", "fashion_mnist", "cifar10", "cifar100"])
def test_test_sets_of_ten_thousand(source):
    assert Dataset(source=source).images_to_test == 10_000
    assert Dataset(source=source, subset={"test": 30}).images_to_test == 30


def test_images_of_your_own_are_not_counted():
    assert own().size is None
    assert own().known_shape is None
    assert own().images_to_test is None
    assert own(subset={"test": 30}).images_to_test == 30


def test_the_shape_of_images():
    assert Dataset(source="digits").known_shape == (1, 8, 8)
    assert Dataset(source="cifar10").known_shape == (3, 32, 32)


@pytest.mark.parametrize(
    ("keys", "train", "count"),
    [
        ({}, 1000, 100),
        # A tenth of so few would be none.
        ({}, 4, 1),
        ({"validation": 0.1}, 4, 0),
        ({"validation": 0.25}, 4, 1),
        ({"validation": 3}, 4, 3),
    ],
)
def test_validation_images(keys, train, count):
    written = "validation" in keys
    assert held_out(own(**keys).validation, train, written=written) == count
