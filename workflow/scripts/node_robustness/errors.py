"""The one exception for mistakes that a user can fix, and how a full disk becomes one."""

import errno
import os
from pathlib import Path


class UserError(Exception):
    """A mistake outside the program: a bad key, file, download or device.

    The message is one line in plain English that names the key or file at fault and says how to
    fix it. Scripts print it without a traceback; everything else keeps its traceback.
    """


_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def is_full(error: Exception) -> bool:
    """Whether an error means that the disk, the quota or the file-size limit is used up.

    Writers in other languages (safetensors, Arrow) give the system's words without its number.
    """
    if isinstance(error, OSError) and error.errno in _FULL:
        return True
    return any(os.strerror(code) in str(error) for code in _FULL)


def no_space(path: Path | str) -> UserError:
    """What to tell a user who has no space left to write a file."""
    return UserError(
        f"{path}: no space left to write it; free space on that disk (or raise the quota or "
        "file-size limit) and run snakemake again"
    )
