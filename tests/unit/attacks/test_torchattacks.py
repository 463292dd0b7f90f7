"""The attacks of torchattacks as attacks of the workflow."""

import inspect

import pytest
import torch
import torchattacks
from torch import nn

from node_robustness.attacks.bim import BasicIterativeMethod
from node_robustness.attacks.engine import attack
from node_robustness.attacks.fgsm import FastGradientSign
from node_robustness.attacks.torchattacks import LibrarySearch
from node_robustness.config.torchattacks_classes import CLASSES, GIVEN, OTHERS
from node_robustness.errors import UserError
from node_robustness.perturbations.norms import Norm
from node_robustness.perturbations.streams import Streams
from victims import Watched

EPSILON = {"linf": 0.05, "l2": 0.5, "l2_rms": 0.05}
CELLS = [(name, norm) for name, known in CLASSES.items() for norm in known.norms]
# What takes long, made short.
SHORT = {"n_queries": 8, "max_iterations": 10, "binary_search_steps": 2, "nb_sample": 8}


@pytest.fixture
def model():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.Tanh(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(54, 5)
    ).eval()


@pytest.fixture
def images():
    return torch.rand(6, 3, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def labels(model, images):
    """The model's predictions, one of them wrong."""
    truth = model(images).argmax(1)
    truth[2] = (truth[2] + 1) % 5
    return truth


def method(name, norm, **parameters):
    given = {key: value for key, value in SHORT.items() if key in CLASSES[name].parameters}
    if name == "AutoAttack":
        given["version"] = "rand"
    complete = CLASSES[name].complete(given | parameters)
    return LibrarySearch(Norm(norm), EPSILON[norm], name, complete)


def test_the_table_is_that_of_the_library():
    assert set(CLASSES) | set(OTHERS) == set(torchattacks.__all__)
    assert not set(CLASSES) & set(OTHERS)
    for name, known in CLASSES.items():
        arguments = inspect.signature(getattr(torchattacks, name)).parameters
        theirs = {key: item.default for key, item in arguments.items() if key not in GIVEN}
        assert known.complete({}) == theirs, name
        # Without an epsilon it looks for the smallest perturbation.
        assert known.minimal == (not {"eps", "max_epsilon"} & set(arguments)), name
        assert ("linf" in known.norms and "l2" in known.norms) == ("norm" in arguments), name


@pytest.mark.parametrize("name", sorted(set(CLASSES) - {"EADEN", "FAB"}))
def test_the_norms_of_the_table_are_those_of_the_library(name):
    """EADEN mixes L1 and L2, and its result is the nearest in both; FAB knows L1, too."""
    text = inspect.getdoc(getattr(torchattacks, name))
    stated = text.partition("Distance Measure :")[2].partition("\n")[0]
    short = {"linf": "Linf", "l2": "L2"}
    assert {short[norm] for norm in CLASSES[name].norms if norm in short} == {
        part.strip(" .") for part in stated.split(",")
    }


@pytest.mark.parametrize(("name", "norm"), CELLS)
def test_neither_batches_nor_order_nor_shards_change_a_bit(model, images, labels, name, norm):
    how, rows = method(name, norm), [30, 2, 11, 7, 0, 9]
    whole = attack(model, images, labels, how, index=rows, seed=5)
    assert whole.attacked.tolist() == [True, True, False, True, True, True]
    assert torch.equal(whole.adversarials[2], images[2])
    assert whole.iterations[2] == 0
    assert bool((whole.iterations[whole.attacked] >= 1).all())
    # What torch draws elsewhere changes nothing here, and is not changed.
    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    order = torch.tensor([5, 3, 0])
    shard = attack(model, images[order], labels[order], how, index=[9, 7, 30], seed=5, batch_size=2)
    assert torch.equal(torch.rand(1), expected)
    for field in ("success", "iterations", "adversarial_predictions", "adversarials"):
        assert torch.equal(getattr(shard, field), getattr(whole, field)[order]), field


@pytest.mark.parametrize(("name", "norm"), CELLS)
def test_the_model_and_the_ball_decide_about_success(model, images, labels, name, norm):
    found = attack(model, images, labels, method(name, norm), seed=1)
    assert torch.equal(found.adversarial_predictions, model(found.adversarials).argmax(1))
    assert torch.equal(found.success, found.attacked & (found.adversarial_predictions != labels))
    sizes = Norm(norm).size(found.adversarials - images)
    assert bool((sizes <= EPSILON[norm] * (1 + 1e-6)).all())
    assert bool(((found.adversarials >= 0) & (found.adversarials <= 1)).all())


# Those that draw nothing by default.
STEADY = ["FGSM", "BIM", "CW", "DeepFool", "MIFGSM", "NIFGSM", "SINIFGSM", "PIFGSM"]
STEADY += ["PIFGSMPP", "RFGSM", "EADEN", "UPGD", "FAB"]


@pytest.mark.parametrize("name", [name for name in CLASSES if name not in STEADY])
def test_the_seed_and_the_row_decide_what_is_drawn(model, images, name):
    x, how = images[:1].expand(2, -1, -1, -1), method(name, CLASSES[name].norms[0])
    y = model(x).argmax(1)
    watched = Watched(model)

    def seen(seed, rows):
        watched.seen.clear()
        attack(watched, x, y, how, index=rows, seed=seed)
        return torch.cat([batch.flatten() for batch in watched.seen])

    first = seen(0, [0, 1])
    assert torch.equal(seen(0, [0, 1]), first)
    assert not torch.equal(seen(1, [0, 1]), first)
    assert not torch.equal(seen(0, [1, 2]), first)


def test_it_is_the_librarys_own_attack(model, images, labels):
    seed = int(Streams.of(3, [4]).integers(0, 2**31, ()))
    torch.manual_seed(seed)
    theirs = torchattacks.PGD(model, eps=0.05, alpha=0.01, steps=4)(images[:1], labels[:1])
    ours = LibrarySearch(Norm("linf"), 0.05, "PGD", {"alpha": 0.01, "steps": 4})
    found = attack(model, images[:1], labels[:1], ours, index=[4], seed=3)
    torch.testing.assert_close(found.adversarials, theirs)
    assert found.iterations.tolist() == [4]


@pytest.mark.parametrize("norm", ["l2", "l2_rms"])
def test_epsilon_and_steps_are_in_the_units_of_the_norm(model, images, labels, norm):
    epsilon = 0.5 if norm == "l2" else 0.5 / (3 * 8 * 8) ** 0.5
    ours = LibrarySearch(
        Norm(norm), epsilon, "PGDL2", {"steps": 4, "random_start": False}, relative_step=0.4
    )
    found = attack(model, images, labels, ours)
    theirs = torchattacks.PGDL2(model, eps=0.5, alpha=0.2, steps=4, random_start=False)
    expected = theirs(images[:1], labels[:1])
    torch.testing.assert_close(found.adversarials[:1], expected)


def test_where_we_have_the_same_attack_it_does_the_same(model, images, labels):
    theirs = attack(model, images, labels, LibrarySearch(Norm("linf"), 0.05, "FGSM"))
    ours = attack(model, images, labels, FastGradientSign(Norm("linf"), 0.05))
    torch.testing.assert_close(theirs.adversarials, ours.adversarials)
    assert torch.equal(theirs.success, ours.success)
    assert bool(ours.success.any())
    how = LibrarySearch(Norm("linf"), 0.02, "BIM", {"steps": 5}, relative_step=0.25)
    theirs = attack(model, images, labels, how)
    ours = attack(model, images, labels, BasicIterativeMethod(Norm("linf"), 0.02, 0.005, 5))
    # We return the first adversarial iterate, they the last iterate.
    assert not bool((theirs.success & ~ours.success).any())
    stands = ~ours.success
    torch.testing.assert_close(theirs.adversarials[stands], ours.adversarials[stands])


def test_a_class_that_fails_is_an_error_of_one_line(model):
    x = torch.rand(1, 1, 8, 8)
    linear = nn.Sequential(nn.Flatten(), nn.Linear(64, 5))
    with pytest.raises(UserError) as caught:
        attack(linear, x, linear(x).argmax(1), method("TIFGSM", "linf"))
    line = str(caught.value)
    assert line.startswith("torchattacks.TIFGSM fails on images of shape (1, 8, 8): RuntimeError:")
    assert line.endswith("remove this attack, or change its parameters")
    assert "\n" not in line
