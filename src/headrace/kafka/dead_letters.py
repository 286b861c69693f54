"""Dead letters as Kafka records: as they were read, byte for byte, with headers that say what happened to them.

The original's key, value, headers and timestamp stay what they were. Behind its headers come those named here, texts in
UTF-8. A record that is replayed takes `REPLAYS` along, so that one that fails again and again is found out.
"""

from __future__ import annotations

from typing import Any

from headrace.connector import DeadLetter, OriginalRecord, Stage
from headrace.errors import DataError
from headrace.kafka.client.protocol import KafkaConsumerRecord
from headrace.kafka.serialization import KafkaProducerRecord, KafkaRecordSerializationSchema, KafkaSinkContext

_PREFIX = "headrace.error."
TOPIC = _PREFIX + "topic"
PARTITION = _PREFIX + "partition"
OFFSET = _PREFIX + "offset"
STAGE = _PREFIX + "stage"
OPERATOR = _PREFIX + "operator"
EXCEPTION = _PREFIX + "exception"
MESSAGE = _PREFIX + "message"
JOB = _PREFIX + "job"
CHECKPOINT = _PREFIX + "checkpoint"
ATTEMPT = _PREFIX + "attempt"
TIME = _PREFIX + "time"
CONTENT = _PREFIX + "content"
REPLAYS = _PREFIX + "replays"
"""How often the record was replayed; the one header of these that a replayed record keeps."""

_MESSAGE_CHARACTERS = 2_000
"""More of a message is cut off: some quote the whole record."""


class DeadLetterSerializationSchema(KafkaRecordSerializationSchema):
    """Writes dead letters to `topic`: the record as it was read, and what happened in headers. *Extension*.

    | header | holds |
    |---|---|
    | `headrace.error.topic`, `.partition`, `.offset` | where the record was read |
    | `headrace.error.stage` | `deserialization`, `function`, `serialization` or `size` |
    | `headrace.error.operator`, `.exception`, `.message` | which operator failed, and how |
    | `headrace.error.job`, `.checkpoint`, `.attempt` | in which job, after which checkpoint and restart |
    | `headrace.error.time` | when, in ms since the epoch |
    | `headrace.error.content` | `record`: it is the original; `element`: that came from no topic, and is here as text |
    | `headrace.error.replays` | how often it had been replayed (`headrace dlq replay`), if it was |

    >>> letter = DeadLetter(
    ...     OriginalRecord(b"{", b"btc", [("trace", b"1")], 1700000000000, "prices", 2, 40),
    ...     Stage.FUNCTION, "parse", "ValueError", "no price", "lag", 7, 0, 1700000000500,
    ... )
    >>> record = DeadLetterSerializationSchema("prices.dead").serialize(letter, None, None)
    >>> record.topic, record.key, record.value, record.timestamp, record.headers[:2]
    ('prices.dead', b'btc', b'{', 1700000000000, [('trace', b'1'), ('headrace.error.topic', b'prices')])
    """

    def __init__(self, topic: str) -> None:
        self.topic: str = topic

    def serialize(self, element: Any, context: KafkaSinkContext, timestamp: int | None) -> KafkaProducerRecord:
        if not isinstance(element, DeadLetter):
            raise DataError(f"a sink with a DeadLetterSerializationSchema takes dead letters, got {element!r:.200}")
        record = element.record
        value, timestamp = record.value, record.timestamp
        if record.is_element:
            value = value if isinstance(value, bytes | None) else str(value).encode(errors="backslashreplace")
        said = {
            TOPIC: record.topic,
            PARTITION: record.partition,
            OFFSET: record.offset,
            STAGE: element.stage.value,
            OPERATOR: element.operator,
            EXCEPTION: element.exception,
            MESSAGE: element.message[:_MESSAGE_CHARACTERS],
            JOB: element.job,
            CHECKPOINT: element.checkpoint,
            ATTEMPT: element.attempt,
            TIME: element.failed_at,
            CONTENT: "element" if record.is_element else "record",
        }
        provenance: list[tuple[str, bytes | None]]
        provenance = [(k, str(v).encode(errors="backslashreplace")) for k, v in said.items() if v is not None]
        # Those of an earlier failure are out of date, but for the count of replays.
        kept = [(name, data) for name, data in record.headers if name == REPLAYS or name not in said]
        return KafkaProducerRecord(self.topic, value, record.key, None, timestamp, kept + provenance)


def is_dead_letter(record: KafkaConsumerRecord) -> bool:
    """Whether a record was written by a `DeadLetterSerializationSchema`."""
    return any(name == STAGE for name, _ in record.headers)


def read_dead_letter(record: KafkaConsumerRecord) -> DeadLetter:
    """The dead letter in a record: the inverse of `DeadLetterSerializationSchema`.

    Raises `DataError` for a record that is none, or whose headers were tampered with.
    """
    said = {name: (value or b"").decode(errors="replace") for name, value in record.headers if name.startswith(_PREFIX)}
    own = {name for name in said if name != REPLAYS}
    try:
        original = OriginalRecord(
            record.value,
            record.key,
            [(name, value) for name, value in record.headers if name not in own],
            record.timestamp if record.timestamp >= 0 else None,
            said.get(TOPIC),
            _number(said.get(PARTITION)),
            _number(said.get(OFFSET)),
            said[CONTENT] == "element",
        )
        return DeadLetter(
            original,
            Stage(said[STAGE]),
            said[OPERATOR],
            said[EXCEPTION],
            said[MESSAGE],
            said[JOB],
            _number(said.get(CHECKPOINT)),
            int(said[ATTEMPT]),
            int(said[TIME]),
        )
    except (KeyError, ValueError) as error:
        place = f"topic {record.topic}, partition {record.partition}, offset {record.offset}"
        raise DataError(f"the record at {place} is no dead letter of Headrace: {error!r}", record=place) from None


def replays(record: OriginalRecord) -> int:
    """How often a record was replayed."""
    counts = [value for name, value in record.headers if name == REPLAYS]
    try:
        return int(counts[-1] or b"0") if counts else 0
    except ValueError:
        return 0


def _number(text: str | None) -> int | None:
    return None if text is None else int(text)
