"""Attacks: the engine, the protocol of its methods, and the methods themselves."""

from node_robustness.attacks.engine import (
    NO_CLASS,
    AttackResult,
    BasicIterativeMethod,
    attack,
    classes,
    frozen,
)
from node_robustness.attacks.method import Found, Method
from node_robustness.attacks.streams import Streams

__all__ = [
    "NO_CLASS",
    "AttackResult",
    "BasicIterativeMethod",
    "Found",
    "Method",
    "Streams",
    "attack",
    "classes",
    "frozen",
]
