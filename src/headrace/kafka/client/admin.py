"""Administration of a cluster: topics. Used by the development broker, the demonstration and the tests."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from headrace.errors import ExternalError

if TYPE_CHECKING:
    from confluent_kafka.admin import AdminClient

_TIMEOUT_S = 30.0
_POLL_S = 0.01


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
    deadline = time.monotonic() + _TIMEOUT_S
    for name in topics:
        while not _has_leaders(client, name):
            if time.monotonic() > deadline:
                raise ExternalError(
                    f"topic {name!r} was created on {bootstrap_servers}, but has partitions without leader"
                )
            time.sleep(_POLL_S)


def _has_leaders(client: AdminClient, topic: str) -> bool:
    found = client.list_topics(topic, timeout=_TIMEOUT_S).topics[topic]
    return bool(found.partitions) and all(partition.leader >= 0 for partition in found.partitions.values())


def _client(bootstrap_servers: str) -> AdminClient:
    from confluent_kafka.admin import AdminClient

    # Warnings and worse only: the client notes on stderr, at level info, that it was closed.
    return AdminClient({"bootstrap.servers": bootstrap_servers, "log_level": 4})
