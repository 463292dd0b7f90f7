"""Predictions at several tolerances against evaluations at each."""

import pytest
import torch

from node_robustness.audits.tolerance_matrix import reevaluate
from node_robustness.models.classifier import Classifier, Spec
from node_robustness.models.evaluation import evaluate

pytestmark = pytest.mark.numerical


def test_every_column_is_an_evaluation_at_its_tolerance():
    torch.manual_seed(3)
    model = Classifier(Spec(1, 4, (0.4,), (0.3,), "convolution", "ode", 8)).eval()
    x, taus, done = torch.rand(5, 1, 8, 8), [1e-5, 0.1, 10.0], []
    found = reevaluate(model, x, taus, batch_size=2, progress=done.append)
    assert sum(done) == 5 * 3
    assert found.logits.shape == (5, 3, 4)
    for column, tau in enumerate(taus):
        expected = evaluate(model.at(tolerance=tau), x, batch_size=2)
        assert torch.equal(found.predictions[:, column], expected.predictions)
        assert torch.equal(found.logits[:, column], expected.logits)
        assert torch.equal(found.nfe[:, column], expected.nfe)
    assert (found.nfe[:, 0] > found.nfe[:, 2]).all()
