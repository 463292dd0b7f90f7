"""What the paper reports, to be compared with what a run measures.

Source: F. Carrara, R. Caldelli, F. Falchi, G. Amato, "On the robustness to adversarial examples
of neural ODE image classifiers", IEEE International Workshop on Information Forensics and
Security (WIFS), 2019: test accuracy of the three models at each tolerance.
"""

CITATION = (
    "F. Carrara, R. Caldelli, F. Falchi, G. Amato: On the robustness to adversarial examples of "
    "neural ODE image classifiers. IEEE International Workshop on Information Forensics and "
    "Security (WIFS), 2019."
)

_TOLERANCES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)


def _by_tolerance(*accuracies: float) -> dict[float | None, float]:
    return dict(zip(_TOLERANCES, accuracies, strict=True))


CLAIMS = {
    "models": "neural ODEs are natively more robust than residual networks.",
    "tolerances": "a larger tolerance at test time lowers the success of attacks further, at "
    "little cost in accuracy.",
    "dynamics": "the part of the dynamics most responsible for a misclassification can be "
    "pinpointed.",
}
"""What the paper claims, in our words."""

NO_SUCCESS_RATES = (
    "The paper's success rates were not available as numbers when this was written. Its claims "
    "about them are at the top of this page."
)
"""Why only accuracies of the paper are compared with ours."""

EPOCHS = {"mnist": 25, "cifar10": 250}
"""Of training, by dataset."""

ACCURACY: dict[str, dict[str, dict[float | None, float]]] = {
    "mnist": {
        "RES": {None: 0.996},
        "MIX": _by_tolerance(0.995, 0.995, 0.995, 0.995, 0.995, 0.995),
        "OON": _by_tolerance(0.995, 0.995, 0.994, 0.992, 0.988, 0.985),
    },
    "cifar10": {
        "RES": {None: 0.927},
        "MIX": _by_tolerance(0.922, 0.922, 0.921, 0.921, 0.921, 0.922),
        "OON": _by_tolerance(0.909, 0.908, 0.907, 0.894, 0.887, 0.885),
    },
}
"""Test accuracy by dataset, model and tolerance; None for the model without an ODE."""
