"""Refused by name: databases."""

from headrace.common.refusal import refuse_names

__getattr__ = refuse_names(
    __name__,
    ["JdbcConnectionOptions", "JdbcExecutionOptions", "JdbcSink"],
    "the connectors are Kafka's",
)
