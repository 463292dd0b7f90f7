"""Measure how robust neural-ODE image classifiers are, and whether that robustness is real."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from node_robustness.library import audit as audit

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """The function `audit`, once it is asked for: it imports PyTorch."""
    if name != "audit":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from node_robustness.library import audit

    return audit
