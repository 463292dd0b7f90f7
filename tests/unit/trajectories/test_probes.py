"""Probes of features whose classes are known, and of the features of a model."""

import numpy as np
import pytest
import torch
from scipy.special import log_softmax

from node_robustness.errors import UserError
from node_robustness.models.classifier import Classifier, Spec
from node_robustness.tables.trajectories import probe_table
from node_robustness.trajectories import probe_fitting, probes
from node_robustness.trajectories.runs import grid

pytestmark = pytest.mark.numerical


def clouds(n=400, classes=3, spread=1.0, seed=0):
    """Labels, and features [2, n, 4] that are noise at the first time and tell at the second."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, classes, n)
    centres = 2 * np.eye(4)[:classes]
    noise = generator.normal(size=(2, n, 4))
    features = np.stack([noise[0], centres[labels] + spread * noise[1]])
    return features.astype(np.float32), labels


def fitted(**settings):
    features, labels = clouds(**settings)
    head = np.zeros((2, len(labels), settings.get("classes", 3)), np.float32)
    return probe_fitting.fit(np.array([0.0, 1.0]), features, head, labels), features, labels


def test_a_probe_reads_what_is_there():
    found, _, _ = fitted()
    assert found.accuracy[0] < 0.55
    assert found.accuracy[1] > 0.75
    assert (found.ece < 0.2).all()
    assert found.weights.shape == (2, 3, 4)
    np.testing.assert_allclose(found.head_accuracy, found.head_accuracy[0])


def test_logits_are_calibrated():
    """Calibration reduces confidence that was fitted to too few images."""
    found, _, _ = fitted(n=60, spread=2.0)
    features, labels = clouds(n=4000, spread=2.0, seed=1)
    logits = found.logits(torch.from_numpy(features)).numpy()[1]

    def loss(scale):
        return -log_softmax(logits * scale, axis=1)[np.arange(len(labels)), labels].mean()

    assert loss(1.0) < loss(float(found.temperature[1]) * 3)


def test_the_temperature_is_in_the_weights_and_the_quality_is_theirs():
    found, features, labels = fitted(n=200, spread=2.0)
    logits = found.logits(torch.from_numpy(features)).numpy()
    for time in range(2):
        assert abs(found.temperature[time] - 1) > 0.01
        assert probe_fitting._temperature(logits[time, 120:160], labels[120:160]) == pytest.approx(
            1, rel=1e-3
        )
        quality = probe_fitting._accuracy_and_ece(logits[time, 160:], labels[160:])
        np.testing.assert_allclose(
            (found.accuracy[time], found.ece[time]), quality, rtol=1e-4, atol=1e-5
        )


@pytest.mark.parametrize("failed", [(0, 0), (1, 2)])
def test_images_that_failed_are_left_out(failed):
    features, labels = clouds()
    head = np.random.default_rng(1).normal(size=(2, len(labels), 3)).astype(np.float32)
    time, number = failed
    head[time, 7, number] = np.nan
    features[time, 7] = np.nan
    found = probe_fitting.fit(np.array([0.0, 1.0]), features, head, labels)
    others = np.arange(len(labels)) != 7
    expected = probe_fitting.fit(
        np.array([0.0, 1.0]), features[:, others], head[:, others], labels[others]
    )
    for name, values in vars(found).items():
        np.testing.assert_array_equal(values, getattr(expected, name), err_msg=name)


def test_the_temperature_maximises_the_likelihood():
    generator = np.random.default_rng(0)
    logits = generator.normal(size=(5000, 3))
    labels = np.array([generator.choice(3, p=np.exp(log_softmax(row))) for row in logits])
    assert probe_fitting._temperature(4 * logits, labels) == pytest.approx(4, rel=0.1)


def test_calibration_error_by_hand():
    logits = np.log(np.array([[0.85, 0.15], [0.85, 0.15], [0.65, 0.35], [0.35, 0.65]]))
    accuracy, ece = probe_fitting._accuracy_and_ece(logits, np.array([0, 1, 0, 0]))
    assert accuracy == 0.5
    # One of two right at 0.85; one of two right at 0.65.
    assert ece == pytest.approx((abs(1 - 1.7) + abs(1 - 1.3)) / 4)


def test_two_classes_and_one_that_nobody_has():
    features, labels = clouds(classes=2)
    head = np.zeros((2, len(labels), 3), np.float32)  # of three
    found = probe_fitting.fit(np.array([0.0, 1.0]), features, head, labels)
    logits = found.logits(torch.from_numpy(features))
    assert found.accuracy[1] > 0.85
    assert (logits[1].argmax(1) < 2).all()


@pytest.mark.parametrize(("n", "one"), [(10, False), (100, True)])
def test_too_few_images_or_classes(n, one):
    features, labels = clouds(n=n)
    labels = np.zeros_like(labels) if one else labels
    with pytest.raises(UserError, match=r"trajectories\.probe: .* validation images"):
        probe_fitting.fit(np.zeros(2), features, np.zeros((2, n, 3), np.float32), labels)


@pytest.mark.parametrize(
    ("failed", "labels", "line"),
    [
        (0, 19 * [0], "19 validation images are too few, 20 are needed: hold out more ("),
        (3, 19 * [0], "19 validation images are too few, 20 are needed: hold out more ("),
        (
            11,
            30 * [0],
            "the solver failed for 11 of 30 validation images, and 20 others are needed: leave "
            "this tolerance out, raise solver.max_steps of the model, or set it to false",
        ),
        (
            0,
            18 * [2] + 12 * [1],
            "the first 18 of 30 validation images have the same class: hold out more (",
        ),
    ],
)
def test_a_refusal_says_what_is_missing(failed, labels, line):
    """More images do not make a solver succeed."""
    features, _ = clouds(n=len(labels))
    head = np.zeros((2, len(labels), 3), np.float32)
    head[1, :failed] = np.nan
    with pytest.raises(UserError) as raised:
        probe_fitting.fit(np.zeros(2), features, head, np.array(labels))
    assert str(raised.value).startswith(f"trajectories.probe: {line}")


def test_a_file_of_no_probes(tmp_path):
    path = tmp_path / "probe.h5"
    probes.write(path, {"seed": 0}, probes.Probes.none(8, 3), seconds=1.0, device="cpu")
    found = probes.read(path)
    assert found.weights.shape == (0, 3, 8)
    assert len(found.times) == len(found.accuracy) == 0
    assert probe_table([path]).empty


@pytest.mark.parametrize("body", ["ode", "residual"])
def test_features_along_a_model(body):
    torch.manual_seed(0)
    spec = Spec(1, 4, (0.4,), (0.3,), "convolution", body, filters=8, blocks=3)
    model = Classifier(spec).eval()
    images = torch.rand(9, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    times, features, head = probes.features_along(model, images, grid(5), batch_size=4)
    assert features.shape == (len(times), 9, 8)
    with torch.no_grad():
        np.testing.assert_allclose(head[-1], model(images), rtol=1e-5, atol=1e-6)
        expected = model.head.features(model.embed(images))
    np.testing.assert_allclose(features[0], expected, rtol=1e-5, atol=1e-6)


def test_a_file_of_probes(tmp_path):
    found, _, _ = fitted()
    probes.write(tmp_path / "probe.h5", {"seed": 0}, found, seconds=1.0, device="cpu")
    again = probes.read(tmp_path / "probe.h5")
    for name, values in vars(found).items():
        np.testing.assert_array_equal(getattr(again, name), values)
