"""A whole run on a GPU: every rule, and each file says what computed it; skipped without CUDA."""

import h5py
import pytest
import torch

from harness import snakemake, tiny

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def test_a_run_on_a_gpu(fresh):
    run = snakemake(fresh, config=tiny(compute__device="cuda"), cores=8, as_a_user=True)
    assert "Traceback" not in run.output
    found = {}
    for path in sorted(fresh.glob("results/**/*.h5")):
        with h5py.File(path) as file:
            found[str(path.relative_to(fresh))] = str(file.attrs.get("device", "none"))
    computed = {path: device for path, device in found.items() if not path.endswith("data.h5")}
    assert len(computed) > 20
    assert all(device.startswith("cuda (") for device in computed.values()), computed
    assert "cuda (" in (fresh / "results/tiny/report.html").read_text()
