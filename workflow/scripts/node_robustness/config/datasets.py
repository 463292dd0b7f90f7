"""The keys of a dataset: its files, how many images to use, and the names of its classes."""

import reprlib
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Annotated, Literal, Self, get_args

from pydantic import (
    AfterValidator,
    Field,
    model_validator,
)

from node_robustness.config.values import (
    FILE_NAME,
    SHA256,
    Count,
    Mirror,
    NonNegative,
    Section,
    Seed,
)
from node_robustness.shapes.datasets import Size, check_order, size_of


class Subset(Section):
    """How many images of each split to use; a larger subset contains the smaller one."""

    train: Count | None = Field(None, description="training images; all if unset")
    validation: Count | None = Field(None, description="validation images; all if unset")
    test: Count | None = Field(
        None, description="test images, the same in every cell; all if unset"
    )


def folded(name: str) -> str:
    """A name by which files differ on every file system: some ignore case or composition."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def _file_name(name: str) -> str:
    if name in (".", "..") or not name.isprintable() or len(name.encode()) > _LONGEST_FILE_NAME:
        raise ValueError(
            f"{reprlib.repr(name)} is not a file name: write at most {_LONGEST_FILE_NAME} bytes "
            "without control characters"
        )
    if folded(name) == _RECORD:
        raise ValueError(
            f"{_RECORD} is the name of a file that the workflow writes in the same folder: rename "
            "it on the mirror"
        )
    return name


class DataFile(Section):
    """One file of a dataset of your own."""

    name: Annotated[str, AfterValidator(_file_name)] = Field(
        pattern=FILE_NAME, description="file name, as it stands on the mirror and under resources/"
    )
    sha256: str = Field(pattern=SHA256, description="SHA-256 of the file")


# Folders that lie next to those of the user's names.
FOLDERS = {
    "datasets": ("tables", "figures", "claims", "logs"),
    "attacks": ("detection", "adjoint_sweep", "cost"),
}
# Properties that every object of JavaScript has: a figure cannot have a panel of such a name.
NO_PANELS = (
    "constructor",
    "hasOwnProperty",
    "isPrototypeOf",
    "propertyIsEnumerable",
    "toLocaleString",
    "toString",
    "valueOf",
)
_MOST_CLASSES = 256
# What `fetch` writes next to the files of a dataset.
_RECORD = "verified.json"
# Of the 255 that file systems allow, some are reserved for the names of temporary files.
_LONGEST_FILE_NAME = 200
ROLES: dict[str, list[set[str]]] = {
    "idx": [{"train_images", "train_labels", "test_images", "test_labels"}],
    "cifar_binary": [{"archive"}, {"train", "test"}],
}


def _check_classes(names: Sequence[str]) -> None:
    """Refuse class names that do not name different classes."""
    if len(names) == 1:
        raise ValueError(
            f"class_names: {names[0]!r} is the only class, and a classifier needs two: name "
            "two at least"
        )
    # As they are seen in tables and figures.
    seen = [unicodedata.normalize("NFC", " ".join(name.split())) for name in names]
    for number, name in enumerate(names):
        if not name.strip() or not name.isprintable():
            raise ValueError(
                f"class_names: {name!r} is not a name: write what class {number} is called"
            )
        if seen[number] in seen[:number]:
            raise ValueError(
                f"class_names: {name!r} is listed twice, for the labels "
                f"{seen.index(seen[number])} and {number}: rename one of them"
            )


def _check_files(files: Mapping[str, DataFile]) -> None:
    """Refuse two files under one name, and a test set that is the training set."""
    first: dict[str, str] = {}
    for role, file in files.items():
        other = first.setdefault(folded(file.name), role)
        if file != files[other]:
            same = file.name == files[other].name
            raise ValueError(
                f"files.{other} and files.{role} are two files "
                + ("of the same name" if same else "whose names are the same on some file systems")
                + f" ({file.name}): rename one on the mirror"
            )
    for train, test in (("train", "test"), ("train_images", "test_images")):
        if train in files and test in files and files[train].sha256 == files[test].sha256:
            raise ValueError(
                f"files.{train} and files.{test} are the same file (the same sha256): give the "
                "test images in another file"
            )


class Dataset(Section):
    """A dataset: where its files come from, and how it is split."""

    source: Literal[
        "digits", "mnist", "fashion_mnist", "cifar10", "cifar100", "idx", "cifar_binary"
    ] = Field(description="a known dataset, or the file format of your own data")
    mirrors: list[Mirror] = Field(
        [],
        description="folders tried before the built-in ones: https://..., http://... or "
        "file:///folder; for idx and cifar_binary the only ones",
    )
    files: dict[str, DataFile] = Field(
        {},
        description="only for idx (train_images, train_labels, test_images, test_labels) and "
        "cifar_binary (archive, or train and test): name and SHA-256 of each file",
    )
    class_names: list[str] = Field(
        [], description="only for idx and cifar_binary: names of the classes, two at least"
    )
    image_shape: tuple[Count, Count, Count] | None = Field(
        None, description="only for cifar_binary: channels, height, width"
    )
    label_bytes: Count = Field(
        1,
        le=2,
        description="only for cifar_binary: label bytes before each image; the last one counts",
    )
    validation: NonNegative = Field(
        0.1, description="share (below 1) or number of training images held out to choose the model"
    )
    split_seed: Seed = Field(0, description="seed of the split and of the order of the images")
    subset: Subset = Field(Subset(), description="run on fewer images")

    @property
    def size(self) -> Size | None:
        """The size of all its images; None of your own data, which are counted when prepared."""
        return size_of(self.source)

    @property
    def known_shape(self) -> tuple[int, int, int] | None:
        """Channels, height and width of its images; None of your own data that do not say."""
        return self.image_shape or (None if self.size is None else self.size.image_shape)

    @property
    def images_to_test(self) -> int | None:
        """How many test images are used; None where all are, and their number is not known yet."""
        return self.subset.test or (None if self.size is None else self.size.test)

    @model_validator(mode="after")
    def _own_data_is_described(self) -> Self:
        own = self.source in ROLES
        if own and not (self.files and self.class_names and self.mirrors):
            raise ValueError(f"source {self.source} needs mirrors, files and class_names")
        if own and set(self.files) not in ROLES[self.source]:
            wanted = ", or ".join(" and ".join(sorted(roles)) for roles in ROLES[self.source])
            raise ValueError(f"files of source {self.source} must be: {wanted}")
        _check_files(self.files)
        if own:
            _check_classes(self.class_names)
        if self.source == "cifar_binary" and len(self.class_names) > _MOST_CLASSES:
            raise ValueError(
                f"class_names: a label of source cifar_binary is a byte, which has "
                f"{_MOST_CLASSES} values, and there are {len(self.class_names)}: write "
                "fewer, or use source idx"
            )
        if self.source == "cifar_binary" and self.image_shape is None:
            raise ValueError("source cifar_binary needs image_shape, for example [3, 32, 32]")
        if self.image_shape is not None:
            check_order("image_shape", self.image_shape)
        surplus = [key for key in ("files", "class_names") if getattr(self, key) and not own]
        if self.source != "cifar_binary":
            surplus += [k for k in ("image_shape", "label_bytes") if k in self.model_fields_set]
        if surplus:
            raise ValueError(f"source {self.source} takes no {' or '.join(surplus)}: remove it")
        if self.validation == 0 or (self.validation >= 1 and self.validation % 1):
            raise ValueError(
                "validation must be a share between 0 and 1 or a whole number of images"
            )
        return self


SOURCES = frozenset(get_args(Dataset.model_fields["source"].annotation)) - ROLES.keys()
"""The known datasets, whose files lie in a folder of the same name."""
