"""How jobs compute; apart from the other sections, so that a job reads no more than this one."""

from typing import Literal, Self

from pydantic import Field, model_validator

from node_robustness.config.values import Count, Section


class Compute(Section):
    """The device, threads and memory of jobs; none changes a result beyond rounding."""

    device: Literal["auto", "cpu", "cuda", "mps"] = Field(
        "auto", description="auto: cuda, else mps, else cpu"
    )
    batch_size: Count | None = Field(
        None, description="images at a time; as many as memory_mb allows if unset"
    )
    memory_mb: Count | None = Field(
        None,
        description="memory for the images that are attacked at a time, in MB; if unset 1,000, or "
        "four fifths of what is free on a CUDA device",
    )
    shard_size: Count | None = Field(
        None,
        description="an attack on more test images is split into shards of this many, each one "
        "job; if unset an attack is one job",
    )
    keep_shards: bool = Field(
        False,
        description="make every attack in shards and keep them, so that of more test images later "
        "only the new ones are attacked",
    )
    threads: Count = Field(1, description="CPU threads of an evaluation, attack or trajectory job")
    training_threads: Count = Field(1, description="CPU threads of a training job")
    warm_start: bool = Field(
        True,
        description="on Linux, where jobs run on this machine: run their scripts in forks of a "
        "process that has imported the libraries, so that they start at once",
    )

    @model_validator(mode="after")
    def _there_are_shards_to_keep(self) -> Self:
        if self.keep_shards and self.shard_size is None:
            raise ValueError("keep_shards needs shard_size: say how many images a shard holds")
        return self
