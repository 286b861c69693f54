"""MarketLag: how far each market's price lags behind the news about it.

Reads news, `{"market": "fed-cut", "ts": 1767225600000, "title": "…"}`, from `rss.events`, and hourly prices,
`{"market": "fed-cut", "ts": 1767222000000, "price": 0.42}`, from `polymarket.price_hourly`; times are in ms since the
epoch. For each news item it writes to `market.lag`, exactly once, the last price seen of the market and how old that
was: null if none was seen yet, and a negative lag if the price is the newer of the two.

A first start reads what comes from then on; later ones go on from the checkpoint. On Confluent Cloud, set
`KAFKA_BOOTSTRAP_SERVERS`, `KAFKA_API_KEY` and `KAFKA_API_SECRET` in the environment. Without a key the broker is one
without a login, at localhost:9092 unless `KAFKA_BOOTSTRAP_SERVERS` says otherwise.

On PyFlink: change `headrace` to `pyflink` in the imports, and give Flink the jar of its Kafka connector (with the SQL
jar, the login module's name begins with `org.apache.flink.kafka.shaded.`).
"""

import json
import os
from collections.abc import Iterator
from typing import Any

from headrace.common import Duration, SimpleStringSchema, Types, WatermarkStrategy
from headrace.common.watermark_strategy import TimestampAssigner
from headrace.datastream import KeyedProcessFunction, RuntimeContext, StreamExecutionEnvironment
from headrace.datastream.connectors.kafka import (
    DeliveryGuarantee,
    KafkaOffsetsInitializer,
    KafkaRecordSerializationSchema,
    KafkaSink,
    KafkaSource,
)
from headrace.datastream.state import ValueStateDescriptor


class RecordTime(TimestampAssigner):
    def extract_timestamp(self, value: Any, record_timestamp: int) -> int:
        return int(value["ts"])


class MarketLag(KeyedProcessFunction):
    """Keeps each market's last price, and compares every news item with it."""

    def open(self, runtime_context: RuntimeContext) -> None:
        at_and_price = Types.TUPLE([Types.LONG(), Types.DOUBLE()])
        self.last_price = runtime_context.get_state(ValueStateDescriptor("last-price", at_and_price))

    def process_element(self, value: Any, ctx: KeyedProcessFunction.Context) -> Iterator[str]:
        now, last = ctx.timestamp(), self.last_price.value()
        if "price" in value:
            if last is None or last[0] <= now:
                self.last_price.update((now, float(value["price"])))
            return
        at, price = last or (None, None)
        lag_ms = None if at is None else now - at
        yield json.dumps({"market": value["market"], "title": value["title"], "price": price, "lag_ms": lag_ms})


def servers() -> str:
    return os.environ.get("KAFKA_BOOTSTRAP_SERVERS", "localhost:9092")


def login() -> dict[str, str]:
    """Confluent Cloud's settings if the environment holds a key, none for a local broker."""
    if "KAFKA_API_KEY" not in os.environ:
        return {}
    key, secret = os.environ["KAFKA_API_KEY"], os.environ["KAFKA_API_SECRET"]
    module = "org.apache.kafka.common.security.plain.PlainLoginModule"
    return {
        "security.protocol": "SASL_SSL",
        "sasl.mechanism": "PLAIN",
        "sasl.jaas.config": f'{module} required username="{key}" password="{secret}";',
    }


def source(topic: str) -> KafkaSource:
    return (
        KafkaSource.builder()
        .set_bootstrap_servers(servers())
        .set_properties(login())
        .set_topics(topic)
        .set_group_id("market-lag")
        .set_starting_offsets(KafkaOffsetsInitializer.latest())
        .set_value_only_deserializer(SimpleStringSchema())
        .build()
    )


def sink(topic: str) -> KafkaSink:
    records = KafkaRecordSerializationSchema.builder().set_topic(topic)
    builder = (
        KafkaSink.builder()
        .set_bootstrap_servers(servers())
        .set_record_serializer(records.set_value_serialization_schema(SimpleStringSchema()).build())
        .set_delivery_guarantee(DeliveryGuarantee.EXACTLY_ONCE)
        .set_transactional_id_prefix("market-lag")
        .set_property("transaction.timeout.ms", "900000")  # Kafka's brokers allow no more unless they are told to
    )
    for name, value in login().items():
        builder.set_property(name, value)
    return builder.build()


def main() -> None:
    env = StreamExecutionEnvironment.get_execution_environment()
    env.enable_checkpointing(1000)

    as_they_come = WatermarkStrategy.no_watermarks()
    news = env.from_source(source(os.environ.get("NEWS_TOPIC", "rss.events")), as_they_come, "news")
    prices = env.from_source(source(os.environ.get("PRICE_TOPIC", "polymarket.price_hourly")), as_they_come, "prices")
    event_time = WatermarkStrategy.for_bounded_out_of_orderness(Duration.of_minutes(1))
    (
        news.uid("news")
        .union(prices.uid("prices"))
        .map(json.loads)
        .assign_timestamps_and_watermarks(event_time.with_timestamp_assigner(RecordTime()))
        .key_by(lambda item: item["market"], key_type=Types.STRING())
        .process(MarketLag(), output_type=Types.STRING())
        .name("market lag")
        .uid("market-lag")
        .sink_to(sink(os.environ.get("LAG_TOPIC", "market.lag")))
        .name("lags")
        .uid("lags")
    )
    env.execute("market-lag")


if __name__ == "__main__":
    main()
