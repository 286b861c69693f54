"""What the coordinator of a group knows, asked by a short-lived consumer of that group.

Not by an admin client: its `list_consumer_group_offsets` crashes the process when the coordinator has just moved or its
connection was lost (librdkafka 2.16: `rd_kafka_handle_OffsetFetch` goes on with the client's own group, and an admin
client has none).
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from headrace.kafka.client.protocol import (
    ClientError,
    CommittedOffset,
    Failure,
    KafkaTopicPartition,
    Settings,
    TokenSource,
)
from headrace.kafka.client.pure.reports import (
    HeardReports,
    client_config,
    failing_as_client_error,
    failure_of,
    failure_of_exception,
    partition_of,
)
from headrace.kafka.client.reports import is_hopeless, shared_settings, with_cause

if TYPE_CHECKING:
    from confluent_kafka import Consumer, Message, TopicPartition

TRANSACTION_CALL_S = 5.0
"""How long a call of a transaction may take."""

_CALL_S = 1.0
_GIVE_UP_S = 20.0
_AGAIN_S = 0.05
NO_COORDINATOR = frozenset({"NOT_COORDINATOR", "COORDINATOR_NOT_AVAILABLE", "COORDINATOR_LOAD_IN_PROGRESS"})
"""What a broker says that has just started, or just lost the group to another one."""
_NO_ANSWER_YET = NO_COORDINATOR | {
    *("_TIMED_OUT", "_TRANSPORT", "_WAIT_COORD", "REQUEST_TIMED_OUT", "UNSTABLE_OFFSET_COMMIT")
}


def committed(
    settings: Settings,
    group: str,
    partitions: Iterable[KafkaTopicPartition],
    *,
    stable: bool,
    timeout_s: float,
    token: TokenSource | None = None,
) -> dict[KafkaTopicPartition, CommittedOffset | Failure | None]:
    """Offsets committed to a group; with `stable`, waits for those in open transactions (KIP-447)."""
    from confluent_kafka import KafkaException, TopicPartition

    asked = [TopicPartition(p.topic, p.partition) for p in partitions]
    reports = HeardReports()
    client = _member(settings, group, reports, token, stable=stable)
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
                if not any(one.error and one.error.name() in _NO_ANSWER_YET for one in found):
                    return {partition_of(one): _committed(one) for one in found}
            if (refused := _refusal(client.poll(_AGAIN_S))) is not None:
                return {partition_of(one): refused for one in asked}
            if time.monotonic() > deadline or (reports.cause is not None and is_hopeless(reports.cause)):
                raise ClientError(with_cause(timed_out, reports))
    finally:
        client.close()


class Stuck:
    """Whether `send_offsets_to_transaction`, called now with `TRANSACTION_CALL_S`, will never come back.

    librdkafka (2.16) asks three times within a second for the coordinator of the group, and if a broker that has just
    come back does not know it by then, never again, whatever the timeout. So the call is stuck if its time is over and
    the coordinator answers somebody else, or if nobody has an answer for long.
    """

    def __init__(
        self, settings: Settings, group: str, partition: KafkaTopicPartition, token: TokenSource | None
    ) -> None:
        self._settings, self._group, self._partition, self._token = settings, group, partition, token
        self._begun = time.monotonic()

    def is_stuck(self) -> bool:
        """Asks the coordinator, if it is time to."""
        waited_s = time.monotonic() - self._begun
        if waited_s < TRANSACTION_CALL_S + _CALL_S or waited_s > _GIVE_UP_S:
            return waited_s > _GIVE_UP_S
        try:
            found = committed(
                self._settings, self._group, [self._partition], stable=False, timeout_s=_CALL_S, token=self._token
            )
        except ClientError:
            return False
        return not isinstance(found[self._partition], Failure)


def group_metadata(settings: Settings, group: str) -> Any:
    """What a transaction wants to know of a group; asks nobody."""
    client = _member(settings, group, HeardReports(), None, stable=True)
    try:
        return client.consumer_group_metadata()
    finally:
        client.close()


def _member(
    settings: Settings, group: str, reports: HeardReports, token: TokenSource | None, *, stable: bool
) -> Consumer:
    from confluent_kafka import Consumer

    level = "read_committed" if stable else "read_uncommitted"
    own = {"group.id": group, "isolation.level": level}
    with failing_as_client_error():
        return Consumer(client_config(shared_settings(settings), reports, token, **own))


def _refusal(message: Message | None) -> Failure | None:
    """What a group's coordinator says once and for all; the client itself goes on asking."""
    error = None if message is None else message.error()
    return failure_of(error) if error is not None and error.name().endswith("AUTHORIZATION_FAILED") else None


def _committed(one: TopicPartition) -> CommittedOffset | Failure | None:
    if one.error:
        return failure_of(one.error)
    return None if one.offset < 0 else CommittedOffset(one.offset, one.metadata or "")
