"""The marker is gone: offset retention took it, or somebody deleted the group."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest
from confluent_kafka.admin import AdminClient
from tests.crash.harness import DEADLINE_S, Job, has_right_state


def delete_marker(job: Job) -> None:
    admin = AdminClient({"bootstrap.servers": job.bootstrap, "log_level": 2})
    for deleted in admin.delete_consumer_groups([job.marker_group()]).values():
        deleted.result(DEADLINE_S)


def positions_of(job: Job, index: int) -> dict[int, int]:
    return {
        split["partition"]: split["position"]
        for region in job.manifests()[index]["regions"].values()
        for split in region["operators"]["input"]["splits"].values()
    }


def in_last_checkpoint(job: Job) -> set[str]:
    """The records between the last two manifests."""
    begin, end = positions_of(job, -2), positions_of(job, -1)
    return {record for p in begin for record, _ in job.input.records[p][begin[p] : end[p]]}


def test_job_that_stopped_cleanly_starts_without_its_marker(make_job: Callable[..., Job]) -> None:
    job = make_job(per_partition=100)
    job.finish()
    delete_marker(job)

    job.input.produce(100)
    job.finish()

    job.check()


@pytest.mark.parametrize(("crash", "word"), [("commit.before@5", "aborted"), ("commit.after@5", "committed")])
def test_prepared_checkpoint_without_marker_is_asked_about_and_the_right_word_is_exact(
    make_job: Callable[..., Job], crash: str, word: str
) -> None:
    job = make_job("--delay-ms", "0.5", per_partition=400)
    job.crash_at(crash)
    delete_marker(job)

    asking = job.start()
    asking.wait(1)
    job.finish("-D", f"headrace.assume={word}")

    assert "its marker is gone" in asking.log()
    assert "--assume-committed" in asking.log()
    assert "--assume-aborted" in asking.log()
    job.check()


def test_assuming_committed_what_was_aborted_loses_just_that_checkpoint(make_job: Callable[..., Job]) -> None:
    job = make_job("--delay-ms", "0.5", per_partition=400)
    job.crash_at("commit.before@5")
    delete_marker(job)
    lost = in_last_checkpoint(job)
    assert lost

    run = job.start("-D", "headrace.assume=committed")
    job.output.wait_for(job.input.count - len(lost), run)
    run.stop()

    found = job.tally()
    assert set(found.lost) == lost
    assert not found.repeated


def test_assuming_aborted_what_was_committed_repeats_just_that_checkpoint(make_job: Callable[..., Job]) -> None:
    job = make_job("--delay-ms", "0.5", per_partition=400)
    job.crash_at("commit.after@5")
    delete_marker(job)
    repeated = in_last_checkpoint(job)
    assert repeated

    run = job.start("-D", "headrace.assume=aborted")
    job.output.wait_for(job.input.count + len(repeated), run)
    run.stop()

    job.output.wait_until_closed()
    results = job.output.read()
    assert Counter(result["id"] for result in results) == Counter(job.input.ids.keys()) + Counter(repeated)
    assert has_right_state(job.input.ids, results)
