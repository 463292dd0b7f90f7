"""Certificates of own models: the method is asked in plain norms, what it returns is checked."""

import h5py
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from node_robustness.audits.certificate import certify, write_certificate
from node_robustness.errors import UserError

IMAGES = torch.rand(10, 1, 2, 2, generator=torch.Generator().manual_seed(0))
LABELS = torch.zeros(10, dtype=torch.int64)


class Bright(nn.Module):
    """Class 0 if the mean is above a half; its certificate is exact."""

    asked: list[tuple[int, str, float]]

    def forward(self, images: Tensor) -> Tensor:
        mean = images.flatten(1).mean(1)
        return torch.stack([mean, 1 - mean], 1)

    def certify(self, images: Tensor, labels: Tensor, norm: str, epsilon: float) -> Tensor:
        self.asked.append((len(images), norm, epsilon))
        assert labels.shape == images.shape[:1]
        assert not torch.is_grad_enabled()
        return images.flatten(1).mean(1) - epsilon > 0.5

    def fails(self, *_: object) -> Tensor:
        raise RuntimeError("no\nproof")

    def counts(self, images: Tensor, *_: object) -> Tensor:
        return torch.ones(len(images), dtype=torch.int64)

    def one(self, *_: object) -> Tensor:
        return torch.tensor([True])

    def says(self, *_: object) -> bool:
        return True


def asked(method: str = "certify", norm: str = "linf", epsilon: float = 0.1):
    model = Bright()
    model.asked = []
    seen: list[int] = []
    found = certify(
        model,
        method,
        IMAGES,
        LABELS,
        norm,
        epsilon,
        "models.B.certify",
        batch_size=4,
        progress=seen.append,
    )
    return found, model.asked, seen


def test_every_image_is_asked_for_once():
    found, batches, seen = asked()
    assert found.tolist() == (IMAGES.flatten(1).mean(1) > 0.6).tolist()
    assert 0 < found.sum() < len(found)
    assert batches == [(4, "linf", 0.1), (4, "linf", 0.1), (2, "linf", 0.1)]
    assert seen == [4, 4, 2]


@pytest.mark.parametrize(("norm", "plain"), [("l2", 0.1), ("l2_rms", 0.2)])
def test_the_method_knows_plain_norms(norm, plain):
    _, batches, _ = asked(norm=norm)
    assert {(norm, epsilon) for _, norm, epsilon in batches} == {("l2", plain)}


@pytest.mark.parametrize(
    ("method", "line"),
    [
        ("prove", "Bright has no method prove: correct the key, or remove it"),
        ("asked", "Bright has no method asked: correct the key, or remove it"),
        ("fails", "fails failed: RuntimeError: no proof"),
        ("counts", "counts returns torch.int64 [4]: it must return torch.bool [4], one truth "),
        ("one", "one returns torch.bool [1]: it must return torch.bool [4], one truth value an "),
        ("says", "says returns bool: it must return torch.bool [4], one truth value an image"),
    ],
)
def test_what_is_no_certificate_is_one_line(method, line):
    with pytest.raises(UserError) as error:
        asked(method)
    assert str(error.value).startswith(f"models.B.certify: {line}")
    assert "\n" not in str(error.value)


def test_the_file(tmp_path):
    path = tmp_path / "certified.h5"
    index = np.arange(10)
    found, _, _ = asked()
    write_certificate(path, {"norm": "linf"}, index, index % 3, found, seconds=1.0, device="cpu")
    with h5py.File(path) as file:
        assert file.attrs["kind"] == "certified"
        assert file["certified"][:].tolist() == found.tolist()
        assert file["certified"].dtype == bool
        assert file["index"][:].tolist() == index.tolist()
        assert file["labels"][:].tolist() == (index % 3).tolist()
