"""Records of assigned partitions, in batches.

Theory of operation. Three offsets per partition: `handed_out` is behind the last record given to the engine, `position`
is behind the last one it has processed (`Origin.advance`), and `end` is where the client last met the end of the log.
Once everything handed out is processed, the position is `end`: behind a control record, if there is one. Snapshots hold
positions. A partition is finished when its position is at its stop offset.

Invariant. Partitions are assigned with explicit offsets, and the client never resets one by itself: a position that the
log does not hold comes here as a failure, and `offsets.reset` decides in the open.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, assert_never

from headrace.connector import Batch, OriginalRecord, SourceReader, Split
from headrace.errors import InternalError, UserCodeError
from headrace.kafka.client.protocol import (
    Admin,
    ClientError,
    ClientFailed,
    Consumer,
    EndOfPartition,
    Failure,
    KafkaTopicPartition,
    OffsetsCommitted,
    PartitionFailed,
    Position,
    Records,
    RecordSource,
    TopicDescription,
)
from headrace.kafka.client.reports import is_hopeless
from headrace.kafka.failures import error_of
from headrace.kafka.metrics import CONSUMER, AskedEnds, Statistics, at_partition, consumer_rows
from headrace.kafka.offsets import KafkaOffsetResetStrategy, LogOffsets, reset
from headrace.kafka.rate_limit import RateLimit
from headrace.kafka.split import KafkaSplit
from headrace.metrics.registry import Groups, Row

_LOG = logging.getLogger("headrace.kafka")

_NOT_IN_LOG = frozenset({"_AUTO_OFFSET_RESET", "OFFSET_OUT_OF_RANGE", "_LOG_TRUNCATION"})
_OTHER_MEMBERS = frozenset({"UNKNOWN_MEMBER_ID", "ILLEGAL_GENERATION", "REBALANCE_IN_PROGRESS", "FENCED_INSTANCE_ID"})
_SHOWN_BYTES = 64
_LONG_WAIT_S = 1.0
"""For the next permit: a partition that is paused and resumed is fetched again, which is too much for shorter ones."""
_GROUP: Final[Groups] = (("KafkaSourceReader", None),)


@dataclass(slots=True)
class _Progress:
    """How far one split has come."""

    split: KafkaSplit
    position: int
    handed_out: int
    end: int | None = None
    failure: Failure | None = None
    is_assigned: bool = False
    is_paused: bool = False
    last: int = -1
    """The offset of the last record that was handed out."""

    @property
    def reached(self) -> int:
        """Everything below has been handed out or will never come."""
        return self.handed_out if self.end is None else max(self.end, self.handed_out)

    @property
    def is_finished(self) -> bool:
        return self.split.stop is not None and self.reached >= self.split.stop

    def snapshot(self) -> KafkaSplit:
        position = self.reached if self.position == self.handed_out else self.position
        if self.split.stop is not None:
            position = max(min(position, self.split.stop), self.split.position)
        is_start = self.split.is_start and position == self.split.position
        return replace(self.split, position=position, is_start=is_start)


class KafkaOrigin:
    """Where the records of one batch came from."""

    __slots__ = ("_count", "_next_offset", "_progress", "_source")

    def __init__(self, progress: _Progress, source: RecordSource, count: int, next_offset: int) -> None:
        self._progress = progress
        self._source = source
        self._count = count
        self._next_offset = next_offset

    @property
    def split_id(self) -> str:
        return self._progress.split.split_id

    def describe(self, index: int) -> str:
        at = self._progress.split.partition
        value = self._source.value(index)
        if value is None:
            shown = "no value"
        elif len(value) > _SHOWN_BYTES:
            shown = f"{value[:_SHOWN_BYTES]!r}… ({len(value)} bytes)"
        else:
            shown = repr(value)
        return f"topic {at.topic}, partition {at.partition}, offset {self._source.offset(index)}: {shown}"

    def record(self, index: int) -> OriginalRecord:
        at, source = self._progress.split.partition, self._source
        timestamp = source.timestamp(index)
        return OriginalRecord(
            source.value(index),
            source.key(index),
            source.headers(index),
            timestamp if timestamp >= 0 else None,
            at.topic,
            at.partition,
            source.offset(index),
        )

    def advance(self, count: int) -> None:
        if count == self._count:
            self._progress.position = self._next_offset
        elif count > 0:
            self._progress.position = self._source.offset(count - 1) + 1


@dataclass(frozen=True, slots=True)
class ReaderSettings:
    """What a source tells its readers. `group_id` is None if no offsets are to be committed; `whole_records`: elements
    are made of all that a record has, any number of each; `skips`: None made of a value is no element."""

    reset_strategy: KafkaOffsetResetStrategy
    group_id: str | None
    reads_uncommitted: bool
    servers: str
    whole_records: bool = False
    skips: bool = False
    forwards_metrics: bool = True


class KafkaReader(SourceReader):
    """Reads splits. `make_admin` is called when a position has to be looked for."""

    def __init__(
        self,
        consumer: Consumer,
        make_admin: Callable[[], Admin],
        deserialize: Callable[[Any], Any] | None,
        settings: ReaderSettings,
        is_end: Callable[[Any], bool] | None = None,
        rate_limit: RateLimit | None = None,
        statistics: Statistics | None = None,
    ) -> None:
        self.deserialize = deserialize
        self.gives_many = settings.whole_records
        self.skips = settings.skips
        self._is_end = is_end
        self._rate_limit = rate_limit
        self._consumer = consumer
        self._make_admin = make_admin
        self._settings = settings
        self._progress: dict[KafkaTopicPartition, _Progress] = {}
        self._by_id: dict[str, _Progress] = {}
        self._unfinished = 0
        self._failed: list[_Progress] = []
        self._statistics = statistics
        self._asked_ends = AskedEnds(make_admin)
        self._committed: dict[KafkaTopicPartition, int] = {}
        self._confirmed: dict[KafkaTopicPartition, int] = {}
        self._commits_succeeded = 0
        self._commits_failed = 0
        self._commits = settings.group_id is not None
        self._told_of: set[str] = set()
        self._ahead: dict[KafkaTopicPartition, Records] = {}
        self._has_answers = False

    def add_splits(self, splits: Sequence[Split]) -> None:
        positions = {}
        for split in splits:
            if not isinstance(split, KafkaSplit):
                raise InternalError(f"a Kafka reader was given {split!r}")
            progress = _Progress(split, position=split.position, handed_out=split.position)
            self._progress[split.partition] = progress
            self._by_id[split.split_id] = progress
            if not progress.is_finished:
                progress.is_assigned = True
                positions[split.partition] = split.position
        self._unfinished += len(positions)
        if positions:
            try:
                self._consumer.assign(positions)
            except ClientError as error:
                raise error_of("partitions could not be assigned", error.failure, self._settings.servers) from None

    def poll(self, max_records: int, timeout_s: float) -> Sequence[Batch]:
        if self._failed:
            self._go_on()
        now = time.monotonic()
        deadline = now + timeout_s
        if self._rate_limit is not None:
            max_records = min(max_records, self._rate_limit.allowed(now))
            if not max_records:
                self._wait_for_permit(self._rate_limit, timeout_s)
                return []
            if self._ahead and (batch := self._release()) is not None:
                return [batch]
        is_reading = self._unfinished > 0
        while True:
            batches = self._poll(max_records, timeout_s)
            timeout_s = deadline - time.monotonic()
            # The end of a partition ends the wait too. Without partitions there is nothing to wait for but time.
            if batches or is_reading or timeout_s <= 0:
                return batches

    def _wait_for_permit(self, limit: RateLimit, timeout_s: float) -> None:
        wait_s = limit.wait_s()
        if wait_s <= _LONG_WAIT_S:
            # What else the client has to say comes with the next record, or the end.
            time.sleep(min(timeout_s, wait_s))
            return
        # One record of each partition may come, and waits here while the partition is paused. So ends, failures and the
        # outcomes of commits do not wait for the next permit.
        self._poll(1, min(timeout_s, wait_s), holds=True)

    def _release(self) -> Batch | None:
        """A record that came ahead of its permit, and whose split is not paused."""
        for partition, records in self._ahead.items():
            if not self._progress[partition].is_paused:
                del self._ahead[partition]
                self._pause_and_resume([], [partition])
                return self._permitted(records)
        return None

    def _permitted(self, records: Records) -> Batch | None:
        batch = self._take(records)
        if batch is not None and self._rate_limit is not None:
            self._rate_limit.take(len(batch.values))
        return batch

    def _poll(self, max_records: int, timeout_s: float, *, holds: bool = False) -> list[Batch]:
        try:
            events = self._consumer.consume(max_records, max(0.0, timeout_s))
        except ClientError as error:
            raise error_of("records could not be read", error.failure, self._settings.servers) from None
        batches = []
        for event in events:
            match event:
                case Records():
                    self._has_answers = True
                    if holds:
                        self._ahead[event.partition] = event
                        self._pause_and_resume([event.partition], [])
                    elif (batch := self._permitted(event)) is not None:
                        batches.append(batch)
                case EndOfPartition(partition, offset):
                    self._has_answers = True
                    progress = self._progress[partition]
                    progress.end = offset
                    self._told_of.clear()
                    self._stop_if_finished(progress)
                case PartitionFailed(partition, failure):
                    self._partition_failed(partition, failure)
                case ClientFailed(failure):
                    self._client_failed(failure)
                case OffsetsCommitted(offsets, commit_failure):
                    if commit_failure is not None:
                        self._commit_failed(commit_failure)
                    else:
                        self._commits_succeeded += 1
                        self._confirmed.update(offsets)
                        _LOG.debug("committed %d offsets to group %s", len(offsets), self._settings.group_id)
                case _:
                    assert_never(event)
        return batches

    def _take(self, records: Records) -> Batch | None:
        progress = self._progress[records.partition]
        values, timestamps, next_offset = records.values, records.timestamps, records.next_offset
        stop = progress.split.stop
        if self._is_end is not None and stop is None and (stop := self._find_end(progress, records)) is not None:
            # From here on it is an end like any other: in snapshots, too.
            progress.split = replace(progress.split, stop=stop)
        if stop is not None and next_offset > stop:
            count = len(values)
            while count and records.source.offset(count - 1) >= stop:
                count -= 1
            values, timestamps = values[:count], timestamps[:count]
            next_offset = stop
        if values:
            progress.handed_out = next_offset
            progress.last = next_offset - 1
            progress.end = None
        else:
            progress.end = stop
        if self._told_of:
            self._told_of.clear()
        if stop is not None:
            self._stop_if_finished(progress)
        if not values:
            return None
        return Batch(values, timestamps, KafkaOrigin(progress, records.source, len(values), next_offset))

    def _find_end(self, progress: _Progress, records: Records) -> int | None:
        """The offset of the first record whose element ends its partition. Reads each record once more than the loop
        does, and only for schemas that have such an end."""
        assert self._is_end is not None
        for index, value in enumerate(records.values):
            try:
                element = value if self.deserialize is None else self.deserialize(value)
            except Exception:  # noqa: BLE001 - the loop meets it again, at this record, and says whose fault it is
                return None
            try:
                is_element = element is not None or value is None or not self.skips
                if is_element and self._is_end(element):
                    return records.source.offset(index)
            except Exception as error:
                record = KafkaOrigin(progress, records.source, len(records.values), 0).describe(index)
                message = f"`is_end_of_stream` failed with {type(error).__name__}: {error} on the record at {record}"
                raise UserCodeError(message, record=record) from error
        return None

    def _stop_if_finished(self, progress: _Progress) -> None:
        # Records and the end of the partition may both say so.
        if progress.is_finished and progress.is_assigned:
            progress.is_assigned = False
            self._unfinished -= 1
            self._consumer.unassign([progress.split.partition])

    def _partition_failed(self, partition: KafkaTopicPartition, failure: Failure) -> None:
        progress = self._progress[partition]
        if failure.name in _NOT_IN_LOG:
            # At the next poll: everything handed out is processed by then.
            progress.failure = failure
            self._failed.append(progress)
        elif failure.is_retriable:
            self._warn_once(failure, f"{partition} cannot be read at the moment")
        else:
            raise error_of(
                f"{partition} cannot be read at offset {progress.handed_out}", failure, self._settings.servers
            )

    def _go_on(self) -> None:
        """Where the reset strategy says, with partitions whose log does not hold their position."""
        failed, self._failed = self._failed, []
        partitions = [progress.split.partition for progress in failed]
        admin = self._make_admin()
        try:
            topics = admin.describe_topics({partition.topic for partition in partitions})
            ends = admin.list_offsets(partitions, Position.LATEST)
            starts = admin.list_offsets(partitions, Position.EARLIEST)
        except ClientError as error:
            what = "the offsets of a partition could not be looked up"
            raise error_of(what, error.failure, self._settings.servers) from None
        finally:
            admin.close()
        for progress in failed:
            partition = progress.split.partition
            topic, start, end = topics[partition.topic], starts[partition], ends[partition]
            for answer in (topic, start, end):
                if isinstance(answer, Failure):
                    raise error_of(f"{partition} cannot be read any more", answer, self._settings.servers)
            assert isinstance(topic, TopicDescription)
            assert isinstance(start, int)
            assert isinstance(end, int)
            self._reset(progress, LogOffsets(start, end), topic.topic_id)

    def _reset(self, progress: _Progress, log: LogOffsets, topic_id: str | None) -> None:
        split = progress.split
        known_id, is_start = split.topic_id, progress.snapshot().is_start
        moved = reset(
            split.partition,
            progress.handed_out,
            log,
            self._settings.reset_strategy,
            is_start=is_start,
            was_recreated=None not in (topic_id, known_id) and topic_id != known_id,
        )
        progress.failure = None
        progress.end = None
        if moved is not None:
            if moved.reason is not None:
                _LOG.warning("records were lost to this job: %s", moved.reason)
            is_start = is_start and moved.offset == log.start
            progress.split = replace(split, position=moved.offset, topic_id=topic_id, is_start=is_start)
            progress.position = progress.handed_out = moved.offset
        self._ahead.pop(split.partition, None)
        self._consumer.unassign([split.partition])
        if progress.is_finished:
            progress.is_assigned = False
            self._unfinished -= 1
        else:
            self._consumer.assign({split.partition: progress.handed_out})
            if progress.is_paused:
                self._consumer.pause([split.partition])

    def _client_failed(self, failure: Failure) -> None:
        if failure.name == "GROUP_AUTHORIZATION_FAILED":
            # Without a group of the program's own nobody asked for it.
            if self._settings.group_id is not None:
                self._commit_failed(failure)
        elif failure.is_fatal or is_hopeless(failure, has_succeeded=self._has_answers):
            raise error_of("records could not be read", failure, self._settings.servers)
        elif failure.name != "_MAX_POLL_EXCEEDED":
            self._warn_once(failure, f"trouble with the brokers at {self._settings.servers}")

    def _warn_once(self, failure: Failure, what: str) -> None:
        """Once until records come again: the client repeats itself."""
        if failure.name not in self._told_of:
            self._told_of.add(failure.name)
            _LOG.warning("%s, going on trying: %s", what, failure)

    def snapshot(self) -> list[Split]:
        return [progress.snapshot() for progress in self._progress.values()]

    def is_finished(self, split_id: str) -> bool:
        return self._by_id[split_id].is_finished

    def is_caught_up(self, split_id: str) -> bool:
        progress = self._by_id[split_id]
        if progress.is_finished:
            return True
        if progress.end is None or progress.split.partition in self._ahead:
            return False
        if self._settings.reads_uncommitted:
            # Records that the client has fetched, or heard of, and not handed over yet.
            seen = self._consumer.end_seen(progress.split.partition)
            return seen is None or seen <= progress.end
        return True

    def pause_or_resume_splits(self, splits_to_pause: Iterable[str], splits_to_resume: Iterable[str]) -> None:
        paused, resumed = self._reading(splits_to_pause), self._reading(splits_to_resume)
        self._pause_and_resume(
            [progress.split.partition for progress in paused],
            [at.split.partition for at in resumed if at.split.partition not in self._ahead],
        )
        for progress in paused:
            progress.is_paused = True
        for progress in resumed:
            progress.is_paused = False

    def _pause_and_resume(self, paused: list[KafkaTopicPartition], resumed: list[KafkaTopicPartition]) -> None:
        try:
            if paused:
                self._consumer.pause(paused)
            if resumed:
                self._consumer.resume(resumed)
        except ClientError as error:
            raise error_of("partitions could not be paused", error.failure, self._settings.servers) from None

    def _reading(self, split_ids: Iterable[str]) -> list[_Progress]:
        """Those that are not at their end: the client has let go of the others."""
        return [self._by_id[split_id] for split_id in split_ids if self._by_id[split_id].is_assigned]

    def lag(self) -> int | None:
        assigned = [progress for progress in self._progress.values() if progress.is_assigned]
        lags = [self._lag_of(progress) for progress in assigned]
        return None if None in lags else sum(lag for lag in lags if lag is not None)

    def _lag_of(self, progress: _Progress) -> int | None:
        partition = progress.split.partition
        end = self._consumer.end_seen(partition)
        if end is None:
            end = self._asked_ends.of(partition)
        return None if end is None else max(0, end - progress.reached)

    def metrics(self) -> Iterator[Row]:
        yield Row("commitsSucceeded", self._commits_succeeded, _GROUP)
        yield Row("commitsFailed", self._commits_failed, _GROUP)
        lags = {at.split.partition: self._lag_of(at) for at in self._progress.values() if at.is_assigned}
        # A paused partition is not fetched, and an empty one answers after a while only.
        self._asked_ends.ask(partition for partition, lag in lags.items() if lag is None)
        for at, progress in self._progress.items():
            groups = at_partition(_GROUP, at.topic, at.partition)
            yield Row("currentOffset", progress.last, groups)
            yield Row("committedOffset", self._confirmed.get(at, -1), groups)
        if self._statistics is None:
            return
        found = self._statistics.found
        if (size := found.get("rxmsg_bytes")) is not None:
            yield Row("numBytesIn", size)
        if self._settings.forwards_metrics:
            known = {at: lag for at, lag in lags.items() if lag is not None}
            for at, lag in known.items():
                yield Row("records-lag", lag, at_partition(CONSUMER, at.topic, at.partition))
            if known:
                yield Row("records-lag-max", max(known.values()), CONSUMER)
            yield from consumer_rows(self._statistics)

    def notify_checkpoint_complete(self, splits: Sequence[Split]) -> None:
        if not self._commits:
            return
        positions = {split.partition: split.position for split in splits if isinstance(split, KafkaSplit)}
        new = {p: position for p, position in positions.items() if self._committed.get(p) != position}
        if not new:
            return
        try:
            self._consumer.commit(new)
        except ClientError as error:
            self._commit_failed(error.failure)
            return
        self._committed.update(new)

    def _commit_failed(self, failure: Failure) -> None:
        group = self._settings.group_id
        self._commits_failed += 1
        if failure.name in _OTHER_MEMBERS:
            _LOG.warning(
                "offsets were not committed to group %r: another application has joined it (%s); give this one a "
                "`group.id` of its own. The job goes on, its positions are in its checkpoints",
                group,
                failure,
            )
        elif failure.name == "GROUP_AUTHORIZATION_FAILED":
            # A commit under way without rights holds up closing for 45 s.
            self._commits = False
            _LOG.warning(
                "offsets are not committed to group %r: %s; this principal needs Read on the group. The job goes on, "
                "its positions are in its checkpoints",
                group,
                failure,
            )
        else:
            self._committed.clear()
            _LOG.warning("offsets were not committed to group %r, the next checkpoint tries again: %s", group, failure)

    def close(self) -> None:
        self._consumer.close()
