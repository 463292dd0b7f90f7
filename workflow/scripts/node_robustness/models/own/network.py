"""A user's own module as a network."""

from collections.abc import Callable
from copy import copy
from dataclasses import fields
from typing import Any, Self

import torch
from torch import Tensor, nn

from node_robustness.models.network import Network, StepsTaken
from node_robustness.models.ode_body import SolverSettings
from node_robustness.models.own.inspection import inspect_module, logits_of
from node_robustness.models.own.interception import intercepting
from node_robustness.models.own.modules import copied
from node_robustness.models.own.passes import (
    BatchedPass,
    ReachingPass,
    ResumingPass,
    SteppingPass,
    TorchdiffeqPass,
    applied,
    failure,
    reach,
    with_guarded_gradient,
)
from node_robustness.models.own.problems import OwnBody
from node_robustness.models.own.spec import OwnSolve, OwnSpec
from node_robustness.ode.rows import Way
from node_robustness.ode.small_batches import filled_up
from node_robustness.ode.solve import Status

_FIELDS = {item.name for item in fields(SolverSettings)}


class OwnNetwork(Network):
    """A user's own module, in which torchdiffeq's solves have separate steps for each image.

    Where that is not possible, torchdiffeq solves each image by itself, and there is no body.

    Args:
        module: images [n, channels, H, W] in [0, 1] to logits [n, K], or to several results.
        spec: what an inspection has found in it.

    Attributes:
        spec: see above.
    """

    def __init__(self, module: nn.Module, spec: OwnSpec) -> None:
        super().__init__()
        self.module = module
        self.spec = spec
        self._nfe_by_solve: Tensor | None = None
        self._changes: dict[str, Any] = {}
        self._nfe: Tensor | None = None
        self._body: tuple[object, OwnBody] | None = None
        self._status: Tensor | None = None

    @classmethod
    def of(
        cls,
        module: nn.Module,
        images: Tensor,
        *,
        output: int | str = 0,
        solve: int | str | None = None,
        max_steps: int = 1000,
    ) -> Self:
        """The network of a module that exists, inspected on images.

        Args:
            module: maps images to logits; it is put in evaluation mode.
            images: some real images, different ones, float [n, C, H, W] in [0, 1], n >= 2.
            output: which element is the logits, if the module returns several.
            solve: the solve that is followed, by module or number; None for the first.
            max_steps: largest number of attempted steps of a solve.

        Raises:
            UserError: the module does not map the images to logits.
        """
        found = inspect_module(
            module.eval(), images, output=output, solve=solve, max_steps=max_steps
        )
        return cls(module, OwnSpec(found, output=output, solve=solve, max_steps=max_steps)).eval()

    def at(self, **changes: Any) -> Self:
        """See `Network.at`; a `method` of None is the author's, too."""
        unknown = changes.keys() - _FIELDS
        if unknown:
            raise TypeError(f"SolverSettings has no field {min(unknown)}")
        changes = {
            key: value
            for key, value in changes.items()
            if value is not None or key not in ("tolerance", "method")
        }
        view = copy(self)
        view._changes = {**self._changes, **changes}
        view._nfe = view._status = view._nfe_by_solve = view._body = None
        if self.spec.found.setter and "tolerance" in changes:
            view._modules = {**self._modules, "module": copied(self.module, shared=True)}
        return view

    def forward(self, images: Tensor) -> Tensor:
        """Images [n, channels, H, W] in [0, 1] to logits [n, K]."""
        found = self.spec.found
        if found.setter and not found.solves:
            return self._by_setter(images)
        if not found.solves:
            return self._plain(images)
        if self._solved_by_torchdiffeq:
            return self._by_torchdiffeq(images)
        handler = BatchedPass(*self._rest(), self.training)
        with intercepting(handler):
            logits = self._logits(applied(self.module, self._rows(images)))
        self._nfe_by_solve = torch.stack(handler.nfe, dim=1)[: len(images)]
        self._nfe = self._nfe_by_solve.sum(1, dtype=torch.int32)
        self._status = _first_failure(torch.stack(handler.status, dim=1))[: len(images)]
        return logits[: len(images)]

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        other = type(self)(copied(self.module), self.spec).train(self.training)
        other._changes = self._changes
        return other

    @property
    def _solved_by_torchdiffeq(self) -> bool:
        found = self.spec.found
        alone = found.trained_jointly if self.training else found.one_by_one
        return alone is not None or self._changes.get("backend") == "torchdiffeq"

    def embed(self, images: Tensor) -> Tensor:
        """The state at the start of the solve that is followed, [n, C, H', W']."""
        return self._reach(images)[1][: len(images)]

    @property
    def head(self) -> Callable[[Tensor], Tensor]:  # type: ignore[override]
        """From the state at the end of the solve that is followed to logits [n, K]."""
        return self._head

    def _head(self, h: Tensor) -> Tensor:
        assert self.spec.found.followed is not None
        rows = filled_up(h)
        handler = ResumingPass(self.spec.found.followed, rows, *self._rest())
        with intercepting(handler):
            return self._logits(applied(self.module, self._blank(len(rows), rows)))[: len(h)]

    @property
    def has_steps(self) -> bool:
        """See `Network.has_steps`."""
        return bool(self.spec.found.solves) and not self._solved_by_torchdiffeq

    @torch.no_grad()
    def logits_and_steps(self, images: Tensor) -> tuple[Tensor, StepsTaken]:
        """See `Network.logits_and_steps`."""
        handler = SteppingPass(None, *self._rest())
        with intercepting(handler):
            logits = self._logits(applied(self.module, filled_up(images)))
        steps = StepsTaken.of(handler.solutions, handler.spans)
        return logits[: len(images)], steps.first(len(images))

    def by_steps(self, images: Tensor, steps: StepsTaken) -> Tensor:
        """See `Network.by_steps`."""
        with intercepting(SteppingPass(steps.filled_up().nodes, *self._rest())):
            return self._logits(applied(self.module, filled_up(images)))[: len(images)]

    def features(self, h: Tensor) -> Tensor:
        """The means of the channels, [n, C]."""
        return h.mean((2, 3))

    @property
    def body(self) -> OwnBody | None:  # type: ignore[override]
        """The solve that is followed; None if there is none."""
        if self.spec.found.followed is None or self._changes.get("backend") == "torchdiffeq":
            return None
        like = next(self.module.parameters(), torch.zeros(0))
        if self._body is None or self._body[0] != (like.dtype, like.device):
            # Whatever the images and their tolerances: an inspection has checked that.
            with torch.no_grad():
                body = self.at(tolerance=1.0)._reach(self._blank(1, like))[0]
            tolerance = self._changes.get("tolerance", body.problem.tolerance)
            self._body = (like.dtype, like.device), body.at(tolerance=tolerance)
        return self._body[1]

    @property
    def nfe(self) -> Tensor | None:
        """Function evaluations of the last forward pass in all solves, int32 [n], or None."""
        return self._nfe

    @property
    def status(self) -> Tensor | None:
        """The first `Status` of each image that is no success, int64 [n], or None."""
        return self._status

    @property
    def solver(self) -> SolverSettings | None:
        """The settings of the solve that is followed, or of the first one; None without an ODE."""
        solve = self.main_solve
        if solve is None:
            return None
        author = {"method": solve.method, "tolerance": solve.tolerance, "steps": solve.steps}
        return SolverSettings(**{"max_steps": self.spec.max_steps, **author, **self._changes})

    @property
    def solves(self) -> int:
        """See `Network.solves`."""
        return len(self.spec.found.solves)

    @property
    def adaptive(self) -> bool:
        """See `Network.adaptive`."""
        return self.spec.found.ode == "adaptive"

    @property
    def main_solve(self) -> OwnSolve | None:
        """The solve that is followed, or else the first one; None if there is none."""
        found = self.spec.found
        return found.solves[found.followed or 0] if found.solves else None

    @property
    def nfe_by_solve(self) -> Tensor | None:
        """See `Network.nfe_by_solve`."""
        return self._nfe_by_solve if len(self.spec.found.solves) > 1 else None

    @property
    def own_tolerances(self) -> tuple[float, float] | None:
        """See `Network.own_tolerances`; of `main_solve`."""
        solve = self.main_solve
        return None if solve is None else (solve.rtol, solve.atol)

    @property
    def limits(self) -> tuple[str, ...]:
        """See `Network.limits`."""
        return self.spec.found.limits

    def _rest(self) -> tuple[list[Way], int, dict[str, Any]]:
        """What all passes with separate steps are given."""
        ways = [solve.way for solve in self.spec.found.solves]
        changes = self._changes
        if not self.training:  # there, copies of an image fill up a batch
            changes = {
                key: filled_up(value) if isinstance(value, Tensor) else value
                for key, value in changes.items()
            }
        return ways, self.spec.max_steps, changes

    def _rows(self, images: Tensor) -> Tensor:
        # In training copies of an image would count in the statistics of a batch.
        return images if self.training else filled_up(images)

    def _blank(self, rows: int, like: Tensor) -> Tensor:
        found = self.spec.found
        return like.new_zeros(rows, found.channels, found.height, found.width)

    def _reach(self, images: Tensor) -> tuple[OwnBody, Tensor]:
        assert self.spec.found.followed is not None
        handler = ReachingPass(self.spec.found.followed, *self._rest())
        return reach(self.module, filled_up(images), handler)

    def _plain(self, images: Tensor) -> Tensor:
        with intercepting(BatchedPass(*self._rest())):  # a solve that no image had before
            return self._logits(applied(self.module, self._rows(images)))[: len(images)]

    def _by_setter(self, images: Tensor) -> Tensor:
        """Logits of a module that sets its own tolerance."""
        tolerance = self._changes.get("tolerance")
        if not isinstance(tolerance, Tensor):
            return self._at_one_tolerance(images, tolerance)
        logits = images.new_empty(len(images), self.spec.found.classes)
        nfe: list[tuple[Tensor, Tensor]] = []
        for tau in tolerance.unique().tolist():
            index = (tolerance == tau).nonzero().flatten().to(images.device)
            logits = logits.index_copy(0, index, self._at_one_tolerance(images[index], tau))
            if self._nfe is not None:
                nfe.append((index, self._nfe))
        self._note_setter(logits, _scattered(nfe, len(images)) if nfe else None)
        return logits

    def _at_one_tolerance(self, images: Tensor, tolerance: float | None) -> Tensor:
        if tolerance is not None:
            self.module.set_tolerance(tolerance)  # type: ignore[operator]
        logits = self._logits(applied(self.module, self._rows(images)))[: len(images)]
        evaluations = getattr(self.module, "nfe", None)
        nfe = None
        if evaluations is not None:
            counted = torch.as_tensor(evaluations, dtype=torch.int32, device=images.device)
            nfe = counted.expand(len(images)) if counted.ndim == 0 else counted[: len(images)]
        self._note_setter(logits, nfe)
        return logits

    def _note_setter(self, logits: Tensor, nfe: Tensor | None) -> None:
        finite = torch.isfinite(logits.detach()).all(1)
        self._nfe = nfe
        self._status = torch.where(finite, int(Status.SUCCESS), int(Status.NONFINITE))

    def _by_torchdiffeq(self, images: Tensor) -> Tensor:
        """Logits by torchdiffeq itself, of one image at a time, or of some as one equation."""
        joint = self._changes.get("backend") == "torchdiffeq"
        together = self._changes.get("batch_size") if joint else 1
        if self.training:
            together = None
        tolerance = self._changes.get("tolerance")
        if isinstance(tolerance, Tensor):
            together = 1
        index = torch.arange(len(images)).split(together or len(images))
        solve = self._one_equation if self.training else self._guarded_equation
        solved = [solve(images[rows], rows) for rows in index]
        logits, nfe, status = (torch.cat(parts) for parts in zip(*solved, strict=True))
        self._nfe_by_solve, self._status = nfe, status
        self._nfe = nfe.sum(1, dtype=torch.int32)
        return logits

    def _guarded_equation(self, images: Tensor, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """As `_one_equation`, but a backward solve that fails is no error: its gradient is NaN."""
        if not (torch.is_grad_enabled() and images.requires_grad):
            return self._one_equation(images, rows)
        leaf = images.detach().requires_grad_()
        logits, nfe, status = self._one_equation(leaf, rows)
        return with_guarded_gradient(images, leaf, logits), nfe, status

    def _one_equation(self, images: Tensor, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        changes = {
            key: value[rows[0]].item() if isinstance(value, Tensor) else value
            for key, value in self._changes.items()
        }
        handler = TorchdiffeqPass(changes, self.spec.max_steps)
        status = None
        try:
            with intercepting(handler):
                logits = self._logits(applied(self.module, images))
        except AssertionError as error:
            status = failure(error)
            if status is None or self.training:
                raise
            logits = (images.flatten(1)[:, :1] * torch.nan).expand(-1, self.spec.found.classes)
        nfe = torch.zeros(
            len(images), len(self.spec.found.solves), dtype=torch.int32, device=images.device
        )
        counted = handler.evaluations[: nfe.shape[1]]
        nfe[:, : len(counted)] = torch.tensor(counted, dtype=torch.int32)
        lost = ~torch.isfinite(logits.detach()).all(1)
        code = torch.where(lost, int(Status.NONFINITE if status is None else status), 0)
        return logits, nfe, code

    def _logits(self, result: Any) -> Tensor:
        return logits_of(result, self.spec.output)


def _first_failure(status: Tensor) -> Tensor:
    """The first entry of each row [n, S] that is no success, [n]; success if there is none."""
    failed = status != Status.SUCCESS
    return status.gather(1, failed.int().argmax(1, keepdim=True)).squeeze(1)


def _scattered(parts: list[tuple[Tensor, Tensor]], count: int) -> Tensor:
    """Values at positions, as one tensor [count]."""
    values = parts[0][1].new_zeros(count)
    for index, part in parts:
        values[index] = part
    return values
