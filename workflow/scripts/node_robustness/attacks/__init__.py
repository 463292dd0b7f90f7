"""Attacks: the engine, the protocol of its methods, and the methods themselves."""

from node_robustness.attacks.bisection import Bisection
from node_robustness.attacks.engine import NO_CLASS, AttackResult, attack, classes, frozen
from node_robustness.attacks.gradient import (
    BasicIterativeMethod,
    FastGradientSign,
    ProjectedGradientDescent,
)
from node_robustness.attacks.method import Found, Method
from node_robustness.attacks.noise import Noise
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
    "Streams",
    "Transfer",
    "attack",
    "classes",
    "frozen",
]
