"""`headrace kafka tail`: a topic's records, decoded."""

from __future__ import annotations

import functools
import itertools
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime

import click

from headrace.cli.cluster import Where, asks_cluster
from headrace.cli.records import as_json, as_text
from headrace.errors import ConfigError
from headrace.kafka.client.protocol import KafkaConsumerRecord, Position
from headrace.kafka.tail import begin, last, logs, parse_place, read

_LAST = 10


def _place(context: click.Context, option: click.Parameter, value: str | None) -> Position | int | datetime | None:
    try:
        return None if value is None else parse_place(value)
    except ConfigError as error:
        raise click.BadParameter(str(error)) from None


@click.command()
@click.argument("topic", metavar="TOPIC")
@asks_cluster
@click.option(
    "--from",
    "place",
    metavar="PLACE",
    callback=_place,
    help="earliest, latest, an offset, or a time: 2026-01-31T12:00 (local, or with Z or +02:00), @MILLISECONDS.",
)
@click.option("-n", "count", type=click.IntRange(0), help=f"The last N records by their times.  [default: {_LAST}]")
@click.option("--follow", "-f", "follows", is_flag=True, help="Go on with records as they come, until Ctrl-C.")
@click.option("--partition", "-p", "partitions", type=click.IntRange(0), multiple=True, help="This one. Repeatable.")
@click.option("--limit", type=click.IntRange(1), help="End after this many records.")
@click.option(
    "--isolation-level",
    "isolation",
    type=click.Choice(["read_committed", "read_uncommitted"]),
    default="read_committed",
    show_default=True,
    help="Whether records of open and aborted transactions are shown.",
)
@click.option("--pretty", is_flag=True, help="Values in lines of their own, JSON indented.")
@click.option("--json", "is_json", is_flag=True, help="One JSON object a line; bytes that are not UTF-8 as base64.")
def tail(
    topic: str,
    where: Where,
    place: Position | int | datetime | None,
    count: int | None,
    follows: bool,
    partitions: tuple[int, ...],
    limit: int | None,
    isolation: str,
    pretty: bool,
    is_json: bool,
) -> None:
    """Show a topic's records: key, headers, time, partition, offset, value.

    Text is shown as text, anything else as hexadecimal digits. Reading commits nothing and joins no group. Without
    --follow it ends where the topic ended when it began; partitions are read side by side, each in its order.

    \b
    Examples:
      headrace kafka tail rss.events --bootstrap-servers localhost:9092
      headrace kafka tail rss.counts --job counts.py --follow
      headrace kafka tail rss.events --config client.properties --from 2026-01-31T12:00 --limit 100 --pretty
      headrace kafka tail rss.events --bootstrap-servers localhost:9092 --from earliest --json | jq .value
    """
    if place is not None and count is not None:
        raise click.UsageError("--from and -n both say where to begin; give one of them")
    show = as_json if is_json else functools.partial(as_text, pretty=pretty)
    cluster = where.one(topic)
    what = f"topic {topic!r} could not be read"
    try:
        with cluster.consumer(isolation, what) as consumer:
            with cluster.admin(what) as admin:
                held = logs(admin, topic, partitions, cluster.servers, is_committed=isolation == "read_committed")
                starts = None if place is None else begin(admin, held, place, cluster.servers)
            ends = {partition: log.end for partition, log in held.items()}

            def batches() -> Iterator[list[KafkaConsumerRecord]]:
                on = starts
                if on is None:
                    number = _LAST if count is None else count
                    yield last(consumer, held, number, cluster.servers, cluster.timeout_s)
                    on = ends
                yield from read(consumer, on, None if follows else ends, cluster.servers, cluster.timeout_s)

            _print(batches(), show, limit)
    except KeyboardInterrupt:
        # What --follow ends with, and no failure then.
        if not follows:
            raise
    except BrokenPipeError:
        # Whoever read this has had enough. What is still in the buffer must not fail once more at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _print(
    batches: Iterable[list[KafkaConsumerRecord]], show: Callable[[KafkaConsumerRecord], str], limit: int | None
) -> None:
    left = limit
    for records in batches:
        for record in records if left is None else itertools.islice(records, left):
            sys.stdout.write(f"{show(record)}\n")
        if records:
            sys.stdout.flush()
        if left is not None and (left := left - len(records)) <= 0:
            return
