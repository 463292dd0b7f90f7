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

from node_robustness.errors import UserError, is_full, no_space
from node_robustness.jobs.record import JobRecord
from node_robustness.warm.client import COLD

_SECONDS_BETWEEN_LINES = 5.0


@contextmanager
def job(log: str) -> Iterator[JobRecord]:
    """Send all output to the rule's log; end in failure with the reason in it.

    A mistake that the user can correct is one line, anything else a traceback. Snakemake points to
    the log and, with the default profile, prints it. Where there is no space left for the log, the
    reason goes to where Snakemake's own output goes. The last line of a job that succeeded says
    when and where it ran and what it cost; `scheduling.job_costs` reads it.

    Yields:
        The record of what the job costs, which counts model computation where it is asked to.
    """
    record = JobRecord()
    _open_standard_streams()
    terminal = os.dup(2)
    try:
        _send_output_to(Path(log))
        if COLD in os.environ:
            print(f"started in a new Python: {os.environ[COLD]}", flush=True)
        yield record
        print(record.spent(), flush=True)
    except Exception as error:
        if is_full(error) and not isinstance(error, UserError):
            error = no_space(getattr(error, "filename", None) or log)
        of_user = isinstance(error, UserError)
        _report(f"error: {error}" if of_user else traceback.format_exc().rstrip(), terminal)
        sys.exit(1)
    finally:
        os.close(terminal)


def _open_standard_streams() -> None:
    """Open those that were closed where the run was started, as some services do.

    Python has no stream for them, and the next file that is opened would get their number.
    """
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(number, True)
    os.close(number)
    sys.stdout = sys.stdout or os.fdopen(1, "w", buffering=1, closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", buffering=1, closefd=False)


def _send_output_to(log: Path) -> None:
    log.parent.mkdir(parents=True, exist_ok=True)
    # At the level of file descriptors, so that the words of C libraries land in the log too.
    with log.open("w") as stream:
        sys.stdout.flush()
        sys.stderr.flush()
        os.dup2(stream.fileno(), 1)
        os.dup2(stream.fileno(), 2)
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stderr
    )


def _report(what: str, terminal: int) -> None:
    try:
        print(what, file=sys.stderr, flush=True)
    except OSError:
        os.write(terminal, f"{what}\n".encode())


def bar(total: int, what: str) -> "tqdm[Never]":
    """A progress bar for a log file: a line every few seconds."""
    return tqdm(total=total, desc=what, unit="image", mininterval=_SECONDS_BETWEEN_LINES)
