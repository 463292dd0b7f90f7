"""The HDF5 conventions of the project: files that are whole or absent, signed, and typed.

Every HDF5 file carries the root attributes ``kind``, ``schema_version``, ``software`` and
``settings`` (JSON text), and opens with plain h5py, without plug-ins. The same contents give the
same bytes: no time stamps are stored.
"""

import errno
import json
import math
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from node_robustness.errors import UserError, is_full
from node_robustness.files.atomic import SOFTWARE, atomic_path

# Of a kind whose layout was ever changed. With a new layout comes a new number: without it a reader
# would stumble over an old file.
_SCHEMA_VERSIONS = {"attack": 2, "audit": 2, "detection": 2, "trajectory": 3}

# Large enough to compress well, small enough that reading a few images reads little else.
_CHUNK_BYTES = 2**16

# By how much a file in memory grows at a time.
_MEMORY_BLOCK = 2**20


def schema_version(kind: str) -> int:
    """Return the number of the layout in which files of a kind are written and read."""
    return _SCHEMA_VERSIONS.get(kind, 1)


@contextmanager
def write_hdf5(
    path: Path | str, kind: str, settings: Mapping[str, Any], **attributes: object
) -> Iterator[h5py.File]:
    """Yield a new HDF5 file that appears at ``path`` once the block ends without an exception.

    Args:
        path: The file to be written.
        kind: What the file is, such as ``"data"`` or ``"attack"``.
        settings: What the file was made with; anything JSON can hold, NaN excepted.
        **attributes: Further root attributes.

    Yields:
        The open file, which lies in memory until the block ends.

    Raises:
        UserError: The disk, the quota or the file-size limit is used up.
        ValueError: ``settings`` holds a NaN or an infinity.
    """
    signed = _signed(kind, settings, attributes)
    # Not on the disk: an HDF5 file that cannot be flushed cannot be closed either, and crashes
    # the interpreter when it exits.
    with h5py.File.in_memory(block_size=_MEMORY_BLOCK) as file:
        file.attrs.update(signed)
        yield file
        file.flush()
        image = file.id.get_file_image()
    with atomic_path(path) as temporary:
        temporary.write_bytes(image)


def _signed(
    kind: str, settings: Mapping[str, Any], attributes: Mapping[str, object]
) -> dict[str, object]:
    """The root attributes of a file."""
    return {
        "kind": kind,
        "schema_version": schema_version(kind),
        "software": SOFTWARE,
        "settings": json.dumps(settings, sort_keys=True, allow_nan=False),
        **attributes,
    }


@contextmanager
def stream_hdf5(
    path: Path | str, kind: str, settings: Mapping[str, Any], *, size: int, **attributes: object
) -> Iterator[h5py.File]:
    """Yield a new HDF5 file that is written as it grows, and appears at ``path`` like the others.

    For data that are too large for the memory. The space is reserved before anything is computed:
    a disk that cannot hold the file is known at once, and HDF5 is never refused a write, which it
    would not survive (see `write_hdf5`).

    Args:
        path: The file to be written.
        kind: See `write_hdf5`.
        settings: See `write_hdf5`.
        size: Bytes that the file takes at most; what it does not need is given back.
        **attributes: Further root attributes.

    Yields:
        The open file.

    Raises:
        UserError: The disk, the quota or the file-size limit has no space for ``size`` bytes.
        ValueError: ``settings`` holds a NaN or an infinity.
    """
    path = Path(path)
    signed = _signed(kind, settings, attributes)
    with atomic_path(path) as temporary:
        with h5py.File(temporary, "w", locking=False) as file:
            _reserve(temporary, size, path)
            file.attrs.update(signed)
            yield file
            file.flush()
            used = file.id.get_filesize()
        os.truncate(temporary, used)


def _reserve(temporary: Path, size: int, path: Path) -> None:
    """Take the space for a file.

    Raises:
        UserError: There is not so much.
    """
    try:
        if hasattr(os, "posix_fallocate"):
            with temporary.open("rb+") as stream:
                os.posix_fallocate(stream.fileno(), 0, size)
        elif shutil.disk_usage(temporary.parent).free < size:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    except OSError as error:
        if not is_full(error):
            raise
        free = shutil.disk_usage(temporary.parent).free
        raise UserError(
            f"{path}: needs up to {size / 1e6:,.1f} MB, and there are {free / 1e6:,.1f} MB free: "
            "no space left for it on that disk (a quota or file-size limit may allow less); free "
            "space, or ask for less"
        ) from error


class Rows:
    """A dataset that is written a few rows at a time, in whole chunks.

    A chunk that is written twice is compressed twice and leaves a hole in the file.

    Args:
        file: The file or group to write into.
        name: The dataset's name; groups on the way are made.
        row: Shape of one row.
        dtype: Of the values.
        rows: How many there will be; None if that is not known.
        units: See `put`.
        description: See `put`.
    """

    def __init__(
        self,
        file: h5py.Group,
        name: str,
        row: Sequence[int],
        dtype: DTypeLike,
        rows: int | None,
        *,
        units: str,
        description: str,
    ) -> None:
        size = math.prod(row) * np.dtype(dtype).itemsize
        self._chunk = max(1, _CHUNK_BYTES // max(1, size))
        layout: dict[str, Any] = {}
        if size and rows != 0:  # HDF5 has no chunks for nothing
            self._chunk = min(self._chunk, rows or self._chunk)
            layout = {
                "chunks": (self._chunk, *row),
                "compression": "gzip",
                "compression_opts": 4,
                "shuffle": True,
            }
        self._growing = rows is None
        self.dataset = file.create_dataset(
            name,
            shape=(rows or 0, *row),
            maxshape=(rows, *row) if layout else None,
            dtype=dtype,
            track_times=False,
            **layout,
        )
        self.dataset.attrs["units"] = units
        self.dataset.attrs["description"] = description
        self._written = 0
        self._waiting: list[NDArray[Any]] = []

    def append(self, values: NDArray[Any]) -> None:
        """Add the next rows, `[n, *row]`."""
        self._waiting.append(values.astype(self.dataset.dtype))
        waiting = sum(map(len, self._waiting))
        if waiting >= self._chunk:
            self._write(waiting // self._chunk * self._chunk)

    def close(self) -> None:
        """Write what is left."""
        self._write(sum(map(len, self._waiting)))

    def _write(self, rows: int) -> None:
        if not rows:
            return
        values = np.concatenate(self._waiting)
        until = self._written + rows
        if self._growing:
            self.dataset.resize(until, axis=0)
        self.dataset[self._written : until] = values[:rows]
        self._written = until
        self._waiting = [values[rows:]]


def put(file: h5py.Group, name: str, array: ArrayLike, *, units: str, description: str) -> None:
    """Write one array as a dataset, compressed, in chunks along its first axis.

    Args:
        file: The file or group to write into.
        name: The dataset's name; groups on the way are made.
        array: Numbers or booleans of any shape, empty ones included, or strings, which become
            variable-length UTF-8.
        units: The unit of the values, ``"1"`` where they have none.
        description: What the values are, in a few words.
    """
    values = np.asarray(array)
    if values.dtype.kind in "UO":
        # Filters would see only references to the strings.
        dataset = file.create_dataset(
            name, data=values.astype(object), dtype=h5py.string_dtype("utf-8"), track_times=False
        )
    elif values.ndim == 0 or values.size == 0:
        # HDF5 has no chunks for these.
        dataset = file.create_dataset(name, data=values, track_times=False)
    else:
        rows = _CHUNK_BYTES // values[0].nbytes
        dataset = file.create_dataset(
            name,
            data=values,
            chunks=(min(max(rows, 1), len(values)), *values.shape[1:]),
            compression="gzip",
            compression_opts=4,
            shuffle=True,
            track_times=False,
        )
    dataset.attrs["units"] = units
    dataset.attrs["description"] = description


@contextmanager
def open_hdf5(path: Path | str, kind: str) -> Iterator[h5py.File]:
    """Yield an HDF5 file of this project, open for reading.

    Args:
        path: The file to be read.
        kind: The kind that it must be of.

    Yields:
        The open file.

    Raises:
        UserError: The file is missing, unreadable, truncated, damaged, not HDF5, not of this
            project, of another kind, or of another schema version.
    """
    path = Path(path)
    remedy = "delete it and run snakemake again"
    if not path.is_file():
        raise UserError(f"{path}: there is no such file; run snakemake again to make it")
    try:
        # Files appear whole and never change, so that no lock is needed; network and read-only
        # file systems may refuse one.
        with h5py.File(path, "r", locking=False) as file:
            _check(file, path, kind, remedy)
            yield file
    except PermissionError as error:
        raise UserError(f"{path}: cannot be read; check its permissions") from error
    except OSError as error:
        # HDF5's own failures (truncation, a chunk that does not decompress) carry no errno.
        if error.errno is not None:
            raise
        raise UserError(f"{path}: truncated, damaged or not an HDF5 file; {remedy}") from error


def _check(file: h5py.File, path: Path, kind: str, remedy: str) -> None:
    """Raise UserError unless the root attributes are those of this kind and schema version."""
    if "kind" not in file.attrs or "schema_version" not in file.attrs:
        raise UserError(f"{path}: an HDF5 file that node-robustness did not write; {remedy}")
    if file.attrs["kind"] != kind:
        raise UserError(f"{path}: holds {file.attrs['kind']!r} where {kind!r} is wanted; {remedy}")
    if file.attrs["schema_version"] != schema_version(kind):
        raise UserError(
            f"{path}: has schema version {file.attrs['schema_version']}, this version of "
            f"node-robustness reads {schema_version(kind)}; {remedy}"
        )


def read_settings(file: h5py.File) -> dict[str, Any]:
    """Return the settings that an open file was made with."""
    settings: dict[str, Any] = json.loads(file.attrs["settings"])
    return settings
