"""How long jobs take together, by simulation: no division knows which job waits for which."""

from collections.abc import Collection, Hashable, Mapping
from dataclasses import dataclass, field
from heapq import heappop, heappush


@dataclass(frozen=True)
class Task:
    """A job, as far as time is concerned.

    Attributes:
        name: of the job.
        seconds: that it takes.
        takes: of each resource, such as cores, how much it holds meanwhile.
        needs: the names of the jobs that must end before it. Those that are not simulated have
            ended.
        priority: of the jobs that are ready, the one with the largest starts first.
    """

    name: Hashable
    seconds: float
    takes: Mapping[str, int] = field(default_factory=dict)
    needs: Collection[Hashable] = ()
    priority: int = 0


def wall(tasks: Collection[Task], limits: Mapping[str, int]) -> float:
    """Seconds from the start of the first task to the end of the last.

    Whenever a task ends, those that are ready and for which there is room start, in the order of
    their priority, and otherwise in the given one. A task that asks for more of a resource than
    there is takes all of it, as Snakemake's do. Tasks that wait for each other never start.

    Args:
        tasks: each with another name.
        limits: how much there is of a resource; others are not limited.
    """
    every = list(tasks)
    numbers = {task.name: number for number, task in enumerate(every)}
    takes = [
        tuple(min(task.takes.get(name, 0), limit) for name, limit in limits.items())
        for task in every
    ]
    followers: list[list[int]] = [[] for _ in every]
    waits = [0] * len(every)
    for number, task in enumerate(every):
        for need in set(task.needs) & numbers.keys():
            followers[numbers[need]].append(number)
            waits[number] += 1
    # Those that take the same are in one queue: of thousands only the first ones are looked at.
    ready: dict[tuple[int, ...], list[tuple[int, int]]] = {}

    def put(number: int) -> None:
        heappush(ready.setdefault(takes[number], []), (-every[number].priority, number))

    for number, count in enumerate(waits):
        if count == 0:
            put(number)
    free = list(limits.values())
    running: list[tuple[float, int]] = []
    now = 0.0
    while True:
        while fitting := [queue for taken, queue in ready.items() if queue and _fits(taken, free)]:
            _, number = heappop(min(fitting))
            free = [left - taken for left, taken in zip(free, takes[number], strict=True)]
            heappush(running, (now + every[number].seconds, number))
        if not running:
            return now
        now, number = heappop(running)
        free = [left + taken for left, taken in zip(free, takes[number], strict=True)]
        for follower in followers[number]:
            waits[follower] -= 1
            if waits[follower] == 0:
                put(follower)


def _fits(taken: tuple[int, ...], free: list[int]) -> bool:
    return all(amount <= left for amount, left in zip(taken, free, strict=True))
