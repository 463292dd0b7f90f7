"""The file formats of image data: IDX, and the binary batches of CIFAR."""

import gzip
import lzma
import math
import re
import tarfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from node_robustness.data.arrays import ImageArray, LabelArray
from node_robustness.errors import UserError
from node_robustness.shapes.datasets import check_order

# Data sets are held in memory, so that a file that claims to unpack to more is damaged, hostile
# or out of this workflow's reach.
_MOST_BYTES = 2**32

# Some archivers on Windows write the second.
_SEPARATOR = re.compile(r"[/\\\\]")
# What the readers of compressed files raise; bzip2's an OSError without a number.
_DAMAGED = (tarfile.TarError, EOFError, OSError, zlib.error, lzma.LZMAError)
PACKINGS = {
    b"PK": "zip",
    b"7z\xbc\xaf": "7z",
    b"Rar!": "rar",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"BZh": "bzip2",
    b"\xfd7zXZ": "xz",
}
# A file is read only if its SHA-256 is right, so that to fetch it again would not help.
_REMEDY = "it is as its sha256 says: correct it where it comes from, and its sha256"

_IDX_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


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
                but = f", but a {packed} file" if packed else ""
                raise UserError(
                    f"{path}: not an IDX file{but}: what is read is IDX, plain or packed by gzip; "
                    f"{_REMEDY}"
                )
            dtype = np.dtype(_IDX_TYPES[head[2]])
            sizes = stream.read(4 * head[3])
            if len(sizes) < 4 * head[3]:
                raise UserError(f"{path}: ends within its header; {_REMEDY}")
            shape = tuple(np.frombuffer(sizes, ">u4").tolist())
            length = math.prod(shape) * dtype.itemsize
            if length > _MOST_BYTES:
                raise UserError(f"{path}: claims to hold {length} bytes, too many; {_REMEDY}")
            data = stream.read(length + 1)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise UserError(f"{path}: truncated or damaged gzip file; {_REMEDY}") from error
    if len(data) != length:
        found = "more" if len(data) > length else str(len(data))
        raise UserError(f"{path}: should hold {length} bytes of values, holds {found}; {_REMEDY}")
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


def read_idx_files(names: Sequence[str], classes: int, folder: Path) -> Images:
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


def read_batches(
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


def read_archive(
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
    left = _MOST_BYTES
    try:
        with tarfile.open(path) as tar:
            for member in tar:
                if not _is_batch(member):
                    continue
                left -= member.size
                if left < 0:
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
        found = "truncated or damaged archive" if damaged else f"is a {packed} file"
        raise UserError(
            f"{path}: {found}: what is read is a tar file, plain or packed by gzip, bzip2 or xz; "
            f"{_REMEDY}"
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
    return next((name for magic, name in PACKINGS.items() if head.startswith(magic)), None)
