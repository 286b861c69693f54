"""Refused by name: CSV."""

from headrace.common.refusal import refuse_names

__getattr__ = refuse_names(
    __name__,
    [
        "CsvBulkWriters",
        "CsvReaderFormat",
        "CsvRowDeserializationSchema",
        "CsvRowSerializationSchema",
        "CsvSchema",
        "CsvSchemaBuilder",
    ],
    "use any callable, or a schema class of your own, with the `csv` module",
)
