"""The benchmarks run from nothing; their numbers are not tested."""

import json
import sys
from pathlib import Path

import pytest
import torch

from node_robustness.config import loading
from node_robustness.grid import cells as grid_cells
from node_robustness.grid import stages
from node_robustness.models.classifier import Classifier, Spec

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"


@pytest.fixture
def speed(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import nets
    import speed

    monkeypatch.setattr(nets, "FOLDER", tmp_path)
    monkeypatch.setattr(nets, "TRAINING_IMAGES", 8)
    yield speed
    for name in ("nets", "speed", "contestants"):
        sys.modules.pop(name, None)


@pytest.mark.skipif(torch.cuda.is_available(), reason="here TF32 is measured")
def test_it_trains_measures_and_writes(speed, tmp_path, monkeypatch):
    options = ["--images", "4", "--repeats", "1", "--threads", "1", "--models", "MIX"]
    tables = ["training", "layout", "tf32", "forward"]
    output = tmp_path / "new" / "numbers.json"
    arguments = ["speed.py", *options, "--output", str(output), "--only", *tables]
    monkeypatch.setattr(sys, "argv", arguments)
    speed.main()
    report = json.loads(output.read_text())
    assert len(report["tables"]) == len(tables)
    (step,) = report["tables"]["Training step, seconds"]
    assert step["times_direct"] == pytest.approx(step["torchdiffeq_direct"] / step["ours"])
    assert all(row["convolutions_share"] > 0 for row in report["tables"]["Forward pass"])
    assert report["tables"]["TF32"] == "Skipped: TF32 exists only on CUDA devices."


def test_the_papers_procedure_and_ours_do_the_same_work(speed, monkeypatch):
    torch.manual_seed(7)
    model = Classifier(Spec(1, 4, (0.4,), (0.3,), "convolution", "ode", filters=8)).eval()
    images = torch.rand(6, 1, 8, 8)
    with torch.no_grad():
        model.head.linear.bias -= model(images).mean(0)
        labels = model(images).argmax(1)
    labels[2] = (labels[2] + 1) % 4
    found = speed.nets.Nets("toy", {"OON": model}, {"OON": 5 / 6}, images, labels)
    monkeypatch.setattr(speed, "TOLERANCES", [1e-3])
    monkeypatch.setattr(speed, "EPSILONS", [0.1])
    (row,) = speed.attack_table(found, 1, 6, 6)
    assert row["times_paper"] == pytest.approx(row["paper"] / row["ours"])
    assert row["times_paper_adjoint"] == pytest.approx(row["paper"] / row["ours_adjoint"])
    assert row["paper_images"] == 6
    assert row["successes_paper"] == row["successes_adjoint"] == 5


def test_the_work_of_a_gradient_is_the_papers(speed, monkeypatch):
    """The contestants have the same gradient, and each ratio is of the times that it names."""
    torch.manual_seed(7)
    model = Classifier(Spec(1, 4, (0.4,), (0.3,), "convolution", "ode", filters=8)).eval()
    images, labels = torch.rand(3, 1, 8, 8), torch.tensor([0, 1, 2])
    found, grad = [], torch.autograd.grad

    def noted(outputs, inputs, *others, **options):
        gradients = grad(outputs, inputs, *others, **options)
        if isinstance(inputs, torch.Tensor):
            found.extend(gradients)
        return gradients

    monkeypatch.setattr(torch.autograd, "grad", noted)
    from contestants import gradients, gradients_by_the_paper

    gradients(model, images, labels, gradient="adjoint", tolerance=1e-3)()
    gradients_by_the_paper(model, images, labels, 1e-3)()
    ours, *one_by_one = found
    torch.testing.assert_close(ours, torch.cat(one_by_one), rtol=1e-3, atol=1e-6)


def test_ratios_of_gradients_are_named_by_their_contestants(speed, monkeypatch):
    torch.manual_seed(7)
    model = Classifier(Spec(1, 4, (0.4,), (0.3,), "convolution", "ode", filters=8)).eval()
    images, labels = torch.rand(3, 1, 8, 8), torch.tensor([0, 1, 2])
    nets = speed.nets.Nets("random", {"OON": model}, {"OON": 0.5}, images, labels)
    monkeypatch.setattr(speed, "PAPER_TOLERANCES", [1.0])
    (row,) = speed.gradient_table(nets, 1, 2)
    assert row["same_work"] == pytest.approx(row["paper"] / row["full_norm"])
    assert row["same_goal"] == pytest.approx(row["paper"] / row["direct"])
    assert row["full_to_seminorm"] == pytest.approx(row["full_norm"] / row["seminorm"])


def test_own_models_are_compared_with_built_in_ones(speed, tmp_path, monkeypatch):
    import own_models

    sys.modules.pop("own_models")
    images = torch.rand(4, 1, 28, 28)
    compared = own_models.contestants("MIX", images)
    for tolerance in (1e-3, 1.0):
        expected = compared["built_in"].at(tolerance=tolerance)(images)
        for model in compared.values():
            view = model.at(tolerance=tolerance)
            torch.testing.assert_close(view(images), expected, rtol=1e-3, atol=1e-4)
    monkeypatch.setattr(own_models, "TOLERANCES", [1.0])
    (row,) = own_models.table("MIX", images, 1)
    assert row["vmap_to_built_in"] == pytest.approx(row["vmap"] / row["built_in"])


def test_its_convolutions_are_those_of_the_model(speed):
    from contestants import convolutions

    model = torch.nn.Conv2d(2, 3, 3, padding=1)
    image = torch.rand(5, 2, 8, 8)
    work, operations = convolutions(lambda: model(image))
    work()
    assert operations == 2 * 5 * 3 * 8 * 8 * 2 * 9


def test_what_others_return_counts_within_epsilon_and_as_an_image():
    import reference

    class Mean(torch.nn.Module):
        """Class 1 where the mean of the pixels is above 0.45."""

        def forward(self, x):
            mean = x.flatten(1).mean(1)
            return torch.stack([torch.full_like(mean, 0.45), mean], dim=1)

    images, labels = torch.full((4, 1, 2, 2), 0.4), torch.tensor([0, 0, 0, 1])

    def steps(*sizes):
        def attack(model, images, labels, norm, epsilon):
            assert (len(images), norm, epsilon) == (3, "linf", 0.1)
            for size in sizes:
                yield images + torch.tensor(size).view(3, 1, 1, 1)

        return reference.broken(Mean(), images, labels, "linf", 0.1, attack).tolist()

    # The last image is misclassified as it is.
    assert steps([0.06, 0.2, 0.01]) == [True, False, False, False]
    assert steps([0.06, 0.2, 0.01], [0.01, 0.1, 0.01]) == [True, True, False, False]
    assert steps([-0.5, 0.7, 0.04]) == [False] * 4


@pytest.mark.parametrize("everything", [False, True])
def test_grids_have_the_cells_that_they_are_named_by(monkeypatch, everything):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import scale

    sys.modules.pop("scale")
    for cells in (100, 1_000, 10_000):
        asked = loading.load(scale.grid(cells, everything=everything))
        assert sum(1 for _ in grid_cells.cells(asked, "grid")) == cells
        followed = sum(1 for _ in stages.followed(asked, "grid"))
        assert followed == (cells if everything else 0)


def test_a_process_is_measured_alone(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import scale

    sys.modules.pop("scale")
    log = tmp_path / "log"
    found = scale.measured([sys.executable, "-c", "print('a' * 10)"], log)
    assert log.read_text() == "a" * 10 + "\n"
    assert found["seconds"] > 0
    assert found["memory_mb"] > 1
    with pytest.raises(SystemExit, match="failed"):
        scale.measured([sys.executable, "-c", "1 / 0"], log)
