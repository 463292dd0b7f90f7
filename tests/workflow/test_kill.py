"""A training job that is killed goes on at its last complete epoch, to the same weights."""

import csv
import re
import shutil
import time

from harness import OON, finish, scripts, snakemake, start, tiny

EPOCHS = 4


def test_killed_training_resumes(finished, tmp_path):
    config = tiny(models__OON__training={"epochs": EPOCHS})
    target = f"{OON}/model.safetensors"
    whole, killed = (shutil.copytree(finished, tmp_path / name) for name in ("whole", "killed"))
    snakemake(whole, target, config=config)

    checkpoint = killed / OON / "checkpoint.safetensors"
    process = start(killed, target, config=config)
    while not checkpoint.exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    (script,) = scripts(killed, "train")
    script.kill()
    run = finish(process)
    assert run.returncode != 0
    assert "Error in rule train" in run.output
    assert checkpoint.exists()
    assert not (killed / target).exists()

    snakemake(killed, target, config=config)
    log = (killed / "results/tiny/logs/train/digits/OON/seed-0.log").read_text()
    resumed = re.search(r"checkpoint\.safetensors: resuming after epoch (\d+)", log)
    assert resumed is not None, log
    assert 1 <= int(resumed[1]) < EPOCHS
    assert (killed / target).read_bytes() == (whole / target).read_bytes()
    assert not checkpoint.exists()
    histories = []
    for folder in (whole, killed):
        with (folder / OON / "history.csv").open() as stream:
            histories.append([row | {"seconds": ""} for row in csv.DictReader(stream)])
    assert len(histories[0]) == EPOCHS
    assert histories[0] == histories[1]
