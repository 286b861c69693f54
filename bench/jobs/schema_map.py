"""Items in, one field changed, items out, by a schema on both ends."""

import sys
from pathlib import Path

import msgspec
from ends import arguments, environment, sink, source_builder
from headrace.common import Types, WatermarkStrategy
from headrace.datastream.connectors.kafka import KafkaRecordSerializationSchema
from headrace.datastream.formats.avro import AvroDeserializationSchema, AvroSerializationSchema
from headrace.datastream.formats.json import (
    JsonDeserializationSchema,
    JsonRowDeserializationSchema,
    JsonRowSerializationSchema,
    JsonSerializationSchema,
)
from headrace.datastream.formats.protobuf import ProtobufDeserializationSchema, ProtobufSerializationSchema

sys.path.append(str(Path(__file__).parents[1]))

from records import AVRO_SCHEMA, FIELDS, item_class

TYPES = {"long": Types.LONG(), "string": Types.STRING(), "double": Types.DOUBLE()}


class Item(msgspec.Struct):
    id: int
    source: str
    title: str
    published_at: int
    price: float
    note: str


def enrich(item):
    item["title"] = item["title"].upper()
    return item


def enrich_object(item):
    item.title = item.title.upper()
    return item


options = arguments()
match options.schema:
    case "json":
        row_type = Types.ROW_NAMED(list(FIELDS), [TYPES[kind] for kind in FIELDS.values()])
        reads = JsonRowDeserializationSchema.builder().type_info(row_type).build()
        writes = JsonRowSerializationSchema.builder().with_type_info(row_type).build()
    case "avro":
        reads, writes = AvroDeserializationSchema(AVRO_SCHEMA), AvroSerializationSchema(AVRO_SCHEMA)
    case "protobuf":
        reads, writes = ProtobufDeserializationSchema(item_class()), ProtobufSerializationSchema(item_class())
    case "struct":
        reads, writes = JsonDeserializationSchema(Item), JsonSerializationSchema(Item)
serializer = (
    KafkaRecordSerializationSchema.builder().set_topic(options.output).set_value_serialization_schema(writes).build()
)
env = environment(options)
(
    env.from_source(
        source_builder(options).set_value_only_deserializer(reads).build(), WatermarkStrategy.no_watermarks(), "items"
    )
    .map(enrich if options.schema in ("json", "avro") else enrich_object)
    .sink_to(sink(options, serializer))
)
env.execute("schema map")
