"""Predictions at several tolerances against evaluations at each."""

import pytest
import torch

from node_robustness.audits.tolerance_matrix import reevaluate
from node_robustness.models.classifier import Classifier, Spec
from node_robustness.models.evaluation import evaluate
from node_robustness.models.own.network import OwnNetwork

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


class Coarse(torch.nn.Module):
    """A classifier with a solver of its own, whose evaluations nobody counts."""

    def __init__(self) -> None:
        super().__init__()
        self.tau = 0.1

    def set_tolerance(self, tau: float) -> None:
        self.tau = tau

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.flatten(1)[:, :4] * (1 + self.tau)


def test_a_solver_that_does_not_count_its_evaluations():
    x, taus = torch.rand(5, 1, 8, 8), [0.1, 10.0]
    found = reevaluate(OwnNetwork.of(Coarse(), x), x, taus, batch_size=2)
    assert found.nfe is None
    for column, tau in enumerate(taus):
        assert torch.equal(found.logits[:, column], x.flatten(1)[:, :4] * (1 + tau))
