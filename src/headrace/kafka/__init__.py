"""`KafkaSource`, `KafkaSink`, and everything that speaks Kafka.

| module | holds |
|---|---|
| `source` | `KafkaSource` and its builder |
| `enumerator`, `split` | which partitions there are, and a partition with a position |
| `reader`, `rate_limit` | records of assigned partitions, in batches, and how many of them at a time |
| `offsets` | `KafkaOffsetsInitializer`, how it becomes numbers, and what to do when a log does not hold one |
| `sink` | `KafkaSink`, `KafkaRecordSerializationSchema`, their builders and writers |
| `topics` | topics that a sink writes exist before its first record |
| `transaction` | a region's transaction and its marker |
| `properties` | one row per property of Kafka's Java client: what becomes of it |
| `failures` | what a client's failures mean: the setting and the cure |
| `client` | the client itself, behind a protocol |
"""

from headrace.connector import DeliveryGuarantee
from headrace.kafka.client.protocol import KafkaTopicPartition
from headrace.kafka.enumerator import KafkaSubscriber
from headrace.kafka.offsets import (
    KafkaOffsetResetStrategy,
    KafkaOffsetsInitializer,
    OffsetsInitializer,
    PartitionOffsetsRetriever,
)
from headrace.kafka.sink import (
    KafkaRecordSerializationSchema,
    KafkaRecordSerializationSchemaBuilder,
    KafkaSink,
    KafkaSinkBuilder,
)
from headrace.kafka.source import KafkaSource, KafkaSourceBuilder

__all__ = [
    "DeliveryGuarantee",
    "KafkaOffsetResetStrategy",
    "KafkaOffsetsInitializer",
    "KafkaRecordSerializationSchema",
    "KafkaRecordSerializationSchemaBuilder",
    "KafkaSink",
    "KafkaSinkBuilder",
    "KafkaSource",
    "KafkaSourceBuilder",
    "KafkaSubscriber",
    "KafkaTopicPartition",
    "OffsetsInitializer",
    "PartitionOffsetsRetriever",
]
