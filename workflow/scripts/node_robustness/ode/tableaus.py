"""Explicit Runge-Kutta methods as tables of coefficients, with torchdiffeq's names."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Tableau:
    """An explicit Runge-Kutta method of s stages.

    Attributes:
        order: of the propagated solution.
        alpha: times of stages 2 to s, as fractions of the step.
        beta: weights of the earlier stages in stages 2 to s.
        solution: weights of the s stages in the new state.
        error: weights of the s stages in the error estimate; empty if there is none, so that the
            method can only take steps of a given size.
        middle: weights of the s stages in the state at the middle of the step, for dense output;
            empty if there is none. The dense output of dopri5 has order four; with torchdiffeq's
            weights for the other methods, used here, it has order two.
    """

    order: int
    alpha: tuple[float, ...]
    beta: tuple[tuple[float, ...], ...]
    solution: tuple[float, ...]
    error: tuple[float, ...] = ()
    middle: tuple[float, ...] = ()

    @property
    def last_stage_is_solution(self) -> bool:
        """Whether the last stage is evaluated at the new state itself ("first same as last")."""
        return bool(self.beta) and self.solution == (*self.beta[-1], 0.0)

    @property
    def last_stage_starts_next_step(self) -> bool:
        """Whether the last stage is also the first one of the next step.

        torchdiffeq does so with every method that has an error estimate, even if the last stage is
        near the new state and not at it.
        """
        return bool(self.error)


DOPRI5 = Tableau(
    # Dormand and Prince 1980 with Shampine's middle, as in torchdiffeq 0.2.5.
    order=5,
    alpha=(1 / 5, 3 / 10, 4 / 5, 8 / 9, 1.0, 1.0),
    beta=(
        (1 / 5,),
        (3 / 40, 9 / 40),
        (44 / 45, -56 / 15, 32 / 9),
        (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
        (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
        (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
    ),
    solution=(35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84, 0.0),
    error=(
        35 / 384 - 1951 / 21600,
        0.0,
        500 / 1113 - 22642 / 50085,
        125 / 192 - 451 / 720,
        -2187 / 6784 + 12231 / 42400,
        11 / 84 - 649 / 6300,
        -1 / 60,
    ),
    middle=(
        6025192743 / 30085553152 / 2,
        0.0,
        51252292925 / 65400821598 / 2,
        -2691868925 / 45128329728 / 2,
        187940372067 / 1594534317056 / 2,
        -1776094331 / 19743644256 / 2,
        11237099 / 235043384 / 2,
    ),
)

BOSH3 = Tableau(
    # Bogacki and Shampine 1989.
    order=3,
    alpha=(1 / 2, 3 / 4, 1.0),
    beta=((1 / 2,), (0.0, 3 / 4), (2 / 9, 1 / 3, 4 / 9)),
    solution=(2 / 9, 1 / 3, 4 / 9, 0.0),
    error=(2 / 9 - 7 / 24, 1 / 3 - 1 / 4, 4 / 9 - 1 / 3, -1 / 8),
    middle=(0.0, 1 / 2, 0.0, 0.0),
)

ADAPTIVE_HEUN = Tableau(
    # Heun's method with Euler's as the embedded one, 2(1).
    order=2,
    alpha=(1.0,),
    beta=((1.0,),),
    solution=(1 / 2, 1 / 2),
    error=(1 / 2, -1 / 2),
    middle=(1 / 2, 0.0),
)

FEHLBERG2 = Tableau(
    # Fehlberg 1969, 2(1).
    order=2,
    alpha=(1 / 2, 1.0),
    beta=((1 / 2,), (1 / 256, 255 / 256)),
    solution=(1 / 512, 255 / 256, 1 / 512),
    error=(-1 / 512, 0.0, 1 / 512),
    middle=(0.0, 1 / 2, 0.0),
)

EULER = Tableau(order=1, alpha=(), beta=(), solution=(1.0,))

MIDPOINT = Tableau(order=2, alpha=(1 / 2,), beta=((1 / 2,),), solution=(0.0, 1.0))

RK4 = Tableau(
    # Kutta 1901, the 3/8 rule, which torchdiffeq calls rk4.
    order=4,
    alpha=(1 / 3, 2 / 3, 1.0),
    beta=((1 / 3,), (-1 / 3, 1.0), (1.0, -1.0, 1.0)),
    solution=(1 / 8, 3 / 8, 3 / 8, 1 / 8),
)

TABLEAUS = {
    "dopri5": DOPRI5,
    "bosh3": BOSH3,
    "adaptive_heun": ADAPTIVE_HEUN,
    "fehlberg2": FEHLBERG2,
    "euler": EULER,
    "midpoint": MIDPOINT,
    "rk4": RK4,
}
