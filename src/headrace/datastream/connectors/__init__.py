"""Sources and sinks, where PyFlink has them."""

from __future__ import annotations

from typing import Any

from headrace.common.refusal import refuse_names
from headrace.connector import DeliveryGuarantee, Sink, Source

__all__ = ["DeliveryGuarantee", "Sink", "Source"]

_OTHER = "the connectors are Kafka's, in `headrace.datastream.connectors.kafka`"

# Names that PyFlink keeps here for programs written for older versions.
_OF_KAFKA = ("FlinkKafkaConsumer", "FlinkKafkaProducer", "KafkaSource", "Semantic")
_refuse = refuse_names(
    __name__,
    {
        "NumberSequenceSource": "use `from_collection(range(start, end + 1))`",
        **dict.fromkeys(
            (
                "BucketAssigner",
                "FileEnumeratorProvider",
                "FileSink",
                "FileSource",
                "FileSourceBuilder",
                "FileSplitAssignerProvider",
                "JdbcConnectionOptions",
                "JdbcExecutionOptions",
                "JdbcSink",
                "OutputFileConfig",
                "PulsarSource",
                "PulsarSourceBuilder",
                "RMQConnectionConfig",
                "RMQSink",
                "RMQSource",
                "RollingPolicy",
                "StartCursor",
                "StopCursor",
                "StreamFormat",
                "StreamingFileSink",
            ),
            _OTHER,
        ),
    },
)


def __getattr__(name: str) -> Any:
    if name in _OF_KAFKA:
        # Here too, but without loading the connector for the other names.
        from headrace.datastream.connectors import kafka

        return getattr(kafka, name)
    return _refuse(name)
