"""All measurements of trajectory.h5 for the images of a cell."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from node_robustness.models.classifier import frozen
from node_robustness.models.memory import LARGEST_BATCH
from node_robustness.models.network import Network
from node_robustness.models.ode_body import ODEBody
from node_robustness.perturbations.ball import into_ball
from node_robustness.perturbations.noise import noise_like
from node_robustness.perturbations.norms import Norm
from node_robustness.perturbations.streams import Streams
from node_robustness.trajectories import growth
from node_robustness.trajectories.causal import (
    MOST_CHANNELS,
    UNDETERMINED,
    Flow,
    find_causes,
    flow_of,
    intervals,
    restored_shares,
)
from node_robustness.trajectories.decision import flip_times, margins
from node_robustness.trajectories.distances import distances
from node_robustness.trajectories.layout import (
    DISTANCES,
    PAIRS,
    RUNS,
    SHARED,
    TrajectorySizes,
)
from node_robustness.trajectories.linearisation import why_not
from node_robustness.trajectories.probes import Probes
from node_robustness.trajectories.runs import CLEAN, Cost, Runs, body_of, ends, follow
from node_robustness.trajectories.shares import Shares, shares, solve_margins
from node_robustness.trajectories.strengthen import strengthen
from node_robustness.trajectories.writer import TrajectoryWriter

Array = npt.NDArray[Any]

# Bytes of states in memory, and how many copies of a run's states there are at most: as collected
# by the solver, in order, and normalised by the head.
_STATES_BYTES = 2**29
_COPIES = 3
_GRADIENT_MAPS = 10  # tensors of the size of a state that an evaluation keeps for backward


@dataclass(frozen=True)
class Selection:
    """The images, of N, that get the expensive measurements.

    Attributes:
        kept: ascending positions of the images whose states are kept: the first adversarial
            examples, then the first images without one.
        growth: images whose growth is decomposed, bool [N].
        causal: adversarial examples that get the causal test, bool [N].
    """

    kept: Array
    growth: Array
    causal: Array

    @classmethod
    def of(cls, success: Array, *, states: int, growth: int, causal: int) -> "Selection":
        """Select the first images.

        Args:
            success: whether the attack found an adversarial example, bool [N].
            states: number of images whose states are kept.
            growth: number of images whose growth is decomposed.
            causal: number of adversarial examples that get the causal test.
        """
        first = np.concatenate([np.flatnonzero(success), np.flatnonzero(~success)])
        return cls(
            np.sort(first[:states]),
            np.arange(len(success)) < growth,
            success & (success.cumsum() <= causal),
        )


@dataclass(frozen=True)
class FollowedImages:
    """N images to follow.

    Attributes:
        index: rows of the images in the test set, int64 [N].
        labels: int64 [N].
        success: whether the attack found an adversarial example, bool [N].
        decided: the prediction for the clean image, int64 [N].
        shape: of an image, [C, H, W].
        load: from ascending positions, int64 [n], to the clean images and the results of the
            attack, both float32 [n, C, H, W] in [0, 1].
    """

    index: Array
    labels: Array
    success: Array
    decided: Array
    shape: tuple[int, int, int]
    load: Callable[[Array], tuple[Array, Array]]


@dataclass(frozen=True)
class Measurement:
    """The measurements of the images of a cell.

    Attributes:
        model: in evaluation mode, at the tolerance of the cell.
        times: see `runs.grid`.
        parts: number of equal parts of [0, 1] for the causal test; a residual body has its blocks.
        norm: of the attack.
        epsilon: of the attack, in this norm.
        strengthen: gradient steps from what the attack ended with to full strength.
        seed: of the model, for random numbers.
        tight: tolerance of the reference curves.
        probes: of h(t) at the same times, or None.
        batch_size: images at a time at most; bounds the memory, does not change the result.
        flow: through the body, for the causal test.
        lacks: what could not be measured and why, in sentences, as far as it is known.
    """

    model: Network
    times: tuple[float, ...]
    parts: int
    norm: Norm
    epsilon: float
    strengthen: int
    seed: int
    tight: float
    probes: Probes | None = None
    batch_size: int = LARGEST_BATCH
    flow: Flow = field(init=False)
    lacks: list[str] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        object.__setattr__(self, "flow", flow_of(self.model, self.parts))

    @property
    def axis(self) -> str:
        """`time`, or `depth` for a residual body."""
        return "time" if self.model.ode is not None else "depth"

    @property
    def grid(self) -> Array:
        """The places where h is recorded, float64 [T]."""
        return np.array(ends(body_of(self.model), self.times))

    @property
    def ends(self) -> tuple[float, ...]:
        """The ends of the parts that are patched and have shares, K + 1 of them."""
        return self.flow.ends

    def sizes(
        self, images: int, kept: int, shape: Sequence[int], precision: str
    ) -> TrajectorySizes:
        """The sizes of the file.

        Args:
            images: number of images.
            kept: number of images whose states are kept.
            shape: of an image, [C, H, W].
            precision: dtype of the states, `float16` or `float32`.
        """
        return TrajectorySizes(
            images,
            kept,
            len(self.grid),
            self._state(shape),
            len(self.ends) - 1,
            self.model.ode is not None,
            precision,
        )

    @torch.no_grad()
    def _state(self, shape: Sequence[int]) -> tuple[int, int, int]:
        blank = torch.zeros(1, *shape, device=self.model.device)
        channels, height, width = self.model.embed(blank).shape[1:]
        return channels, height, width

    def record(
        self,
        images: FollowedImages,
        selection: Selection,
        writer: TrajectoryWriter,
        progress: Callable[[int], object] | None = None,
    ) -> None:
        """Measure images, as many at a time as fit in memory, and write the results.

        Args:
            images: N >= 0 images.
            selection: images that get the expensive measurements.
            writer: of a file with the sizes of these images.
            progress: called with the number of images of each finished batch.
        """
        if not len(images.index):
            return
        state = 4 * int(np.prod(self._state(images.shape)))
        at_once = _STATES_BYTES // (len(RUNS) * _COPIES * len(self.grid) * state)
        at_once = min(max(1, at_once), self.batch_size)
        with frozen(self.model):
            for rows in np.split(
                np.arange(len(images.index)), range(at_once, len(images.index), at_once)
            ):
                writer.append(*self._measure(images, selection, rows))
                if progress is not None:
                    progress(len(rows))

    def _measure(
        self, images: FollowedImages, selection: Selection, rows: Array
    ) -> tuple[dict[str, Array], dict[str, list[Array]]]:
        device = self.model.device
        # The perturbation of the image after the last one, too, is a control.
        following = (rows + 1) % len(images.index)
        loaded = np.union1d(rows, following)
        own, after = (torch.from_numpy(np.searchsorted(loaded, r)) for r in (rows, following))
        some_clean, some_attacked = (
            torch.from_numpy(side).to(device) for side in images.load(loaded)
        )
        clean, attacked = some_clean[own], some_attacked[own]
        streams = Streams.of(self.seed, images.index[rows].tolist(), "trajectory noise")
        batch = {
            CLEAN: clean,
            "attack": attacked,
            "noise": noise_like(self.norm, clean, attacked, streams),
        }
        runs = follow(self.model, batch, self.times)
        decided = torch.from_numpy(images.decided[rows]).to(device)
        kept = torch.from_numpy(np.flatnonzero(np.isin(rows, selection.kept)))
        found: dict[str, Tensor] = {
            **_named_distances(runs, "distance", DISTANCES),
            **self._decisions(runs, decided),
            **_solver_counts(runs.costs),
            **{f"states/{run}": runs.states[run][:, kept].transpose(0, 1) for run in RUNS[:2]},
        }
        with torch.no_grad():
            rates = growth.rates(body_of(self.model), runs)
        found |= {f"{pair}/growth/rate": rates[pair] for pair in PAIRS}
        streams = Streams.of(self.seed, images.index[rows].tolist(), "trajectory growth")
        found |= self._growth(batch, runs, selection.growth[rows], streams)
        stronger = strengthen(
            self.model,
            some_clean,
            some_attacked,
            torch.from_numpy(images.decided[loaded]).to(device),
            self.norm,
            self.epsilon,
            steps=self.strengthen,
            batch_size=self._images_per_gradient(runs),
        )
        strong = stronger.images[own]
        found |= {
            "strong/success": stronger.success[own],
            "strong/margin": stronger.margin[own],
            "strong/perturbation_linf": stronger.linf[own],
            "strong/perturbation_l2": stronger.l2[own],
        }
        streams = Streams.of(self.seed, images.index[rows].tolist(), "trajectory shares noise")
        swapped = clean + (stronger.images[after] - some_clean[after])
        shared = {
            "strong": strong,
            "noise": noise_like(self.norm, clean, strong, streams),
            "swapped": into_ball(clean, swapped, self.norm, self.epsilon),
        }
        if len(images.index) == 1:
            del shared["swapped"]
        found |= self._shares(clean, shared, decided)
        found |= self._causes(clean, strong, selection.causal[rows], kept)
        given = {
            "index": images.index[rows],
            "labels": images.labels[rows],
            "success": images.success[rows],
            "clean_predictions": images.decided[rows],
            "kept": rows[kept.numpy()],
        }
        nodes = {f"{run}/nodes/t": [t.numpy() for t in c.nodes] for run, c in runs.costs.items()}
        for pair, images_at_nodes in runs.at_nodes.items():
            for name in DISTANCES:
                values = [getattr(at, name).cpu().numpy() for at in images_at_nodes]
                nodes[f"{pair}/nodes/{name}"] = values
        return {**given, **{name: values.cpu().numpy() for name, values in found.items()}}, nodes

    @torch.no_grad()
    def _decisions(self, runs: Runs, decided: Tensor) -> dict[str, Tensor]:
        """Margins and flip times of the head and the probes."""
        n = len(decided)
        logits: dict[str, dict[str, Tensor]] = {"head": {}, "probe": {}}
        for run, states in runs.states.items():
            features = self.model.features(states.flatten(0, 1))
            read = self.model.head(states.flatten(0, 1)).unflatten(0, (-1, n))
            logits["head"][run] = read
            logits["probe"][run] = (
                torch.full_like(read, torch.nan)
                if self.probes is None
                else self.probes.logits(features.unflatten(0, (-1, n)))
            )
        found = {}
        for reader, by_run in logits.items():
            for run, own in by_run.items():
                found[f"{run}/margin/{reader}"] = margins(own, decided)
            for pair in PAIRS:
                flips = flip_times(by_run[pair], by_run[CLEAN], runs.times)
                found[f"{pair}/flip_time/{reader}"] = flips
        return found

    def _growth(
        self, batch: Mapping[str, Tensor], runs: Runs, chosen: Array, streams: Streams
    ) -> dict[str, Tensor]:
        """The expensive measurements of growth for the chosen images; NaN for the others."""
        n, t = len(chosen), len(runs.times)
        like = batch[CLEAN]
        found = {
            **{f"{pair}/growth/jacobian": like.new_full((n, t), torch.nan) for pair in PAIRS},
            **{f"{pair}/lyapunov_along": like.new_full((n,), torch.nan) for pair in PAIRS},
            "growth/log_norm_upper": like.new_full((n, t), torch.nan),
            "growth/log_norm_lower": like.new_full((n, t), torch.nan),
            "lyapunov_largest": like.new_full((n,), torch.nan),
        }
        if self.model.ode is not None:
            for pair in PAIRS:
                for name in DISTANCES[:2]:
                    found[f"{pair}/tight/{name}"] = like.new_full((n, t), torch.nan)
        positions = torch.from_numpy(np.flatnonzero(chosen))
        for rows in positions.split(self._images_per_gradient(runs)):
            if not len(rows):
                continue
            own = streams[rows].normal(runs.states[CLEAN].shape[2:], runs.states[CLEAN])
            for name, values in self._decomposed(runs.of(rows), own).items():
                found[name][rows] = values
            if self.model.ode is not None:
                some = {run: images[rows] for run, images in batch.items()}
                for name, values in self._tight(some).items():
                    found[name][rows] = values
        return found

    def _images_per_gradient(self, runs: Runs) -> int:
        cost = runs.costs.get(CLEAN)
        evaluations = len(runs.times) if cost is None else int(cost.nfe.max())
        state = runs.states[CLEAN][0, 0]
        maps = _GRADIENT_MAPS * evaluations + growth.LANCZOS_STEPS
        at_once = _STATES_BYTES // (maps * state.numel() * state.element_size())
        return min(max(1, at_once), self.batch_size)

    def _decomposed(self, runs: Runs, start: Tensor) -> dict[str, Tensor]:
        body, clean = body_of(self.model), runs.states[CLEAN]
        found: dict[str, Tensor] = {}
        if isinstance(body, ODEBody):
            obstacle = why_not(body.function, runs.times[:1].to(clean), clean[0])
            if obstacle:
                self.lacks.append(
                    "What the Jacobian of the dynamics says of growth is not measured: they cannot "
                    f"be differentiated twice ({obstacle})."
                )
                return {}
        with torch.no_grad():
            flow = growth.LinearisedFlow(body, clean[0], runs.costs.get(CLEAN))
            along = {p: flow.exponents_along(runs.states[p][0] - clean[0]) for p in PAIRS}
            largest = flow.largest_exponents(start)
            for pair, values in along.items():
                found[f"{pair}/lyapunov_along"] = values
                # Both approach the largest exponent from below.
                largest = torch.fmax(largest, values)
            found["lyapunov_largest"] = largest
            if isinstance(body, ODEBody):
                quotients = growth.jacobian_quotients(body, runs)
                lower, upper = growth.logarithmic_norms(body, runs, start)
                for pair, values in quotients.items():
                    found[f"{pair}/growth/jacobian"] = values
                    lower, upper = torch.fmin(lower, values), torch.fmax(upper, values)
                found |= {"growth/log_norm_lower": lower, "growth/log_norm_upper": upper}
        return found

    def _tight(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The distances, solved at the tight tolerance."""
        model = self.model.at(method="dopri5", steps=None, tolerance=self.tight)
        return _named_distances(follow(model, batch, self.times), "tight", DISTANCES[:2])

    def _shares(
        self, clean: Tensor, shared: Mapping[str, Tensor], decided: Tensor
    ) -> dict[str, Tensor]:
        """The shares in the loss of margin by each perturbation; NaN for those that are missing."""
        n, k = len(clean), len(self.ends) - 1
        still = solve_margins(self.model, clean, decided)
        found = {"shares/margin": still.margin}
        for name in SHARED:
            own = Shares.unknown(n, k)
            if name in shared:
                moved = solve_margins(self.model, shared[name], decided)
                own = shares(
                    self.model, still, moved, decided, self.ends, batch_size=self.batch_size
                )
            for value in ("start", "parts", "loss", "error"):
                found[f"shares/{name}/{value}"] = getattr(own, value)
        return found

    def _causes(
        self, clean: Tensor, strong: Tensor, chosen: Array, kept: Tensor
    ) -> dict[str, Tensor]:
        n, i = len(clean), len(intervals(self.ends))
        found = {
            "causal/repaired": torch.full((n, i), UNDETERMINED, dtype=torch.int8),
            "causal/inserted": torch.full((n, i), UNDETERMINED, dtype=torch.int8),
        }
        rows = torch.from_numpy(np.flatnonzero(chosen))
        if len(rows):
            causes = find_causes(self.model, self.flow, clean[rows], strong[rows])
            for name, values in vars(causes).items():
                found[f"causal/{name}"][rows] = values.cpu()
        shape = self._state(clean.shape[1:])
        channels, places = clean.new_empty(0, shape[0]), clean.new_empty(0, *shape[1:])
        if len(kept):
            whole = flow_of(self.model, 1)
            channels, places = restored_shares(self.model, whole, clean[kept], strong[kept])
            if shape[0] > MOST_CHANNELS:
                self.lacks.append(
                    f"Patches of single channels are not measured: the state has {shape[0]:,}, "
                    f"more than {MOST_CHANNELS:,}."
                )
        return {**found, "causal/channels": channels, "causal/places": places}


def _named_distances(runs: Runs, group: str, names: Sequence[str]) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for pair in PAIRS:
        own = distances(runs.states[CLEAN], runs.states[pair])
        found |= {f"{pair}/{group}/{name}": getattr(own, name) for name in names}
    return found


def _solver_counts(costs: Mapping[str, Cost]) -> dict[str, Tensor]:
    counts = ("nfe", "accepted", "rejected")
    return {f"{run}/{name}": getattr(cost, name) for run, cost in costs.items() for name in counts}
