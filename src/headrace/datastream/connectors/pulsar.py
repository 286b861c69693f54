"""Refused by name: Pulsar."""

from headrace.common.refusal import refuse_names

__getattr__ = refuse_names(
    __name__,
    [
        "MessageDelayer",
        "PulsarSink",
        "PulsarSinkBuilder",
        "PulsarSource",
        "PulsarSourceBuilder",
        "RangeGenerator",
        "StartCursor",
        "StopCursor",
        "TopicRoutingMode",
    ],
    "the connectors are Kafka's",
)
