"""`headrace dlq`: looking at dead letters, and sending them back."""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import click

from headrace.cli.cluster import Cluster, asks_brokers
from headrace.cli.letters import Found, Selection, group_of, json_of, line_of, read_letters, text_of
from headrace.cli.main import FAILED
from headrace.cli.program import describe
from headrace.cli.records import when
from headrace.cli.replay import Fate, Order, Outcome, Replay, load_repair
from headrace.cli.run import STATE_FOLDER
from headrace.cli.tables import add_row, print_table, table
from headrace.connector import Stage
from headrace.errors import ConfigError, UserCodeError
from headrace.kafka.dead_letters import replays
from headrace.kafka.tail import parse_place

_SHOWN_PLACES = 10
_SAY_EACH_S = 5.0
"""How often a replay says how far it is, where no terminal shows it."""


@click.group()
def dlq() -> None:
    """List, show and replay dead letters: records that an operator failed on."""


def _time(context: click.Context, option: click.Parameter, value: str | None) -> int | None:
    if value is None:
        return None
    with contextlib.suppress(ConfigError):
        if isinstance(place := parse_place(value), datetime):
            return int(place.timestamp() * 1000)
    raise click.BadParameter(
        f"{value!r} is no time: give one like 2026-01-31T12:00 (local, or with Z or +02:00), or @ and milliseconds"
    )


def _of_letters(command: Callable[..., None]) -> Callable[..., None]:
    """The options that say where the letters are and which are meant: `topic`, `cluster` and `selection`."""

    @click.argument("topic")
    @asks_brokers
    @click.option("--operator", help="Letters of this operator.")
    @click.option("--exception", help="Letters of this class of exceptions, with or without its module.")
    @click.option("--stage", type=click.Choice([stage.value for stage in Stage]), help="Letters that failed there.")
    @click.option("--job", help="Letters of this job.")
    @click.option("--topic", "source_topic", help="Letters of records of this topic.")
    @click.option("--since", metavar="TIME", callback=_time, help="Letters that failed then or later.")
    @click.option("--until", metavar="TIME", callback=_time, help="Letters that failed before.")
    @click.option("--partition", type=click.IntRange(0), help="Letters in this partition of TOPIC.")
    @click.option("--offset", type=click.IntRange(0), help="The letter at this offset of TOPIC.")
    @functools.wraps(command)
    def with_letters(
        *,
        topic: str,
        properties: dict[str, str],
        operator: str | None,
        exception: str | None,
        stage: str | None,
        job: str | None,
        source_topic: str | None,
        since: int | None,
        until: int | None,
        partition: int | None,
        offset: int | None,
        **more: Any,
    ) -> None:
        if not properties.get("bootstrap.servers"):
            raise ConfigError(
                "no brokers are named: give --bootstrap-servers HOST:PORT, or --config FILE with `bootstrap.servers`"
            )
        where = None if stage is None else Stage(stage)
        selection = Selection(operator, exception, where, job, source_topic, since, until, partition, offset)
        with _warnings_shown():
            command(topic=topic, cluster=Cluster(properties), selection=selection, **more)

    return with_letters


# List


@dataclass(slots=True)
class _Group:
    """Letters that are alike. Times in ms since the epoch."""

    count: int = 0
    replayed: int = 0
    first: int = 0
    last: int = 0


@dlq.command("list")
@_of_letters
@click.option("--each", is_flag=True, help="One line for each letter.")
@click.option("--json", "is_json", is_flag=True, help="One JSON object a line.")
def list_letters(topic: str, cluster: Cluster, selection: Selection, each: bool, is_json: bool) -> None:
    """Count the dead letters in TOPIC by operator, exception, stage and source topic.

    A letter stays in its topic when it has been replayed: retention removes it.

    \b
    Examples:
      headrace dlq list prices.dead --bootstrap-servers localhost:9092
      headrace dlq list prices.dead --config client.properties --since 2026-01-31 --each
    """
    found = read_letters(cluster, topic, selection)
    if each:
        for one in found:
            click.echo(json_of(one, whole=False) if is_json else line_of(one))
        return
    groups, others = _grouped(found)
    if is_json:
        for (operator, exception, stage, source), group in groups.items():
            said = {"operator": operator, "exception": exception, "stage": stage, "topic": source, "count": group.count}
            click.echo(json.dumps(said | {"replayed": group.replayed, "first": group.first, "last": group.last}))
    elif groups:
        _print(groups)
    else:
        click.echo(f"no dead letters in {topic}")
    if others:
        click.echo(f"besides, {topic} has {others:,} records that are no dead letters of Headrace", err=True)


def _grouped(found: Iterator[Found]) -> tuple[dict[tuple[str, str, str, str], _Group], int]:
    """Groups, the largest first, and how many records were none."""
    groups: dict[tuple[str, str, str, str], _Group] = defaultdict(_Group)
    others = 0
    for one in found:
        if (letter := one.letter) is None:
            others += 1
            continue
        group = groups[group_of(letter)]
        group.first = min(group.first, letter.failed_at) if group.count else letter.failed_at
        group.last = max(group.last, letter.failed_at)
        group.count += 1
        group.replayed += replays(letter.record) > 0
    return dict(sorted(groups.items(), key=lambda item: -item[1].count)), others


def _print(groups: Mapping[tuple[str, str, str, str], _Group]) -> None:
    shown = table(">letters", "operator", "exception", "stage", "topic", ">failed again", "first", "last")
    for (operator, exception, stage, source), group in groups.items():
        times = (when(group.first), when(group.last))
        add_row(shown, group.count, operator, exception, stage, source, group.replayed, *times)
    print_table(shown)


# Show


@dlq.command()
@_of_letters
@click.option("--json", "is_json", is_flag=True, help="One JSON object a line; bytes that are not UTF-8 as base64.")
def show(topic: str, cluster: Cluster, selection: Selection, is_json: bool) -> None:
    """Show whole dead letters: what happened, and the record with its key, headers and value.

    \b
    Examples:
      headrace dlq show prices.dead --bootstrap-servers localhost:9092 --partition 0 --offset 17
      headrace dlq show prices.dead --bootstrap-servers localhost:9092 --operator parse
    """
    count = 0
    for one in read_letters(cluster, topic, selection):
        if is_json:
            click.echo(json_of(one, whole=True))
        else:
            click.echo(("\n" if count else "") + text_of(one))
        count += 1
    if not count:
        click.echo(f"no such letter in {topic}", err=True)


# Replay


@dlq.command()
@_of_letters
@click.option("--to", metavar="TOPIC", help="Send all to this topic.  [default: to the topic each came from]")
@click.option(
    "--max-replays",
    type=click.IntRange(1),
    default=3,
    show_default=True,
    help="Leave letters that were replayed so often and failed again.",
)
@click.option("--again", is_flag=True, help="Forget which letters were sent before.")
@click.option("--elements", is_flag=True, help="Also letters that hold an element's text; needs --to.")
@click.option(
    "--map", "repair", metavar="FILE.py:FUNCTION", help="Takes a DeadLetter, gives its new value; None leaves it."
)
@click.option(
    "--state-dir",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path(STATE_FOLDER),
    show_default=True,
    help="What was sent is remembered here.",
)
@click.option("--dry-run", is_flag=True, help="Say what would be sent, and send nothing.")
def replay(
    topic: str,
    cluster: Cluster,
    selection: Selection,
    to: str | None,
    max_replays: int,
    again: bool,
    elements: bool,
    repair: str | None,
    state_dir: Path,
    dry_run: bool,
) -> None:
    """Send dead letters to the topics they came from, each once.

    A record is sent with the key, value, headers and timestamp that it had, and a header that says how often it was
    replayed (`headrace.error.replays`). If it fails again, its new letter comes behind what this run reads.

    What was sent is remembered in --state-dir, and not sent again by a later run; a run that was killed is gone on with
    by starting it again. Letters sent --to a topic are remembered apart.

    \b
    Examples:
      headrace dlq replay prices.dead --bootstrap-servers localhost:9092 --dry-run
      headrace dlq replay prices.dead --bootstrap-servers localhost:9092 --operator parse
      headrace dlq replay prices.dead --config client.properties --map repair.py:without_nulls
    """
    if elements and to is None:
        raise ConfigError("--elements needs --to TOPIC: an element came from no topic")
    order = Order(selection, to, max_replays, elements, None if repair is None else load_repair(repair))
    run = Replay(cluster, topic, order, state_dir)
    tally = _Tally()
    told_at = time.monotonic()
    try:
        for one in run.dry_run(again=again) if dry_run else run.run(again=again):
            tally.take(one)
            if not sys.stderr.isatty() and time.monotonic() - told_at > _SAY_EACH_S:
                told_at = time.monotonic()
                click.echo(f"{tally.sent.total():,} letters so far", err=True)
    except UserCodeError as error:
        click.echo(describe(error, str(repair)), err=True)
        sys.exit(FAILED)
    tally.report(topic, is_dry=dry_run)
    if run.was_stopped:
        click.echo("stopped before the end; start it again, and it goes on", err=True)


@dataclass(slots=True)
class _Tally:
    """What became of letters: counts by topic, and by what they were left for, with the first few places of those."""

    sent: Counter[str] = field(default_factory=Counter)
    left: Counter[Fate] = field(default_factory=Counter)
    places: dict[Fate, list[str]] = field(default_factory=lambda: defaultdict(list))

    def take(self, one: Outcome) -> None:
        if one.record is not None:
            self.sent[one.record.topic] += 1
            return
        self.left[one.fate] += 1
        if self.left[one.fate] <= _SHOWN_PLACES:
            self.places[one.fate].append(one.place)

    def report(self, topic: str, *, is_dry: bool) -> None:
        verb = "would send" if is_dry else "sent"
        click.echo(f"{verb} {self.sent.total():,} letters of {topic}" + (":" if self.sent else ""))
        for target, count in self.sent.items():
            click.echo(f"  {count:,} to {target}")
        for fate, count in self.left.items():
            more = ", …" if count > _SHOWN_PLACES else ""
            click.echo(f"left {count:,}: {fate.value} ({', '.join(self.places[fate])}{more})")


@contextlib.contextmanager
def _warnings_shown() -> Iterator[None]:
    """What Headrace warns of, on standard error; what it only says is left out."""
    log, handler = logging.getLogger("headrace"), logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
    handler.setLevel(logging.WARNING)
    log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)
