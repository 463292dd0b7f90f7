"""Which gradient an attack follows."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from node_robustness.models.network import Network


class BackwardApproximation(nn.Module):
    """The logits of one model with the gradient of another.

    The gradient of a loss is taken at the logits of `values` and pulled back through `gradients`:
    the backward pass differentiable approximation (Athalye et al., Obfuscated gradients give a
    false sense of security, 2018, section 4.1).

    Args:
        values: the model that is attacked, images to logits.
        gradients: a model that resembles it and has useful gradients.

    Attributes:
        nfe: function evaluations of the last pass through `values`, int32 [n]; None without an
            ODE.
    """

    def __init__(self, values: nn.Module, gradients: nn.Module) -> None:
        super().__init__()
        self.values = values
        self.gradients = gradients
        self.nfe: Tensor | None = None

    def forward(self, images: Tensor) -> Tensor:
        """Logits [n, K] of images [n, C, H, W]."""
        with torch.no_grad():
            logits: Tensor = self.values(images)
        self.nfe = getattr(self.values, "nfe", None)
        if not torch.is_grad_enabled():
            return logits
        replace: Callable[..., Tensor] = _Replaced.apply
        return replace(self.gradients(images), logits)


class _Replaced(torch.autograd.Function):
    """Values in the place of others, through which gradients pass."""

    @staticmethod
    def forward(context: Any, original: Tensor, values: Tensor) -> Tensor:
        return values.clone()

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0], None


def with_gradient(
    model: Network, tolerance: float | None, settings: Mapping[str, Any]
) -> nn.Module:
    """The model at a tolerance, with the gradient that the settings of an attack name.

    Args:
        model: the classifier.
        tolerance: tau; None for the model's.
        settings: `gradient` (`direct`, `adjoint`, or `surrogate` with the solver settings
            `surrogate`); for `adjoint` also `adjoint_tolerance` and `adjoint_norm`.
    """
    if settings.get("gradient") == "surrogate":
        values = model.at(tolerance=tolerance, gradient="direct")
        gradients = model.at(gradient="direct", **settings["surrogate"])
        return BackwardApproximation(values, gradients)
    return model.at(tolerance=tolerance, **gradient_settings(settings))


def possible(model: Network, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of an attack, along the direct gradient where the model allows no other.

    A solver of a user's own has no adjoint and no other method; it may have a surrogate at another
    tolerance.

    Args:
        model: the classifier.
        settings: as for `with_gradient`, with others.
    """
    asked, by_steps = settings.get("gradient"), "steps" in settings.get("surrogate", {})
    if model.solver is not None or not (asked == "adjoint" or by_steps):
        return {**settings}
    of_gradient = ("adjoint_tolerance", "adjoint_norm", "surrogate")
    kept = {key: value for key, value in settings.items() if key not in of_gradient}
    return {**kept, "gradient": "direct"}


def gradient_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of `SolverSettings` for direct or adjoint gradients.

    Args:
        settings: as for `with_gradient`, but `surrogate`.
    """
    if settings.get("gradient") != "adjoint":
        return {"gradient": "direct"}
    return {key: settings[key] for key in ("gradient", "adjoint_tolerance", "adjoint_norm")}
