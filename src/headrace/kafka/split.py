"""A partition with a position: what the enumerator finds, readers read, and checkpoints store."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from headrace.connector import JsonValue
from headrace.errors import StateError
from headrace.kafka.client.protocol import KafkaTopicPartition


@dataclass(frozen=True, slots=True)
class KafkaSplit:
    """A partition, read from `position` up to and without `stop` (None: without end).

    `topic_id` tells a topic from a later one of the same name. `is_start`: nothing has been read, and `position` was
    the start of the log, which retention may move.
    """

    partition: KafkaTopicPartition
    position: int
    stop: int | None = None
    topic_id: str | None = None
    is_start: bool = False

    @property
    def split_id(self) -> str:
        return str(self.partition)

    @property
    def is_finished(self) -> bool:
        """Whether the position is at the end. A partition is at its end by position, never by a record's offset: the
        last offset below the end of a transactional topic belongs to a control record that never arrives."""
        return self.stop is not None and self.position >= self.stop

    def encode(self) -> dict[str, JsonValue]:
        """As JSON values."""
        return {
            "topic": self.partition.topic,
            "partition": self.partition.partition,
            "position": self.position,
            "stop": self.stop,
            "topic_id": self.topic_id,
            "is_start": self.is_start,
        }

    @staticmethod
    def decode(data: Mapping[str, JsonValue]) -> KafkaSplit:
        """The inverse of `encode`; raises `StateError`."""
        match data:
            case {
                "topic": str(topic),
                "partition": int(partition),
                "position": int(position),
                "stop": (int() | None) as stop,
                "topic_id": (str() | None) as topic_id,
                "is_start": bool(is_start),
            }:
                return KafkaSplit(KafkaTopicPartition(topic, partition), position, stop, topic_id, is_start)
            case _:
                raise StateError(
                    f"a partition's position in the checkpoint cannot be read from {dict(data)!r}; start from another "
                    "checkpoint, or with the version that wrote it"
                )
