"""Reading a stretch of a topic for people: from a place to another, the last records, or on and on.

Theory of operation. Where to begin and where to end is resolved to offsets first. A partition is at its end by
position, never by a record's offset: behind the records of a transaction stands one that never arrives.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from headrace.errors import ConfigError, ExternalError
from headrace.kafka.client.protocol import (
    Admin,
    ClientFailed,
    Consumer,
    EndOfPartition,
    Failure,
    KafkaConsumerRecord,
    KafkaTopicPartition,
    PartitionFailed,
    Position,
    Records,
)
from headrace.kafka.client.reports import is_hopeless
from headrace.kafka.failures import error_of, may_not, missing_right

_LOG = logging.getLogger("headrace.kafka")

_POLL_S: Final = 0.1
_AT_ONCE: Final = 1000
_FURTHER: Final = 4


def parse_place(text: str) -> Position | int | datetime:
    """`earliest`, `latest`, an offset, or a time: ISO 8601, or `@` and milliseconds. Raises `ConfigError`.

    >>> parse_place("17"), parse_place("latest"), parse_place("@1500").timestamp()
    (17, <Position.LATEST: 'latest'>, 1.5)
    """
    if text in (Position.EARLIEST.value, Position.LATEST.value):
        return Position(text)
    if re.fullmatch("[0-9]{1,19}", text):
        return int(text)
    try:
        found = datetime.fromtimestamp(int(text[1:]) / 1000) if text[:1] == "@" else datetime.fromisoformat(text)
        found.timestamp()
    except (ValueError, OverflowError, OSError):
        raise ConfigError(
            f"{text!r} is no place in a topic: give earliest, latest, an offset (17), a time (2026-01-31T12:00, local "
            "unless it ends with Z or +02:00), or @ and milliseconds since 1970"
        ) from None
    return found


@dataclass(frozen=True, slots=True)
class Log:
    """What a partition holds for its reader: from `start` up to and without `end`."""

    start: int
    end: int


def logs(
    admin: Admin, topic: str, numbers: Iterable[int], servers: str, *, is_committed: bool
) -> dict[KafkaTopicPartition, Log]:
    """What the partitions hold now, those with these numbers or all. Raises `ConfigError` for one that is not there.

    `is_committed`: for a `read_committed` reader, to whom nothing is visible from the first open transaction on.
    """
    what = f"topic {topic!r} could not be read"
    described = admin.describe_topics([topic])[topic]
    if may_not(described, "READ"):
        raise missing_right(what, "Read", f"topic {topic!r}")
    if isinstance(described, Failure):
        raise error_of(what, described, servers)
    wanted = list(numbers) or list(described.partitions)
    for number in wanted:
        if number not in described.partitions:
            raise ConfigError(f"topic {topic!r} has no partition {number}; it has 0 to {len(described.partitions) - 1}")
    partitions = [KafkaTopicPartition(topic, number) for number in wanted]
    # In this order: a start that moves meanwhile is never beyond the end.
    ends = admin.list_offsets(partitions, Position.STABLE if is_committed else Position.LATEST)
    starts = admin.list_offsets(partitions, Position.EARLIEST)
    found = {}
    for partition in partitions:
        start, end = starts[partition], ends[partition]
        for failure in (start, end):
            if isinstance(failure, Failure):
                raise error_of(f"the offsets of {partition} could not be asked for", failure, servers)
        assert isinstance(start, int)
        assert isinstance(end, int)
        found[partition] = Log(start, max(start, end))
    return found


def begin(
    admin: Admin, held: Mapping[KafkaTopicPartition, Log], place: Position | int | datetime, servers: str
) -> dict[KafkaTopicPartition, int]:
    """The offset in each partition for a place. One that the log does not hold (any more) is moved to where it does."""
    match place:
        case Position.EARLIEST:
            return {partition: log.start for partition, log in held.items()}
        case Position():
            return {partition: log.end for partition, log in held.items()}
        case int():
            return {partition: min(max(place, log.start), log.end) for partition, log in held.items()}
        case datetime():
            found = admin.list_offsets(held, max(0, int(place.timestamp() * 1000)))
            positions = {}
            for partition, log in held.items():
                offset = found[partition]
                if isinstance(offset, Failure):
                    raise error_of(f"the offset of {partition} at {place} could not be asked for", offset, servers)
                positions[partition] = log.end if offset is None else min(max(offset, log.start), log.end)
            return positions


def read(
    consumer: Consumer,
    positions: Mapping[KafkaTopicPartition, int],
    ends: Mapping[KafkaTopicPartition, int] | None,
    servers: str,
    timeout_s: float,
) -> Iterator[list[KafkaConsumerRecord]]:
    """The records from these positions on, up to and without `ends` (None: on and on), in the order of each partition.

    With `ends`, raises `ExternalError` if nothing comes for `timeout_s`; without, an empty list says that nothing came.
    """
    left = dict(positions) if ends is None else {p: at for p, at in positions.items() if at < ends[p]}
    if not left:
        return
    consumer.assign(left)
    heard_at = time.monotonic()
    has_read, trouble = False, set[str]()
    while left:
        events = consumer.consume(_AT_ONCE, _POLL_S)
        if events:
            heard_at = time.monotonic()
        elif ends is None:
            yield []
        elif time.monotonic() > heard_at + timeout_s:
            waited = Failure("_TIMED_OUT", f"no record came for {timeout_s:g} s", is_retriable=True)
            raise error_of(f"{min(left)} could not be read", waited, servers)
        for event in events:
            match event:
                case Records(partition=partition, next_offset=position):
                    if partition not in left:
                        continue
                    records, has_read = list(event.values), True
                    left[partition] = position
                    yield records if ends is None else [one for one in records if one.offset < ends[partition]]
                case EndOfPartition(partition, offset):
                    if partition in left:
                        left[partition] = max(left[partition], offset)
                case PartitionFailed(partition, failure) if not failure.is_retriable:
                    raise _failed(partition, failure, servers)
                case ClientFailed(failure) if is_hopeless(failure, has_succeeded=has_read):
                    raise error_of("the brokers could not be asked for records", failure, servers)
                case ClientFailed(failure) if failure.name not in trouble:
                    trouble.add(failure.name)
                    _LOG.warning("trouble with the brokers, going on trying: %s", failure)
                case _:
                    pass
        if ends is not None and (done := [p for p, at in left.items() if at >= ends[p]]):
            consumer.unassign(done)
            for partition in done:
                del left[partition]


def _failed(partition: KafkaTopicPartition, failure: Failure, servers: str) -> Exception:
    if failure.name in ("_AUTO_OFFSET_RESET", "OFFSET_OUT_OF_RANGE"):
        return ExternalError(
            f"{partition} could not be read on: its log holds the position no more, as retention was quicker; begin "
            "again"
        )
    return error_of(f"{partition} could not be read", failure, servers)


def last(
    consumer: Consumer,
    held: Mapping[KafkaTopicPartition, Log],
    count: int,
    servers: str,
    timeout_s: float,
) -> list[KafkaConsumerRecord]:
    """The last `count` records of all these partitions by their timestamps.

    Not every offset has a record: where transactions or compaction leave too few, it looks further back.
    """
    found: dict[KafkaTopicPartition, list[KafkaConsumerRecord]] = {partition: [] for partition in held}
    upto = {partition: log.end for partition, log in held.items()}
    window = count
    while upto:
        begins = {partition: max(held[partition].start, end - window) for partition, end in upto.items()}
        older: dict[KafkaTopicPartition, list[KafkaConsumerRecord]] = {partition: [] for partition in upto}
        for records in read(consumer, begins, upto, servers, timeout_s):
            for record in records:
                older[KafkaTopicPartition(record.topic, record.partition)].append(record)
        for partition, records in older.items():
            found[partition] = (records + found[partition])[-count:]
        upto = {p: at for p, at in begins.items() if at > held[p].start and len(found[p]) < count}
        window *= _FURTHER
    everything = [record for records in found.values() for record in records]
    everything.sort(key=lambda record: (record.timestamp, record.topic, record.partition, record.offset))
    return everything[-count:] if count else []
