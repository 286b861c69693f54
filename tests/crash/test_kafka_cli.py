"""`headrace kafka` beside live jobs: what they hold open is found, named and ended, and how far they are is told."""

from __future__ import annotations

import json
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from click.testing import CliRunner, Result
from tests.crash.harness import PROGRAM, Job
from tests.crash.test_starts import positions
from tests.processes import DEADLINE_S

from headrace.cli.main import main


def kafka(job: Job, command: str, *arguments: str) -> str:
    """What a command says of a job's program, whose first job it takes without running it."""
    program = [str(PROGRAM), "--bootstrap", job.bootstrap, "--input", job.input.topic, "--output", job.output.topic]
    program += ["--prefix", job.prefix, "--name", job.name, "-D", f"execution.checkpointing.dir={job.folder / 'state'}"]
    done = subprocess.run(
        [sys.executable, "-m", "headrace", "kafka", command, "--job", shlex.join(program), *arguments],
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def objects(job: Job, command: str, *arguments: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in kafka(job, command, *arguments, "--json").splitlines()]


def asked(job: Job, *arguments: str) -> Result:
    """The same of the job's cluster, without the program."""
    result = CliRunner().invoke(main, ["kafka", *arguments, "--bootstrap-servers", job.bootstrap])
    assert result.exit_code == 0, result.output
    return result


def own_transactions(job: Job) -> list[dict[str, Any]]:
    return [one for one in objects(job, "transactions") if one["is_of_job"]]


def test_a_live_jobs_transaction_is_found_and_aborted_and_nothing_is_lost(make_job: Callable[..., Job]) -> None:
    # Only the abort can end its transaction.
    job = make_job("--interval", "600000", per_partition=200)
    run = job.start()
    run.wait_for_log("starts from the beginning")
    run.wait_for(job.output.open_partitions, "results are written")

    [one] = own_transactions(job)

    name = one["transactional_id"]
    assert name.startswith(f"{job.prefix}-{job.name}-")
    assert (one["state"], one["coordinator"]) == ("Ongoing", 1)
    held = [at for at in one["blocks"] if at["held_back"]]
    assert {at["partition"]["topic"] for at in held} == {job.output.topic}
    shown = asked(job, "transactions", "--topic", job.output.topic).stdout
    assert name in shown
    assert f"{job.output.topic}-{held[0]['partition']['partition']} from {held[0]['start']}: " in shown
    # Nothing of it is seen, unless it is asked for.
    assert asked(job, "tail", job.output.topic).stdout == ""
    uncommitted = asked(job, "tail", job.output.topic, "-n", "3", "--isolation-level", "read_uncommitted")
    assert len(uncommitted.stdout.splitlines()) == 3

    assert kafka(job, "transactions", "--abort", name, "--yes").endswith(f"{name}: aborted\n")

    # It was shut out, and notices when it writes again; then it does its work from the beginning.
    job.input.produce(50)
    run.wait_for_log("another producer took the transactional id over")
    run.wait_for_log("resumes from")
    run.stop(signal.SIGTERM)
    job.finish("--interval", "50")
    job.check()


def test_what_a_killed_job_has_left_open_is_aborted_and_the_next_start_goes_on(make_job: Callable[..., Job]) -> None:
    job = make_job("--interval", "600000", per_partition=200)
    run = job.start()
    run.wait_for_log("starts from the beginning")
    run.wait_for(job.output.open_partitions, "results are written")
    run.kill()
    [one] = own_transactions(job)

    kafka(job, "transactions", "--abort", one["transactional_id"], "--yes")

    job.output.wait_until_closed()
    job.finish("--interval", "50")
    job.check()


@pytest.mark.parametrize(("point", "is_committed"), [("checkpoint.prepared", False), ("commit.after", True)])
def test_offsets_show_the_checkpoint_that_the_markers_prove_beside_the_groups_commit_and_the_end(
    make_job: Callable[..., Job], point: str, is_committed: bool
) -> None:
    job = make_job(per_partition=50)
    job.finish()
    job.input.produce(50)
    # The manifest is there, and nothing in the folder says whether it is committed.
    job.crash_at(f"{point}@1", "--interval", "1000")
    newest = positions(job.manifests()[-1])
    assert sum(newest.values()) > 50 * job.input.partitions

    rows = objects(job, "offsets")

    expected = newest if is_committed else dict.fromkeys(newest, 50)
    assert {row["partition"]: row["checkpoint"] for row in rows} == expected
    for row in rows:
        assert (row["topic"], row["group"], row["member"]) == (job.input.topic, f"{job.prefix}-progress", None)
        # What the group was told last is from the checkpoint before.
        assert (row["committed"], row["end"], row["lag"]) == (50, 100, 100 - row["checkpoint"])
    shown = asked(job, "offsets", "--checkpoints", str(job.folder / "state"))
    first = str(expected[0])
    assert shown.stdout.splitlines()[1].split() == [job.input.topic, "0", first, "-", "100", str(100 - int(first))]
    job.finish()
    job.check()
