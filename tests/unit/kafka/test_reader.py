"""What a reader does about its group and about logs that lose what it was to read, on clients that say so."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import pytest

from headrace.errors import ExternalError
from headrace.kafka.client.protocol import (
    ClientError,
    ClientFailed,
    EndOfPartition,
    Event,
    Failure,
    KafkaTopicPartition,
    OffsetsCommitted,
    PartitionFailed,
    Position,
    Records,
    TopicDescription,
)
from headrace.kafka.offsets import KafkaOffsetResetStrategy
from headrace.kafka.rate_limit import RateLimit
from headrace.kafka.reader import KafkaReader, ReaderSettings
from headrace.kafka.split import KafkaSplit

PARTITION = KafkaTopicPartition("t", 0)
SETTINGS = ReaderSettings(KafkaOffsetResetStrategy.NONE, "group", reads_uncommitted=True, servers="host:1")
NO_COORDINATOR = Failure("_WAIT_COORD", "waiting for coordinator")


class Group:
    """A consumer, without records. Its group takes offsets, or refuses them: at once, or in a later answer."""

    def __init__(self) -> None:
        self.offsets: dict[KafkaTopicPartition, int] = {}
        self.refusal: Failure | None = None
        self.refuses_at_once = False
        self.events: list[Event] = []

    def assign(self, positions: Mapping[KafkaTopicPartition, int]) -> None:
        pass

    def consume(self, max_records: int, timeout_s: float) -> list[Event]:
        events, self.events = self.events, []
        return events

    def end_seen(self, partition: KafkaTopicPartition) -> int:
        return 5

    def commit(self, offsets: Mapping[KafkaTopicPartition, int]) -> None:
        if self.refusal is not None and self.refuses_at_once:
            raise ClientError(self.refusal)
        if self.refusal is None:
            self.offsets.update(offsets)
        self.events.append(OffsetsCommitted(offsets, self.refusal))


def reader_of(group: Group, position: int) -> KafkaReader:
    """A reader with one split that stays at its position."""

    def make_admin() -> None:
        raise AssertionError("nothing has to be looked for")

    reader = KafkaReader(group, make_admin, None, SETTINGS)
    reader.add_splits([KafkaSplit(PARTITION, position)])
    return reader


@pytest.mark.parametrize("at_once", [True, False], ids=["at once", "later"])
def test_offsets_that_the_group_refused_are_committed_with_the_next_checkpoint_also_if_none_has_changed(
    at_once: bool, caplog: pytest.LogCaptureFixture
) -> None:
    group = Group()
    group.refusal, group.refuses_at_once = NO_COORDINATOR, at_once
    reader = reader_of(group, position=5)

    reader.notify_checkpoint_complete(reader.snapshot())
    assert reader.poll(500, 0) == []
    group.refusal = None
    reader.notify_checkpoint_complete(reader.snapshot())

    assert "the next checkpoint tries again: waiting for coordinator" in caplog.text
    assert group.offsets == {PARTITION: 5}


@pytest.mark.parametrize("at_once", [True, False], ids=["at once", "later"])
def test_commits_that_the_group_took_and_refused_are_counted(at_once: bool) -> None:
    group = Group()
    reader = reader_of(group, position=5)

    def shown() -> dict[str, float]:
        return {row.name: row.value for row in reader.metrics()}

    group.refusal, group.refuses_at_once = NO_COORDINATOR, at_once
    reader.notify_checkpoint_complete(reader.snapshot())
    reader.poll(500, 0)
    assert shown() == {"commitsSucceeded": 0, "commitsFailed": 1, "currentOffset": -1, "committedOffset": -1}
    group.refusal = None
    reader.notify_checkpoint_complete(reader.snapshot())
    reader.poll(500, 0)
    assert shown() == {"commitsSucceeded": 1, "commitsFailed": 1, "currentOffset": -1, "committedOffset": 5}


@pytest.mark.parametrize("answer", [None, Records(PARTITION, [b""], [0], 1, None), EndOfPartition(PARTITION, 0)])
def test_a_connection_that_fails_ends_reading_only_before_the_first_answer(
    answer: Event | None, caplog: pytest.LogCaptureFixture
) -> None:
    group = Group()
    reader = reader_of(group, position=0)
    refused = ClientFailed(Failure("_AUTHENTICATION", "who is this?"))
    group.events = [refused, refused] if answer is None else [answer, refused, refused]

    if answer is None:
        with pytest.raises(ExternalError, match="host:1 refused the login") as raised:
            reader.poll(500, 0)
        assert raised.value.retriable
    else:
        reader.poll(500, 0)
        assert len(caplog.messages) == 1
        assert "going on trying" in caplog.text


class Log:
    """One partition's log and a consumer of it, which may be another one, shorter, from one poll to the next."""

    def __init__(self, end: int) -> None:
        self.end = end
        self.topic_id = "old"
        self.at = 0
        self.is_paused = False
        self._failures: list[Event] = []

    def create_again(self, end: int) -> None:
        self.end, self.topic_id = end, "new"
        self._failures.append(PartitionFailed(PARTITION, Failure("OFFSET_OUT_OF_RANGE", "out of range")))

    def assign(self, positions: Mapping[KafkaTopicPartition, int]) -> None:
        self.at = positions[PARTITION]

    def unassign(self, partitions: Iterable[KafkaTopicPartition]) -> None:
        self.is_paused = False

    def pause(self, partitions: Iterable[KafkaTopicPartition]) -> None:
        self.is_paused = True

    def consume(self, max_records: int, timeout_s: float) -> list[Event]:
        if self._failures:
            return [self._failures.pop()]
        count = min(max_records, self.end - self.at)
        if not count:
            return []
        first, self.at = self.at, self.at + count
        return [Records(PARTITION, [b""] * count, [0] * count, self.at, LogRecords(first))]

    def describe_topics(self, names: Iterable[str]) -> dict[str, TopicDescription]:
        return {name: TopicDescription(name, self.topic_id, (0,)) for name in names}

    def list_offsets(self, partitions: Iterable[KafkaTopicPartition], at: Position) -> dict[KafkaTopicPartition, int]:
        return dict.fromkeys(partitions, self.end if at is Position.LATEST else 0)

    def close(self) -> None:
        pass


class LogRecords:
    """Records that follow each other without a gap."""

    def __init__(self, first: int) -> None:
        self._first = first

    def offset(self, index: int) -> int:
        return self._first + index


def reader_of_log(log: Log, split: KafkaSplit, strategy: KafkaOffsetResetStrategy) -> KafkaReader:
    reader = KafkaReader(log, lambda: log, None, ReaderSettings(strategy, None, True, "host:1"))
    reader.add_splits([split])
    return reader


def process(reader: KafkaReader, count: int) -> None:
    """Read and process this many records."""
    while count:
        for batch in reader.poll(count, 0):
            batch.origin.advance(len(batch.values))
            count -= len(batch.values)


def test_a_position_that_was_reset_is_the_one_that_checkpoints_hold_also_of_a_bounded_source() -> None:
    log = Log(end=600)
    split = KafkaSplit(PARTITION, 500, stop=1000, topic_id="old")
    reader = reader_of_log(log, split, KafkaOffsetResetStrategy.EARLIEST)
    process(reader, 50)

    log.create_again(end=400)
    assert reader.poll(500, 0) == []
    process(reader, 200)

    assert reader.snapshot() == [KafkaSplit(PARTITION, 200, stop=1000, topic_id="new")]


@pytest.mark.parametrize(
    ("strategy", "is_start"), [(KafkaOffsetResetStrategy.EARLIEST, True), (KafkaOffsetResetStrategy.LATEST, False)]
)
def test_an_unread_start_that_was_reset_is_one_only_if_it_is_at_the_start_of_the_log(
    strategy: KafkaOffsetResetStrategy, is_start: bool
) -> None:
    log = Log(end=0)
    split = KafkaSplit(PARTITION, 500, topic_id="old", is_start=True)
    reader = reader_of_log(log, split, strategy)

    log.create_again(end=400)
    assert reader.poll(500, 0) == []
    reader.poll(1, 0)  # and nothing is processed

    (resumed,) = reader.snapshot()
    assert isinstance(resumed, KafkaSplit)
    assert (resumed.position, resumed.is_start) == (0 if is_start else 400, is_start)


def test_a_paused_partition_stays_so_when_its_position_is_reset() -> None:
    log = Log(end=600)
    reader = reader_of_log(log, KafkaSplit(PARTITION, 500, topic_id="old"), KafkaOffsetResetStrategy.EARLIEST)
    reader.pause_or_resume_splits([str(PARTITION)], [])
    log.create_again(end=400)
    reader.poll(500, 0)
    assert log.is_paused
    reader.poll(0, 0)
    assert log.is_paused


def test_with_a_rate_limit_a_reader_asks_for_as_many_records_as_are_due(monkeypatch: pytest.MonkeyPatch) -> None:
    now, slept = [100.0], []
    monkeypatch.setattr("headrace.kafka.reader.time.monotonic", lambda: now[0])
    monkeypatch.setattr("headrace.kafka.reader.time.sleep", slept.append)
    log = Log(end=600)
    settings = ReaderSettings(KafkaOffsetResetStrategy.NONE, None, True, "host:1")
    reader = KafkaReader(log, lambda: log, None, settings, rate_limit=RateLimit(per_second=8))
    reader.add_splits([KafkaSplit(PARTITION, 0)])
    counts = []
    for later_s in (0.0, 0.5, 0.0, 0.0625, 0.0625, 60.0):
        now[0] += later_s
        counts.append(sum(len(batch.values) for batch in reader.poll(500, 1.0)))
    # A second's worth at once, at most.
    assert counts == [0, 4, 0, 0, 1, 8]
    assert slept == [0.125, 0.125, 0.0625]
