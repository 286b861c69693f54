"""What a job starts from: `latest`, `--from`, `--fresh`, a folder that was lost, damaged, or belongs to another."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from tests.crash.harness import Job, has_right_state, tally

from headrace.checkpoint.manifest import FORMAT

BEFORE_ITS_FIRST_COMMIT = (
    "baseline.written@1",
    "checkpoint.prepared@1",
    pytest.param("claim.committed@1", marks=pytest.mark.full),
    pytest.param("checkpoint.triggered@1", marks=pytest.mark.full),
    pytest.param("commit.before@1", marks=pytest.mark.full),
)


def positions(manifest: dict[str, Any]) -> dict[int, int]:
    """Where each partition of the input stands in a manifest."""
    return {
        split["partition"]: split["position"]
        for region in manifest["regions"].values()
        for split in region["operators"]["input"]["splits"].values()
    }


def committed(job: Job) -> list[Path]:
    """The manifests that are flagged as committed, oldest first."""
    return [file for file in job.manifest_files() if file.with_suffix(".committed").exists()]


def times(results: Iterable[dict[str, Any]]) -> Counter[str]:
    return Counter(result["id"] for result in results)


@pytest.mark.parametrize("crash", BEFORE_ITS_FIRST_COMMIT)
def test_start_from_latest_that_is_killed_before_its_first_commit_skips_nothing(
    make_job: Callable[..., Job], crash: str
) -> None:
    job = make_job("--start", "latest", per_partition=50)
    old = job.input.ids

    job.crash_at(crash)
    job.input.produce(100)
    run = job.start()
    job.output.wait_for(400, run)
    run.stop()

    job.output.wait_until_closed()
    new = {record: key for record, key in job.input.ids.items() if record not in old}
    job.found = tally(new, job.output.read())
    assert job.found.is_exact, job.found


@pytest.mark.parametrize("crash", BEFORE_ITS_FIRST_COMMIT)
def test_start_from_an_older_checkpoint_that_is_killed_before_its_first_commit_still_starts_there(
    make_job: Callable[..., Job], crash: str
) -> None:
    job = make_job("--delay-ms", "0.5", "-D", "execution.checkpointing.num-retained=4", per_partition=400)
    job.crash_at("checkpoint.pruned@9")
    older, newest = committed(job)[0], committed(job)[-1]
    assert older != newest
    begin, end = positions(json.loads(older.read_text())), positions(json.loads(newest.read_text()))
    again = {record for p in begin for record, _ in job.input.records[p][begin[p] : end[p]]}
    assert again

    job.crash_at(crash, "-D", f"execution.state-recovery.path={older}")
    run = job.start()
    job.output.wait_for(job.input.count + len(again), run)
    run.stop()

    job.output.wait_until_closed()
    results = job.output.read()
    assert times(results) == Counter(job.input.ids.keys()) + Counter(again)
    assert has_right_state(job.input.ids, results)


def test_prepared_checkpoint_is_no_place_to_start_from(make_job: Callable[..., Job]) -> None:
    job = make_job("--delay-ms", "0.5", per_partition=200)
    job.crash_at("checkpoint.prepared@4")

    refused = job.start("-D", f"execution.state-recovery.path={job.manifest_files()[-1]}")
    refused.wait(1)

    assert "not known to be committed" in refused.log()
    job.finish()
    job.check()


@pytest.mark.parametrize("crash", ["transaction.offsets_sent@6", "checkpoint.flushed@5"])
def test_fresh_start_closes_the_transactions_that_the_folder_lists(make_job: Callable[..., Job], crash: str) -> None:
    job = make_job("--delay-ms", "0.5", per_partition=400)
    job.crash_at(crash)
    assert job.output.open_partitions()
    before = times(job.output.read())

    # With another prefix only the folder knows of the transaction that is open.
    job.prefix += "-other"
    run = job.start("-D", "headrace.fresh=true")
    job.output.wait_for(job.input.count + before.total(), run)
    run.stop()

    job.output.wait_until_closed()
    assert times(job.output.read()) == before + Counter(job.input.ids.keys())


def test_other_prefix_goes_on_from_the_same_checkpoint(make_job: Callable[..., Job]) -> None:
    job = make_job("--delay-ms", "0.5", per_partition=300)
    job.crash_at("transaction.offsets_sent@6")

    job.prefix += "-other"
    job.finish()

    job.check()


def test_lost_folder_is_refused_until_the_repetition_is_accepted(make_job: Callable[..., Job]) -> None:
    job = make_job(per_partition=50)
    job.finish()
    shutil.rmtree(job.state)

    refused = job.start()
    refused.wait(1)
    run = job.start("-D", "headrace.fresh=true")
    job.output.wait_for(2 * job.input.count, run)
    run.stop()

    assert "the folder was lost" in refused.log()
    assert set(times(job.output.read()).values()) == {2}


def halve(manifest: Path, make_job: Callable[..., Job]) -> None:
    content = manifest.read_bytes()
    manifest.write_bytes(content[: len(content) // 2])


def alter(manifest: Path, make_job: Callable[..., Job]) -> None:
    manifest.write_text(manifest.read_text().replace('"parallelism": 1', '"parallelism": 2', 1))


def exchange(manifest: Path, make_job: Callable[..., Job]) -> None:
    other = make_job(per_partition=10)
    other.name = "other"
    other.finish()
    manifest.write_bytes(other.manifest_files()[-1].read_bytes())


def make_newer(manifest: Path, make_job: Callable[..., Job]) -> None:
    text = manifest.read_text()
    manifest.write_text(text.replace(f'"format": {FORMAT}', '"format": 999', 1))


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (halve, "half-written or damaged"),
        (alter, "half-written or altered"),
        (exchange, "belongs to job 'other'"),
        (make_newer, "has format 999"),
    ],
)
def test_manifest_that_cannot_be_used_is_refused_and_changes_nothing(
    make_job: Callable[..., Job], damage: Callable[[Path, Callable[..., Job]], None], said: str
) -> None:
    job = make_job(per_partition=300)
    job.crash_at("commit.before@2")
    manifest = job.manifest_files()[-1]
    whole = manifest.read_bytes()

    damage(manifest, make_job)
    damaged = manifest.read_bytes()
    refused = job.start()
    refused.wait(1)

    assert damaged != whole
    assert said in refused.log()
    assert manifest.read_bytes() == damaged
    manifest.write_bytes(whole)
    job.finish()
    job.check()


def test_missing_state_file_is_refused_by_name(make_job: Callable[..., Job]) -> None:
    job = make_job(per_partition=50)
    job.finish()
    (file,) = (file for file in job.state.glob("*.state") if file.name in job.manifest_files()[-1].read_text())
    kept = file.rename(job.folder / "kept")

    refused = job.start()
    refused.wait(1)

    assert f"state file {file} is missing" in refused.log()
    kept.rename(file)
    job.input.produce(50)
    job.finish()
    job.check()


def test_edited_program_resumes_by_its_uids(make_job: Callable[..., Job]) -> None:
    job = make_job("--delay-ms", "0.5", per_partition=300)
    job.crash_at("commit.after@5")

    job.finish("--edit", "more")

    assert any("edited" in result for result in job.output.read())
    job.check()


def test_state_that_no_operator_of_an_edited_program_claims_is_refused(make_job: Callable[..., Job]) -> None:
    job = make_job("--delay-ms", "0.5", per_partition=300)
    job.crash_at("commit.after@5")

    refused = job.start("--edit", "less")
    refused.wait(1)

    assert "count" in refused.log()
    assert "execution.state-recovery.ignore-unclaimed-state" in refused.log()
    job.finish()
    job.check()


def test_finished_job_says_so_when_it_is_run_again(make_job: Callable[..., Job]) -> None:
    job = make_job("--bounded", per_partition=50)
    job.start().wait(0)

    again = job.start()
    again.wait(0)

    assert "job `counting` has finished before" in again.log()
    assert "--fresh" in again.log()
    job.check()
