"""What every network is that the workflow attacks, whoever wrote it."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn

from node_robustness.models.ode_body import ODEBody, SolverSettings
from node_robustness.ode.small_batches import filled_up
from node_robustness.ode.solve import Solution, Status


@dataclass(frozen=True)
class StepsTaken:
    """The steps that the solves of a network took for n images.

    Attributes:
        nodes: for each solve the times between which each image stepped; if its solve failed, the
            first and the last time.
        taken: numbers of accepted and of rejected steps of each solve, int64 [n, 2 S].
        failed: whether a solve failed, bool [n].
    """

    nodes: Sequence[Sequence[Tensor]]
    taken: Tensor
    failed: Tensor

    @classmethod
    def of(
        cls, solutions: Sequence[Solution], spans: Sequence[tuple[float, float]]
    ) -> "StepsTaken":
        """The steps of solutions with nodes, from the first to the last time of each."""
        nodes = [
            [
                torch.tensor(span, dtype=torch.float64) if status else own
                for status, own in zip(solution.status.tolist(), solution.nodes, strict=True)
            ]
            for solution, span in zip(solutions, spans, strict=True)
        ]
        taken = [counts for each in solutions for counts in (each.accepted, each.rejected)]
        failed = torch.stack([solution.status != Status.SUCCESS for solution in solutions])
        return cls(nodes, torch.stack(taken, dim=1), failed.any(0))

    def repeated(self, times: int) -> "StepsTaken":
        """The steps of the images, so many times over."""
        nodes = [[*of_images] * times for of_images in self.nodes]
        return StepsTaken(nodes, self.taken.repeat(times, 1), self.failed.repeat(times))

    def filled_up(self) -> "StepsTaken":
        """With those of the first image again, as `ode.small_batches.filled_up`."""
        rows = filled_up(torch.arange(len(self.failed))[:, None])[:, 0]
        if len(rows) == len(self.failed):
            return self
        nodes = [[of_images[row] for row in rows.tolist()] for of_images in self.nodes]
        return StepsTaken(nodes, self.taken[rows], self.failed[rows])

    def first(self, images: int) -> "StepsTaken":
        """Those of the first images."""
        nodes = [of_images[:images] for of_images in self.nodes]
        return StepsTaken(nodes, self.taken[:images], self.failed[:images])


class Network(nn.Module, ABC):
    """Maps images [n, channels, H, W] in [0, 1] to logits [n, K].

    Its parts are one after the other: `embed`, the body, and `head`. A network whose parts are not
    known has no body. The solver settings are fixed; `at` returns a view with other settings.

    Attributes:
        body: from h(0) to h(1), both [n, C, H', W']; None if it is not known.
        head: from h(1) to logits [n, K].
    """

    body: nn.Module | None
    head: Callable[[Tensor], Tensor]

    @abstractmethod
    def at(self, **changes: Any) -> Self:
        """A view of the same network that is solved with other settings.

        The view shares parameters, buffers and hooks with the network. Its solver settings, `nfe`
        and `status` are separate. Without an ODE the settings have no effect.

        Args:
            **changes: fields of `ode_body.SolverSettings`; a `tolerance` of None keeps the
                network's.

        Raises:
            TypeError: `SolverSettings` has no such field.
        """

    @abstractmethod
    def forward(self, images: Tensor) -> Tensor:
        """Images [n, channels, H, W] in [0, 1] to logits [n, K]."""

    @abstractmethod
    def embed(self, images: Tensor) -> Tensor:
        """Images [n, channels, H, W] to the initial state h(0) of the body, [n, C, H', W']."""

    @abstractmethod
    def features(self, h: Tensor) -> Tensor:
        """States [n, C, H', W'] to the features [n, F] that a linear probe reads."""

    @property
    def ode(self) -> ODEBody | None:
        """The ODE body; None for another body, or for none."""
        return self.body if isinstance(self.body, ODEBody) else None

    @property
    def nfe(self) -> Tensor | None:
        """Function evaluations of the last forward pass, int32 [n]; None without an ODE."""
        return None if self.ode is None else self.ode.nfe

    @property
    def status(self) -> Tensor | None:
        """The `ode.solve.Status` of each image of the last forward pass, int64 [n], or None."""
        return None if self.ode is None else self.ode.status

    @property
    def solver(self) -> SolverSettings | None:
        """The solver settings; None without an ODE."""
        return None if self.ode is None else self.ode.settings

    @property
    def adaptive(self) -> bool:
        """Whether a tolerance has an effect."""
        return self.solver is not None and self.solver.steps is None

    @property
    def solves(self) -> int:
        """The number of ODE solves in a forward pass."""
        return 0 if self.ode is None else 1

    @property
    def nfe_by_solve(self) -> Tensor | None:
        """`nfe` of each of several solves, int32 [n, S]; None with fewer than two."""
        return None

    @property
    def own_tolerances(self) -> tuple[float, float] | None:
        """The relative and the absolute tolerance that its author set; None for a built-in one."""
        return None

    @property
    def has_steps(self) -> bool:
        """Whether each image is solved with separate steps, which other images can take, too."""
        return self.ode is not None

    @torch.no_grad()
    def logits_and_steps(self, images: Tensor) -> tuple[Tensor, StepsTaken]:
        """Logits [n, K] of images [n, channels, H, W], and the steps of their solves."""
        assert self.ode is not None
        solution = self.ode.solve(self.embed(images), (0.0, 1.0), keep_nodes=True)
        return self.head(solution.states[-1]), StepsTaken.of([solution], [(0.0, 1.0)])

    def by_steps(self, images: Tensor, steps: StepsTaken) -> Tensor:
        """Logits [n, K] of images that are solved with the steps of n other ones."""
        assert self.ode is not None
        (nodes,) = steps.nodes
        return self.head(self.ode.solve(self.embed(images), (0.0, 1.0), nodes=nodes).states[-1])

    @property
    def limits(self) -> tuple[str, ...]:
        """What cannot be measured of it and why, in sentences."""
        return ()

    @property
    def device(self) -> torch.device:
        """The device of the parameters; the CPU without any."""
        return next((p.device for p in self.parameters()), torch.device("cpu"))
