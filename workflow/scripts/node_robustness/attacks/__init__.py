"""Attacks: the engine, the protocol of its methods, and the methods themselves."""

from node_robustness.attacks.apgd import AutoPGD
from node_robustness.attacks.bim import BasicIterativeMethod, FastGradientSign
from node_robustness.attacks.bisection import Bisection
from node_robustness.attacks.carlini_wagner import CarliniWagner
from node_robustness.attacks.engine import AttackResult, attack
from node_robustness.attacks.expectation import AtTolerances, ExpectationOverTolerances
from node_robustness.attacks.fab import FAB
from node_robustness.attacks.gradients import (
    Solved,
    Surrogate,
    at_drawn_tolerances,
    with_gradient,
)
from node_robustness.attacks.make import make
from node_robustness.attacks.method import Found, Method
from node_robustness.attacks.noise import Noise
from node_robustness.attacks.pgd import ProjectedGradientDescent
from node_robustness.attacks.square import Square
from node_robustness.attacks.streams import Streams
from node_robustness.attacks.transfer import Transfer

__all__ = [
    "FAB",
    "AtTolerances",
    "AttackResult",
    "AutoPGD",
    "BasicIterativeMethod",
    "Bisection",
    "CarliniWagner",
    "ExpectationOverTolerances",
    "FastGradientSign",
    "Found",
    "Method",
    "Noise",
    "ProjectedGradientDescent",
    "Solved",
    "Square",
    "Streams",
    "Surrogate",
    "Transfer",
    "at_drawn_tolerances",
    "attack",
    "make",
    "with_gradient",
]
