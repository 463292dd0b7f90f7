"""Which gradient an attack follows: a wrapper of the model."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from node_robustness.attacks.expectation import AtTolerances
from node_robustness.models.classifier import Classifier, solving


class Solved(nn.Module):
    """A classifier with solver settings of its own; others may solve it otherwise in between.

    Args:
        model: the classifier.
        **changes: fields of `ode_body.SolverSettings`; without effect on a model without an ODE.
    """

    def __init__(self, model: Classifier, **changes: Any) -> None:
        super().__init__()
        self.model = model
        self.changes = changes

    def forward(self, images: Tensor) -> Tensor:
        """Logits [n, K] of images [n, C, H, W]."""
        with solving(self.model, **self.changes):
            logits: Tensor = self.model(images)
        return logits

    @property
    def nfe(self) -> Tensor | None:
        """Function evaluations of the last forward pass for each image, or None without an ODE."""
        return self.model.nfe


class Surrogate(nn.Module):
    """The logits of one model with the gradient of another.

    The gradient of a loss is taken at the logits of `values` and pulled back through `gradients`,
    as in the backward pass differentiable approximation (Athalye et al., Obfuscated gradients give
    a false sense of security, 2018, section 4.1).

    Args:
        values: the model that is attacked.
        gradients: a model that resembles it and has useful gradients.

    Attributes:
        nfe: function evaluations of the last pass through `values`.
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
    model: Classifier, tolerance: float | None, settings: Mapping[str, Any]
) -> nn.Module:
    """The model solved at a tolerance, with the kind of gradient that an attack asks for.

    Args:
        model: the classifier.
        tolerance: tau; None for a model that takes no adaptive steps.
        settings: `gradient` (`direct`, `adjoint`, or `surrogate` with the solver settings
            `surrogate`); for `adjoint` also `adjoint_tolerance` and `adjoint_norm`.
    """
    if settings.get("gradient") == "surrogate":
        true = Solved(model, tolerance=tolerance, gradient="direct")
        return Surrogate(true, Solved(model, gradient="direct", **settings["surrogate"]))
    return Solved(model, tolerance=tolerance, **_kind(settings))


def at_drawn_tolerances(model: Classifier, settings: Mapping[str, Any]) -> AtTolerances:
    """The model solved at tolerances to be drawn, with the gradient that an attack asks for.

    Args:
        model: with an ODE whose steps the tolerance bounds.
        settings: as for `with_gradient`, but `surrogate`.
    """
    return AtTolerances(model, **_kind(settings))


def _kind(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The solver settings of direct or adjoint gradients."""
    if settings.get("gradient") != "adjoint":
        return {"gradient": "direct"}
    return {key: settings[key] for key in ("gradient", "adjoint_tolerance", "adjoint_norm")}
