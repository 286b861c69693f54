"""`headrace broker`: the development broker in the foreground."""

from __future__ import annotations

import signal
import time
from pathlib import Path
from types import FrameType
from typing import Never

import click

from headrace.broker import KAFKA_VERSIONS, DevBroker
from headrace.errors import ExternalError

_LOOK_EVERY_S = 0.2
_SHOWN_LINES = 12


def _topics(context: click.Context, option: click.Parameter, values: tuple[str, ...]) -> dict[str, int]:
    """NAME:PARTITIONS, or NAME alone for one partition."""
    topics = {}
    for value in values:
        name, _, partitions = value.partition(":")
        partitions = partitions if ":" in value else "1"
        if not name or not partitions.isdecimal() or int(partitions) < 1:
            raise click.BadParameter(f"{value!r} is not NAME:PARTITIONS, for example rss.events:4")
        topics[name] = int(partitions)
    return topics


@click.command()
@click.option(
    "--port", type=click.IntRange(1, 65535), default=9092, show_default=True, help="Port of the first broker."
)
@click.option(
    "--data-dir",
    type=click.Path(file_okay=False, path_type=Path),
    help="Keep the data here, and go on with what is there. Without it the data is gone at the end.",
)
@click.option(
    "--kafka-version",
    type=click.Choice(KAFKA_VERSIONS),
    default=KAFKA_VERSIONS[0],
    show_default=True,
    help="Kafka to run.",
)
@click.option("--brokers", type=click.Choice(["1", "3"]), default="1", show_default=True, help="Size of the cluster.")
@click.option(
    "--topic",
    "topics",
    metavar="NAME:PARTITIONS",
    multiple=True,
    callback=_topics,
    help="Create this topic if it is not there. Repeatable.",
)
def broker(port: int, data_dir: Path | None, kafka_version: str, brokers: str, topics: dict[str, int]) -> None:
    """Run Apache Kafka on this machine, for development, until Ctrl-C.

    No Java, Docker or installation is needed: the first start downloads Kafka once (46 MB). Clients on this machine
    only can reach it. The line that says it is ready goes to standard output. Topics are not created by being named:
    use --topic.

    \b
    Examples:
      headrace broker --topic rss.events:4 --topic rss.counts:4
      headrace broker --data-dir ./kafka-data --port 19092
      headrace broker --brokers 3 --kafka-version 4.1.1
    """
    # Both end it the same way, at whatever it is: downloading, starting, or running. Also where a script starts it in
    # the background: a shell has SIGINT ignored there.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _interrupt)
    cluster = DevBroker(
        kafka_version,
        brokers=int(brokers),
        port=port,
        data_dir=data_dir,
        topics=topics,
        fast_start=False,
    )
    click.echo(f"starting Kafka {kafka_version}", err=True)
    try:
        with cluster:
            kept = "kept" if data_dir else "removed at the end"
            click.echo(
                f"ready: bootstrap.servers={cluster.bootstrap_servers} "
                f"(Kafka {kafka_version}; data in {cluster.data_dir}, {kept}; Ctrl-C stops it)"
            )
            while cluster.is_running:
                time.sleep(_LOOK_EVERY_S)
            raise ExternalError(f"Kafka ended by itself; {_last_words(cluster.data_dir, is_kept=data_dir is not None)}")
    except KeyboardInterrupt:
        click.echo("stopped", err=True)


def _last_words(folder: Path, *, is_kept: bool) -> str:
    """How each server's log ends. Without `is_kept` the logs are gone when this is read."""
    ends = []
    for log in sorted(folder.glob("node-*/server.log")):
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-_SHOWN_LINES:]
        ends.append("\n".join([f"{log.relative_to(folder)} ends with:", *(f"  {line}" for line in lines)]))
    if is_kept:
        ends.append(f"the data and the whole logs are in {folder}")
    return "\n".join(ends)


def _interrupt(number: int, frame: FrameType | None) -> Never:
    raise KeyboardInterrupt
