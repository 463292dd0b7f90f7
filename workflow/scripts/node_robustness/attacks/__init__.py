"""Attacks: the engine, the protocol of its methods, and the methods themselves."""

from node_robustness.attacks.bim import BasicIterativeMethod, FastGradientSign
from node_robustness.attacks.bisection import Bisection
from node_robustness.attacks.engine import NO_CLASS, AttackResult, attack, classes, frozen
from node_robustness.attacks.gradients import Solved, Surrogate, with_gradient
from node_robustness.attacks.make import make
from node_robustness.attacks.method import Found, Method
from node_robustness.attacks.noise import Noise
from node_robustness.attacks.pgd import ProjectedGradientDescent
from node_robustness.attacks.streams import Streams
from node_robustness.attacks.transfer import Transfer

__all__ = [
    "NO_CLASS",
    "AttackResult",
    "BasicIterativeMethod",
    "Bisection",
    "FastGradientSign",
    "Found",
    "Method",
    "Noise",
    "ProjectedGradientDescent",
    "Solved",
    "Streams",
    "Surrogate",
    "Transfer",
    "attack",
    "classes",
    "frozen",
    "make",
    "with_gradient",
]
