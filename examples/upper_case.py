"""Every line of `input.topic` to `output.topic`, in upper case.

On PyFlink: change `headrace` to `pyflink` in the imports, and give Flink the jar of its Kafka connector.
"""

import os

from headrace.common import SimpleStringSchema, Types, WatermarkStrategy
from headrace.datastream import StreamExecutionEnvironment
from headrace.datastream.connectors.kafka import (
    DeliveryGuarantee,
    KafkaOffsetsInitializer,
    KafkaRecordSerializationSchema,
    KafkaSink,
    KafkaSource,
)

env = StreamExecutionEnvironment.get_execution_environment()
env.enable_checkpointing(1000)

servers = os.environ.get("KAFKA_BOOTSTRAP_SERVERS", "localhost:9092")
source = (
    KafkaSource.builder()
    .set_bootstrap_servers(servers)
    .set_topics(os.environ.get("INPUT_TOPIC", "input.topic"))
    .set_group_id("upper-case")
    .set_starting_offsets(KafkaOffsetsInitializer.earliest())
    .set_value_only_deserializer(SimpleStringSchema())
    .build()
)
records = KafkaRecordSerializationSchema.builder().set_topic(os.environ.get("OUTPUT_TOPIC", "output.topic"))
sink = (
    KafkaSink.builder()
    .set_bootstrap_servers(servers)
    .set_record_serializer(records.set_value_serialization_schema(SimpleStringSchema()).build())
    .set_delivery_guarantee(DeliveryGuarantee.AT_LEAST_ONCE)
    .build()
)

lines = env.from_source(source, WatermarkStrategy.no_watermarks(), "lines")
lines.map(lambda line: line.upper(), Types.STRING()).sink_to(sink)
env.execute("upper-case")
