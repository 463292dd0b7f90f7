"""Choosing a device and the number of threads."""

import ctypes
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml

from node_robustness import errors
from node_robustness.errors import UserError
from node_robustness.jobs.devices import choose_device, keep_freed_memory, set_threads, set_up

DEFAULT = Path(__file__).parents[3] / "config" / "config.yaml"


def present(monkeypatch, *, cuda, mps):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)


@pytest.mark.parametrize(
    ("cuda", "mps", "expected"),
    [(True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")],
)
def test_auto_takes_the_fastest_device_there_is(monkeypatch, cuda, mps, expected):
    present(monkeypatch, cuda=cuda, mps=mps)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")
    assert choose_device("auto").type == expected
    assert torch.backends.cudnn.allow_tf32 == (expected != "cuda")


@pytest.mark.parametrize("name", ["cuda", "mps"])
def test_a_named_device_that_is_not_there_is_the_users_mistake(monkeypatch, name):
    present(monkeypatch, cuda=False, mps=False)
    with pytest.raises(UserError, match=rf"^compute\.device: {name} is not there .*auto or cpu$"):
        choose_device(name)


def test_cpu_is_always_there():
    assert choose_device("cpu") == torch.device("cpu")


@pytest.mark.skipif(
    not hasattr(ctypes.CDLL(None), "_dl_find_object"), reason="of glibc 2.35 and later"
)
def test_freed_memory_is_not_returned():
    """In a process of its own, as no other test may find it changed."""
    program = """if True:
        import ctypes, torch
        from node_robustness.jobs.devices import keep_freed_memory

        class Counts(ctypes.Structure):  # of mallinfo2(3)
            _fields_ = [
                (name, ctypes.c_size_t)
                for name in (
                    "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks",
                    "uordblks", "fordblks", "keepcost",
                )
            ]

        library = ctypes.CDLL(None)
        library.mallinfo2.restype = Counts
        size = 64 << 20

        def kept():
            del [torch.ones(size // 4)][0]
            return library.mallinfo2().fordblks

        assert kept() < size
        keep_freed_memory()
        assert kept() >= size
        """
    package = Path(errors.__file__).parents[1]
    variables = os.environ | {"PYTHONPATH": str(package)}
    subprocess.run([sys.executable, "-c", program], check=True, env=variables)


@pytest.mark.parametrize("largest", [2**40, 2**25])
def test_blocks_as_large_as_the_c_library_allows_are_kept(largest, monkeypatch):
    """Before glibc 2.35 a threshold of over 32 MiB is refused."""
    taken = {}

    def mallopt(parameter, size):
        if parameter == -3 and size > largest:
            return 0
        taken[parameter] = size
        return 1

    library = SimpleNamespace(gnu_get_libc_version=None, mallopt=mallopt)
    monkeypatch.setattr(ctypes, "CDLL", lambda name: library)
    keep_freed_memory()
    assert taken == {-1: 2**30, -3: min(2**30, largest)}


def test_threads_are_set():
    before = torch.get_num_threads()
    set_threads(1)
    assert torch.get_num_threads() == 1
    set_threads(before)


def test_a_gpu_that_pytorch_cannot_use_is_not_passed_over_in_silence(monkeypatch, caplog):
    present(monkeypatch, cuda=False, mps=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert choose_device("auto").type == "cpu"
    assert "CUDA_VISIBLE_DEVICES=1" in caplog.text
    caplog.clear()
    choose_device("cpu")
    assert caplog.text == ""


@pytest.mark.parametrize(("training", "threads"), [(False, 1), (True, 2)])
def test_a_job_is_set_up_as_the_configuration_says(training, threads):
    before = torch.get_num_threads()
    configuration = yaml.safe_load(DEFAULT.read_text())
    configuration["compute"] = {"device": "cpu", "threads": 1, "training_threads": 2}
    compute, device = set_up(configuration, training=training)
    assert (compute.training_threads, device) == (2, torch.device("cpu"))
    assert torch.get_num_threads() == threads
    torch.set_num_threads(before)
