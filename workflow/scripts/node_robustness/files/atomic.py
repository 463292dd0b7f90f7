"""Files that are whole or absent."""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from node_robustness import __version__
from node_robustness.errors import is_full, no_space

SOFTWARE = f"node-robustness {__version__}"


@contextmanager
def atomic_path(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path that becomes ``path`` once the block ends without an exception.

    The temporary lies in the same folder (which is made if need be), is hidden and keeps the
    suffix, because many writers choose their format by it. After any exception, interrupts
    included, it is removed and ``path`` is as it was.

    Args:
        path: The file to be written.

    Yields:
        The path to write to; the block must create a file there.

    Raises:
        UserError: The disk, the quota or the file-size limit is used up.
    """
    path = Path(path)
    temporary = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with temporary.open("rb+") as stream:
            os.fsync(stream.fileno())
        temporary.replace(path)
    except Exception as error:
        if is_full(error):
            raise no_space(path) from error
        raise
    finally:
        temporary.unlink(missing_ok=True)


def sha256(path: Path | str) -> str:
    """Return the SHA-256 of a file's contents, as 64 hexadecimal digits."""
    with Path(path).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
