"""Refused by name: Cassandra."""

from headrace.common.refusal import refuse_names

__getattr__ = refuse_names(
    __name__,
    [
        "CassandraCommitter",
        "CassandraFailureHandler",
        "CassandraSink",
        "ClusterBuilder",
        "ConsistencyLevel",
        "MapperOptions",
    ],
    "the connectors are Kafka's",
)
