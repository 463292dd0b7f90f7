"""What is found in models from elsewhere before they are attacked."""

import functools

import pytest
import torch
import torch.nn.functional as F
import torchdiffeq
from torch import nn

from node_robustness.errors import UserError
from node_robustness.models.evaluation import Evaluation
from node_robustness.models.own import checks
from node_robustness.models.own.checks import Expected, ModelCheck, check_model, refuse
from node_robustness.models.own.network import OwnNetwork
from node_robustness.ode.small_batches import ROWS
from node_robustness.ode.solve import Status
from victims import digits, digits_data

MEAN, STD = 0.3, 0.38
IMAGES, LABELS = (values[1500:1628] for values in digits_data())
EXPECTED = Expected(classes=10, mean=[MEAN], std=[STD], ode="none")


class Dynamics(nn.Module):
    def __init__(self, channels=6):
        super().__init__()
        self.conv = nn.Conv2d(channels + 1, channels, 3, padding=1)

    def forward(self, t, h):
        return torch.tanh(self.conv(torch.cat([h, torch.ones_like(h[:, :1]) * t], 1)))


class ODENet(nn.Module):
    """Untrained; the solve is called as torchdiffeq's users call it."""

    def __init__(self, seed=0, **options):
        super().__init__()
        torch.manual_seed(seed)
        self.embed = nn.Conv2d(1, 6, 3, stride=2, padding=1)
        self.f = Dynamics()
        self.linear = nn.Linear(6, 10)
        self.options = {"rtol": 1e-3, "atol": 1e-3, "method": "dopri5"} | options

    def forward(self, x):
        t = torch.tensor([0.0, 1.0])
        h = torchdiffeq.odeint(self.f, self.embed(x), t, **self.options)[-1]
        return self.linear(h.mean((2, 3)))


class Then(nn.Module):
    """A trained network without an ODE, and what is done to its images and logits."""

    def __init__(self, after=lambda logits: logits, before=lambda x: x):
        super().__init__()
        self.net = digits()[0]
        self.before, self.after = before, after

    def forward(self, x):
        return self.after(self.net(self.before(x)))


class DigitsODENet(ODENet):
    """It knows the digits: its last layer is fitted to many features by least squares."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Conv2d(1, 48, 5, stride=2, padding=2)
        self.f = Dynamics(48)
        self.linear = nn.Linear(48 * 16, 10)
        x, y = (values[:1500] for values in digits_data())
        with torch.no_grad():
            inputs = torch.cat([self.features(x), torch.ones(1500, 1)], 1).double()
            squares = inputs.T @ inputs + torch.eye(inputs.shape[1])
            fitted = torch.linalg.solve(squares, inputs.T @ F.one_hot(y, 10).double())
            self.linear.weight.copy_(8 * fitted[:-1].T)
            self.linear.bias.copy_(8 * fitted[-1])

    def features(self, x):
        t = torch.tensor([0.0, 1.0])
        return torchdiffeq.odeint(self.f, self.embed(x), t, **self.options)[-1].flatten(1)

    def forward(self, x):
        return self.linear(self.features(x))


trained_ode = functools.cache(DigitsODENet)


def run(module, images=IMAGES, labels=LABELS, inspected=None, **expected):
    network = OwnNetwork.of(module, images[:16] if inspected is None else inspected)
    known = {"classes": 10, "mean": [MEAN], "std": [STD], "ode": network.spec.found.ode}
    found = list(check_model(network, images, labels, Expected(**known | expected)))
    names = [check.name for check in found]
    assert len(set(names)) == len(names)
    for check in found:
        assert not (check.passed and check.fatal)
        assert "\n" not in check.sentence
    return {check.name: check for check in found}


def not_passed(found):
    return {name for name, check in found.items() if not check.passed}


def fatal(found):
    return {name for name, check in found.items() if check.fatal}


# What must raise no alarm.


def test_nothing_is_found_in_a_trained_network_without_an_ode():
    found = run(Then())
    assert not_passed(found) == {"measurable"}
    assert "No call of torchdiffeq was found" in found["measurable"].sentence
    assert found["accuracy"].value > 0.85


def test_nothing_is_found_in_a_trained_ode_net():
    found = run(trained_ode())
    assert not_passed(found) == set()
    assert found["accuracy"].value > 0.8
    assert found["as_torchdiffeq"].value == 0


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("classes", [2, 10])
def test_an_untrained_net_only_guesses(seed, classes):
    found = run(ODENet(seed), labels=LABELS % classes)
    assert not_passed(found) <= {"accuracy"}


def test_dropout_and_batch_normalisation_are_silent_in_evaluation_mode():
    net = nn.Sequential(
        nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.Dropout2d(0.5), nn.Flatten(), nn.Linear(288, 10)
    )
    assert not_passed(run(net.train())) <= {"accuracy", "measurable"}


@pytest.mark.parametrize("scale", [1e-3, 1e3])
def test_the_scale_of_logits_does_not_matter(scale):
    assert not_passed(run(Then(lambda logits: scale * logits))) <= {"gradients", "measurable"}


def test_a_model_that_refuses_other_ranges():
    def refuse_others(x):
        assert ((x >= 0) & (x <= 1)).all()
        return x * 0

    assert run(Then(before=refuse_others))["image_range"].passed


class Brightness(nn.Module):
    """Class 1 for images within [0, 1], and class 0 for all others."""

    def forward(self, x):
        outside = (x.flatten(1).amax(1) > 1.001) | (x.flatten(1).amin(1) < 0)
        return torch.stack([outside.float(), 0.5 + 0 * x[:, 0, 0, 0]], 1)


def test_another_range_in_which_a_model_only_guesses_better():
    labels = (torch.arange(len(IMAGES)) % 10 > 6).long()
    found = run(Brightness(), labels=labels, classes=2)
    assert found["accuracy"].value == pytest.approx(0.3, abs=0.02)
    assert found["image_range"].value == pytest.approx(0.4, abs=0.04)
    assert found["image_range"].passed


class DependsOnTheBatch(Then):
    """Another NFE or other logits in a batch than alone."""

    def __init__(self, nfe=0, single=0.0, double=0.0):
        super().__init__()
        self.changes = {torch.float32: single, torch.float64: double}
        self.per_image, self.status, self.nfe_by_solve, self.own_tolerances = nfe, None, None, None

    def forward(self, x):
        self.nfe = torch.full((len(x),), 10 + self.per_image * len(x))
        self.status = 0 * self.nfe
        return self.net(x) + self.changes[x.dtype] * len(x) * torch.arange(10)


@pytest.mark.parametrize(
    ("changes", "passes"),
    [
        ({}, True),
        ({"nfe": 1}, False),
        ({"single": 1e-2, "double": 1e-2}, False),
        ({"single": 1e-2}, True),  # rounding, if double precision does not show it
    ],
)
def test_dependence_on_the_batch(changes, passes):
    network = DependsOnTheBatch(**changes)
    check = checks.batch_independent(network, IMAGES[:16])
    assert (check.passed, check.fatal) == (passes, not passes), check
    if not passes:
        assert check.value == 1


# What must.


def test_other_numbers_of_classes():
    found = run(Then(), classes=7)
    assert [*found] == ["logits"]
    assert found["logits"].fatal
    assert found["logits"].value == 10
    assert "gives 10 logits, and the data have 7 classes" in found["logits"].sentence


def test_a_model_that_takes_other_images():
    network = OwnNetwork.of(Then(), IMAGES)
    images = IMAGES.repeat(1, 3, 1, 1)
    (found,) = check_model(network, images, LABELS, EXPECTED)
    assert found.fatal
    assert "fails on images [16, 3, 8, 8]: RuntimeError" in found.sentence


@pytest.mark.parametrize(
    ("before", "words"),
    [
        (lambda x: x * STD + MEAN, "with mean 0.3000 and deviation 0.3800 it is 8"),
        (lambda x: (x + 1) / 2, "in [-1, 1] it is 8"),
        (lambda x: x / 255, "in [0, 255] it is 8"),
    ],
)
def test_images_of_another_range(before, words):
    """It sees nothing of what lies far outside of the range that it knows."""
    found = run(Then(before=lambda x: before(x).clamp(0, 1)))
    check = found["image_range"]
    here = found["accuracy"].value
    assert f"accuracy on images in [0, 1] is {100 * here:.1f} %; {words}" in check.sentence, check
    assert "into the module" in check.sentence
    assert check.fatal == (check.value >= checks.MUCH_BETTER)


def test_not_finite_logits():
    found = run(Then(lambda logits: logits / (logits.argmax(1, keepdim=True) - 3)))
    assert found["finite"].fatal
    assert found["finite"].value == pytest.approx(0.1, abs=0.05)
    assert "and no solve failed" in found["finite"].sentence


def test_solves_that_fail():
    network = OwnNetwork.of(trained_ode(), IMAGES[:16]).at(max_steps=1)
    expected = Expected(10, [MEAN], [STD], "adaptive")
    found = {c.name: c for c in check_model(network, IMAGES[:32], LABELS[:32], expected)}
    assert (found["solves"].fatal, found["solves"].value) == (True, 1)
    assert "fails for 32 of 32 images (max_steps): raise `max_steps`" in found["solves"].sentence
    assert found["finite"].passed


def test_a_few_solves_that_fail():
    status = torch.tensor([Status.SUCCESS] * 3 + [Status.UNDERFLOW])
    check = checks.solves(Evaluation(torch.zeros(4, 2), torch.zeros(4), status, status))
    assert (check.passed, check.fatal, check.value) == (False, False, 0.25)


@pytest.mark.parametrize(
    ("after", "words"),
    [
        (lambda y: F.dropout(y), "because dropout is left on"),
        (lambda y: y + torch.randn_like(y), "because the model draws random numbers (randn_like)"),
        (lambda y: y + torch.randn_like(y, generator=None), "draws random numbers"),
    ],
)
def test_random_logits(after, words):
    found = run(Then(after))
    assert found["deterministic"].fatal
    assert words in found["deterministic"].sentence
    assert found["deterministic"].value > 0.01


class Remembers(Then):
    """Adds what it last saw, or how often it was asked."""

    def __init__(self, counts):
        super().__init__()
        self.counts, self.last = counts, 0.0

    def forward(self, x):
        logits = self.net(x)
        kept, self.last = self.last, self.last + 1 if self.counts else logits.mean().item()
        return logits + kept * torch.arange(10)


def test_a_model_that_counts_its_calls():
    check = run(Remembers(counts=True))["deterministic"]
    assert check.fatal
    assert "keeps something between calls" in check.sentence


def test_a_model_that_remembers_other_images():
    check = run(Remembers(counts=False))["memoryless"]
    assert check.fatal
    assert "after a pass over other images the logits differ" in check.sentence


class KeepsTraining(nn.Module):
    """Normalises by the statistics of the batch, although it is in evaluation mode."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(1)
        self.net = digits()[0]

    def forward(self, x):
        self.norm.train()
        return self.net(self.norm(x))


def test_batch_statistics():
    found = run(KeepsTraining())
    assert found["batch_independent"].fatal
    assert "batch statistics (BatchNorm in training mode)" in found["batch_independent"].sentence
    assert "norm is in training mode after eval()" in found["evaluation_mode"].sentence
    assert not found["evaluation_mode"].fatal
    assert "norm.running_mean" in found["memoryless"].sentence
    assert not found["memoryless"].fatal


def test_normalisation_without_running_statistics():
    net = nn.Sequential(nn.BatchNorm2d(1, track_running_stats=False), Then())
    found = run(net)
    assert "0 normalises by the statistics of the batch" in found["evaluation_mode"].sentence
    assert found["batch_independent"].fatal


def test_probabilities():
    check = run(Then(lambda y: y.softmax(1)))["no_probabilities"]
    assert not check.passed
    assert not check.fatal
    assert run(Then(lambda y: y.log_softmax(1)))["no_probabilities"].passed


def test_no_gradient():
    check = run(Then(before=lambda x: (x * 16).round() / 16))["gradients"]
    assert (check.passed, check.fatal, check.value) == (False, False, 1)
    assert "zero or missing for 16 of 16 images" in check.sentence
    check = run(Then(lambda y: y.detach()))["gradients"]
    assert check.value == 1


def test_a_gradient_that_single_precision_loses():
    check = run(Then(lambda y: 1e3 * y))["gradients"]
    assert not check.passed
    assert "the gradient of the cross-entropy is zero" in check.sentence


def test_another_order_of_the_classes():
    check = run(Then(), labels=(LABELS + 1) % 10)["accuracy"]
    assert not check.passed
    assert not check.fatal
    assert "order of the classes" in check.sentence


@pytest.mark.parametrize(
    ("module", "configured", "words", "is_fatal"),
    [
        (lambda: ODENet(method="euler"), "adaptive", "fixed steps, so that", True),
        (lambda: Then(), "adaptive", "calls no solver of torchdiffeq, so that", True),
        (lambda: ODENet(), "fixed", "takes adaptive steps, and `ode: fixed` is set", False),
        (lambda: ODENet(), "none", "takes adaptive steps, and `ode: none` is set", False),
    ],
)
def test_another_kind_of_ode_than_is_configured(module, configured, words, is_fatal):
    check = run(module(), ode=configured)["ode"]
    assert not check.passed
    assert check.fatal == is_fatal
    assert words in check.sentence
    assert "set `ode: " in check.sentence


# The interception.


@pytest.mark.parametrize(
    "options", [{}, {"rtol": 0.0, "atol": 5e-3}, {"method": "euler", "options": {"step_size": 0.1}}]
)
def test_an_intercepted_model_is_as_torchdiffeq(options):
    check = run(ODENet(**options))["as_torchdiffeq"]
    assert (check.passed, check.value) == (True, 0)


@pytest.mark.parametrize("tolerance", [None, 0.1])
def test_a_wrong_interception_is_found(tolerance, monkeypatch):
    """As of one that takes the tolerances of somebody else."""
    forward = OwnNetwork.forward

    def wrong(self, images):
        changed = self._changes.get("tolerance") == tolerance
        batched = self._changes.get("backend") != "torchdiffeq"
        if changed and batched and len(self._changes) < 2:
            return forward(self.at(tolerance=0.5, gradient="direct"), images)
        return forward(self, images)

    net = ODENet()
    network = OwnNetwork.of(net, IMAGES[:16])
    monkeypatch.setattr(OwnNetwork, "forward", wrong)
    check = checks.as_torchdiffeq(network, IMAGES[:16])
    assert check.fatal, check
    where = "the author's settings" if tolerance is None else "tau 0.1"
    assert where in check.sentence


def test_an_interception_that_changes_more_than_the_solver_is_found(monkeypatch):
    forward = OwnNetwork.forward
    network = OwnNetwork.of(ODENet(), IMAGES[:16])
    monkeypatch.setattr(OwnNetwork, "forward", lambda self, images: 1.01 * forward(self, images))
    check = checks.as_torchdiffeq(network, IMAGES[:16])
    assert check.fatal
    assert "at the author's settings, 16 of 16" in check.sentence


# What follows from the outcomes.


def test_a_fatal_check_refuses_the_model_in_one_line():
    passed = ModelCheck("a", True, False, 0.0, "is well")
    warning = ModelCheck("b", False, False, 0.5, "is bad")
    first, second = (ModelCheck("c", False, True, 1.0, f"is {w}") for w in ("worse", "worst"))
    refuse([passed, warning], "models.theirs")
    with pytest.raises(UserError, match=r"^models.theirs: is worse$"):
        refuse([passed, warning, first], "models.theirs")
    with pytest.raises(UserError, match=r"^models.theirs: is worse \(the log has 1 more\)$"):
        refuse([first, warning, second], "models.theirs")
    assert str(warning) == "b: warning: is bad"


class Chaotic(nn.Module):
    """Rounding decides on its logits, and that in a batch is not that of one image."""

    def __init__(self, error=0.0):
        super().__init__()
        self.linear = nn.Linear(64, 10)
        self.error = error  # in a batch

    def forward(self, x):
        eps = torch.finfo(x.dtype).eps
        factor = 1 + 8 * eps * (len(x) > ROWS)
        noise = torch.sin(x.flatten(1).sum(1, keepdim=True) * factor / (8 * eps))
        size = 1 + self.error * (len(x) > ROWS)
        return size * self.linear(x.flatten(1)) * (1 + 0.01 * noise)


def test_differences_that_other_rounding_makes_are_no_fault():
    found = {
        error: checks.batch_independent(OwnNetwork.of(Chaotic(error), IMAGES), IMAGES)
        for error in (0.0, 1.0)
    }
    assert found[0.0].passed
    assert found[1.0].fatal
