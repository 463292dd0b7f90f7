"""Downloads that are complete and checked: mirrors, retries, SHA-256, no partial files."""

import logging
import os
import shutil
import sys
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING
from urllib.parse import urlsplit
from urllib.request import url2pathname

from tqdm import tqdm

from node_robustness.errors import UserError
from node_robustness.files.atomic import atomic_path, sha256

if TYPE_CHECKING:
    import requests
    from _typeshed import SupportsWrite

_LOG = logging.getLogger(__name__)

# A server that asks for a longer pause than these seconds is asked again after them.
_LONGEST_PAUSE = 60

# Statuses after which another attempt may succeed: time-outs, throttling and gateway errors.
_TRANSIENT_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})


@dataclass(frozen=True)
class RemoteFile:
    """A file to be downloaded.

    Attributes:
        name: Plain file name, without folders.
        sha256: SHA-256 of the file, 64 hexadecimal digits.
        urls: Complete URLs (http, https or file) in the order in which they are tried.
        size: Length in bytes, where it is known; only the progress bar uses it.
    """

    name: str
    sha256: str
    urls: tuple[str, ...]
    size: int | None = None

    def __post_init__(self) -> None:
        if self.name in ("", ".", "..") or Path(self.name).name != self.name or "\\" in self.name:
            raise UserError(f"file name {self.name!r}: give a plain name, without folders")


class _MirrorError(Exception):
    """A mirror that failed for good; the message is the reason, in a few words."""


class _ChecksumError(_MirrorError):
    """A file that seems complete but has another checksum than the one asked for."""


class _BrokenOffError(_MirrorError):
    """A body that ended too early."""


def fetch(
    remote: RemoteFile,
    folder: Path | str,
    *,
    attempts: int = 3,
    timeout: float = 30.0,
    progress: bool = True,
    log: logging.Logger = _LOG,
) -> Path:
    """Return a checked copy of a remote file, downloading it if there is none yet.

    A file in the folder that has the right checksum is used without a network; one that has not
    is replaced. The mirrors are tried in turn. A request that fails for a reason that may pass (no
    connection, server errors) is repeated, the first time at once, then after 2, 4... seconds or
    when the server says; a body that breaks off is requested again at once. Other failures lead to
    the next mirror. The download gets its name only when its checksum is right.

    Args:
        remote: The file.
        folder: Where it is kept; made if need be.
        attempts: How often each mirror is tried, at least once.
        timeout: Seconds to wait for a connection, and for each next piece of the body.
        progress: Whether to show a progress bar on the standard error.
        log: Where failures and fallbacks are reported.

    Returns:
        The path of the file, ``folder / remote.name``.

    Raises:
        UserError: No mirror gave the file, with each mirror's reason; or the disk is full.
    """
    path = Path(folder) / remote.name
    if path.is_file():
        if sha256(path) == remote.sha256:
            return path
        log.warning("%s has another checksum than expected: downloading it again", path)
    session = _session(attempts)
    reasons, remedies = [], ""
    for url in remote.urls:
        try:
            _fetch_from(url, remote, path, session, attempts, timeout, progress, log)
        except _MirrorError as error:
            log.warning("%s: %s", url, error)
            reasons.append(f"{url} ({error})")
            if isinstance(error, _ChecksumError):
                remedies = ", or correct the sha256 of your own file if it is the right one"
        else:
            log.info("downloaded %s", url)
            return path
    tried = "; ".join(reasons) or "none is known"
    raise UserError(
        f"{remote.name}: no mirror gave it: {tried}; put the file into {path.parent} yourself or "
        f"add a working one to the dataset's `mirrors`{remedies}"
    )


def check(remote: RemoteFile, folder: Path | str) -> None:
    """Check that a folder holds a remote file with the right checksum, before it is read.

    Raises:
        UserError: The file is not there, or has another checksum.
    """
    path = Path(folder) / remote.name
    remedy = "run snakemake with --forcerun fetch"
    if not path.is_file():
        raise UserError(f"{path}: is no longer there; {remedy}")
    if sha256(path) != remote.sha256:
        raise UserError(f"{path}: has another SHA-256 than {remote.sha256}; {remedy}")


def _session(attempts: int) -> "requests.Session":
    """A session that repeats requests to which there was no answer, or one that may pass."""
    # Imported here because most of the workflow's processes download nothing.
    import requests
    from urllib3 import Retry

    retry = Retry(
        attempts - 1,
        other=0,  # a certificate that is not trusted stays so
        status_forcelist=_TRANSIENT_STATUS,
        raise_on_status=False,
        backoff_factor=1,
        retry_after_max=_LONGEST_PAUSE,
    )
    session = requests.Session()
    for scheme in ("http://", "https://"):
        session.mount(scheme, requests.adapters.HTTPAdapter(max_retries=retry))
    # Else some servers label .gz files as a transfer encoding, which would be taken off on the way.
    session.headers["Accept-Encoding"] = "identity"
    return session


def _fetch_from(
    url: str,
    remote: RemoteFile,
    path: Path,
    session: "requests.Session",
    attempts: int,
    timeout: float,
    progress: bool,
    log: logging.Logger,
) -> None:
    """Download one URL to ``path``, or raise a _MirrorError."""
    for left in reversed(range(attempts)):
        try:
            with atomic_path(path) as temporary:
                with temporary.open("wb") as stream, _shown(stream, remote, progress) as out:
                    _download(url, out, session, timeout)
                found = sha256(temporary)
                if found != remote.sha256:
                    raise _ChecksumError(f"wrong checksum {found}")
            return
        except _BrokenOffError as error:  # which a session does not repeat
            if not left:
                raise
            log.warning("%s: %s; trying again", url, error)


def _shown(
    stream: IO[bytes], remote: RemoteFile, progress: bool
) -> AbstractContextManager["SupportsWrite[bytes]"]:
    """Wrap a stream so that a progress bar follows what is written to it."""
    return tqdm.wrapattr(
        stream,
        "write",
        total=remote.size,
        desc=remote.name,
        disable=not progress,
        # In a log file every update is a line.
        mininterval=0.1 if sys.stderr.isatty() else 10.0,
    )


def _download(
    url: str, out: "SupportsWrite[bytes]", session: "requests.Session", timeout: float
) -> None:
    """Copy what a URL names into a stream, or raise a _MirrorError."""
    parts = urlsplit(url)
    if parts.scheme in ("http", "https"):
        _download_http(url, out, session, timeout)
    elif parts.scheme == "file" and parts.netloc in ("", "localhost"):
        # A file has neither a query nor a fragment: `?` and `#` are of its name.
        path = Path(url2pathname(parts._replace(scheme="", netloc="").geturl()))
        if not (path.is_file() and os.access(path, os.R_OK)):
            raise _MirrorError("no such file, or not readable")
        with path.open("rb") as source:
            shutil.copyfileobj(source, out)
    else:
        raise _MirrorError("neither an http, https nor file URL")


def _download_http(
    url: str, out: "SupportsWrite[bytes]", session: "requests.Session", timeout: float
) -> None:
    """Copy the body of an HTTP answer into a stream, or raise a _MirrorError."""
    import requests
    from urllib3.exceptions import ReadTimeoutError

    try:
        with session.get(url, timeout=timeout, stream=True) as answer:
            answer.raise_for_status()
            for piece in answer.iter_content(2**16):
                out.write(piece)
    except requests.HTTPError as error:
        raise _MirrorError(f"HTTP status {error.response.status_code}") from error
    except requests.exceptions.SSLError as error:
        raise _MirrorError("no trusted secure connection") from error
    except requests.exceptions.ChunkedEncodingError as error:
        raise _BrokenOffError("the download broke off") from error
    except requests.ConnectionError as error:
        # A session that gave up says why in `reason`; without it the body broke off.
        cause = error.args[0]
        reason = getattr(cause, "reason", cause)
        slow = isinstance(error, requests.Timeout) or isinstance(reason, ReadTimeoutError)
        message = f"no answer within {timeout:g} s" if slow else "connection failed"
        raise (_BrokenOffError if reason is cause else _MirrorError)(message) from error
    except requests.RequestException as error:
        raise _MirrorError(type(error).__name__) from error
