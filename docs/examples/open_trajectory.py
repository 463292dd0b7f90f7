"""Open a trajectory.h5 with only h5py and pandas.

    python docs/examples/open_trajectory.py results/.../trajectory.h5

docs/trajectories.md explains the values, docs/files.md the layout of the file.
"""

import json
import sys
from itertools import pairwise

import h5py
import numpy as np
import pandas as pd


def summarise(path: str) -> None:
    """Print distances, flip times, shares of the loss of margin and solver steps."""
    with h5py.File(path) as file:
        settings = json.loads(file.attrs["settings"])
        print({key: settings.get(key) for key in ("model", "tolerance", "attack", "epsilon")})
        t, success = file["t"][:], file["success"][:]

        # Three groups: a run, and which of its images belong to the group.
        groups = {
            "success": ("attack", success),
            "failed": ("attack", ~success),
            "noise": ("noise", np.ones_like(success)),
        }
        medians = {
            group: np.nanmedian(file[f"{run}/distance/relative_l2"][:][images], axis=0)
            for group, (run, images) in groups.items()
            if images.any()
        }
        print(f"\nrelative L2 distance by {file.attrs['axis']}, median over the images")
        print(pd.DataFrame(medians, index=pd.Index(t, name="t")).round(3).to_string())

        images = pd.DataFrame(
            {
                "success": success,
                "flip_time": file["attack/flip_time/head"][:],
                "strong_margin": file["strong/margin"][:],
                "share_of_start": file["shares/strong/start"][:],
                "loss": file["shares/strong/loss"][:],
            },
            index=pd.Index(file["index"][:], name="test image"),
        )
        print("\n", images.round(3).to_string(), sep="")

        # What h(0) and each part add to the loss of margin of the images that the full-strength
        # example misleads.
        misled = file["strong/success"][:]
        players = ["h(0)", *(f"{a:.2g} to {b:.2g}" for a, b in pairwise(file["shares/ends"][:]))]
        if misled.any():
            shares = {}
            for perturbation in ("strong", "noise", "swapped"):
                of = file[f"shares/{perturbation}"]
                own = np.column_stack([of["start"][:], of["parts"][:]])[misled]
                shares[perturbation] = own.mean(axis=0)
            print(f"\nmean shares of the loss of margin in logits, {misled.sum()} images")
            print(pd.DataFrame(shares, index=pd.Index(players, name="player")).round(3).to_string())

        # Ragged data: the nodes of image i are nodes[offsets[i]:offsets[i + 1]].
        if "clean/nodes" in file:
            steps = {
                run: np.diff(file[f"{run}/nodes/offsets"][:]) - 1 for run in ("clean", "attack")
            }
            print("\naccepted steps", pd.DataFrame(steps).describe().round(2), sep="\n")


if __name__ == "__main__":
    summarise(sys.argv[1])
