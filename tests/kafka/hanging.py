"""A transaction that hangs, made as it comes about: a record of it that arrives when its coordinator has closed it.

Brokers refuse such a record today, unless `transaction.partition.verification.enable` is false.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from confluent_kafka import Producer
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ConfigSource,
)
from kafka.admin import KafkaAdminClient
from kafka.protocol.metadata import CoordinatorType
from kafka.protocol.producer import InitProducerIdRequest, ProduceRequest
from kafka.record.default_records import DefaultRecordBatchBuilder
from tests.processes import wait_until

TIMEOUT_S = 30.0
_VERIFIES = "transaction.partition.verification.enable"


@contextmanager
def unverified(servers: str) -> Iterator[None]:
    """The cluster's brokers take what belongs to no transaction within the block."""
    admin = AdminClient({"bootstrap.servers": servers, "log_level": 2})
    broker = ConfigResource(ConfigResource.Type.BROKER, str(admin.describe_cluster().result().controller.id))

    def change(how: AlterConfigOpType, found: str) -> None:
        entry = ConfigEntry(_VERIFIES, "false", ConfigSource.UNKNOWN_CONFIG, incremental_operation=how)
        broker.incremental_configs = [entry]
        admin.incremental_alter_configs([broker])[broker].result()
        wait_until(lambda: admin.describe_configs([broker])[broker].result()[_VERIFIES].value == found, found)

    change(AlterConfigOpType.SET, "false")
    try:
        yield
    finally:
        change(AlterConfigOpType.DELETE, "true")


def leave_hanging(servers: str, topic: str, transactional_id: str, value: bytes, written_at_ms: int) -> None:
    """Write a record to partition 0 within a transaction that no coordinator knows of."""
    # Its coordinator knows the id then.
    Producer({"bootstrap.servers": servers, "transactional.id": transactional_id}).init_transactions(TIMEOUT_S)
    client = KafkaAdminClient(bootstrap_servers=servers, client_id="hanging")
    try:
        manager = client._manager

        async def write() -> None:
            coordinators = await client._find_coordinator_ids([transactional_id], CoordinatorType.TRANSACTION)
            made = await manager.send(
                InitProducerIdRequest(
                    transactional_id=transactional_id, transaction_timeout_ms=60_000, producer_id=-1, producer_epoch=-1
                ),
                node_id=coordinators[transactional_id],
            )
            assert made.error_code == 0, made
            batch = DefaultRecordBatchBuilder(2, 0, True, made.producer_id, made.producer_epoch, 0, 1 << 20)
            batch.append(0, written_at_ms, None, value, [])
            data = ProduceRequest.TopicProduceData
            request = ProduceRequest(
                transactional_id=transactional_id,
                acks=-1,
                timeout_ms=30_000,
                topic_data=[
                    data(name=topic, partition_data=[data.PartitionProduceData(index=0, records=bytes(batch.build()))])
                ],
                min_version=3,
                max_version=8,
            )
            answer = await manager.send(request)
            [partition] = answer.responses[0].partition_responses
            assert partition.error_code == 0, partition

        manager.run(write)
    finally:
        client.close()
