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
    KafkaTopicPartition,
)
from headrace.kafka.legacy import FlinkKafkaConsumer, FlinkKafkaProducer, Semantic

__all__ = [
    "DeliveryGuarantee",
    "FlinkKafkaConsumer",
    "FlinkKafkaProducer",
    "KafkaOffsetResetStrategy",
    "KafkaOffsetsInitializer",
    "KafkaRecordSerializationSchema",
    "KafkaRecordSerializationSchemaBuilder",
    "KafkaSink",
    "KafkaSinkBuilder",
    "KafkaSource",
    "KafkaSourceBuilder",
    "KafkaTopicPartition",
    "Semantic",
]

__getattr__ = refuse_names(
    __name__,
    {
        "KafkaTopicSelector": "a sink writes to one topic; use a `filter` and a sink for each",
    },
)
