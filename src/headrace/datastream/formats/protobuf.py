"""Protobuf, as messages and as rows. *Extension*: PyFlink has it in its Table API only."""

from headrace.formats.protobuf import (
    ProtobufDeserializationSchema,
    ProtobufRowDeserializationSchema,
    ProtobufRowSerializationSchema,
    ProtobufSerializationSchema,
)

__all__ = [
    "ProtobufDeserializationSchema",
    "ProtobufRowDeserializationSchema",
    "ProtobufRowSerializationSchema",
    "ProtobufSerializationSchema",
]
