"""Vector-Jacobian products of a right-hand side, sample by sample, for the adjoint equation."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from node_robustness.ode.parts import Parts, Sum, combinations, rows
from node_robustness.ode.rows import (
    Function,
    Way,
    derivative_like,
    difference,
    largest_rounding,
    rowwise,
    vector_jacobian_products,
)
from node_robustness.ode.side_effects import outer_modules_of, stop_dropout, undone
from node_robustness.ode.small_batches import ROWS, filled_up

Evaluation = Callable[[Tensor, Parts, Parts], tuple[Parts, Parts]]
"""Times [n], the parts of the state and a cotangent for each, [n, ...], to the derivatives of the
parts and the products: one for each part [n, ...], for the time [n] and what `Products.total` sums
for the parameters."""


@dataclass(frozen=True)
class Products:
    """How products are computed.

    Attributes:
        evaluate: see `Evaluation`.
        sizes: numbers of elements of the parameters.
        total: from sums and what `evaluate` returned for the parameters, at several stages, to the
            sums of the products for each parameter, [n, number of elements].
    """

    evaluate: Evaluation
    sizes: tuple[int, ...] = ()
    total: Callable[[Sequence[Sum], Sequence[Parts]], list[Parts]] = combinations


def products_without_parameters(function: Callable[[Tensor, Parts], Parts]) -> Products:
    """Of a function of times [n] and a state in parts, by one backward pass for all samples."""

    def evaluate(t: Tensor, state: Parts, cotangents: Parts) -> tuple[Parts, Parts]:
        with torch.enable_grad():
            t, state = _leaves(t, state)
            values = function(t, state)
            products = vector_jacobian_products(values, (*state, t), cotangents)
        return _detached(values), products

    return Products(evaluate)


@dataclass
class Agreement:
    """Whether vectorised products were found to agree with a loop, as far as is known."""

    found: bool = False
    attempts: int = 3  # that are left; next to a kink products may jump


def row_products(
    function: Function,
    way: Way,
    parameters: Sequence[Tensor] = (),
    agreement: Agreement | None = None,
) -> Products:
    """Of a function of a scalar time and a state in parts.

    Products for parameters are vectorised over samples if that gives the same as a loop.

    Args:
        function: as a user writes it, but for a tuple of parts; see `ode.rows.Function`.
        way: the one that `ode.rows.choose` has found.
        parameters: those that need products.
        agreement: what earlier products of the same function have found; None for nothing.
    """
    loop = _loop(function, tuple(parameters))
    sizes = tuple(parameter.numel() for parameter in parameters)
    if way in (Way.GROUPED, Way.ONE_BY_ONE):
        return Products(loop, sizes)
    if not parameters:
        return products_without_parameters(rowwise(function, way))
    vectorised = _vectorised(function, parameters)
    if vectorised is None:
        return Products(loop, sizes)
    return Products(_Checked(function, vectorised, loop, agreement or Agreement()), sizes)


class _Checked:
    """A fast evaluation that is used once it has given the same as a slow one."""

    def __init__(
        self, function: Function, fast: Evaluation, slow: Evaluation, agreement: Agreement
    ) -> None:
        self._function, self._fast, self._slow = function, fast, slow
        self._agreement = agreement

    def __call__(self, t: Tensor, state: Parts, cotangents: Parts) -> tuple[Parts, Parts]:
        while not self._agreement.found and self._agreement.attempts:
            self._agreement.attempts -= 1
            self._agreement.found = self._agree(t, state, cotangents)
        return (self._fast if self._agreement.found else self._slow)(t, state, cotangents)

    def _agree(self, t: Tensor, state: Parts, cotangents: Parts) -> bool:
        first = self._agreement.attempts
        some = torch.arange(len(t), device=t.device)[first : first + ROWS]
        if not len(some):
            return False
        found = []
        for evaluate in (self._slow, self._fast):
            with undone(self._function):
                stop_dropout(self._function)
                try:
                    values, products = evaluate(t[some], rows(state, some), rows(cotangents, some))
                except Exception:  # a user's function may not be vectorisable
                    if evaluate is self._slow:
                        raise
                    return False
            by_rows, of_parameters = products[: len(state) + 1], products[len(state) + 1 :]
            # All parameters together: the products for one may be rounding alone, such as those of
            # a bias before a normalisation.
            found.append((*values, *by_rows, torch.cat(of_parameters, dim=1)))
        return difference(found[1], found[0]) <= largest_rounding(state[0].dtype)


def _loop(function: Function, parameters: Parts) -> Evaluation:
    def evaluate(t: Tensor, state: Parts, cotangents: Parts) -> tuple[Parts, Parts]:
        found = []
        for row in range(len(t)):
            index = slice(row, row + 1)
            with torch.enable_grad():
                time, parts = _leaves(t[row], tuple(part[index] for part in state))
                values = derivative_like(function(time, parts), parts)
                along = tuple(cotangent[index] for cotangent in cotangents)
                products = vector_jacobian_products(values, (*parts, time, *parameters), along)
            others = (product.reshape(1, -1) for product in products[len(parts) + 1 :])
            to_time = products[len(parts)][None]
            found.append((*_detached(values), *products[: len(parts)], to_time, *others))
        columns = tuple(torch.cat(column) for column in zip(*found, strict=True))
        return columns[: len(state)], columns[len(state) :]

    return evaluate


class _Holder(nn.Module):
    """A function with the modules that it calls, so that their parameters can be exchanged."""

    def __init__(self, function: Function) -> None:
        super().__init__()
        self.held = nn.ModuleList(outer_modules_of(function))
        self._function = (function,)  # a module in a tuple is not registered twice

    def forward(self, t: Tensor, state: Parts) -> Parts:
        return derivative_like(self._function[0](t, state), state)


def _vectorised(function: Function, parameters: Sequence[Tensor]) -> Evaluation | None:
    """None if parameters are not found in the modules of the function."""
    holder = _Holder(function)
    names = {id(parameter): name for name, parameter in holder.named_parameters()}
    if not all(id(parameter) in names for parameter in parameters):
        return None
    constants = {names[id(parameter)]: parameter.detach() for parameter in parameters}

    def of_row(t: Tensor, row: Parts, cotangents: Parts) -> tuple[Parts, Parts]:
        def call(constants: dict[str, Tensor], t: Tensor, row: Parts) -> Parts:
            batch = tuple(part[None] for part in row)
            values: Parts = torch.func.functional_call(holder, constants, (t, batch))
            return tuple(value[0] for value in values)

        values, pull, *_ = torch.func.vjp(call, constants, t, row)
        of_constants, of_time, of_parts = pull(cotangents)
        others = (product.reshape(-1) for product in of_constants.values())
        return values, (*of_parts, of_time, *others)

    vectorised = torch.func.vmap(of_row, randomness="different")

    def evaluate(t: Tensor, state: Parts, cotangents: Parts) -> tuple[Parts, Parts]:
        filled = filled_up(t), tuple(map(filled_up, state)), tuple(map(filled_up, cotangents))
        results: tuple[Parts, Parts] = vectorised(*filled)
        values, products = results
        return tuple(each[: len(t)] for each in values), tuple(each[: len(t)] for each in products)

    return evaluate


def _leaves(t: Tensor, state: Parts) -> tuple[Tensor, Parts]:
    return t.detach().requires_grad_(), tuple(part.detach().requires_grad_() for part in state)


def _detached(values: Parts) -> Parts:
    return tuple(value.detach() for value in values)
