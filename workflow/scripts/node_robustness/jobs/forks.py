"""One job on several cores: forks of its process share out what is to be done."""

import os
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import TypeVar

from node_robustness.errors import UserError

Item = TypeVar("Item")

_NUMBER = 4  # bytes of the number of an item


def for_each(items: Sequence[Item], work: Callable[[Item], object], forks: int) -> None:
    """Do some work on each item, in several forks of this process.

    A fork begins with all that was imported and read before, and takes the next item as soon as it
    is free. What it makes must be files: nothing else comes back. Where this process is killed, a
    fork ends after its item.

    Args:
        items: the longest work first.
        work: the work, on one of them.
        forks: how many; with one the work is done in this process.

    Raises:
        UserError: the work raised it.
        ChildProcessError: a fork failed otherwise; its traceback is in the log.
    """
    if forks < 2:
        for item in items:
            work(item)
        return
    mine = os.getpid()
    left, left_end = os.pipe()
    said, said_end = os.pipe()
    os.write(left_end, b"".join(number.to_bytes(_NUMBER) for number in range(len(items))))
    os.close(left_end)
    sys.stdout.flush()
    sys.stderr.flush()
    children = []
    for _ in range(forks):
        child = os.fork()
        if not child:
            os._exit(_status(lambda: _take(items, work, left, mine), said_end))
        children.append(child)
    os.close(said_end)
    os.close(left)
    failed = [os.waitpid(child, 0)[1] for child in children]
    with os.fdopen(said) as stream:
        words = stream.readline().rstrip("\n")
    if words:
        raise UserError(words)
    if any(failed):
        raise ChildProcessError(f"a fork of this job ended with the status {max(failed)}")


def _take(items: Sequence[Item], work: Callable[[Item], object], left: int, parent: int) -> None:
    while os.getppid() == parent and (number := os.read(left, _NUMBER)):
        work(items[int.from_bytes(number)])


def _status(work: Callable[[], None], said: int) -> int:
    """The exit status of a fork that does some work; what the user can correct is said."""
    try:
        work()
        return 0
    except UserError as error:
        os.write(said, f"{error}\n".encode())
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    return 1
