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

PRIOR_WORK = {
    "H. Yan, J. Du, V. Y. F. Tan, J. Feng: On robustness of neural ordinary differential "
    "equations. ICLR, 2020.": "Claims that neural ODEs are more robust than convolutional "
    "networks.",
    "F. Carrara, R. Caldelli, F. Falchi, G. Amato: Defending neural ODE image classifiers from "
    "adversarial attacks with tolerance randomization. ICPR workshops, 2021.": "Proposes a random "
    "tolerance at test time to detect adversarial examples.",
    "F. Carrara, R. Caldelli, F. Falchi, G. Amato: Improving the adversarial robustness of neural "
    "ODE image classifiers by tuning the tolerance parameter. Information 13(12), 2022.": "Claims "
    "that a tolerance other than that of training protects.",
    "Y. Huang, Y. Yu, H. Zhang, Y. Ma, Y. Yao: Adversarial robustness of stabilized neural ODE "
    "might be from obfuscated gradients. MSML 2021, PMLR 145.": "Finds that adaptive solvers mask "
    "gradients from PGD, but not from attacks by Carlini and Wagner and without gradients.",
    "F. Croce, M. Hein: Reliable evaluation of adversarial robustness with an ensemble of diverse "
    "parameter-free attacks. ICML, 2020.": "The attacks that a strong suite needs.",
    "M. Pintor, L. Demetrio, A. Sotgiu, A. Demontis, N. Carlini, B. Biggio, F. Roli: Indicators of "
    "attack failure: debugging and improving optimization of adversarial examples. NeurIPS, "
    "2022.": "How an attack that fails is recognised.",
}
"""What others found on the same questions, by citation; docs/verdict.md says more."""

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
