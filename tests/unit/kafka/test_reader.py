"""What a reader does about its group, on a client that refuses what it is told to."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from headrace.kafka.client.protocol import ClientError, Event, Failure, KafkaTopicPartition, OffsetsCommitted
from headrace.kafka.offsets import KafkaOffsetResetStrategy
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
        self._events: list[Event] = []

    def assign(self, positions: Mapping[KafkaTopicPartition, int]) -> None:
        pass

    def consume(self, max_records: int, timeout_s: float) -> list[Event]:
        events, self._events = self._events, []
        return events

    def commit(self, offsets: Mapping[KafkaTopicPartition, int]) -> None:
        if self.refusal is not None and self.refuses_at_once:
            raise ClientError(self.refusal)
        if self.refusal is None:
            self.offsets.update(offsets)
        self._events.append(OffsetsCommitted(offsets, self.refusal))


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
