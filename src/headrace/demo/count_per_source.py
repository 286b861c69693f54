"""A running count per source over news and prices, in event time, exactly once: Kafka in, Python, Kafka out.

With `headrace` in the imports changed to `pyflink` this is a PyFlink program.
"""

import argparse
from collections.abc import Iterator
from typing import Any

import orjson

from headrace.common import Duration, SimpleStringSchema, Types, WatermarkStrategy
from headrace.common.watermark_strategy import TimestampAssigner
from headrace.datastream import StreamExecutionEnvironment
from headrace.datastream.connectors.kafka import (
    DeliveryGuarantee,
    KafkaOffsetsInitializer,
    KafkaRecordSerializationSchema,
    KafkaSink,
    KafkaSource,
)
from headrace.datastream.functions import KeyedProcessFunction, RuntimeContext
from headrace.datastream.state import ValueStateDescriptor


class ItemTime(TimestampAssigner):
    def extract_timestamp(self, value: Any, record_timestamp: int) -> int:
        return int(value["ts"])


class Count(KeyedProcessFunction):
    def open(self, runtime_context: RuntimeContext) -> None:
        self.count = runtime_context.get_state(ValueStateDescriptor("count", Types.LONG()))

    def process_element(self, value: Any, ctx: KeyedProcessFunction.Context) -> Iterator[str]:
        count = (self.count.value() or 0) + 1
        self.count.update(count)
        yield orjson.dumps({"source": ctx.get_current_key(), "count": count, "at": ctx.timestamp()}).decode()


def source(bootstrap_servers: str, topic: str) -> KafkaSource:
    return (
        KafkaSource.builder()
        .set_bootstrap_servers(bootstrap_servers)
        .set_topics(topic)
        .set_group_id("count-per-source")
        .set_starting_offsets(KafkaOffsetsInitializer.earliest())
        .set_bounded(KafkaOffsetsInitializer.latest())
        .set_value_only_deserializer(SimpleStringSchema())
        .build()
    )


def sink(bootstrap_servers: str, topic: str) -> KafkaSink:
    return (
        KafkaSink.builder()
        .set_bootstrap_servers(bootstrap_servers)
        .set_record_serializer(
            KafkaRecordSerializationSchema.builder()
            .set_topic(topic)
            .set_value_serialization_schema(SimpleStringSchema())
            .build()
        )
        .set_delivery_guarantee(DeliveryGuarantee.EXACTLY_ONCE)
        .set_transactional_id_prefix("count-per-source")
        .build()
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--bootstrap-servers", default="localhost:9092")
    servers = parser.parse_args().bootstrap_servers

    env = StreamExecutionEnvironment.get_execution_environment()
    env.enable_checkpointing(200)
    unordered = WatermarkStrategy.no_watermarks()
    news = env.from_source(source(servers, "rss.events"), unordered, "news").uid("news")
    prices = env.from_source(source(servers, "polymarket.price_hourly"), unordered, "prices").uid("prices")
    event_time = WatermarkStrategy.for_bounded_out_of_orderness(Duration.of_seconds(5))
    (
        news.union(prices)
        .map(orjson.loads)
        .assign_timestamps_and_watermarks(event_time.with_timestamp_assigner(ItemTime()))
        .key_by(lambda item: item["source"], key_type=Types.STRING())
        .process(Count(), output_type=Types.STRING())
        .name("count")
        .uid("count")
        .sink_to(sink(servers, "rss.counts"))
        .name("counts")
        .uid("counts")
    )
    env.execute("count-per-source")


if __name__ == "__main__":
    main()
