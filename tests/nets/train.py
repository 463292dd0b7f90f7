"""Train the nets whose weights lie here: `python tests/nets/train.py`.

They are fixed, because a training ends elsewhere on another processor, and with it the verdict on
the net: what a test knows of a net must not depend on where it runs.
"""

import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn

FOLDER = Path(__file__).parent
sys.path[:0] = [str(FOLDER.parent), str(FOLDER.parents[1] / "benchmarks")]

import known  # noqa: E402
import victims  # noqa: E402

NETS = {
    "undefended-0": {"body": "residual", "seed": 0, "epochs": 8},
    "undefended-1": {"body": "residual", "seed": 1, "epochs": 8},
    "hardened-0": {"body": "residual", "seed": 0, "epochs": 30, "epsilon": 0.1},
    "undefended-ode-0": {"body": "ode", "seed": 0, "epochs": 8},
    "hardened-ode-0": {"body": "ode", "seed": 0, "epochs": 30, "epsilon": 0.1},
}


def small_network() -> nn.Module:
    """A small convolutional network, without a defence."""
    x, y = victims.digits_data()
    torch.manual_seed(0)
    model = victims.small_network()
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(120):
        batch = torch.randint(0, 1500, (256,))
        optimizer.zero_grad()
        F.cross_entropy(model(x[batch]), y[batch]).backward()
        optimizer.step()
    return model


if __name__ == "__main__":
    nets = {name: known.trained(**settings) for name, settings in NETS.items()}
    nets["digits"] = small_network()
    for name, net in nets.items():
        save_file(net.state_dict(), FOLDER / f"{name}.safetensors")
