"""What a consumer group has committed, as its coordinator says it."""

from __future__ import annotations

from confluent_kafka import Consumer, KafkaException, TopicPartition
from tests.processes import wait_until

from headrace.kafka.client.pure.group import NO_COORDINATOR

_CALL_S = 5.0
_STARTS = NO_COORDINATOR | {"_WAIT_COORD", "_TIMED_OUT"}
"""What is heard of a coordinator that has just started."""


def committed_by(bootstrap_servers: str, group: str, topic: str) -> TopicPartition:
    """Offset and metadata of partition 0; the offset is negative if there is none.

    Not by an admin client: its `list_consumer_group_offsets` crashes the process if the group moves (librdkafka 2.16).
    """
    consumer = Consumer({"bootstrap.servers": bootstrap_servers, "group.id": group, "log_level": 2})

    def answer() -> TopicPartition | None:
        try:
            (found,) = consumer.committed([TopicPartition(topic, 0)], timeout=_CALL_S)
        except KafkaException as error:
            if error.args[0].name() not in _STARTS:
                raise
            return None
        return None if found.error else found

    try:
        found: TopicPartition = wait_until(answer, f"the coordinator of {group} answers")
        return found
    finally:
        consumer.close()
