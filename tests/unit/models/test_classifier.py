"""The paper's classifiers: sizes, saving, imported checkpoints, gradients."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from authors import KINDS, authors_net
from node_robustness.errors import UserError
from node_robustness.models.checkpoints import load, save
from node_robustness.models.classifier import (
    Classifier,
    Spec,
    backward_solves,
)
from node_robustness.models.state_dicts import import_weights
from node_robustness.ode.solve import Status

pytestmark = pytest.mark.numerical


def spec(kind: str, filters: int = 8, channels: int = 1) -> Spec:
    downsampling, body = KINDS[kind]
    return Spec(channels, 10, (0.0,) * channels, (1.0,) * channels, downsampling, body, filters)


def classifier(kind: str, seed: int = 0, **changes: int) -> Classifier:
    torch.manual_seed(seed)
    return Classifier(spec(kind, **changes)).eval()


@pytest.mark.parametrize(
    ("kind", "filters", "channels", "count"),
    [
        ("RES", 64, 1, 601_482),
        ("MIX", 64, 1, 232_970),
        ("OON", 64, 1, 77_258),
        ("RES", 256, 3, 7_921_290),
        ("MIX", 256, 3, 2_023_562),
        ("OON", 256, 3, 1_201_930),
    ],
)
def test_parameter_counts_of_the_paper(kind, filters, channels, count):
    model = Classifier(spec(kind, filters, channels))
    assert sum(parameter.numel() for parameter in model.parameters()) == count


@pytest.mark.parametrize(
    ("kind", "side", "state"), [("MIX", 28, 7), ("MIX", 32, 8), ("OON", 28, 14), ("OON", 32, 16)]
)
def test_size_of_the_state(kind, side, state):
    assert classifier(kind).embed(torch.rand(2, 1, side, side)).shape == (2, 8, state, state)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dropout", [True, False])
def test_imported_checkpoint_gives_the_same_logits(kind, dropout, tmp_path):
    torch.manual_seed(3)
    theirs = authors_net(kind, 8, 3, dropout).double()
    for parameter in theirs.parameters():
        nn.init.normal_(parameter, std=0.4)
    path = tmp_path / "ckpt.pth"
    torch.save(
        {
            "epoch": 1,
            "params": {"tol": 1e-3},
            "model": theirs.state_dict(),
            "optim": {},
            "metrics": {},
        },
        path,
    )
    ours = import_weights(Classifier(spec(kind, 8, 3)), path).double()
    ours.load_state_dict({k: v.double() for k, v in ours.state_dict().items()})
    images = torch.rand(5, 3, 12, 12, dtype=torch.float64)
    with torch.no_grad():
        for tau in (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0):
            expected = torch.cat([theirs.float().double()(image, tau) for image in images.split(1)])
            assert torch.allclose(ours.at(tolerance=tau)(images), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda c: c.pop("model"), "has no state dict under the key `model`"),
        (lambda c: c["model"].pop("classifier.module.0.weight"), "lacks head.norm.weight"),
        (lambda c: c["model"].update({"extra": torch.zeros(1)}), "has an unknown extra"),
        (
            lambda c: c["model"].update({"classifier.module.5.weight": torch.zeros(11, 8)}),
            r"head.linear.weight has shape \[11, 8\] where the model has \[10, 8\]",
        ),
    ],
)
def test_checkpoint_that_does_not_fit(damage, message, tmp_path):
    checkpoint = {"model": dict(authors_net("OON", 8, 1, True).state_dict())}
    damage(checkpoint)
    torch.save(checkpoint, tmp_path / "ckpt.pth")
    with pytest.raises(UserError, match=message) as caught:
        import_weights(Classifier(spec("OON")), tmp_path / "ckpt.pth")
    assert "\n" not in str(caught.value)


def test_checkpoint_that_cannot_be_read(tmp_path):
    path = tmp_path / "ckpt.pth"
    with pytest.raises(UserError, match=r"ckpt\.pth: no such file; correct `weights`"):
        import_weights(Classifier(spec("OON")), path)
    path.write_bytes(b"not a checkpoint")
    with pytest.raises(UserError, match=r"ckpt\.pth: cannot be read as a checkpoint") as caught:
        import_weights(Classifier(spec("OON")), path)
    assert "\n" not in str(caught.value)


class Hostile:
    """Runs code if a checkpoint is unpickled without care."""

    def __reduce__(self):
        return (print, ("executed",))


def test_checkpoint_runs_no_code(tmp_path, capsys):
    torch.save({"model": Hostile()}, tmp_path / "ckpt.pth")
    with pytest.raises(UserError, match="cannot be read as a checkpoint of weights"):
        import_weights(Classifier(spec("OON")), tmp_path / "ckpt.pth")
    assert "executed" not in capsys.readouterr().out


@pytest.mark.parametrize("kind", KINDS)
def test_saved_and_loaded(kind, tmp_path):
    model = classifier(kind)
    save(model, tmp_path / "model.safetensors", tmp_path / "model.json")
    again = load(tmp_path / "model.safetensors", tmp_path / "model.json")
    images = torch.rand(3, 1, 8, 8)
    assert again.spec == model.spec
    assert not again.training
    assert torch.equal(again(images), model(images))
    assert torch.equal(
        import_weights(Classifier(model.spec), tmp_path / "model.safetensors")(images),
        model(images),
    )


def test_damaged_model_files(tmp_path):
    weights, text = tmp_path / "model.safetensors", tmp_path / "model.json"
    save(classifier("OON"), weights, text)
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"model\.safetensors: cannot be read.*delete it"):
        load(weights, text)
    text.write_text('{"channels": 1}')
    with pytest.raises(UserError, match=r"model\.json: not a model spec.*delete it"):
        load(weights, text)


@pytest.mark.parametrize(
    ("spoil", "line"),
    [
        (lambda w, s: w.write_bytes(b""), "model.safetensors: cannot be read ("),
        (lambda w, s: (w.unlink(), w.mkdir()), "model.safetensors: cannot be read ("),
        (lambda w, s: w.unlink(), "model.safetensors: cannot be read ("),
        (lambda w, s: s.unlink(), "model.json: not a model spec ("),
        (lambda w, s: s.write_text(""), "model.json: not a model spec ("),
        (lambda w, s: s.write_bytes(b"\xff\xfe"), "model.json: not a model spec ("),
        (lambda w, s: s.write_text("[]"), "model.json: not a model spec ("),
        (
            lambda w, s: s.write_text(s.read_text().replace("convolution", "other")),
            "model.json: not a model spec (downsampling: ",
        ),
        (
            lambda w, s: s.write_text(s.read_text().replace('"filters": 8', '"filters": "many"')),
            "model.json: not a model spec (filters: ",
        ),
        (
            lambda w, s: s.write_text(s.read_text().replace('"filters": 8', '"filters": -8')),
            "model.json: not a model spec (",
        ),
        (
            lambda w, s: s.write_text(s.read_text().replace('"filters": 8', '"filters": 16')),
            "model.safetensors: body.function.conv1.bias has shape [8] where the model has [16]: ",
        ),
        (
            lambda w, s: save(classifier("RES"), w, s.with_name("other.json")),
            "model.safetensors: holds the weights of another architecture (lacks ",
        ),
        (
            lambda w, s: save_file({k: v / 0 for k, v in load_file(w).items()}, w),
            "model.safetensors: body.function.conv1.bias holds values that are not finite",
        ),
    ],
)
def test_damaged_model_files_are_made_again(spoil, line, tmp_path):
    """The remedy for a file of a run is to delete it and run again."""
    weights, text = tmp_path / "model.safetensors", tmp_path / "model.json"
    save(classifier("OON"), weights, text)
    spoil(weights, text)
    with pytest.raises(UserError) as caught:
        load(weights, text)
    assert str(caught.value).startswith(f"{tmp_path}/{line}")
    assert str(caught.value).endswith(": delete it and run again")
    assert "\n" not in str(caught.value)


def test_normalisation_is_inside(tmp_path):
    torch.manual_seed(0)
    inside = Classifier(
        Spec(3, 10, (0.5, 0.4, 0.3), (0.2, 0.1, 0.3), "convolution", "ode", 8)
    ).eval()
    plain = classifier("OON", channels=3)
    plain.load_state_dict(inside.state_dict())
    images = torch.rand(2, 3, 8, 8)
    mean, std = torch.tensor([0.5, 0.4, 0.3]), torch.tensor([0.2, 0.1, 0.3])
    by_hand = (images - mean.view(1, 3, 1, 1)) / std.view(1, 3, 1, 1)
    assert torch.allclose(inside(images), plain(by_hand), atol=1e-5)


@pytest.mark.parametrize("kind", ["MIX", "OON"])
@pytest.mark.parametrize("tau", [1e-3, 1e-1, 10.0])
def test_adjoint_gradient_is_torchdiffeqs_at_batch_one(kind, tau):
    """With the integrals of the parameters' gradients in the error norm, as the paper had them."""
    model = classifier(kind).double()
    images, labels = torch.rand(3, 1, 12, 12, dtype=torch.float64), torch.tensor([1, 2, 3])
    ours = gradient(model, images, labels, tolerance=tau, gradient="adjoint")
    theirs = torch.cat(
        [
            gradient(model, image, label, tolerance=tau, gradient="adjoint", backend="torchdiffeq")
            for image, label in zip(images.split(1), labels.split(1), strict=True)
        ]
    )
    assert torch.allclose(ours, theirs, rtol=1e-8, atol=1e-12)


def gradient(model: Classifier, images: Tensor, labels: Tensor, **solver: object) -> Tensor:
    images = images.clone().requires_grad_()
    loss = F.cross_entropy(model.at(**solver)(images), labels, reduction="sum")
    return torch.autograd.grad(loss, images)[0]


def test_adjoint_and_direct_gradients_agree_at_a_small_tolerance_only():
    model = classifier("OON").double()
    images, labels = torch.rand(4, 1, 12, 12, dtype=torch.float64), torch.tensor([1, 2, 3, 4])

    def cosine(tau: float) -> float:
        adjoint = gradient(model, images, labels, tolerance=tau, gradient="adjoint")
        direct = gradient(model, images, labels, tolerance=tau, gradient="direct")
        return F.cosine_similarity(adjoint.flatten(1), direct.flatten(1)).min().item()

    assert cosine(1e-6) > 0.999
    assert cosine(10.0) < 0.95


def test_adjoint_skips_images_that_want_no_gradient():
    model = classifier("OON").double()
    images = torch.rand(3, 1, 8, 8, dtype=torch.float64, requires_grad=True)
    solved = model.at(gradient="adjoint", tolerance=1e-2)
    losses = F.cross_entropy(solved(images), torch.tensor([1, 2, 3]), reduction="none")
    (found,) = torch.autograd.grad(losses[1], images)
    assert (found[[0, 2]] == 0).all()
    alone = gradient(
        model, images[1:2].detach(), torch.tensor([2]), gradient="adjoint", tolerance=1e-2
    )
    assert torch.allclose(found[1:2], alone, rtol=1e-9)


def test_torchdiffeq_backend_solves_the_batch_as_one():
    model = classifier("OON")
    images = torch.rand(6, 1, 8, 8)
    solved = model.at(tolerance=1e-1, backend="torchdiffeq")
    with torch.no_grad():
        joint = solved(images)
        assert solved.nfe is not None
        assert len(set(solved.nfe.tolist())) == 1
        alone = torch.cat([solved(image) for image in images.split(1)])
    assert not torch.allclose(joint, alone, atol=1e-5)
    with torch.no_grad():
        assert torch.allclose(model.at(tolerance=1e-1)(images), alone, atol=1e-4)


def test_a_backward_solve_that_gives_up_is_named():
    model = classifier("OON", channels=1)
    images = torch.rand(2, 1, 8, 8, requires_grad=True)
    changes = {"backend": "torchdiffeq", "gradient": "adjoint", "tolerance": 1.0, "max_steps": 6}
    with backward_solves():
        logits = model.at(**changes, adjoint_tolerance=1e-3)(images)
        with pytest.raises(UserError) as raised, backward_solves():
            torch.autograd.grad(logits.sum(), images)
    assert str(raised.value) == (
        "the backward solve of torchdiffeq failed for a batch (max_steps): raise solver.max_steps "
        "of the model or adjoint_tolerance of the attack, or set gradient of the attack to direct"
    )
    # Each of the remedies helps.
    for other in ({"max_steps": 1000}, {"adjoint_tolerance": 10.0}, {"gradient": "direct"}):
        solved = model.at(**{**changes, "adjoint_tolerance": 1e-3, **other})
        torch.autograd.grad(solved(images).sum(), images)
    with pytest.raises(AssertionError, match="a bug"), backward_solves():
        raise AssertionError("a bug")


class TestViews:
    images = torch.rand(6, 1, 8, 8, generator=torch.Generator().manual_seed(3))

    @pytest.mark.parametrize("order", [(0, 1, 0), (1, 0, 1)])
    def test_they_take_turns_and_leave_the_model_as_it_is(self, order):
        model = classifier("OON")
        before, expected, views = model.solver, model(self.images), []
        for tolerance in (1e-6, 10.0):
            fresh = classifier("OON").at(tolerance=tolerance)
            views.append((model.at(tolerance=tolerance), fresh(self.images), fresh.nfe))
        for turn in order:
            view, logits, nfe = views[turn]
            assert torch.equal(view(self.images), logits)
            assert torch.equal(view.nfe, nfe)
            assert view.status.tolist() == [Status.SUCCESS] * 6
        (tight, _, many), (loose, _, few) = views
        assert (many > few).all()
        assert (tight.solver.tolerance, loose.solver.tolerance) == (1e-6, 10.0)
        assert torch.equal(tight.nfe, many)
        assert torch.equal(loose.nfe, few)
        assert model.solver == before
        assert torch.equal(model(self.images), expected)

    def test_it_is_the_same_network(self):
        model = classifier("OON")
        view = model.at(tolerance=0.1)
        assert all(a is b for a, b in zip(view.parameters(), model.parameters(), strict=True))
        assert view.state_dict().keys() == model.state_dict().keys()
        model.double()
        assert view(self.images.double()).dtype == torch.float64
        seen = []
        with model.register_forward_hook(lambda net, *_: seen.append(net.solver.tolerance)):
            view(self.images.double())
            view.at(max_steps=900)(self.images.double())
        assert seen == [0.1, 0.1]

    def test_it_is_in_the_mode_of_the_model(self):
        model = classifier("OON")
        view = model.at(tolerance=1e-6, backend="torchdiffeq", batch_size=1)
        view(self.images)
        assert view.nfe.unique().numel() > 1
        model.train()
        view(self.images)
        assert view.nfe.unique().numel() == 1

    def test_a_tolerance_of_none_is_the_models(self):
        view = classifier("OON").at(tolerance=0.1)
        assert view.at(tolerance=None, gradient="adjoint").solver == replace(
            view.solver, gradient="adjoint"
        )

    def test_there_is_no_other_setting(self):
        with pytest.raises(TypeError, match="tau"):
            classifier("OON").at(tau=0.1)

    def test_without_an_ode_settings_have_no_effect(self):
        model = classifier("RES")
        view = model.at(tolerance=5.0, gradient="adjoint")
        assert torch.equal(view(self.images), model(self.images))
        assert (view.solver, view.nfe, view.status) == (None, None, None)

    def test_it_is_of_the_class_of_the_model(self):
        class Doubled(Classifier):
            def embed(self, images):
                return 2 * super().embed(images)

        model = Doubled(spec("OON")).eval()
        assert torch.equal(model.at(max_steps=900)(self.images), model(self.images))
