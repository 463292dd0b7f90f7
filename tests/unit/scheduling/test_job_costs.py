"""What jobs cost, as their logs say."""

from hypothesis import given
from hypothesis import strategies as st

from node_robustness.grid import paths
from node_robustness.scheduling import job_costs
from node_robustness.scheduling.job_costs import Spent
from samples import spent, write_logs

WORDS = st.text(st.characters(codec="utf-8", categories=("L", "N", "P", "Zs")), min_size=1)
SECONDS = st.floats(0, 1e7).map(lambda value: round(value, 3))


@given(st.builds(Spent, WORDS, WORDS, SECONDS, SECONDS, SECONDS, SECONDS, SECONDS))
def test_what_a_line_says_is_read_again(cost):
    assert job_costs.parse(f"words\n{cost}\nmore words\n") == cost


def test_the_last_line_counts_wherever_it_is_in_a_long_log(tmp_path):
    (tmp_path / "logs/page").mkdir(parents=True)
    lines = ["a bar\n" * 10_000, f"{spent(1)}\n", f"{spent(2)}\n", "words of a library \xe9\n" * 50]
    (tmp_path / "logs/page/page.log").write_text("".join(lines))
    (found,) = job_costs.read(tmp_path)
    assert (found.rule, found.place, found.coordinates) == ("page", "page", {})
    assert found.spent == spent(2)


def test_each_log_of_a_job_that_succeeded_is_read_with_its_coordinates(tmp_path):
    at = {"dataset": "logs", "model": "logs", "seed": 3, "tolerance": 0.001}
    cell = at | {"attack": "logs", "norm": "linf", "epsilon": 8 / 255}
    there = {
        f"attack/{paths.fill(paths.CELL, cell)}": cell,
        f"attack_shard/{paths.fill(paths.SHARD, cell | {'shard': '0-50'})}": cell
        | {"shard": "0-50"},
        f"evaluate/{paths.fill(paths.SOLVED, at | {'tolerance': None})}": at | {"tolerance": None},
        f"prepare/{at['dataset']}": {},
    }
    # An experiment, and the folders above it, may be called like the folder.
    folder = tmp_path / "logs/logs"
    found = write_logs(folder, **dict.fromkeys(there, spent(1)))
    assert {f"{job.rule}/{job.place}": job.coordinates for job in found} == there
    failed = folder / "logs/train/d/M/seed-0.log"
    failed.parent.mkdir(parents=True)
    failed.write_text("epoch 1\nerror: correct it\n")
    (failed.parent / "seed-1.log").write_bytes(b"\xff\xfe\n")
    # A log of a version that said no more.
    (failed.parent / "seed-2.log").write_text("done: started 2026-01-02T03:04:05+00:00 on node01\n")
    assert job_costs.read(folder) == found
    assert job_costs.read(tmp_path / "nothing") == []
