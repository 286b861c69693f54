"""Refused by name: Parquet files."""

from headrace.common.refusal import refuse_names

__getattr__ = refuse_names(
    __name__,
    ["AvroParquetReaders", "AvroParquetWriters", "ParquetBulkWriters", "ParquetColumnarRowInputFormat"],
    "files are not read or written; read from Kafka or a collection",
)
