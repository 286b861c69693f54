"""Administration of a cluster: topics. Used by the development broker, the demonstration and the tests."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from headrace.errors import ExternalError

if TYPE_CHECKING:
    from confluent_kafka.admin import AdminClient

_TIMEOUT_S = 30.0


def create_topics(
    bootstrap_servers: str,
    topics: Mapping[str, int],
    replication_factor: int = 1,
    config: Mapping[str, str] | None = None,
) -> None:
    """Creates topics (name → partitions) with their `config`, and returns when every broker knows them.

    A topic that exists already stays as it is. Raises `ExternalError` if a topic cannot be created.
    """
    if not topics:
        return
    from confluent_kafka import KafkaError, KafkaException
    from confluent_kafka.admin import NewTopic

    client = _client(bootstrap_servers)
    new = [
        NewTopic(name, num_partitions=partitions, replication_factor=replication_factor, config=dict(config or {}))
        for name, partitions in topics.items()
    ]
    futures = client.create_topics(new, operation_timeout=_TIMEOUT_S, request_timeout=_TIMEOUT_S)
    for name, future in futures.items():
        try:
            future.result()
        except KafkaException as error:
            reason = error.args[0]
            if reason.code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise ExternalError(
                    f"topic {name!r} could not be created on {bootstrap_servers}: {reason.str()}",
                    retriable=reason.retriable(),
                ) from error


def _client(bootstrap_servers: str) -> AdminClient:
    from confluent_kafka.admin import AdminClient

    # Warnings and worse only: the client notes on stderr, at level info, that it was closed.
    return AdminClient({"bootstrap.servers": bootstrap_servers, "log_level": 4})
