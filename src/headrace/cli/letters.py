"""Dead letters for the commands: which are meant, reading them as a job, and how they are shown."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from headrace.cli.cluster import Cluster
from headrace.cli.records import bytes_as_text, in_one_line, indented, json_bytes, printable, when
from headrace.common.watermark_strategy import WatermarkStrategy
from headrace.connector import DeadLetter, Stage
from headrace.datastream import DataStream, StreamExecutionEnvironment
from headrace.errors import DataError
from headrace.kafka import (
    KafkaConsumerRecord,
    KafkaOffsetsInitializer,
    KafkaRecordDeserializationSchema,
    KafkaSource,
)
from headrace.kafka.dead_letters import read_dead_letter, replays
from headrace.kafka.tail import logs

_NOT_ITS_OWN = ("group.id", "enable.auto.commit", "commit.offsets.on.checkpoint", "auto.offset.reset")
"""What a file of properties may say for another consumer: nothing is committed to its group here."""


@dataclass(frozen=True, slots=True)
class Found:
    """A record of a dead-letter topic. `letter` is None if it is none of Headrace's."""

    topic: str
    partition: int
    offset: int
    letter: DeadLetter | None

    @property
    def place(self) -> str:
        """Where the letter itself is, as `prices.dead-0@17`."""
        return f"{self.topic}-{self.partition}@{self.offset}"


@dataclass(frozen=True, slots=True)
class Selection:
    """Which letters are meant; None: any. `since_ms` and `until_ms` (not included) are about when they failed.

    >>> Selection().takes(Found("dead", 0, 7, None)), Selection(job="lag").takes(Found("dead", 0, 7, None))
    (True, False)
    """

    operator: str | None = None
    exception: str | None = None
    stage: Stage | None = None
    job: str | None = None
    source_topic: str | None = None
    since_ms: int | None = None
    until_ms: int | None = None
    partition: int | None = None
    offset: int | None = None

    def takes(self, found: Found) -> bool:
        """Whether it is meant. What is no letter is, as long as nothing is asked of letters."""
        if self.partition not in (None, found.partition) or self.offset not in (None, found.offset):
            return False
        letter = found.letter
        if letter is None:
            asked = (self.operator, self.exception, self.stage, self.job, self.source_topic)
            return all(each is None for each in (*asked, self.since_ms, self.until_ms))
        return (
            self.operator in (None, letter.operator)
            # Its module may be left out.
            and self.exception in (None, letter.exception, letter.exception.rpartition(".")[2])
            and self.stage in (None, letter.stage)
            and self.job in (None, letter.job)
            and self.source_topic in (None, letter.record.topic)
            and (self.since_ms is None or letter.failed_at >= self.since_ms)
            and (self.until_ms is None or letter.failed_at < self.until_ms)
        )


class _Letters(KafkaRecordDeserializationSchema):
    def deserialize(self, record: KafkaConsumerRecord) -> Iterator[Found]:
        letter: DeadLetter | None
        try:
            letter = read_dead_letter(record)
        except DataError:
            letter = None
        yield Found(record.topic, record.partition, record.offset, letter)


def letters_source(cluster: Cluster, topic: str) -> KafkaSource:
    """All that a dead-letter topic holds now, as `Found`: what comes meanwhile is behind its end.

    It ends in front of the first transaction that is open: a job that has died leaves one for as long as its timeout.
    """
    with cluster.admin(f"topic {topic!r} could not be read") as admin:
        held = logs(admin, topic, (), cluster.servers, is_committed=True)
    return (
        KafkaSource.builder()
        .set_properties({name: value for name, value in cluster.properties.items() if name not in _NOT_ITS_OWN})
        .set_property("isolation.level", "read_committed")
        .set_topics(topic)
        .set_starting_offsets(KafkaOffsetsInitializer.earliest())
        .set_bounded(KafkaOffsetsInitializer.offsets({partition: log.end for partition, log in held.items()}))
        .set_deserializer(_Letters())
        .build()
    )


def letters_stream(env: StreamExecutionEnvironment, source: KafkaSource) -> DataStream:
    """The source's stream."""
    return env.from_source(source, WatermarkStrategy.no_watermarks(), "letters")


def read_letters(cluster: Cluster, topic: str, selection: Selection) -> Iterator[Found]:
    """The letters that are meant, as they come."""
    env = StreamExecutionEnvironment.get_execution_environment()
    env.set_parallelism(1)
    stream = letters_stream(env, letters_source(cluster, topic)).filter(selection.takes)
    found: Any = stream.execute_and_collect("dlq")
    with found:
        yield from found


# Text and JSON


def group_of(letter: DeadLetter) -> tuple[str, str, str, str]:
    """Operator, exception, stage and source topic: what letters are counted by."""
    return letter.operator, letter.exception, letter.stage.value, letter.record.topic or "-"


def line_of(found: Found) -> str:
    """One letter in one line, without its content."""
    letter = found.letter
    if letter is None:
        return f"{found.place}  (no dead letter of Headrace)"
    said = f"{letter.operator}: {letter.exception}: {letter.message}" if letter.message else letter.exception
    parts = (found.place, when(letter.failed_at), letter.stage.value, _came_from(letter), in_one_line(printable(said)))
    return "  ".join(parts)


def text_of(found: Found) -> str:
    """A whole letter: what happened, and the record as it was."""
    letter = found.letter
    if letter is None:
        return f"{found.place}\n  no dead letter of Headrace"
    record = letter.record
    rows = [
        ("failed", when(letter.failed_at)),
        ("job", f"{letter.job}, attempt {letter.attempt}, {_checkpoint(letter.checkpoint)}"),
        ("stage", letter.stage.value),
        ("operator", letter.operator),
        ("exception", letter.exception),
        ("message", letter.message),
        ("record", _came_from(letter)),
        ("replays", str(replays(record))),
        ("timestamp", "-" if record.timestamp is None else when(record.timestamp)),
        ("key", _shown(record.key)),
        *(("header", f"{name}={_shown(value)}") for name, value in record.headers),
        ("value", indented(_shown(record.value))),
    ]
    lines = [found.place]
    for name, text in rows:
        first, *more = printable(text).split("\n")
        lines += [f"  {name:<11}{first}", *(f"{'':<13}{line}" for line in more)]
    return "\n".join(line.rstrip() for line in lines)


def json_of(found: Found, *, whole: bool) -> str:
    """A letter as one JSON object in one line; `whole` with the record's content."""
    said: dict[str, Any] = {"topic": found.topic, "partition": found.partition, "offset": found.offset}
    letter = found.letter
    if letter is not None:
        record = letter.record
        said["error"] = {
            "time": letter.failed_at,
            "job": letter.job,
            "attempt": letter.attempt,
            "checkpoint": letter.checkpoint,
            "stage": letter.stage.value,
            "operator": letter.operator,
            "exception": letter.exception,
            "message": letter.message,
            "topic": record.topic,
            "partition": record.partition,
            "offset": record.offset,
            "content": "element" if record.is_element else "record",
            "replays": replays(record),
        }
        if whole:
            headers = [{"name": name, "value": json_bytes(value)} for name, value in record.headers]
            said |= {"timestamp": record.timestamp, "key": json_bytes(record.key), "value": json_bytes(record.value)}
            said["headers"] = headers
    return json.dumps(said)


def _shown(data: bytes | None) -> str:
    return "(none)" if data is None else bytes_as_text(data)


def _came_from(letter: DeadLetter) -> str:
    record = letter.record
    place = "-" if record.topic is None else f"{record.topic}-{record.partition}@{record.offset}"
    return f"{place}, an element as text" if record.is_element else place


def _checkpoint(number: int | None) -> str:
    return "before the first checkpoint" if number is None else f"behind checkpoint {number}"
