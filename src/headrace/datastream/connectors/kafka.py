"""Kafka's source and sink, where PyFlink has them. The connector is loaded when one of its names is asked for."""

from __future__ import annotations

import importlib
from typing import Any

from headrace.common.refusal import refuse_names
from headrace.connector import DeliveryGuarantee

__all__ = ["DeliveryGuarantee"]

_KAFKA = (
    "KafkaOffsetResetStrategy",
    "KafkaOffsetsInitializer",
    "KafkaRecordSerializationSchema",
    "KafkaRecordSerializationSchemaBuilder",
    "KafkaSink",
    "KafkaSinkBuilder",
    "KafkaSource",
    "KafkaSourceBuilder",
    "KafkaTopicPartition",
)

_refuse = refuse_names(
    __name__,
    {
        "FlinkKafkaConsumer": "Flink's connector removed it; use `KafkaSource`",
        "FlinkKafkaProducer": "Flink's connector removed it; use `KafkaSink`",
        "Semantic": "it belongs to `FlinkKafkaProducer`; use `DeliveryGuarantee`",
        "KafkaTopicSelector": "a sink writes to one topic; use a `filter` and a sink for each",
    },
)


def __getattr__(name: str) -> Any:
    return getattr(importlib.import_module("headrace.kafka"), name) if name in _KAFKA else _refuse(name)
