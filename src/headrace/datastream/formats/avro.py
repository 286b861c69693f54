"""Avro, as rows; *Extension*: as plain values. Avro files are refused by name."""

from headrace.common.refusal import refuse_names
from headrace.formats.avro import (
    AvroDeserializationSchema,
    AvroRowDeserializationSchema,
    AvroRowSerializationSchema,
    AvroSerializationSchema,
)

__all__ = [
    "AvroDeserializationSchema",
    "AvroRowDeserializationSchema",
    "AvroRowSerializationSchema",
    "AvroSerializationSchema",
]

__getattr__ = refuse_names(
    __name__,
    ["AvroBulkWriters", "AvroInputFormat", "AvroSchema", "GenericRecordAvroTypeInfo"],
    "it belongs to files; for records use `AvroDeserializationSchema` and `AvroSerializationSchema`",
)
