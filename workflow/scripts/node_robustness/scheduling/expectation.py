"""What a job is expected to take, corrected by what others took.

The rates of `rates` know neither how busy the machine is nor what an attack breaks. A job that ends
shows how wrong they were: of the same job, of jobs that differ in little, and of all. Jobs of a
group correct what is known of its larger group by their number, so that one of them counts as much
as the larger group, and nine of them nine times as much.

Like `config`, this module must import quickly (no torch).
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

Groups = Sequence[Hashable]
"""The groups of a job: from the largest to the one that it is alone in."""


@dataclass
class _Taken:
    """What the jobs of a group took together, and what was expected of them by rates alone."""

    jobs: int = 0
    expected: float = 0.0
    taken: float = 0.0


class Expectation:
    """What jobs are expected to take.

    Attributes:
        jobs: how many were taken into account.
    """

    def __init__(self) -> None:
        """Know no job yet."""
        self._groups: dict[Hashable, _Taken] = {}
        self.jobs = 0

    def learn(self, groups: Groups, expected: float, taken: float) -> None:
        """Take a job into account: in seconds, what rates alone say and what it took."""
        self.jobs += 1
        for group in groups:
            found = self._groups.setdefault(group, _Taken())
            found.jobs += 1
            found.expected += expected
            found.taken += taken

    def seconds(self, groups: Groups, expected: float, *, rated: bool) -> float | None:
        """What a job is expected to take; None where nothing at all is known.

        Args:
            groups: its own.
            expected: seconds by rates alone.
            rated: whether there are rates of the device on which it runs.
        """
        factor = 1.0 if rated else None
        for group in groups:
            found = self._groups.get(group)
            if found is not None:
                own = found.taken / max(found.expected, 1e-9)
                if factor is None or group == groups[-1]:
                    factor = own
                else:
                    factor = (found.jobs * own + factor) / (found.jobs + 1)
        return None if factor is None else factor * expected

    def has_seen(self, group: Hashable) -> bool:
        """Whether a job of a group was taken into account."""
        return group in self._groups
