"""What the three kinds of client share: how one is set up so that its reports are heard, and reports as values."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from headrace.kafka.client.protocol import (
    ClientError,
    ClientFailed,
    Event,
    Failure,
    KafkaTopicPartition,
    OffsetsCommitted,
    Settings,
)

if TYPE_CHECKING:
    from confluent_kafka import KafkaError, Message, TopicPartition

_LOG = logging.getLogger("headrace.kafka.client")

WAIT_SLICE_S = 0.1
"""Every longer wait is made of slices, so that signals are served and causes are heard of."""

_HOPELESS = frozenset({"_AUTHENTICATION", "_SSL", "_RESOLVE"})
_HOPELESS_TEXTS = ("PLAINTEXT broker listener", "SSL alert number")

_ANY_CLIENT = (
    "bootstrap.servers",
    "security.",
    "sasl.",
    "ssl.",
    "broker.",
    "client.",
    "socket.",
    "https.",
    "enable.ssl.",
)


def shared_settings(settings: Settings) -> dict[str, str]:
    """The settings that a client of any kind takes."""
    return {name: value for name, value in settings.items() if name.startswith(_ANY_CLIENT)}


class _QuietLog:
    """Takes the client's own log lines. They repeat ten times a second while a broker is away, so: for debugging."""

    def log(self, level: int, message: str, *args: object) -> None:
        _LOG.debug(message, *args)


class Reports:
    """What a client reported beside its calls. Separate from the client, so that the two make no reference cycle."""

    def __init__(self) -> None:
        self.failures: list[Failure] = []
        self.events: list[Event] = []
        self.cause: Failure | None = None

    def on_error(self, error: KafkaError) -> None:
        failure = failure_of(error)
        if failure.name != "_ALL_BROKERS_DOWN" or self.cause is None:
            self.cause = failure
        self.events.append(ClientFailed(failure))

    def on_delivery(self, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            self.failures.append(replace(failure_of(error), topic=message.topic(), size_bytes=len(message)))

    def on_commit(self, error: KafkaError | None, partitions: Iterable[TopicPartition]) -> None:
        listed = list(partitions)
        error = error or next((one.error for one in listed if one.error), None)
        offsets = {partition_of(one): one.offset for one in listed}
        self.events.append(OffsetsCommitted(offsets, failure_of(error) if error else None))


def is_hopeless(failure: Failure) -> bool:
    """Whether a connection failed in a way that trying again does not mend."""
    return failure.name in _HOPELESS or any(text in failure.text for text in _HOPELESS_TEXTS)


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


def client_config(settings: Settings, reports: Reports, **more: Any) -> dict[str, Any]:
    """What a client is made with, so that everything it has to say comes to `reports`."""
    return {**settings, "log_level": "4", "error_cb": reports.on_error, "logger": _QuietLog(), **more}


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


def with_cause(failure: Failure, reports: Reports | None) -> Failure:
    """A call that cannot connect says only that it timed out: the cause is what was reported besides."""
    if reports is None or reports.cause is None or failure.name not in ("_TIMED_OUT", "_TRANSPORT", "_MSG_TIMED_OUT"):
        return failure
    return replace(failure, cause=reports.cause)
