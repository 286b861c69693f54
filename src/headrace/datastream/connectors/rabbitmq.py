"""Refused by name: RabbitMQ."""

from headrace.common.refusal import refuse_names

__getattr__ = refuse_names(
    __name__,
    ["RMQConnectionConfig", "RMQSink", "RMQSource"],
    "the connectors are Kafka's",
)
