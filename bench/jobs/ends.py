"""What the benchmark's jobs have in common: their arguments, and where their records come from and go to.

Runs on PyFlink too, as the jobs do: with `headrace` in the imports changed to `pyflink`.
"""

from __future__ import annotations

import argparse

from headrace.common import ByteArraySchema, Configuration, Types
from headrace.datastream import StreamExecutionEnvironment
from headrace.datastream.connectors.kafka import (
    DeliveryGuarantee,
    KafkaOffsetsInitializer,
    KafkaRecordSerializationSchema,
    KafkaSink,
    KafkaSource,
)

BYTES = Types.PRIMITIVE_ARRAY(Types.BYTE())
"""The type of a function's result that is `bytes`."""


def arguments() -> argparse.Namespace:
    """The command line of every job."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--bootstrap", required=True)
    parser.add_argument("--input", required=True)
    parser.add_argument("--output", required=True)
    parser.add_argument("--guarantee", choices=("at-least-once", "exactly-once"), required=True)
    parser.add_argument("--run-id", required=True, help="names the group and the transactional ids")
    parser.add_argument("--checkpoints", required=True, help="the folder for checkpoints, as an address")
    parser.add_argument("--unbounded", action="store_true", help="go on until SIGTERM")
    parser.add_argument("--source-property", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--sink-property", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--headers", action="store_true", help="write keys and headers too")
    parser.add_argument("--schema", choices=("json", "avro", "protobuf", "struct"), help="what records are read with")
    parser.add_argument("--lanes", type=int, default=1, help="the job's parallelism")
    parser.add_argument("--metrics", action="store_true", help="show metrics, at any port")
    parser.add_argument("--tolerant", action="store_true", help="drop records that an operator fails on")
    parser.add_argument("--work-us", type=int, default=0, help="CPU time that the function takes beside its work")
    return parser.parse_args()


def environment(options: argparse.Namespace) -> StreamExecutionEnvironment:
    """An environment with a checkpoint each second, and parallelism 1 unless asked for more."""
    configuration = Configuration()
    configuration.set_string("execution.checkpointing.dir", options.checkpoints)
    if options.metrics:
        configuration.set_string("metrics.reporter.prom.port", "0")
    env = StreamExecutionEnvironment.get_execution_environment(configuration)
    env.set_parallelism(options.lanes)
    env.enable_checkpointing(1000)
    if options.tolerant:
        # PyFlink has no such thing.
        from headrace.datastream import ErrorPolicy

        env.on_error(ErrorPolicy.drop())
    return env


def source(options: argparse.Namespace) -> KafkaSource:
    """The input topic from its beginning, as bytes; to its present end unless unbounded."""
    return source_builder(options).set_value_only_deserializer(ByteArraySchema()).build()


def source_builder(options: argparse.Namespace):
    """The same without a deserializer."""
    builder = (
        KafkaSource.builder()
        .set_bootstrap_servers(options.bootstrap)
        .set_topics(options.input)
        .set_group_id(options.run_id)
        .set_starting_offsets(KafkaOffsetsInitializer.earliest())
    )
    if not options.unbounded:
        builder.set_bounded(KafkaOffsetsInitializer.latest())
    for each in options.source_property:
        builder.set_property(*each.split("=", 1))
    return builder


def sink(options: argparse.Namespace, serializer: KafkaRecordSerializationSchema | None = None) -> KafkaSink:
    """The output topic; with bytes for values unless a serializer says otherwise."""
    exactly_once = options.guarantee == "exactly-once"
    builder = (
        KafkaSink.builder()
        .set_bootstrap_servers(options.bootstrap)
        .set_record_serializer(
            serializer
            or KafkaRecordSerializationSchema.builder()
            .set_topic(options.output)
            .set_value_serialization_schema(ByteArraySchema())
            .build()
        )
        .set_delivery_guarantee(DeliveryGuarantee.EXACTLY_ONCE if exactly_once else DeliveryGuarantee.AT_LEAST_ONCE)
        .set_property("transaction.timeout.ms", "900000")
    )
    if exactly_once:
        builder.set_transactional_id_prefix(options.run_id)
    for each in options.sink_property:
        builder.set_property(*each.split("=", 1))
    return builder.build()
