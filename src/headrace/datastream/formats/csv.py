"""CSV, as rows. CSV files are refused by name."""

from headrace.common.refusal import refuse_names
from headrace.formats.csv import CsvRowDeserializationSchema, CsvRowSerializationSchema

__all__ = ["CsvRowDeserializationSchema", "CsvRowSerializationSchema"]

__getattr__ = refuse_names(
    __name__,
    ["CsvBulkWriters", "CsvReaderFormat", "CsvSchema", "CsvSchemaBuilder"],
    "it belongs to files; for records use `CsvRowDeserializationSchema` and `CsvRowSerializationSchema`",
)
