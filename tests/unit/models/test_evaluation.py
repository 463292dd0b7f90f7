"""Clean evaluation: image by image, whatever the batches."""

import numpy as np
import pytest
import torch
from torchdiffeq import odeint

from node_robustness.errors import UserError
from node_robustness.files.hdf5 import open_hdf5, put, write_hdf5
from node_robustness.models import evaluation
from node_robustness.models.classifier import Classifier, Spec
from node_robustness.models.evaluation import check_that_answers_differ, evaluate
from node_robustness.models.own.network import OwnNetwork
from node_robustness.models.predictions import NO_CLASS
from node_robustness.ode.solve import Status

pytestmark = pytest.mark.numerical

CPU = torch.device("cpu")


def network(body="ode", dtype=torch.float64):
    torch.manual_seed(3)
    spec = Spec(1, 4, (0.4,), (0.3,), "convolution", body, filters=8, blocks=2)
    return Classifier(spec).eval().to(dtype)


def images(count, dtype=torch.float64):
    generator = torch.Generator().manual_seed(2)
    return torch.rand(count, 1, 8, 8, dtype=torch.float64, generator=generator).to(dtype)


@pytest.mark.parametrize("batch_size", [1, 2, 5, 100])
@pytest.mark.parametrize("tau", [1e-3, 0.1, 10.0])
def test_each_image_is_solved_on_its_own(tau, batch_size):
    model, x = network(), images(5)
    solved = model.at(tolerance=tau)
    found = evaluate(solved, x, batch_size=batch_size)
    reference = solved.at(backend="torchdiffeq")
    with torch.no_grad():
        for i in range(5):
            logits = reference(x[i : i + 1])
            torch.testing.assert_close(found.logits[i : i + 1], logits, rtol=0, atol=1e-9)
            assert found.nfe[i] == reference.nfe[0]
    assert torch.equal(found.predictions, found.logits.argmax(1))
    assert found.nfe.dtype == torch.int32
    assert found.status.tolist() == [Status.SUCCESS] * 5
    assert not found.logits.requires_grad


@pytest.mark.parametrize(("body", "tau"), [("ode", 1e-3), ("ode", 10.0), ("residual", None)])
def test_an_image_fares_alone_as_in_a_shuffled_batch(body, tau):
    """What no check of a run needs to measure: it is so for every network of the project's."""
    model, x = network(body, torch.float32), images(16, torch.float32)
    with torch.no_grad():
        model.head.linear.bias -= model(x).mean(0)
    solved = model.at(tolerance=tau)
    order = torch.randperm(16, generator=torch.Generator().manual_seed(1))
    together = evaluate(solved, x[order], batch_size=7)
    alone = evaluate(solved, x, batch_size=1)
    assert len(alone.predictions.unique()) > 1
    assert (alone.logits[order] - together.logits).abs().max() < 1e-4
    assert torch.equal(alone.predictions[order], together.predictions)
    if tau is not None:
        assert torch.equal(alone.nfe[order], together.nfe)
        assert torch.equal(alone.status[order], together.status)


def test_a_joint_solve_does_not():
    model, x = network(dtype=torch.float32), images(7, torch.float32)
    joint = model.at(tolerance=0.1, backend="torchdiffeq")
    together, alone = (evaluate(joint, x, batch_size=size) for size in (7, 1))
    assert (alone.logits - together.logits).abs().max() > 1e-3
    assert not torch.equal(alone.nfe, together.nfe)


def test_a_model_without_an_ode_has_no_cost_and_no_status():
    model, x = network("residual", torch.float32), images(5, torch.float32)
    found = evaluate(model, x, batch_size=2)
    assert found.nfe is None
    assert found.status is None
    assert found.logits.shape == (5, 4)
    assert found.logits.dtype == torch.float32
    with torch.no_grad():
        torch.testing.assert_close(found.logits, model(x))


def test_failed_solves_have_no_class_and_say_why():
    model, x = network(), images(8)
    solved = model.at(tolerance=1e-5)
    whole = evaluate(solved, x, batch_size=8)
    steps = (whole.nfe - 2) // 6
    most = int(steps.sort().values[3])
    failed = steps > most
    assert bool(failed.any())
    found = evaluate(solved.at(max_steps=most), x, batch_size=3)
    assert bool(found.logits[failed].isnan().all())
    assert found.predictions[failed].unique().tolist() == [NO_CLASS]
    assert found.status[failed].unique().tolist() == [Status.MAX_STEPS]
    assert found.status[~failed].unique().tolist() == [Status.SUCCESS]
    assert torch.equal(found.predictions[~failed], whole.predictions[~failed])


def test_progress_counts_the_images_of_each_batch():
    counts = []
    evaluate(network("residual"), images(5), batch_size=2, progress=counts.append)
    assert counts == [2, 2, 1]


@pytest.fixture
def data(tmp_path):
    path = tmp_path / "data.h5"
    pixels = np.arange(6 * 4, dtype=np.uint8).reshape(6, 1, 2, 2) * 11
    with write_hdf5(path, "data", {}) as file:
        for name, values in (
            ("test/images", pixels),
            ("test/labels", np.array([0, 1, 2, 0, 1, 2])),
            ("indices/test", np.array([4, 0, 5, 1, 3, 2])),
        ):
            put(file, name, values, units="1", description="an example")
    return path, pixels


def test_the_first_images_do_not_depend_on_their_number(data):
    path, pixels = data
    for count, index in ((None, [4, 0, 5, 1, 3, 2]), (3, [4, 0, 5]), (1, [4])):
        split, x, y = evaluation.test_images(path, count, CPU)
        assert split.index.tolist() == index
        assert x.dtype == torch.float32
        np.testing.assert_array_equal(x, pixels[index].astype(np.float32) / 255)
        assert y.tolist() == [row % 3 for row in index]


def test_more_images_than_there_are(data):
    with pytest.raises(UserError, match="7 images are asked for, 6 are available"):
        evaluation.test_images(data[0], 7, CPU)


def test_a_constant_network_does_not_pass_for_robust():
    model, pictures = network(dtype=torch.float32), torch.arange(3 * 64).reshape(3, 1, 8, 8)
    pictures = pictures.to(torch.uint8)
    check_that_answers_differ(model, pictures, "models.OON", "train it")
    # A last layer of zeros, and dead features.
    for spoilt in (model.head.linear.weight, model.head.norm.weight):
        before = spoilt.detach().clone()
        with torch.no_grad():
            spoilt.zero_()
        with pytest.raises(UserError) as raised:
            check_that_answers_differ(model, pictures, "models.OON", "train it")
        assert str(raised.value) == (
            "models.OON: the network gives 3 different images the same logits, so that no attack "
            "can change them: train it"
        )
        # Equal images have equal logits in any network.
        check_that_answers_differ(model, pictures[:1].repeat(4, 1, 1, 1), "models.OON", "train it")
        with torch.no_grad():
            spoilt.copy_(before)


class Twice(torch.nn.Module):
    """Two solves, the first one with the author's tolerances 1e-2 and 1e-4."""

    def forward(self, x):
        h = x.flatten(1)[:, :4]
        t = torch.tensor([0.0, 1.0], dtype=h.dtype)
        h = odeint(lambda t, h: torch.sin(9 * h), h, t, rtol=1e-2, atol=1e-4)[-1]
        return odeint(lambda t, h: -h, h, t, rtol=1e-2, atol=1e-2)[-1]


@pytest.mark.parametrize("batch_size", [2, 5])
def test_evaluations_of_each_solve_and_the_authors_tolerances_are_written(tmp_path, batch_size):
    model = OwnNetwork.of(Twice(), images(5))
    found = evaluate(model.at(tolerance=1e-3), images(5), batch_size=batch_size)
    assert torch.equal(found.nfe_by_solve.sum(1, dtype=torch.int32), found.nfe)
    index, path = np.arange(5), tmp_path / "clean.h5"
    evaluation.write_clean(path, {}, index, index % 4, found, seconds=1.0, device="cpu")
    with open_hdf5(path, "clean") as file:
        assert file["nfe_by_solve"][:].tolist() == found.nfe_by_solve.tolist()
        assert (file.attrs["own_rtol"], file.attrs["own_atol"]) == (1e-2, 1e-4)
    found = evaluate(network(), images(5), batch_size=batch_size)
    evaluation.write_clean(path, {}, index, index % 4, found, seconds=1.0, device="cpu")
    with open_hdf5(path, "clean") as file:
        assert "nfe_by_solve" not in file
        assert "own_rtol" not in file.attrs
