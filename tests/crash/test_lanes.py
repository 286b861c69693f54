"""Three lanes, each a process with a transaction of its own: one killed, all killed, some between two commits."""

from __future__ import annotations

import os
import random
import re
import signal
import time
from collections.abc import Callable
from typing import Any

import pytest
from tests.crash.harness import KILLED, Job, Run
from tests.crash.test_topics import FINDS_PARTITIONS, add_a_partition
from tests.groups import committed_by
from tests.processes import is_gone, state_of, wait_until

from headrace.broker import DevBroker
from headrace.checkpoint.marker import Marker, SnapshotId
from headrace.kafka.client.protocol import KafkaTopicPartition
from headrace.kafka.enumerator import lane_of

LANES = 3
COUNTS_NOTHING = ("--edit", "less")
NO_CHECKPOINT = ("--interval", "100000", "-D", "execution.checkpointing.timeout=100 s")
RESTARTS_QUICKLY = (
    *("-D", "restart-strategy.type=fixed-delay", "-D", "restart-strategy.fixed-delay.delay=20 ms"),
    *("-D", "restart-strategy.fixed-delay.attempts=1000"),
)
IN_A_COMMIT = ("commit.region", "transaction.offsets_sent", "transaction.committed")
IN_THE_COORDINATOR = ("claim.between", "claim.committed", "commit.before", "commit.between", "commit.after")


def lanes(number: int) -> tuple[str, ...]:
    return ("-D", f"parallelism.default={number}")


@pytest.fixture
def make_team(make_job: Callable[..., Job]) -> Callable[..., Job]:
    """Makes jobs whose workers are processes: `LANES` of them unless a start says otherwise."""

    def make(*arguments: str, **options: object) -> Job:
        return make_job(*COUNTS_NOTHING, *RESTARTS_QUICKLY, *lanes(LANES), *arguments, **options)

    return make


def workers(run: Run) -> dict[int, int]:
    """The process of each lane, as the job's log says; the newest one."""
    return {int(lane): int(pid) for lane, pid in re.findall(r"lane (\d+) works in process (\d+)", run.log())}


def kill_all(run: Run) -> None:
    """`kill -9` of the coordinator; its workers have to end by themselves, even a halted one."""
    own = workers(run).values()
    run.kill()
    wait_until(lambda: all(map(is_gone, own)), "the workers of a coordinator that is gone end")


def killed_lanes(run: Run) -> set[int]:
    """The lanes of whose workers the job's log says that SIGKILL ended them."""
    return {int(lane) for lane in re.findall(r"lane (\d+): its worker was ended by SIGKILL", run.log())}


def committed_lanes(job: Job) -> set[int]:
    """The lanes that have committed the newest snapshot, as their markers say that are on the broker."""
    newest, found = job.manifests()[-1], set()
    marker = Marker(newest["incarnation"], SnapshotId(**newest["id"])).encode()
    for region, snapshot in newest["regions"].items():
        place = snapshot["location"]
        if committed_by(job.bootstrap, place["group"], place["topic"]).metadata == marker:
            found.add(lane_in(region))
    return found


def lane_in(region: str) -> int:
    """The lane that a region's id ends with."""
    return int(region.rpartition("-")[2])


def wait_between_commits(job: Job, run: Run, lane: int) -> None:
    """Wait until one lane's worker has halted itself in front of its commit, and all others have done theirs."""
    run.wait_for(lambda: lane in workers(run) and state_of(workers(run)[lane]) == "T", f"lane {lane} halts")
    run.halts += 1
    others = workers(run).keys() - {lane}
    run.wait_for(lambda: committed_lanes(job) == others, f"lanes {others} commit, and lane {lane} does not")


def halt_between_commits(job: Job, hit: int, lane: int, *arguments: str) -> Run:
    """Start the job, and wait until all lanes but one have committed; the first hit is the claim of the baseline."""
    run = job.start(*arguments, crash=f"commit.region@{hit}:stop#{lane}")
    wait_between_commits(job, run, lane)
    return run


def fallen_back(run: Run) -> list[set[int]]:
    """Of each mixed restore that its log tells of, the lanes that came from the snapshot before the others'."""
    told = re.findall(r"resumes from checkpoint .* in region\(s\) (.*): the last transaction there", run.log())
    return [set(map(lane_in, regions.split(", "))) for regions in told]


@pytest.mark.parametrize("hit", [pytest.param(2, marks=pytest.mark.full), 4])
@pytest.mark.parametrize("name", ["checkpoint.flushed", *IN_A_COMMIT])
def test_workers_killed_at_a_crash_point_come_back_and_nothing_is_lost_or_repeated(
    make_team: Callable[..., Job], name: str, hit: int
) -> None:
    job = make_team("--delay-ms", "0.5")

    for only, lost in (("#1", {1}), ("", {*range(LANES)})):
        job.input.produce(300)
        run = job.start(crash=f"{name}@{hit}{only}")
        run.wait_for(lambda run=run, lost=lost: killed_lanes(run) == lost, f"the workers of lanes {lost} are killed")
        run.halts += len(lost)
        job.catch_up(run)
        run.stop()

    job.check()


@pytest.mark.parametrize(
    "crashes",
    [
        # One that was left by a fourth lane is fenced by lane 0, behind its own.
        ("start.fencing@1#1", "start.fencing@1", "start.fencing@2#0"),
        # The first commit of all is the claim.
        *(pytest.param((f"{name}@1#1", f"{name}@1"), marks=pytest.mark.full) for name in IN_A_COMMIT),
    ],
    ids=" ".join,
)
def test_workers_killed_in_a_start_end_it_and_the_next_one_loses_and_repeats_nothing(
    make_team: Callable[..., Job], crashes: tuple[str, ...]
) -> None:
    job = make_team("--delay-ms", "0.5", per_partition=200)
    run = job.start(*lanes(LANES + 1))
    job.output.wait_for(50, run)
    kill_all(run)

    for crash in crashes:
        run = job.start(crash=crash)
        run.wait(1)
        killed = killed_lanes(run)
        # Of several deaths in a start, the first one ends it, and the others may go untold.
        assert killed
        _, _, only = crash.partition("#")
        assert not only or killed == {int(only)}
        run.halts += len(killed)
    job.finish()

    job.check()


@pytest.mark.parametrize("name", IN_THE_COORDINATOR)
def test_coordinator_killed_at_a_crash_point_leaves_nothing_behind(make_team: Callable[..., Job], name: str) -> None:
    job = make_team("--bounded", "--delay-ms", "0.5", per_partition=300)

    job.crash_at(f"{name}@1")
    if not name.startswith("claim"):
        job.crash_at(f"{name}@4")
    job.start().wait(0)

    job.check()


def test_coordinator_killed_while_a_lane_comes_back_leaves_nothing_behind(make_team: Callable[..., Job]) -> None:
    job = make_team("--delay-ms", "0.5", per_partition=300)
    run = job.start(crash="lane.fenced@1")
    job.output.wait_for(50, run)

    os.kill(workers(run)[1], signal.SIGKILL)
    run.wait(KILLED)
    job.finish()

    job.check()


def test_only_the_killed_lane_starts_again(make_team: Callable[..., Job]) -> None:
    job = make_team("--delay-ms", "0.5", per_partition=300)
    run = job.start()
    job.output.wait_for(50, run)
    before = workers(run)

    os.kill(before[1], signal.SIGKILL)
    run.wait_for_log("lane 1 resumes from")
    job.catch_up(run)
    run.stop()

    after = workers(run)
    assert [lane for lane in range(LANES) if before[lane] != after[lane]] == [1]
    assert "was ended by SIGKILL" in run.log()
    job.check()


def test_kills_between_the_commits_of_two_regions_again_and_again(make_team: Callable[..., Job]) -> None:
    job = make_team("--delay-ms", "0.5", per_partition=400)
    lost = [number % LANES for number in range(2 * LANES)]
    for number, lane in enumerate(lost):
        # This lane's half of a commit does not come about, the others' does; nobody is left to tell.
        kill_all(halt_between_commits(job, 2 + number % 4, lane))
    job.finish()

    assert [fallen_back(run) for run in job.runs] == [[], *([{lane}] for lane in lost)]
    job.check()


def test_lane_killed_between_the_commits_of_two_regions_takes_the_others_with_it(make_team: Callable[..., Job]) -> None:
    # A single failure, whatever comes of it.
    job = make_team("--delay-ms", "0.5", "-D", "restart-strategy.fixed-delay.attempts=1", per_partition=400)
    run = halt_between_commits(job, 3, 1)

    os.kill(workers(run)[1], signal.SIGKILL)
    job.catch_up(run)
    run.stop()

    assert "did not commit it" in run.log()
    assert fallen_back(run) == [{1}]
    job.check()


def test_two_lanes_that_were_restored_mixed_become_four_killed_between_their_claims(
    make_team: Callable[..., Job],
) -> None:
    job = make_team("--delay-ms", "0.5", per_partition=400)

    kill_all(halt_between_commits(job, 4, 1, *lanes(2)))
    mixed = halt_between_commits(job, 1, 2, *lanes(4))
    kill_all(mixed)
    job.crash_at("claim.between@1", *lanes(4))
    job.finish(*lanes(4))

    assert fallen_back(mixed) == [{1}]
    job.check()


@pytest.mark.parametrize(
    ("before", "after"), [(4, 1), *(pytest.param(*each, marks=pytest.mark.full) for each in ((1, 4), (3, 2)))]
)
def test_another_number_of_lanes_goes_on_where_the_last_one_stopped_or_was_killed(
    make_team: Callable[..., Job], before: int, after: int
) -> None:
    job = make_team("--delay-ms", "0.5", per_partition=300)
    run = job.start(*lanes(before))
    job.output.wait_for(100, run)
    run.kill()
    run = job.start(*lanes(after))
    job.output.wait_for(200, run)
    run.stop()
    job.finish(*lanes(before))

    job.check()


def test_a_savepoint_of_three_lanes_goes_on_in_two(make_team: Callable[..., Job]) -> None:
    job = make_team(per_partition=100)
    job.finish()

    # Behind it nothing was written that would be produced again.
    run = job.start("--savepoints", "1", "--savepoint-dir", str(job.folder / "savepoints"))
    run.wait_for_log("savepoint /")
    run.kill()
    job.input.produce(50)
    (savepoint,) = (job.folder / "savepoints").iterdir()
    job.finish("-D", f"execution.state-recovery.path={savepoint}", *lanes(2))

    job.check()


def test_fresh_start_with_fewer_lanes_ends_what_an_old_lane_left_open(make_team: Callable[..., Job]) -> None:
    job = make_team("--delay-ms", "0.5", *NO_CHECKPOINT, per_partition=300)
    run = job.start()
    # Each lane's, as each has partitions of its own.
    job.output.wait_until_written(1, job.input.ids, run)
    kill_all(run)
    assert job.output.open_partitions()

    run = job.start("--interval", "50", "-D", "headrace.fresh=true", *lanes(1))
    job.catch_up(run)
    run.stop()

    # Nothing had been committed before, so even a fresh start repeats nothing.
    job.check()


def readers_of(partition: KafkaTopicPartition, manifest: dict[str, Any]) -> set[int]:
    """The lanes that read a partition, as a manifest has it."""
    return {
        lane_in(region)
        for region, snapshot in manifest["regions"].items()
        for split in snapshot["operators"]["input"]["splits"].values()
        if (split["topic"], split["partition"]) == (partition.topic, partition.partition)
    }


@pytest.mark.parametrize("distance", [0, 1, pytest.param(2, marks=pytest.mark.full)])
def test_partition_added_in_a_checkpoint_that_one_region_lost_is_read_from_its_first_record(
    make_team: Callable[..., Job], distance: int
) -> None:
    # The checkpoint is lost by the lane that reads the partition, or by another one.
    job = make_team(*FINDS_PARTITIONS, per_partition=50)
    added = KafkaTopicPartition(job.input.topic, job.input.partitions)
    reader = lane_of(added, LANES)
    loser = (reader + distance) % LANES
    asked = job.folder / "asked"
    os.mkfifo(asked)
    savepoint = ("--savepoints", "1", "--savepoint-dir", str(job.folder / "savepoints"), "--savepoint-when", str(asked))
    run = job.start(*NO_CHECKPOINT, *savepoint, crash=f"commit.region@2:stop#{loser}")
    run.wait_for_log("starts from the beginning")
    add_a_partition(job)
    job.input.produce(50)
    run.wait_for_log("reads 1 new split(s)")
    job.output.wait_until_written(1, job.input.ids, run)

    asked.write_bytes(b"now")
    wait_between_commits(job, run, loser)
    assert [readers_of(added, manifest) for manifest in job.manifests()] == [set(), {reader}]
    kill_all(run)
    job.input.produce(50)
    run = job.finish()

    assert fallen_back(run) == [{loser}]
    job.check()


def test_partition_added_to_a_lane_that_is_killed_before_the_next_checkpoint_is_read(
    make_team: Callable[..., Job],
) -> None:
    job = make_team(*NO_CHECKPOINT, *FINDS_PARTITIONS, per_partition=50)
    run = job.start()
    run.wait_for_log("starts from the beginning")
    add_a_partition(job)
    job.input.produce(50)
    job.output.wait_until_written(1, job.input.ids, run)

    for pid in workers(run).values():
        os.kill(pid, signal.SIGKILL)
        run.halts += 1
    job.output.wait_until_written(2, job.input.ids, run)
    run.stop()

    job.check()


def kill_at_random(job: Job, draw: random.Random, kills: int) -> None:
    """Kill one worker, several at once, or the coordinator, at random moments while records keep coming."""
    run = job.start()
    for _ in range(kills):
        if not run.is_running:
            run = job.start()
        job.input.produce(60)
        visible = job.output.visible()
        job.output.wait_for(min(visible + draw.randrange(1, 200), job.input.count), run)
        # At any moment: what is drawn is when, and nothing is waited for.
        time.sleep(draw.uniform(0, 0.3))
        own = [pid for pid in workers(run).values() if not is_gone(pid)]
        victims = draw.sample(own, draw.randint(1, len(own))) if own else []
        if draw.random() < 0.3:
            run.kill()
            run = job.start()
            continue
        for pid in victims:
            os.kill(pid, signal.SIGKILL)
            run.halts += 1
    job.catch_up(run)
    run.stop()


def test_a_few_kills_of_workers_and_coordinator_lose_and_repeat_nothing(
    make_team: Callable[..., Job], seed: int
) -> None:
    job = make_team("--delay-ms", "0.3")
    kill_at_random(job, random.Random(seed), kills=8)
    job.check()


@pytest.mark.full
@pytest.mark.parametrize("part", range(4))
def test_a_hundred_kills_of_workers_and_coordinator_lose_and_repeat_nothing(
    make_team: Callable[..., Job], seed: int, part: int
) -> None:
    job = make_team("--delay-ms", "0.3")
    kill_at_random(job, random.Random(f"{seed}-{part}"), kills=28)
    job.check()


def test_broker_killed_under_three_lanes_loses_and_repeats_nothing(
    make_team: Callable[..., Job], mortal_kafka: DevBroker
) -> None:
    job = make_team("--delay-ms", "0.5", broker=mortal_kafka, per_partition=400)
    run = job.start()
    job.output.wait_for(100, run)

    mortal_kafka.kill()
    mortal_kafka.restart()
    job.catch_up(run)
    run.stop()

    job.check()
