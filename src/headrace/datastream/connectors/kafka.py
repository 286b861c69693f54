"""Kafka's source and sink, where PyFlink has them."""

from headrace.common.refusal import refuse_names
from headrace.connector import DeliveryGuarantee
from headrace.kafka import (
    FlinkFixedPartitioner,
    HeaderProvider,
    KafkaConsumerRecord,
    KafkaOffsetResetStrategy,
    KafkaOffsetsInitializer,
    KafkaPartitioner,
    KafkaProducerRecord,
    KafkaRecordDeserializationSchema,
    KafkaRecordSerializationSchema,
    KafkaRecordSerializationSchemaBuilder,
    KafkaSink,
    KafkaSinkBuilder,
    KafkaSinkContext,
    KafkaSource,
    KafkaSourceBuilder,
    KafkaTopicPartition,
    KafkaTopicSelector,
    TimestampType,
)

__all__ = [
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
    "KafkaTopicPartition",
    "KafkaTopicSelector",
    "TimestampType",
]

__getattr__ = refuse_names(
    __name__,
    {
        "FlinkKafkaConsumer": "Flink's connector removed it; use `KafkaSource`",
        "FlinkKafkaProducer": "Flink's connector removed it; use `KafkaSink`",
        "Semantic": "it belongs to `FlinkKafkaProducer`; use `DeliveryGuarantee`",
    },
)
