"""Refused by name: Avro."""

from headrace.common.refusal import refuse_names

__getattr__ = refuse_names(
    __name__,
    [
        "AvroBulkWriters",
        "AvroInputFormat",
        "AvroRowDeserializationSchema",
        "AvroRowSerializationSchema",
        "AvroSchema",
        "GenericRecordAvroTypeInfo",
    ],
    "use any callable, or a schema class of your own, with an Avro library",
)
