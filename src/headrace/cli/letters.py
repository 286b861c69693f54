"""Dead letters for the commands: which are meant, reading them as a job, and how they are shown."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

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


def letters_source(properties: Mapping[str, str], topic: str) -> KafkaSource:
    """All that a dead-letter topic holds now, as `Found`: what comes meanwhile is behind its end."""
    return (
        KafkaSource.builder()
        .set_properties({name: value for name, value in properties.items() if name not in _NOT_ITS_OWN})
        .set_property("isolation.level", "read_committed")
        .set_topics(topic)
        .set_starting_offsets(KafkaOffsetsInitializer.earliest())
        .set_bounded(KafkaOffsetsInitializer.latest())
        .set_deserializer(_Letters())
        .build()
    )


def letters_stream(env: StreamExecutionEnvironment, source: KafkaSource) -> DataStream:
    """The source's stream."""
    return env.from_source(source, WatermarkStrategy.no_watermarks(), "letters")


def read_letters(properties: Mapping[str, str], topic: str, selection: Selection) -> Iterator[Found]:
    """The letters that are meant, as they come."""
    env = StreamExecutionEnvironment.get_execution_environment()
    env.set_parallelism(1)
    stream = letters_stream(env, letters_source(properties, topic)).filter(selection.takes)
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
    return f"{found.place}  {when(letter.failed_at)}  {letter.stage.value}  {_came_from(letter)}  {_in_one_line(said)}"


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
        ("key", shown(record.key)),
        *(("header", f"{name}={shown(value)}") for name, value in record.headers),
        ("value", shown(record.value, pretty=True)),
    ]
    lines = [found.place]
    for name, text in rows:
        first, *more = _printable(text).split("\n")
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
            headers = [{"name": name, "value": _json_bytes(value)} for name, value in record.headers]
            said |= {"timestamp": record.timestamp, "key": _json_bytes(record.key), "value": _json_bytes(record.value)}
            said["headers"] = headers
    return json.dumps(said)


def when(time_ms: int) -> str:
    """Local time to the millisecond."""
    return f"{time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(time_ms // 1000))}.{time_ms % 1000:03}"


def shown(data: bytes | None, *, pretty: bool = False) -> str:
    """Bytes as text, hexadecimal digits where they are none; `pretty`: JSON in lines.

    >>> shown(b"btc"), shown(bytes([0, 255])), shown(None)
    ('btc', '0x00ff', '(none)')
    """
    if data is None:
        return "(none)"
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return f"0x{data.hex()}"
    if "\0" in text:
        return f"0x{data.hex()}"
    if pretty and text.lstrip().startswith(("{", "[")):
        try:
            return json.dumps(json.loads(text), indent=2, ensure_ascii=False)
        except (ValueError, RecursionError):
            return text
    return text


def _came_from(letter: DeadLetter) -> str:
    record = letter.record
    place = "-" if record.topic is None else f"{record.topic}-{record.partition}@{record.offset}"
    return f"{place}, an element as text" if record.is_element else place


def _checkpoint(number: int | None) -> str:
    return "before the first checkpoint" if number is None else f"behind checkpoint {number}"


def _in_one_line(text: str) -> str:
    return _printable(text).replace("\n", "\\n").replace("\t", "\\t")


def _printable(text: str) -> str:
    """Without what would do something to a terminal; line breaks stay."""
    return "".join(c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode() for c in text)


def _json_bytes(data: bytes | None) -> str | dict[str, str] | None:
    if data is None:
        return None
    try:
        return data.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(data).decode()}
