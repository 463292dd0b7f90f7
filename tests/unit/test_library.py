"""An audit without Snakemake."""

import re
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import torchdiffeq
from torch import nn

import node_robustness
from node_robustness.attacks.files import read_adversarials
from node_robustness.config.methods import BUILT_IN
from node_robustness.errors import UserError
from node_robustness.files.hdf5 import open_hdf5, read_settings
from node_robustness.library import audit
from victims import random_images, small_ode

SCRIPTS = Path(__file__).parents[2] / "workflow/scripts"
BIM = {"method": "bim", "iterations": 3, "step": 0.1}
ATTACKS = {"a_square": {"method": "square", "queries": 5}, "bim": BIM}
IMAGES = random_images(8)


def small_audit(images=IMAGES, **changes):
    model = small_ode()
    with torch.no_grad():
        labels = model(images).argmax(1)
    given = {"tolerances": [0.1], "attacks": {"bim": BIM}, "epsilons": [0.1, 0.3]}
    return audit(model, images, labels, **{"progress": False} | given | changes)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("audit")


@pytest.fixture(scope="module")
def table(folder):
    """The table of an audit whose files are in the folder."""
    return small_audit(folder=folder, name="OON", seed=3, attacks=ATTACKS)


def test_a_row_for_every_tolerance_norm_and_epsilon(table):
    assert table[["model", "tolerance", "norm", "epsilon", "n"]].values.tolist() == [
        ["OON", 0.1, "linf", 0.1, 8],
        ["OON", 0.1, "linf", 0.3, 8],
    ]
    assert (table.clean == 1).all()
    assert (np.diff(table.strongest) <= 0).all()


def test_results_do_not_depend_on_the_batch_or_on_arrays(table):
    labels = small_ode()(IMAGES).argmax(1)
    same = audit(
        small_ode(),
        IMAGES.double().numpy(),
        labels.numpy().astype(np.uint8),
        name="OON",
        seed=3,
        tolerances=[0.1],
        attacks=ATTACKS,
        epsilons={"linf": torch.tensor([0.1, 0.3], dtype=torch.float64)},
        batch_size=3,
        progress=False,
    )
    pd.testing.assert_frame_equal(same, table)


def test_what_is_drawn_depends_on_the_numbers_of_the_images(tmp_path):
    def noise(images, **changes):
        attacks = {"noise": {"method": "noise", "draws": 1}}
        small_audit(images, folder=tmp_path, attacks=attacks, epsilons=[0.01], **changes)
        (path,) = tmp_path.rglob("attack.h5")
        return read_adversarials(path).images - images.numpy()

    same = IMAGES[:1].expand(3, -1, -1, -1)
    first = noise(same)
    assert np.array_equal(noise(same[1:], index=range(1, 3)), first[1:])
    assert not np.array_equal(first[0], first[1])


PLACE = "results/audit/images/OON/seed-3/tau-0.1"


def test_files_are_kept_as_a_run_has_them(folder, table):
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*.h5")}
    attacked = {
        f"{PLACE}/{name}/linf/eps-{epsilon}/attack.h5" for name in ATTACKS for epsilon in (0.1, 0.3)
    }
    assert found == {f"{PLACE}/clean.h5", f"{PLACE}/audit.h5"} | attacked
    with open_hdf5(folder / PLACE / "audit.h5", "audit") as file:
        assert len(file["labels"]) == 8
    assert len(read_adversarials(folder / PLACE / "bim/linf/eps-0.3/attack.h5").images) == 8


def test_expensive_attacks_leave_out_what_cheaper_ones_broke(folder, table):
    with (
        open_hdf5(folder / PLACE / "bim/linf/eps-0.3/attack.h5", "attack") as bim,
        open_hdf5(folder / PLACE / "a_square/linf/eps-0.3/attack.h5", "attack") as file,
    ):
        assert read_settings(file)["skips"]["broken_by"] == {"bim": 0.3}
        assert bim["success"][:].any()
        assert file["skipped"][:].tolist() == bim["success"][:].tolist()


def test_a_model_is_left_as_it_was():
    model = small_ode().train().requires_grad_(True)
    before = [(m, m.training) for m in model.modules()]
    state = torch.get_rng_state()
    audit(
        model,
        IMAGES,
        torch.zeros(8, dtype=torch.long),
        tolerances=[1.0],
        attacks={"bim": BIM},
        progress=False,
    )
    assert [(m, m.training) for m in model.modules()] == before
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"images": IMAGES * 255}, r"images must lie in \[0, 1\] \(given: .* to 25.*scale them"),
        ({"images": IMAGES[0]}, r"float \[n, C, H, W\]"),
        ({"images": (IMAGES * 255).to(torch.uint8)}, r"given: uint8 \[8, 1, 8, 8\]"),
        ({"labels": torch.zeros(7, dtype=torch.long)}, "8 class numbers .*one for each image"),
        ({"labels": torch.zeros(8)}, "class numbers"),
        ({"labels": torch.full((8,), -1)}, "class numbers"),
        ({"norms": ["l2_rms"], "epsilons": None}, "epsilons: give those of norm l2_rms"),
        ({"epsilons": [-1]}, "epsilons"),
        ({"tolerances": [0]}, "tolerances"),
        ({"attacks": ["pgdd"]}, "'pgdd' is not defined"),
        ({"attacks": {"x": {"method": "bim", "itertions": 3}}}, "attacks.x.itertions: unknown key"),
        ({"name": "a/b"}, "a/b"),
        ({"index": range(7)}, "index has 7 numbers for 8 images"),
        ({"tolerances": []}, "tolerances: is empty"),
        ({"batch_size": 0}, "batch_size: 0 is not 1 or more"),
        ({"folder": __file__}, "folder: .*test_library.py cannot be made: File exists"),
    ],
)
def test_a_mistake_is_one_line(changes, words):
    images, labels = changes.pop("images", IMAGES), changes.pop("labels", torch.zeros(8).long())
    given = {"epsilons": [0.1], "attacks": "quick", "tolerances": [0.1], "progress": False}
    with pytest.raises(UserError, match=words) as caught:
        audit(small_ode(), images, labels, **given | changes)
    assert str(caught.value).startswith("audit: ")
    assert "\n" not in str(caught.value)
    assert "config" not in str(caught.value)


def test_models_that_cannot_be_audited():
    def refused(model, words, **changes):
        labels = changes.pop("labels", torch.zeros(8).long())
        with pytest.raises(UserError, match=f"^audit: .*{words}") as caught:
            audit(model, IMAGES, labels, **{"attacks": {"bim": BIM}, "progress": False} | changes)
        assert "\n" not in str(caught.value)

    torch.manual_seed(0)
    linear = nn.Sequential(nn.Flatten(), nn.Linear(64, 4))
    refused(lambda x: x, r"must be a torch.nn.Module \(given: function\)")
    refused(linear, "takes no steps that a tolerance bounds", tolerances=[0.1])
    refused(linear, "labels go up to 4, and the model gives 4 logits", labels=torch.full((8,), 4))
    refused(nn.Sequential(linear, Drops()), "because dropout is left on")


class Drops(nn.Module):
    def forward(self, x):
        return nn.functional.dropout(x)


@pytest.mark.filterwarnings("ignore:accuracy|measurable")
def test_findings_are_warnings():
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 4), nn.Softmax(1))
    with pytest.warns(UserWarning, match="no_probabilities: .* sums to 1") as caught:
        table = audit(
            model, IMAGES, torch.arange(8) % 4, attacks={"bim": BIM}, epsilons=0.1, progress=False
        )
    assert {warning.filename for warning in caught} == {__file__}
    assert table.tolerance.isna().all()
    found = {check["name"]: check for check in table.attrs["checks"]}
    assert not found["no_probabilities"]["passed"]
    assert found["logits"]["passed"]


@pytest.mark.filterwarnings("ignore:accuracy")
@pytest.mark.parametrize(("tolerances", "columns"), [((), 1), (0.5, 2), (None, 3)])
def test_own_settings_are_a_column(tolerances, columns):
    table = audit(
        OwnODE(),
        IMAGES[:2],
        torch.zeros(2).long(),
        tolerances=tolerances,
        norms="linf",
        attacks={"bim": BIM | {"iterations": 1}},
        progress=False,
    )
    known = {(): [], 0.5: [0.5], None: [pytest.approx(0.1), pytest.approx(1)]}[tolerances]
    assert table.tolerance.dropna().tolist() == known
    assert len(table) == columns


class OwnODE(nn.Module):
    """Class 0 for every image."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(64, 4)

    def forward(self, x):
        h = torchdiffeq.odeint(
            lambda t, h: -h, x.flatten(1), torch.tensor([0.0, 1.0]), rtol=1e-2, atol=1e-3
        )
        return self.layer(h[-1]) + torch.tensor([9.0, 0.0, 0.0, 0.0])


def test_the_package_imports_pytorch_only_for_an_audit():
    program = (
        f"import sys; sys.path.insert(0, {str(SCRIPTS)!r})\n"
        "import node_robustness\n"
        "from node_robustness import errors\n"
        "assert 'torch' not in sys.modules and 'numpy' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
    assert node_robustness.audit is audit
    with pytest.raises(AttributeError, match="no attribute 'audits_'"):
        node_robustness.audits_  # noqa: B018


LESS = {
    "1500:1560": "1500:1510",
    "epochs=8": "epochs=3",
    "epochs=4": "epochs=1",
    '"bim_adjoint", "bim_direct", "apgd_ce"': '"bim_direct"',  # quick, unlike the others
}


def test_the_page_about_the_library():
    """Its example runs, with less of everything, and finds what the page says."""
    page = short = (SCRIPTS.parents[1] / "docs/library.md").read_text()
    for long, less in LESS.items():
        assert long in page
        short = short.replace(long, less)
    assert {"bim_adjoint", "apgd_ce"} <= BUILT_IN.keys()
    found = {}
    with warnings.catch_warnings(action="error"):
        for block in re.findall(r"^```python\n(.*?)^```", short, re.M | re.S):
            exec(block, found)
    table = found["table"]
    assert table.epsilon.tolist() == [0.1, 0.2] * 2
    assert table.tolerance.isna().tolist() == [False, False, True, True]
    assert (table.clean > 0.9).all()
    assert all(check["passed"] for check in table.attrs["checks"])
    names = re.findall(r"^\| `(\w+)`: ", page, re.M)
    assert names == [check["name"] for check in table.attrs["checks"]]
    assert (found["alone"] - found["among_others"]).abs().max() < 1e-4
