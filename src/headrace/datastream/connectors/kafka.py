"""Kafka's source and sink, where PyFlink has them."""

from headrace.common.refusal import refuse_names
from headrace.connector import DeliveryGuarantee
from headrace.kafka import (
    KafkaOffsetResetStrategy,
    KafkaOffsetsInitializer,
    KafkaRecordSerializationSchema,
    KafkaRecordSerializationSchemaBuilder,
    KafkaSink,
    KafkaSinkBuilder,
    KafkaSource,
    KafkaSourceBuilder,
    KafkaSubscriber,
    KafkaTopicPartition,
    OffsetsInitializer,
    PartitionOffsetsRetriever,
)

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

__getattr__ = refuse_names(
    __name__,
    {
        "FlinkKafkaConsumer": "Flink's connector removed it; use `KafkaSource`",
        "FlinkKafkaProducer": "Flink's connector removed it; use `KafkaSink`",
        "Semantic": "it belongs to `FlinkKafkaProducer`; use `DeliveryGuarantee`",
        "KafkaTopicSelector": "a sink writes to one topic; use a `filter` and a sink for each",
    },
)
