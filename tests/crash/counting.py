"""The job that the crash suite runs: input → how often each record's key has come → output, exactly once.

Records are JSON, `{"id": "2-17", "key": "k3"}` in and `{"id": "2-17", "key": "k3", "count": 5}` out. With a `pad` in
it, a record's result is that many bytes longer. With `--whole`, whole records are read and written: to one of two
topics each, with a header, and to a partition of the job's choice. With `--dead-letters TOPIC`, records of three keys
fail, in the source, in a function and in the sink, and go there as they were read. With `--savepoints`, so many are
asked for, once the pipe at `--savepoint-when` is written to.
"""

from __future__ import annotations

import argparse
import faulthandler
import json
import logging
import os
import signal
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from headrace.common import Configuration, SimpleStringSchema, Types, WatermarkStrategy
from headrace.datastream import ErrorPolicy, KeyedProcessFunction, RuntimeContext, StreamExecutionEnvironment
from headrace.datastream.connectors.kafka import (
    DeadLetterSerializationSchema,
    DeliveryGuarantee,
    KafkaConsumerRecord,
    KafkaOffsetsInitializer,
    KafkaPartitioner,
    KafkaRecordDeserializationSchema,
    KafkaRecordSerializationSchema,
    KafkaSink,
    KafkaSource,
)
from headrace.datastream.state import ValueStateDescriptor


class Work:
    """Parses a record, and makes trouble where it is told to."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self._delay_s = arguments.delay_ms / 1000
        self._fail_once = Path(arguments.fail_once)
        self._stuck = Path(arguments.stuck)
        self._came = 0

    def __call__(self, text: str) -> dict:
        self._came += 1
        if self._delay_s:
            time.sleep(self._delay_s)
        if self._came % 20 == 0:
            if self._fail_once.is_file():
                self._fail_once.unlink()
                raise RuntimeError("told to fail")
            if self._stuck.is_file():
                self._stuck.with_suffix(".reached").touch()
                while self._stuck.is_file():
                    time.sleep(0.01)
        return json.loads(text)


class Count(KeyedProcessFunction):
    """How often each key has come."""

    def open(self, runtime_context: RuntimeContext) -> None:
        self.count = runtime_context.get_state(ValueStateDescriptor("count", Types.LONG()))

    def process_element(self, value: dict, ctx: KeyedProcessFunction.Context):
        count = (self.count.value() or 0) + 1
        self.count.update(count)
        yield {**value, "count": count}


def to_text(result: dict) -> str:
    """The result as it is written."""
    pad = result.pop("pad", 0)
    return json.dumps(result | {"pad": "x" * pad}) if pad else json.dumps(result)


class Texts(KafkaRecordDeserializationSchema):
    """The value of each record, in one of several ways."""

    def deserialize(self, record: KafkaConsumerRecord) -> Iterator[str]:
        yield (record.value or b"").decode()


class Last(KafkaPartitioner):
    """Two in three records to the last partition there is at the moment."""

    def partition(
        self, record: Any, key: bytes | None, value: bytes | None, target_topic: str, partitions: Sequence[int]
    ) -> int:
        return partitions[-1] if len(record) % 3 else partitions[0]


def to_whole_records(topic: str) -> KafkaRecordSerializationSchema:
    """Every second key to the one topic, the others to the other."""
    builder = KafkaRecordSerializationSchema.builder()
    builder.set_topic_selector(lambda text: topic if json.loads(text)["key"][-1] in "02468" else f"{topic}-odd")
    builder.set_key_serialization_schema(lambda text: json.loads(text)["key"].encode())
    builder.set_header_provider(lambda text: [("id", json.loads(text)["id"].encode())])
    return builder.set_value_serialization_schema(SimpleStringSchema()).set_partitioner(Last()).build()


BAD_KEYS = {"k1": "source", "k2": "function", "k3": "sink"}


class FailsAt(SimpleStringSchema):
    """Fails on the records that are bad for this part of the job."""

    def __init__(self, part: str) -> None:
        super().__init__()
        self._key = next(f'"key": "{key}"' for key, at in BAD_KEYS.items() if at == part)

    def deserialize(self, message: bytes | None) -> str | None:
        return self.checked(super().deserialize(message))

    def serialize(self, element: str) -> bytes | None:
        return super().serialize(self.checked(element))

    def checked_result(self, result: dict) -> dict:
        self.checked(json.dumps(result))
        return result

    def checked(self, text: str) -> str:
        if self._key in text:
            raise ValueError(f"told to fail on {self._key}")
        return text


def main() -> None:
    """Describe the job and run it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--bootstrap", required=True)
    parser.add_argument("--input", required=True)
    parser.add_argument("--output", required=True)
    parser.add_argument("--prefix", required=True)
    parser.add_argument("--name", default="counting")
    parser.add_argument("--start", choices=("earliest", "latest"), default="earliest")
    parser.add_argument("--bounded", action="store_true")
    parser.add_argument("--whole", action="store_true")
    parser.add_argument("--dead-letters", default="")
    parser.add_argument("--interval", type=int, default=50)
    parser.add_argument("--delay-ms", type=float, default=0.0)
    parser.add_argument("--edit", choices=("nothing", "more", "less"), default="nothing")
    parser.add_argument("--savepoints", type=int, default=0)
    parser.add_argument("--savepoint-dir", default="")
    parser.add_argument("--savepoint-when", default=os.devnull)
    parser.add_argument("--fail-once", default="/nonexistent")
    parser.add_argument("--stuck", default="/nonexistent")
    parser.add_argument("--source-property", action="append", default=[])
    parser.add_argument("--sink-property", action="append", default=[])
    parser.add_argument("-D", dest="settings", action="append", default=[])
    arguments = parser.parse_args()

    # So that a test that fails shows the traceback behind each restart, and where a job hangs.
    faulthandler.register(signal.SIGUSR1)
    logging.basicConfig(
        level=logging.DEBUG, format="%(asctime)s.%(msecs)03d %(levelname)s %(message)s", datefmt="%H:%M:%S"
    )
    configuration = Configuration()
    for setting in arguments.settings:
        configuration.set_string(*setting.split("=", 1))
    env = StreamExecutionEnvironment.get_execution_environment(configuration)
    env.enable_checkpointing(arguments.interval)

    start = {"earliest": KafkaOffsetsInitializer.earliest, "latest": KafkaOffsetsInitializer.latest}[arguments.start]
    source = (
        KafkaSource.builder()
        .set_bootstrap_servers(arguments.bootstrap)
        .set_topics(arguments.input)
        .set_group_id(f"{arguments.prefix}-progress")
        .set_starting_offsets(start())
        .set_value_only_deserializer(SimpleStringSchema())
    )
    if arguments.whole:
        source.set_deserializer(Texts())
    if arguments.dead_letters:
        source.set_value_only_deserializer(FailsAt("source"))
    for each in arguments.source_property:
        source.set_property(*each.split("=", 1))
    if arguments.bounded:
        source.set_bounded(KafkaOffsetsInitializer.latest())
    sink = (
        KafkaSink.builder()
        .set_bootstrap_servers(arguments.bootstrap)
        .set_record_serializer(
            KafkaRecordSerializationSchema.builder()
            .set_topic(arguments.output)
            .set_value_serialization_schema(FailsAt("sink") if arguments.dead_letters else SimpleStringSchema())
            .build()
        )
        .set_delivery_guarantee(DeliveryGuarantee.EXACTLY_ONCE)
        .set_transactional_id_prefix(arguments.prefix)
    )
    if arguments.whole:
        sink.set_record_serializer(to_whole_records(arguments.output))
    for each in arguments.sink_property:
        sink.set_property(*each.split("=", 1))

    if arguments.dead_letters:
        dead_letters = (
            KafkaSink.builder()
            .set_bootstrap_servers(arguments.bootstrap)
            .set_record_serializer(DeadLetterSerializationSchema(arguments.dead_letters))
            .set_delivery_guarantee(DeliveryGuarantee.EXACTLY_ONCE)
            .set_transactional_id_prefix(arguments.prefix)
        )
        env.on_error(ErrorPolicy.dead_letter(dead_letters.build()))

    stream = env.from_source(source.build(), WatermarkStrategy.no_watermarks(), "input").uid("input")
    records = stream.map(Work(arguments)).uid("work")
    if arguments.edit == "more":
        records = records.filter(lambda record: "id" in record).map(lambda record: record | {"edited": True})
    if arguments.edit != "less":
        records = records.key_by(lambda record: record["key"]).process(Count()).name("count").uid("count")
    if arguments.dead_letters:
        records = records.map(FailsAt("function").checked_result)
    records.map(to_text).uid("text").sink_to(sink.build()).uid("output")

    if not arguments.savepoints:
        env.execute(arguments.name)
        return
    client = env.execute_async(arguments.name)
    Path(arguments.savepoint_when).read_bytes()
    for _ in range(arguments.savepoints):
        print("savepoint", client.trigger_savepoint(arguments.savepoint_dir).result(), flush=True)
    client.get_job_execution_result().result()


if __name__ == "__main__":
    main()
