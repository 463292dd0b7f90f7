"""Attacks in shards: the files, tables and plans of attacks in one piece."""

import shutil
from pathlib import Path

from harness import IMAGES, OON, files, numbers, plan, snakemake, tiny, untimed

# What draws random numbers, or is spared images by another attack, or both.
ATTACKS = {
    "steps": {"method": "pgd", "iterations": 2, "restarts": 2, "relative_step": 0.3},
    "squares": {"method": "square", "queries": 20},
    "least": {"method": "fab", "iterations": 2, "targets": 2},
    "weighed": {"method": "cw", "iterations": 3, "search_steps": 2},
}
CELLS = {
    name: f"{OON}/tau-1/{name}/{'l2_rms' if name == 'weighed' else 'linf'}/eps-0.3/attack.h5"
    for name in ATTACKS
}
SUMMARY = {"tables": 1, "figures": 1, "stills": 1, "claim": 2, "report": 1}


def sharded(size: int | None, **changes):
    return tiny(**changes | ({} if size is None else {"compute__shard_size": size}))


def test_whatever_is_drawn_is_drawn_for_the_image(finished, tmp_path):
    own = {"attacks": ATTACKS, "experiments__tiny__attacks": list(ATTACKS)}
    whole, pieces = (shutil.copytree(finished, tmp_path / name) for name in ("whole", "pieces"))
    # The fifth is what spares images to the attack in the other norm.
    assert snakemake(whole, *CELLS.values(), config=tiny(**own)).jobs == {"attack": 5}

    # What an interrupted run leaves behind: a shard that is wanted, and one of another size.
    first, stale = (Path(CELLS["steps"]).with_name(f"attack-{n}.h5") for n in ("0-25", "0-10"))
    config = sharded(25, **own)
    assert snakemake(pieces, str(first), config=config).jobs == {"attack_shard": 1}
    shutil.copy(pieces / first, pieces / stale)
    run = snakemake(pieces, *CELLS.values(), config=config)
    assert run.jobs == {"attack_shard": 9, "merge": 5}
    for cell in CELLS.values():
        assert untimed(pieces / cell) == untimed(whole / cell), cell
    # So that the equality says something of what is left out.
    skipped = untimed(pieces / CELLS["squares"])["skipped"]
    assert b"\x01" in skipped[3]
    assert files(pieces) == files(whole)
    for size in (None, 10, IMAGES):
        assert plan(pieces, *CELLS.values(), config=sharded(size, **own)).jobs == {}


def test_from_scratch_in_shards_on_one_core(finished, fresh):
    """Every number is the same to the last digit, but for the times that jobs took."""
    target = "results/tiny/tables/attacks.csv"
    run = snakemake(fresh, target, config=sharded(30), cores=1)
    made = numbers(finished)
    attacks = [name for name in made if Path(name).name == "attack.h5"]
    shards = {"attack_shard": 2 * len(attacks), "merge": len(attacks)}
    assert shards.items() <= run.jobs.items()
    assert not list(fresh.glob("results/**/attack-*.h5"))
    assert numbers(fresh) == made
    for name in made:
        assert untimed(fresh / name) == untimed(finished / name), name
    for size in (None, 16):
        assert plan(fresh, target, config=sharded(size)).jobs == {}


def test_shards_run_again_what_attacks_do(copied):
    attacks = sorted(copied.glob("results/**/attack.h5"))
    # Snakemake rebuilds an intermediate file only where a missing one needs it.
    asking = [*copied.glob("results/tiny/tables/*"), copied / "results/tiny/report.html"]
    for path in [*attacks, *asking]:
        path.unlink()
    shards = {"attack_shard": 2 * len(attacks), "merge": len(attacks)}
    again = shards | {"trajectory": 3, "reevaluate": 2} | SUMMARY
    assert plan(copied, config=sharded(30)).jobs == again


def test_of_more_images_only_the_new_ones_are_attacked(finished, tmp_path):
    """Shards that are kept stay when there are more images, and no other key changes."""
    own = {"attacks": ATTACKS, "experiments__tiny__attacks": ["steps"]}
    cell = CELLS["steps"]
    more, whole = (shutil.copytree(finished, tmp_path / name) for name in ("more", "whole"))
    assert snakemake(whole, cell, config=tiny(**own)).jobs == {"attack": 1}

    def kept(images):
        return sharded(25, **own, compute__keep_shards=True, datasets__digits__subset__test=images)

    run = snakemake(more, cell, config=kept(25))
    assert run.jobs == {"attack_shard": 1, "merge": 1}
    first = Path(cell).with_name("attack-0-25.h5")
    before = (more / first).stat().st_mtime_ns
    run = snakemake(more, cell, config=kept(IMAGES))
    assert run.jobs == {"attack_shard": 1, "merge": 1}
    assert (more / first).stat().st_mtime_ns == before
    assert untimed(more / cell) == untimed(whole / cell)
    # Fewer again: the others stay for later.
    assert snakemake(more, cell, config=kept(25)).jobs == {"merge": 1}
    assert snakemake(more, cell, config=kept(IMAGES)).jobs == {"merge": 1}
    assert untimed(more / cell) == untimed(whole / cell)
