"""What every script of the workflow does around its one call: log, threads, errors, progress."""

import logging
import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Never

from tqdm import tqdm

from node_robustness.errors import UserError

_SECONDS_BETWEEN_LINES = 5.0


@contextmanager
def job(log: str) -> Iterator[None]:
    """Send all output to the rule's log; end in failure with the reason in it.

    A mistake that the user can mend is one line, anything else a traceback. Snakemake points to
    the log and, with the default profile, prints it.
    """
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


def bar(total: int, what: str) -> "tqdm[Never]":
    """A progress bar for a log file: a line every few seconds."""
    return tqdm(total=total, desc=what, unit="image", mininterval=_SECONDS_BETWEEN_LINES)
