"""JSON, as rows; *Extension*: as typed values."""

from headrace.formats.json import JsonDeserializationSchema, JsonSerializationSchema
from headrace.formats.json_rows import JsonRowDeserializationSchema, JsonRowSerializationSchema

__all__ = [
    "JsonDeserializationSchema",
    "JsonRowDeserializationSchema",
    "JsonRowSerializationSchema",
    "JsonSerializationSchema",
]
