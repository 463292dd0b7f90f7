"""A net of examples/models, solved by torchdiffeq itself, one image at a time."""

import importlib.util
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torchdiffeq
from torch import Tensor, nn

ROOT = Path(__file__).parents[1]
ZOO = ROOT / "examples/models"


class Alone:
    """A net that knows nothing of this project.

    Args:
        file: its name in examples/models.
        arguments: what it is built with, but for digits' one channel and ten classes.
        weights: its state dict.
    """

    def __init__(
        self, file: str, arguments: Mapping[str, Any], weights: Mapping[str, Tensor]
    ) -> None:
        self._evaluations: list[int] = []
        self._tolerance: float | None = None
        with self._counted():
            spec = importlib.util.spec_from_file_location(f"alone_{Path(file).stem}", ZOO / file)
            code = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(code)
        self._net: nn.Module = code.build(channels=1, classes=10, **arguments)
        self._net.load_state_dict(weights)
        self._net.eval()

    @torch.no_grad()
    def solve(self, images: Tensor, tolerance: float | None = None) -> tuple[Tensor, Tensor]:
        """Logits [n, K] and the evaluations of each solve [n, S].

        Args:
            images: [n, C, H, W].
            tolerance: what the larger of rtol and atol becomes; as they are by default.
        """
        self._tolerance = tolerance
        logits, evaluations = [], []
        with self._counted():
            for image in images.split(1):
                self._evaluations = []
                result = self._net(image)
                logits.append(result[0] if isinstance(result, tuple) else result)
                evaluations.append(torch.tensor(self._evaluations))
        return torch.cat(logits), torch.stack(evaluations)

    @contextmanager
    def _counted(self) -> Iterator[None]:
        names = ("odeint", "odeint_adjoint")
        originals = {name: getattr(torchdiffeq, name) for name in names}
        for name, function in originals.items():
            setattr(torchdiffeq, name, self._counting(function))
        try:
            yield
        finally:
            for name, function in originals.items():
                setattr(torchdiffeq, name, function)

    def _counting(self, solve: Callable[..., Any]) -> Callable[..., Any]:
        def counting(func: nn.Module, y0: Tensor, t: Tensor, **options: Any) -> Any:
            def count(*_: Any) -> None:
                self._evaluations[-1] += 1

            self._evaluations.append(0)
            if self._tolerance is not None:
                ratio = self._tolerance / max(options["rtol"], options["atol"])
                options |= {name: ratio * options[name] for name in ("rtol", "atol")}
            handle = func.register_forward_pre_hook(count)
            try:
                return solve(func, y0, t, **options)
            finally:
                handle.remove()

        return counting
