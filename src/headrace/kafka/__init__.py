"""`KafkaSource`, `KafkaSink`, and everything that speaks Kafka.

| module | holds |
|---|---|
| `source` | `KafkaSource` and its builder |
| `enumerator`, `split` | which partitions there are, and a partition with a position |
| `reader` | records of assigned partitions, in batches |
| `offsets` | `KafkaOffsetsInitializer`, how it becomes numbers, and what to do when a log does not hold one |
| `sink` | `KafkaSink`, `KafkaRecordSerializationSchema`, their builders and writers |
| `topics` | topics that a sink writes exist before its first record |
| `transaction` | a region's transaction and its marker |
| `properties`, `properties_page` | one row per property of Kafka's Java client: what becomes of it; and as a page |
| `jaas`, `secrets`, `presets` | logins: Java's lines, secrets by reference, properties of hosted Kafka |
| `failures` | what a client's failures mean: the setting and the cure |
| `client` | the client itself, behind a protocol |
"""

from headrace.connector import DeliveryGuarantee
from headrace.kafka.client.protocol import KafkaTopicPartition
from headrace.kafka.offsets import KafkaOffsetResetStrategy, KafkaOffsetsInitializer
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
    "KafkaTopicPartition",
]
