"""A young cluster made ready: its brokers waited for, its topics created. For the development broker and the tests."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from headrace.errors import ExternalError

if TYPE_CHECKING:
    from confluent_kafka.admin import AdminClient
    from confluent_kafka.admin._metadata import ClusterMetadata, TopicMetadata

_TIMEOUT_S = 30.0
_POLL_S = 0.01


def wait_for_brokers(bootstrap_servers: str, count: int) -> None:
    """Returns when each of the named brokers knows of `count` brokers.

    A broker of a young cluster may not know of all others yet; a client that asks it then forgets those that it was
    told of before, and loses the requests it had sent them (librdkafka from 2.10). Raises `ExternalError` in the end.
    """
    deadline = time.monotonic() + _TIMEOUT_S
    for address in bootstrap_servers.split(","):
        # A new client each time: one that has learned of others might ask those.
        while (known := len(_metadata(_client(address), address).brokers)) != count:
            if time.monotonic() > deadline:
                raise ExternalError(
                    f"broker {address} knows of {known} brokers, not of {count}, after {_TIMEOUT_S:.0f} s"
                )
            time.sleep(_POLL_S)


def create_topics(
    bootstrap_servers: str,
    topics: Mapping[str, int],
    replication_factor: int = 1,
    config: Mapping[str, str] | None = None,
) -> None:
    """Creates topics (name → partitions) with their `config`; returns when every partition has a leader.

    A topic that exists already stays as it is. Raises `ExternalError` if a topic cannot be created.
    """
    if not topics:
        return
    from confluent_kafka import KafkaError, KafkaException
    from confluent_kafka.cimpl import NewTopic

    client = _client(bootstrap_servers)
    new = [
        NewTopic(name, num_partitions=partitions, replication_factor=replication_factor, config=dict(config or {}))
        for name, partitions in topics.items()
    ]
    deadline = time.monotonic() + _TIMEOUT_S
    futures = client.create_topics(new, operation_timeout=_TIMEOUT_S, request_timeout=_TIMEOUT_S)
    while time.monotonic() < deadline and any(map(_is_lost, futures.values())):
        # What had been created all the same is there already.
        futures = client.create_topics(new, operation_timeout=_TIMEOUT_S, request_timeout=_TIMEOUT_S)
    for name, future in futures.items():
        # Not `result`: the traceback that it would attach keeps the client, and its connections, until the next
        # garbage collection.
        error = future.exception()
        if error is None:
            continue
        reason = error.args[0] if isinstance(error, KafkaException) else None
        if reason is None or reason.code() != KafkaError.TOPIC_ALREADY_EXISTS:
            raise ExternalError(
                f"topic {name!r} could not be created on {bootstrap_servers}: {reason.str() if reason else error}",
                retriable=bool(reason and reason.retriable()),
            ) from error
    # The controller has answered; the brokers learn of it a moment later.
    for name in topics:
        while not _has_leaders(_metadata(client, bootstrap_servers, name).topics[name]):
            if time.monotonic() > deadline:
                raise ExternalError(
                    f"topic {name!r} was created on {bootstrap_servers}, but has partitions without leader"
                )
            time.sleep(_POLL_S)


def _is_lost(future: Any) -> bool:
    """Whether the client has let go of the broker that it had asked: it has learned of the cluster meanwhile."""
    error = future.exception()
    return bool(error is not None and error.args and getattr(error.args[0], "name", str)() == "_DESTROY_BROKER")


def _has_leaders(topic: TopicMetadata) -> bool:
    return bool(topic.partitions) and all(partition.leader >= 0 for partition in topic.partitions.values())


def _metadata(client: AdminClient, bootstrap_servers: str, topic: str | None = None) -> ClusterMetadata:
    from confluent_kafka import KafkaError, KafkaException

    deadline = time.monotonic() + _TIMEOUT_S
    while True:
        try:
            return client.list_topics(topic, timeout=_TIMEOUT_S)
        except KafkaException as error:
            reason = error.args[0]
            # A broker that has just started may answer before it knows of any broker at all, itself included.
            if reason.code() != KafkaError._PARTIAL or time.monotonic() > deadline:
                raise ExternalError(f"{bootstrap_servers} does not say what it holds: {reason.str()}") from error
            time.sleep(_POLL_S)


def _client(bootstrap_servers: str) -> AdminClient:
    from confluent_kafka.admin import AdminClient

    # Warnings and worse only: the client notes on stderr, at level info, that it was closed.
    return AdminClient({"bootstrap.servers": bootstrap_servers, "log_level": 4})
