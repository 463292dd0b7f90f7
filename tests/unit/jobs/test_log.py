"""A script's output and its failures land in its log."""

import platform
import re
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

import node_robustness
from node_robustness.scheduling.job_costs import parse

SCRIPTS = Path(node_robustness.__file__).parents[1]


def script(log, body):
    """A script with this body inside a job."""
    indented = "\n".join(f"    {line}" for line in body.splitlines())
    return (
        "import sys\n"
        "from node_robustness.errors import UserError\n"
        "from node_robustness.jobs.log import bar, job\n"
        f"with job({str(log)!r}) as record:\n{indented}\n"
        "print('after')\n"
    )


def run(folder, body, before="", **environment):
    """Run a script with this body inside a job; return its process and its log."""
    log = folder / "logs" / "a" / "job.log"
    process = subprocess.run(
        [sys.executable, "-c", before + script(log, body)],
        env={"PYTHONPATH": str(SCRIPTS)} | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    return process, log.read_text()


def test_all_output_goes_to_the_log(tmp_path):
    process, log = run(
        tmp_path,
        "import ctypes, logging, os, subprocess, warnings\n"
        "print('from print')\n"
        "print('from stderr', file=sys.stderr)\n"
        "logging.info('from logging')\n"
        "logging.debug('too much')\n"
        "warnings.warn('from a warning')\n"
        "os.write(1, b'from the descriptor\\n')\n"
        "libc = ctypes.CDLL(None)\n"
        "libc.puts(b'from C')\n"
        "libc.fflush(None)\n"
        "subprocess.run(['sh', '-c', 'echo from a child >&2'])\n"
        "with bar(3, 'attacked') as progress:\n"
        "    progress.update(3)",
    )
    assert (process.returncode, process.stdout, process.stderr) == (0, "", "")
    sources = ("print", "stderr", "logging", "a warning", "the descriptor", "C", "a child")
    for source in sources:
        assert f"from {source}\n" in log
    assert "too much" not in log
    assert "attacked: 100%" in log
    assert "3/3" in log
    assert "after\n" in log


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&-", "<&- >&- 2>&-"])
def test_streams_that_are_closed(tmp_path, closed):
    log = tmp_path / "job.log"
    body = (
        "import os, subprocess\n"
        "print('from print')\n"
        "print('from stderr', file=sys.stderr)\n"
        "os.write(1, b'from the descriptor\\n')\n"
        "subprocess.run(['sh', '-c', 'echo from a child; echo from its stderr >&2'])"
    )
    command = ["sh", "-c", f'exec "$@" {closed}', "sh", sys.executable, "-c", script(log, body)]
    process = subprocess.run(command, env={"PYTHONPATH": str(SCRIPTS)}, check=False)
    assert process.returncode == 0
    for source in ("print", "stderr", "the descriptor", "a child", "its stderr"):
        assert f"from {source}\n" in log.read_text()


def test_output_from_before_the_job_stays_where_it_was(tmp_path):
    log = tmp_path / "job.log"
    script = (
        "from node_robustness.jobs.log import job\n"
        f"print('before')\nwith job({str(log)!r}):\n    print('within')\n"
    )
    process = subprocess.run(
        [sys.executable, "-c", script],
        env={"PYTHONPATH": str(SCRIPTS)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert process.stdout == "before\n"
    assert log.read_text().startswith("within\ndone: started ")


def test_a_users_mistake_is_one_line(tmp_path):
    process, log = run(tmp_path, "raise UserError('images: no such file; correct it')")
    assert (process.returncode, process.stdout, process.stderr) == (1, "", "")
    assert log == "error: images: no such file; correct it\n"


def test_a_users_mistake_is_one_line_whatever_caused_it(tmp_path):
    body = (
        "try:\n    {}['a']\nexcept KeyError as error:\n    raise UserError('correct a') from error"
    )
    process, log = run(tmp_path, body)
    assert process.returncode == 1
    assert log == "error: correct a\n"


def test_anything_else_keeps_its_traceback(tmp_path):
    process, log = run(tmp_path, "print('so far')\n1 / 0")
    assert (process.returncode, process.stdout, process.stderr) == (1, "", "")
    assert "so far\n" in log
    assert "Traceback (most recent call last):" in log
    assert "ZeroDivisionError: division by zero\n" in log
    assert "SystemExit" not in log


def test_the_log_of_an_earlier_try_is_replaced(tmp_path):
    run(tmp_path, "raise UserError('a long message of the first try')")
    _, log = run(tmp_path, "pass")
    assert re.fullmatch(r"done: started .*\nafter\n", log)


FULL = "import errno; raise OSError(errno.ENOSPC, 'No space left on device')"


def test_a_full_disk_is_one_line_wherever_it_is_met(tmp_path):
    process, log = run(tmp_path, FULL)
    assert process.returncode == 1
    assert log == (
        f"error: {tmp_path}/logs/a/job.log: no space left to write it; free space on that disk (or "
        "raise the quota or file-size limit) and run snakemake again\n"
    )


@pytest.mark.parametrize("body", ["raise UserError('correct it')", FULL, "1 / 0"])
def test_what_does_not_fit_into_the_log_is_told_all_the_same(body):
    """To whoever started the job: the log is a device that is always full."""
    process = subprocess.run(
        [sys.executable, "-c", script("/dev/full", body)],
        env={"PYTHONPATH": str(SCRIPTS)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode != 0
    expected = {
        "raise UserError('correct it')": "error: correct it",
        FULL: "error: /dev/full: no space left",
        "1 / 0": "ZeroDivisionError: division by zero",
    }
    assert expected[body] in process.stderr


def cost_of(folder, body, before="", **environment):
    """What a job that succeeds says it cost."""
    process, log = run(folder, body, before, **environment)
    assert process.returncode == 0, log
    return parse(log)


def test_only_a_job_that_succeeded_says_what_it_cost(tmp_path):
    for body in ("raise UserError('correct it')", "1 / 0", "sys.exit(3)"):
        assert parse(run(tmp_path, body)[1]) is None
    assert cost_of(tmp_path, "print('done: started long ago on Mars')").host == platform.node()


def test_when_a_job_started_is_when_its_process_did(tmp_path):
    # Ticks of 10 ms and seconds are what is known of it.
    before = datetime.now(UTC) - timedelta(seconds=1.1)
    cost = cost_of(tmp_path, "pass", before="import time; time.sleep(1.2)\n")
    assert before <= datetime.fromisoformat(cost.started_utc)
    assert datetime.fromisoformat(cost.started_utc) <= datetime.now(UTC) - timedelta(seconds=1.2)
    assert cost.seconds >= cost.start_seconds >= 1.2


def test_a_job_that_another_process_was_asked_to_do_counts_from_the_asking(tmp_path):
    asked = datetime.now(UTC).timestamp() - 1000
    cost = cost_of(tmp_path, "pass", NODE_ROBUSTNESS_STARTED=str(asked))
    assert 1000 <= cost.start_seconds <= cost.seconds < 1500


def test_model_computation_is_what_is_counted_as_such(tmp_path):
    body = (
        "import time\n"
        "assert record.computing_seconds == 0\n"
        "with record.computing():\n    time.sleep(0.05)\n"
        "first = record.computing_seconds\n"
        "time.sleep(0.1)\n"
        "assert record.computing_seconds == first >= 0.05\n"
        "try:\n    with record.computing():\n        time.sleep(0.05); 1 / 0\n"
        "except ZeroDivisionError:\n    pass\n"
        "print('counted', record.computing_seconds)"
    )
    process, log = run(tmp_path, body)
    assert process.returncode == 0, log
    cost = parse(log)
    assert cost.computing_seconds >= 0.1
    assert cost.computing_seconds == pytest.approx(
        float(re.search("counted (.*)", log)[1]), abs=1e-3
    )
    assert cost.seconds >= cost.start_seconds + cost.computing_seconds + 0.1


WORK = "import time\nwhile time.process_time() < 0.3: pass"


@pytest.mark.parametrize(
    "body", [WORK, f"import subprocess\nsubprocess.run([sys.executable, '-c', {WORK!r}])"]
)
def test_cpu_time_is_that_of_the_job_and_of_what_it_ran(tmp_path, body):
    cost = cost_of(tmp_path, body)
    assert cost.cpu_seconds >= 0.3
    # A sleep takes none.
    assert cost_of(tmp_path, "import time; time.sleep(0.3)").cpu_seconds < cost.cpu_seconds


FILLED = "filled = b'1' * 300_000_000"


@pytest.mark.parametrize(
    "body", [FILLED, f"import subprocess\nsubprocess.run([sys.executable, '-c', {FILLED!r}])"]
)
def test_memory_is_the_largest_of_the_job_or_of_what_it_ran(tmp_path, body):
    assert 300e6 / 2**20 < cost_of(tmp_path, f"{body}\nfilled = None").max_rss_mb < 500


def test_memory_is_not_that_of_who_started_the_job(tmp_path):
    filled = b"1" * 300_000_000
    assert cost_of(tmp_path, "pass").max_rss_mb < 100
    assert len(filled) == 300_000_000


def test_says_why_it_was_not_forked_from_the_server(tmp_path):
    _, log = run(tmp_path, "print('work')", NODE_ROBUSTNESS_COLD="no server runs")
    assert log.splitlines()[:2] == ["started in a new Python: no server runs", "work"]
