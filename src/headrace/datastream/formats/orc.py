"""Refused by name: ORC files."""

from headrace.common.refusal import refuse_names

__getattr__ = refuse_names(
    __name__,
    ["OrcBulkWriters"],
    "files are not read or written; read from Kafka or a collection",
)
