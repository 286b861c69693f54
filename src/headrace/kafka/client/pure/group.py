"""What the coordinator of a group knows, asked by a short-lived consumer of that group.

Not by an admin client: its `list_consumer_group_offsets` crashes the process when the coordinator has just moved or its
connection was lost (librdkafka 2.16: `rd_kafka_handle_OffsetFetch` goes on with the client's own group, and an admin
client has none).
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from headrace.kafka.client.protocol import ClientError, CommittedOffset, Failure, KafkaTopicPartition, Settings
from headrace.kafka.client.pure.reports import (
    Reports,
    client_config,
    failing_as_client_error,
    failure_of,
    failure_of_exception,
    is_hopeless,
    partition_of,
    shared_settings,
    with_cause,
)

if TYPE_CHECKING:
    from confluent_kafka import Consumer, Message, TopicPartition

_CALL_S = 1.0
_NO_ANSWER_YET = frozenset({"_TIMED_OUT", "_TRANSPORT", "_WAIT_COORD"})


def committed(
    settings: Settings, group: str, partitions: Iterable[KafkaTopicPartition], *, stable: bool, timeout_s: float
) -> dict[KafkaTopicPartition, CommittedOffset | Failure | None]:
    """Offsets committed to a group; with `stable`, waits for those in open transactions (KIP-447)."""
    from confluent_kafka import KafkaException, TopicPartition

    asked = [TopicPartition(p.topic, p.partition) for p in partitions]
    reports = Reports()
    client = _member(settings, group, reports, stable=stable)
    held = "; an open transaction may hold the group's offsets" if stable else ""
    timed_out = Failure("_TIMED_OUT", f"no answer within {timeout_s:g} s{held}", is_retriable=True)
    deadline = time.monotonic() + timeout_s
    try:
        while True:
            try:
                found = client.committed(asked, timeout=min(_CALL_S, timeout_s))
            except KafkaException as error:
                failure = failure_of_exception(error)
                if failure.name not in _NO_ANSWER_YET:
                    return {partition_of(one): failure for one in asked}
            else:
                if not any(one.error and one.error.name() == "UNSTABLE_OFFSET_COMMIT" for one in found):
                    return {partition_of(one): _committed(one) for one in found}
            if (refused := _refusal(client.poll(0))) is not None:
                return {partition_of(one): refused for one in asked}
            if time.monotonic() > deadline or (reports.cause is not None and is_hopeless(reports.cause)):
                raise ClientError(with_cause(timed_out, reports))
    finally:
        client.close()


def group_metadata(settings: Settings, group: str) -> Any:
    """What a transaction wants to know of a group; asks nobody."""
    client = _member(settings, group, Reports(), stable=True)
    try:
        return client.consumer_group_metadata()
    finally:
        client.close()


def _member(settings: Settings, group: str, reports: Reports, *, stable: bool) -> Consumer:
    from confluent_kafka import Consumer

    level = "read_committed" if stable else "read_uncommitted"
    own = {"group.id": group, "isolation.level": level}
    with failing_as_client_error():
        return Consumer(client_config(shared_settings(settings), reports, **own))


def _refusal(message: Message | None) -> Failure | None:
    """What a group's coordinator says once and for all; the client itself goes on asking."""
    error = None if message is None else message.error()
    return failure_of(error) if error is not None and error.name().endswith("AUTHORIZATION_FAILED") else None


def _committed(one: TopicPartition) -> CommittedOffset | Failure | None:
    if one.error:
        return failure_of(one.error)
    return None if one.offset < 0 else CommittedOffset(one.offset, one.metadata or "")
