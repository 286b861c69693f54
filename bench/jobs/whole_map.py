"""Whole records in, JSON with one field changed out: as a value, or with the record's key and headers."""

import orjson
from ends import arguments, environment, sink, source_builder
from headrace.common import WatermarkStrategy
from headrace.datastream.connectors.kafka import KafkaRecordDeserializationSchema, KafkaRecordSerializationSchema


class Enriched(KafkaRecordDeserializationSchema):
    """The changed value of each record that has key, headers and a place, and with it the record where it is wanted."""

    def deserialize(self, record):
        if not record.key or not record.headers or record.offset < 0:
            return []
        item = orjson.loads(record.value)
        item["title"] = item["title"].upper()
        value = orjson.dumps(item)
        return [(record.key, value, record.headers)] if options.headers else [value]


options = arguments()
serializer = None
if options.headers:
    serializer = (
        KafkaRecordSerializationSchema.builder()
        .set_topic(options.output)
        .set_key_serialization_schema(lambda enriched: enriched[0])
        .set_value_serialization_schema(lambda enriched: enriched[1])
        .set_header_provider(lambda enriched: enriched[2])
        .build()
    )
env = environment(options)
(
    env.from_source(
        source_builder(options).set_deserializer(Enriched()).build(), WatermarkStrategy.no_watermarks(), "items"
    ).sink_to(sink(options, serializer))
)
env.execute("whole map")
