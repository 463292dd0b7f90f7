"""Make the attack.h5 of a cell from its shards."""

from pathlib import Path

from node_robustness.attacks.merge import merge
from node_robustness.config.loading import load
from node_robustness.files.hdf5 import open_hdf5
from node_robustness.jobs.log import job

with job(snakemake.log[0]):
    with open_hdf5(snakemake.input.data, "data") as file:
        index = file["indices/test"][: snakemake.params.images]
    shards = [Path(path) for path in snakemake.input.shards]
    merge(shards, Path(snakemake.output.attack), index)
    if not load(snakemake.config).compute.keep_shards:
        # Of a run that was ended before another shard_size was chosen: nothing asks for them now.
        for path in shards[0].parent.glob("attack-*.h5"):
            if path not in shards:
                path.unlink()
