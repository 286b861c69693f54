"""Hand-written Kafka loops, as a careful engineer writes them on `confluent_kafka`: what Headrace is measured against.

The consumer has the settings that matter for speed (the default `fetch.queue.backoff.ms` alone costs two thirds),
records come in lists, timestamps are passed on, arguments by position. What these loops do not have: any state that
survives a crash (the keyed count), recovery, watermarks, or checkpoints.

    python loops.py map --bootstrap HOST:PORT --input TOPIC --output TOPIC --guarantee at-least-once --run-id ID
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Callable
from io import BytesIO
from typing import Any

import fastavro
import msgspec
import orjson
from confluent_kafka import Consumer, Producer, TopicPartition

from records import AVRO_SCHEMA, item_class

BATCH = 500
QUEUE = 500_000
INTERVAL_S = 1.0
COMMIT_TIMEOUT_S = 30.0

# Of messages with values, which the stubs cannot say.
Message = Any
Loop = Callable[[list[Message], Producer, str], None]


def through(messages: list[Message], producer: Producer, topic: str) -> None:
    """Bytes passed through."""
    produce = producer.produce
    for message in messages:
        produce(topic, message.value(), None, -1, None, None, message.timestamp()[1])


def enrich(messages: list[Message], producer: Producer, topic: str) -> None:
    """JSON in, one field changed, JSON out."""
    produce, loads, dumps = producer.produce, orjson.loads, orjson.dumps
    for message in messages:
        item = loads(message.value())
        item["title"] = item["title"].upper()
        produce(topic, dumps(item), None, -1, None, None, message.timestamp()[1])


def enrich_whole(messages: list[Message], producer: Producer, topic: str) -> None:
    """The same, of records with a key, headers and a place."""
    produce, loads, dumps = producer.produce, orjson.loads, orjson.dumps
    for message in messages:
        if message.key() and message.headers() and message.offset() >= 0:
            item = loads(message.value())
            item["title"] = item["title"].upper()
            produce(topic, dumps(item), None, -1, None, None, message.timestamp()[1])


def enrich_with_headers(messages: list[Message], producer: Producer, topic: str) -> None:
    """The same, with key and headers passed on."""
    produce, loads, dumps = producer.produce, orjson.loads, orjson.dumps
    for message in messages:
        key, headers = message.key(), message.headers()
        if key and headers and message.offset() >= 0:
            item = loads(message.value())
            item["title"] = item["title"].upper()
            produce(topic, dumps(item), key, -1, None, None, message.timestamp()[1], headers)


def enrich_avro(messages: list[Message], producer: Producer, topic: str) -> None:
    """Avro in, one field changed, Avro out."""
    produce, reader, writer = producer.produce, fastavro.schemaless_reader, fastavro.schemaless_writer
    for message in messages:
        item = reader(BytesIO(message.value()), SCHEMA, None)
        item["title"] = item["title"].upper()
        out = BytesIO()
        writer(out, SCHEMA, item)
        produce(topic, out.getvalue(), None, -1, None, None, message.timestamp()[1])


def enrich_protobuf(messages: list[Message], producer: Producer, topic: str) -> None:
    """The same in Protobuf."""
    produce, parse = producer.produce, item_class().FromString
    for message in messages:
        item = parse(message.value())
        item.title = item.title.upper()
        produce(topic, item.SerializeToString(), None, -1, None, None, message.timestamp()[1])


class Item(msgspec.Struct):
    id: int
    source: str
    title: str
    published_at: int
    price: float
    note: str


def enrich_struct(messages: list[Message], producer: Producer, topic: str) -> None:
    """JSON in and out, by structures."""
    produce, decode, encode = producer.produce, DECODER.decode, ENCODER.encode
    for message in messages:
        item = decode(message.value())
        item.title = item.title.upper()
        produce(topic, encode(item), None, -1, None, None, message.timestamp()[1])


SCHEMA = fastavro.parse_schema(AVRO_SCHEMA)
DECODER, ENCODER = msgspec.json.Decoder(Item), msgspec.json.Encoder()


def counting() -> Loop:
    """A running count per key, each update written."""
    counts: dict[str, int] = {}

    def count(messages: list[Message], producer: Producer, topic: str) -> None:
        produce, loads, dumps = producer.produce, orjson.loads, orjson.dumps
        for message in messages:
            source = loads(message.value())["source"]
            counts[source] = number = counts.get(source, 0) + 1
            produce(topic, dumps({"source": source, "count": number}), None, -1, None, None, message.timestamp()[1])

    return count


def with_room(step: Loop) -> Loop:
    """`step`, waiting where the client's queue is full."""

    def run(messages: list[Message], producer: Producer, topic: str) -> None:
        # A queue with room for the batch cannot fill up in it, so nothing is written twice.
        while len(producer) > QUEUE - BATCH:
            producer.poll(0.01)
        step(messages, producer, topic)
        producer.poll(0)

    return run


def main() -> None:
    options = arguments()
    exactly_once = options.guarantee == "exactly-once"
    errors: list[object] = []

    def on_delivery(error: object, _message: Message) -> None:
        if error is not None:
            errors.append(error)

    consumer = Consumer(
        {
            "bootstrap.servers": options.bootstrap,
            "group.id": options.run_id,
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "isolation.level": "read_uncommitted",
            # As Headrace has it. The loop is quicker so by 2 to 3 % than with more in the queue.
            "fetch.queue.backoff.ms": 5,
            "queued.min.messages": 20_000,
            "fetch.message.max.bytes": 4 << 20,
        }
    )
    producer = Producer(
        {
            "bootstrap.servers": options.bootstrap,
            "acks": "all",
            "enable.idempotence": True,
            "queue.buffering.max.messages": QUEUE,
            "delivery.report.only.error": True,
            "on_delivery": on_delivery,
            **({"transactional.id": options.run_id} if exactly_once else {}),
        }
    )
    partitions = sorted(consumer.list_topics(options.input, 10).topics[options.input].partitions)
    # Before `assign`: a broker answers one request at a time, and a fetch at a partition's end waits half a second.
    total = sum(consumer.get_watermark_offsets(TopicPartition(options.input, p), 10)[1] for p in partitions)
    consumer.assign([TopicPartition(options.input, partition, 0) for partition in partitions])
    step = with_room(
        {
            "bytes": through,
            "map": enrich,
            "whole": enrich_whole,
            "headers": enrich_with_headers,
            "avro": enrich_avro,
            "protobuf": enrich_protobuf,
            "struct": enrich_struct,
            "count": counting(),
        }[options.job]
    )
    stopped = False

    def stop(_signal: int, _frame: object) -> None:
        nonlocal stopped
        stopped = True

    signal.signal(signal.SIGTERM, stop)
    if exactly_once:
        producer.init_transactions(COMMIT_TIMEOUT_S)
        producer.begin_transaction()

    def commit(*, again: bool) -> None:
        positions = [each for each in consumer.position(consumer.assignment()) if each.offset >= 0]
        if exactly_once:
            producer.send_offsets_to_transaction(positions, consumer.consumer_group_metadata(), COMMIT_TIMEOUT_S)
            producer.commit_transaction(COMMIT_TIMEOUT_S)
            if again:
                producer.begin_transaction()
        else:
            producer.flush(COMMIT_TIMEOUT_S)
            if positions and again:
                consumer.commit(offsets=positions)
            elif positions:
                consumer.commit(offsets=positions, asynchronous=False)
        if errors:
            sys.exit(f"{len(errors)} records were not delivered: {errors[0]}")

    seen, due_s = 0, time.monotonic() + INTERVAL_S
    while not stopped and (options.unbounded or seen < total):
        messages = consumer.consume(BATCH, 0.1) if seen < total else one_or_more(consumer)
        if messages:
            seen += len(messages)
            for message in messages:
                if message.error() is not None:
                    sys.exit(f"reading failed: {message.error()}")
            step(messages, producer, options.output)
        if time.monotonic() >= due_s:
            commit(again=True)
            due_s = time.monotonic() + INTERVAL_S
    commit(again=False)
    consumer.close()


def one_or_more(consumer: Consumer) -> list[Message]:
    """What has arrived, without waiting for a list to fill."""
    message = consumer.poll(0.1)
    return [] if message is None else [message, *consumer.consume(BATCH - 1, 0)]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="a hand-written Kafka loop")
    parser.add_argument("job", choices=("bytes", "map", "whole", "headers", "avro", "protobuf", "struct", "count"))
    parser.add_argument("--bootstrap", required=True)
    parser.add_argument("--input", required=True)
    parser.add_argument("--output", required=True)
    parser.add_argument("--guarantee", choices=("at-least-once", "exactly-once"), required=True)
    parser.add_argument("--run-id", required=True, help="names the group and the transactional id")
    parser.add_argument("--unbounded", action="store_true", help="go on until SIGTERM")
    return parser.parse_args()


if __name__ == "__main__":
    main()
