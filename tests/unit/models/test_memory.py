"""The batch size that a memory budget allows."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from node_robustness.config.compute import Compute
from node_robustness.models.classifier import Classifier, Spec
from node_robustness.models.memory import LARGEST_BATCH, bytes_per_image, images_at_a_time

SCRIPTS = Path(__file__).parents[3] / "workflow" / "scripts"


class Square(torch.nn.Module):
    """Logits whose gradient needs the image and nothing else."""

    def forward(self, x):
        return (x.flatten(1) ** 2)[:, :2]


@pytest.fixture
def model() -> Classifier:
    torch.manual_seed(0)
    return Classifier(Spec(1, 10, (0.0,), (1.0,), "convolution", "ode", 16)).eval()


@pytest.fixture
def images() -> torch.Tensor:
    torch.manual_seed(1)
    return torch.rand(8, 1, 8, 8)


def test_the_need_of_a_simple_model_is_a_few_images(images):
    one = images[0].numel() * images.element_size()
    need = bytes_per_image(Square(), images)
    assert 3 * one <= need <= 7 * one  # the image, its square, and their gradients


def test_logits_may_not_depend_on_the_images(images):
    """As those of a user's network, by the adjoint."""

    class Constant(torch.nn.Linear):
        def forward(self, x):
            return self.bias.expand(len(x), -1)

    assert bytes_per_image(Constant(1, 3), images) > 0


def test_a_job_that_measures_its_memory_does_not_import_the_compiler():
    """It takes a second of every job."""
    program = (
        "import sys, torch\n"
        "from node_robustness.models.memory import bytes_per_image\n"
        "bytes_per_image(torch.nn.Flatten(), torch.rand(4, 1, 8, 8))\n"
        "assert 'torch._dynamo' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=SCRIPTS)


def test_every_step_that_is_kept_needs_its_memory(model, images):
    needs = {}
    for steps in (5, 20):
        needs[steps] = bytes_per_image(model.at(method="rk4", steps=steps), images)
    assert 3.5 < needs[20] / needs[5] < 4.1
    assert (
        bytes_per_image(model.at(method="rk4", steps=20, checkpoint=True), images) < needs[20] / 4
    )


def test_it_counts_what_is_alive_and_not_what_was(model, images):
    alone = bytes_per_image(model, images)
    doubled = bytes_per_image(model, torch.cat([images, images]))
    assert doubled == pytest.approx(alone, rel=0.2)


def test_the_batch_grows_with_the_budget(model, images):
    sizes = [
        images_at_a_time(Compute(memory_mb=megabytes), model, images) for megabytes in (1, 16, 32)
    ]
    assert sizes[0] < sizes[1] / 8
    assert sizes[2] == pytest.approx(2 * sizes[1], abs=1)
    assert images_at_a_time(Compute(memory_mb=10**9), model, images) == LARGEST_BATCH


def test_the_configuration_may_name_the_number(model, images):
    assert images_at_a_time(Compute(batch_size=3, memory_mb=10**9), model, images) == 3


def test_there_is_always_room_for_one_image(model, images):
    solved = model.at(method="rk4", steps=100)
    assert bytes_per_image(solved, images) > 2**20
    assert images_at_a_time(Compute(memory_mb=1), solved, images) == 1
