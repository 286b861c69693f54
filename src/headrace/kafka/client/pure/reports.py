"""What the three kinds of client share: how one is set up so that its reports are heard, and reports as values."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from headrace.kafka.client.protocol import (
    ClientError,
    Failure,
    KafkaTopicPartition,
    OffsetsCommitted,
    OnStatistics,
    Settings,
    TokenSource,
)
from headrace.kafka.client.reports import Reports, log_line, log_no_token, log_statistics, with_cause

if TYPE_CHECKING:
    from confluent_kafka import KafkaError, Message, TopicPartition


_NO_TOKEN_S = 10.0
"""After that a token is asked for again."""


class _QuietLog:
    """The logger that the client is given."""

    def log(self, level: int, message: str, *args: object) -> None:
        log_line(level, message % args)


class HeardReports(Reports):
    """What a client says in its callbacks."""

    def on_error(self, error: KafkaError) -> None:
        self.hear(failure_of(error))

    def on_delivery(self, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            self.failures.append(replace(failure_of(error), topic=message.topic(), size_bytes=len(message)))

    def on_commit(self, error: KafkaError | None, partitions: Iterable[TopicPartition]) -> None:
        listed = list(partitions)
        error = error or next((one.error for one in listed if one.error), None)
        offsets = {partition_of(one): one.offset for one in listed}
        self.events.append(OffsetsCommitted(offsets, failure_of(error) if error else None))


def failure_of(error: KafkaError) -> Failure:
    """The client's error as a value."""
    return Failure(
        name=error.name(),
        text=error.str(),
        is_retriable=error.retriable(),
        is_fatal=error.fatal(),
        requires_abort=error.txn_requires_abort(),
    )


def partition_of(one: TopicPartition) -> KafkaTopicPartition:
    """The client's partition as a value."""
    return KafkaTopicPartition(one.topic, one.partition)


def _token(source: TokenSource, config: str) -> tuple[Any, ...]:
    try:
        return (*source(config), {})
    except Exception as error:  # noqa: BLE001 - the program's function may raise anything
        log_no_token(error)
        # An exception would come out of another call of the client, or take the process down: brokers refuse this one.
        return "none", time.time() + _NO_TOKEN_S, "nobody", {}


def client_config(
    settings: Settings,
    reports: HeardReports,
    token: TokenSource | None = None,
    on_statistics: OnStatistics | None = None,
    /,
    **more: Any,
) -> dict[str, Any]:
    """What a client is made with, so that everything it has to say comes to `reports`."""
    heard: dict[str, Any] = {
        "error_cb": reports.on_error,
        "stats_cb": on_statistics or log_statistics,
        "logger": _QuietLog(),
    }
    if token is not None:
        heard["oauth_cb"] = lambda config: _token(token, config)
    return {**settings, "log_level": "4", **heard, **more}


@contextlib.contextmanager
def failing_as_client_error(reports: Reports | None = None) -> Iterator[None]:
    """Lets `ClientError` come out instead of confluent_kafka's exceptions, with the cause that was heard of."""
    from confluent_kafka import KafkaException

    try:
        yield
    except KafkaException as error:
        raise ClientError(with_cause(failure_of_exception(error), reports)) from None


def failure_of_exception(error: BaseException) -> Failure:
    """What one of confluent_kafka's exceptions holds."""
    from confluent_kafka import KafkaError

    reason = error.args[0] if error.args else None
    return failure_of(reason) if isinstance(reason, KafkaError) else Failure("_FAIL", str(error))
