"""`KafkaSource`, `KafkaSink`, and everything that speaks Kafka.

| module | holds |
|---|---|
| `source` | `KafkaSource` and its builder |
| `enumerator`, `split` | which partitions there are, and a partition with a position |
| `reader`, `rate_limit` | records of assigned partitions, in batches, and how many of them at a time |
| `offsets` | `KafkaOffsetsInitializer`, how it becomes numbers, and what to do when a log does not hold one |
| `deserialization` | a program's schema for whole records as they are read |
| `serialization` | `KafkaRecordSerializationSchema`, its builder, and whole records as they are written |
| `dead_letters` | records that an operator failed on, as Kafka records |
| `record_size` | a record that is too large is found before it is sent |
| `sink` | `KafkaSink`, its builder and writers |
| `legacy` | `FlinkKafkaConsumer` and `FlinkKafkaProducer`, made of the new ones |
| `lineage` | which topics a source or a sink has to do with |
| `topics` | topics that a sink writes exist before its first record |
| `transaction` | a region's transaction and its marker |
| `property_table`, `properties_page` | one row per property of Kafka's Java client: what becomes of it; and as a page |
| `properties` | properties as settings of librdkafka, by that table |
| `jaas`, `presets` | logins: Java's lines, properties of hosted Kafka |
| `failures` | what a client's failures mean: the setting and the cure |
| `client` | the client itself, behind a protocol |
"""

from headrace.connector import DeliveryGuarantee
from headrace.kafka.client.protocol import KafkaConsumerRecord, KafkaTopicPartition, TimestampType
from headrace.kafka.dead_letters import DeadLetterSerializationSchema
from headrace.kafka.deserialization import KafkaRecordDeserializationSchema
from headrace.kafka.enumerator import KafkaSubscriber
from headrace.kafka.offsets import (
    KafkaOffsetResetStrategy,
    KafkaOffsetsInitializer,
    OffsetsInitializer,
    PartitionOffsetsRetriever,
)
from headrace.kafka.serialization import (
    FlinkFixedPartitioner,
    HeaderProvider,
    KafkaPartitioner,
    KafkaProducerRecord,
    KafkaRecordSerializationSchema,
    KafkaRecordSerializationSchemaBuilder,
    KafkaSinkContext,
    KafkaTopicSelector,
)
from headrace.kafka.sink import KafkaSink, KafkaSinkBuilder
from headrace.kafka.source import KafkaSource, KafkaSourceBuilder

__all__ = [
    "DeadLetterSerializationSchema",
    "DeliveryGuarantee",
    "FlinkFixedPartitioner",
    "HeaderProvider",
    "KafkaConsumerRecord",
    "KafkaOffsetResetStrategy",
    "KafkaOffsetsInitializer",
    "KafkaPartitioner",
    "KafkaProducerRecord",
    "KafkaRecordDeserializationSchema",
    "KafkaRecordSerializationSchema",
    "KafkaRecordSerializationSchemaBuilder",
    "KafkaSink",
    "KafkaSinkBuilder",
    "KafkaSinkContext",
    "KafkaSource",
    "KafkaSourceBuilder",
    "KafkaSubscriber",
    "KafkaTopicPartition",
    "KafkaTopicSelector",
    "OffsetsInitializer",
    "PartitionOffsetsRetriever",
    "TimestampType",
]
