"""Refused by name: Kinesis."""

from headrace.common.refusal import refuse_names

__getattr__ = refuse_names(
    __name__,
    [
        "FlinkKinesisConsumer",
        "KinesisDeserializationSchema",
        "KinesisFirehoseSink",
        "KinesisFirehoseSinkBuilder",
        "KinesisShardAssigner",
        "KinesisStreamsSink",
        "KinesisStreamsSinkBuilder",
        "PartitionKeyGenerator",
        "WatermarkTracker",
    ],
    "the connectors are Kafka's",
)
