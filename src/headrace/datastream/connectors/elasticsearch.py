"""Refused by name: Elasticsearch."""

from headrace.common.refusal import refuse_names

__getattr__ = refuse_names(
    __name__,
    [
        "Elasticsearch6SinkBuilder",
        "Elasticsearch7SinkBuilder",
        "ElasticsearchEmitter",
        "ElasticsearchSink",
        "FlushBackoffType",
    ],
    "the connectors are Kafka's",
)
