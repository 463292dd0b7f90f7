"""Train the nets whose weights lie here: `python tests/nets/train.py`.

They are fixed, because a training ends elsewhere on another processor, and with it the verdict on
the net: what a test knows of a net must not depend on where it runs.
"""

import sys
from pathlib import Path

from safetensors.torch import save_file

FOLDER = Path(__file__).parent
sys.path.insert(0, str(FOLDER.parents[1] / "benchmarks"))

import known  # noqa: E402

NETS = {
    "undefended-0": {"seed": 0, "epochs": 8},
    "undefended-1": {"seed": 1, "epochs": 8},
    "hardened-0": {"seed": 0, "epochs": 30, "epsilon": 0.1},
}

if __name__ == "__main__":
    for name, settings in NETS.items():
        save_file(
            known.trained("residual", **settings).state_dict(), FOLDER / f"{name}.safetensors"
        )
