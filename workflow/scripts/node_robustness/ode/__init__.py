"""The solver: batches of initial value problems in which each sample has its own steps.

`odeint` and `odeint_adjoint` take the place of torchdiffeq's functions of these names.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from node_robustness.ode.drop_in import odeint as odeint
    from node_robustness.ode.drop_in import odeint_adjoint as odeint_adjoint


def __getattr__(name: str) -> Any:
    """The functions of `ode.drop_in`, once they are asked for."""
    if name not in ("odeint", "odeint_adjoint"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from node_robustness.ode import drop_in

    return getattr(drop_in, name)
