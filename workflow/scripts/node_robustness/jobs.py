"""What every script of the workflow does around its one call: log, threads, errors, progress."""

import logging
import os
import platform
import re
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Never

from tqdm import tqdm

from node_robustness.errors import UserError

_SECONDS_BETWEEN_LINES = 5.0
_DONE = re.compile(r"^done: started (\S+) on (.*)$", re.MULTILINE)


@contextmanager
def job(log: str) -> Iterator[None]:
    """Send all output to the rule's log; end in failure with the reason in it.

    A mistake that the user can mend is one line, anything else a traceback. Snakemake points to
    the log and, with the default profile, prints it. A job that went well says in its last line
    when it had started, and on which machine: `start_and_host` reads it.
    """
    started = datetime.now(UTC).isoformat(timespec="seconds")
    Path(log).parent.mkdir(parents=True, exist_ok=True)
    # At the level of file descriptors, so that the words of C libraries land in the log too.
    with Path(log).open("w") as stream:
        sys.stdout.flush()
        sys.stderr.flush()
        os.dup2(stream.fileno(), 1)
        os.dup2(stream.fileno(), 2)
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stderr
    )
    try:
        yield
    except UserError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        sys.exit(1)
    except Exception:
        traceback.print_exc()
        sys.exit(1)
    print(f"done: started {started} on {platform.node()}", flush=True)


def start_and_host(log: Path) -> tuple[str, str] | None:
    """When (UTC, ISO 8601) and on which machine the job with this log started.

    None where the log is not there or does not say, as of a job that did not end well.
    """
    if not log.is_file():
        return None
    lines = _DONE.findall(log.read_text(encoding="utf-8", errors="replace"))
    return lines[-1] if lines else None


def bar(total: int, what: str) -> "tqdm[Never]":
    """A progress bar for a log file: a line every few seconds."""
    return tqdm(total=total, desc=what, unit="image", mininterval=_SECONDS_BETWEEN_LINES)
