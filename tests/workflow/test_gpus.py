"""One machine with several GPUs: `--resources gpu=N` gives each job another device."""

import re

from harness import OON, snakemake, tiny


def test_each_job_has_a_device_of_its_own(copied, tmp_path):
    """Two pretended devices and four cores: no third job starts while both devices are held."""
    config = tiny(attacks__bim__iterations=40)  # long enough for jobs to meet
    targets = [str(path.relative_to(copied)) for path in (copied / OON).rglob("attack.h5")]
    locks = tmp_path / "locks"
    locks.mkdir()
    variables = {"CUDA_VISIBLE_DEVICES": "3,5", "TMPDIR": str(locks)}
    options = ("--resources", "gpu=2")
    run = snakemake(
        copied,
        *targets,
        config=config,
        cores=4,
        options=options,
        variables=variables,
        as_a_user=True,
    )
    assert run.jobs["attack"] == len(targets) > 2
    folder = copied / "results/tiny/logs/attack/digits/OON"
    logs = [path.read_text() for path in folder.glob("**/*.log")]
    assert {re.findall(r"VISIBLE_DEVICES=(\S+)\)", text)[0] for text in logs} == {"3", "5"}
    # A job that found no free device would have taken the second place on one: `3.1`.
    assert {path.name for path in locks.glob("node-robustness-gpus-*/*")} == {"3.0", "5.0"}
