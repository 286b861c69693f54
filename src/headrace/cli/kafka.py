"""`headrace kafka`: what a cluster holds, and how far whoever reads it has come."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, assert_never

import click

from headrace.checkpoint.decision import AlreadyFinished, Refuse, Restore, StartFresh, decide
from headrace.checkpoint.folder import FolderContents, folder_name
from headrace.checkpoint.manifest import Manifest, RegionSnapshot
from headrace.checkpoint.marker import Marker
from headrace.cli.checkpoints import jobs_in, read_job, the_job_in
from headrace.cli.cluster import Cluster, Where, asks_cluster
from headrace.cli.tables import add_row, print_table, table
from headrace.cli.tail import tail
from headrace.cli.transactions import transactions
from headrace.errors import ConfigError, ExternalError
from headrace.kafka.client.protocol import (
    Admin,
    ClientError,
    CommittedOffset,
    Failure,
    GroupDescription,
    KafkaTopicPartition,
    Position,
    TopicDescription,
)
from headrace.kafka.failures import error_of

_SHOWN_CONFIGS = ("cleanup.policy", "retention.ms", "retention.bytes", "max.message.bytes", "min.insync.replicas")


@click.group()
def kafka() -> None:
    """Look at a cluster: its topics, their records, offsets of groups and checkpoints, open transactions.

    Brokers, logins and certificates are given with --bootstrap-servers, --config and -X, or taken from a job's program
    with --job. `-X default.api.timeout.ms=5000` says how long an answer is waited for.
    """


kafka.add_command(tail)
kafka.add_command(transactions)


# Topics


@dataclass(frozen=True, slots=True)
class TopicRow:
    """A topic as it is shown. `records` is how many offsets it holds, so at most as many records; None: its leaders do
    not say."""

    topic: str
    partitions: int
    replication: int
    leaderless: tuple[int, ...]
    under_replicated: tuple[int, ...]
    records: int | None
    configs: Mapping[str, str]


@kafka.command()
@click.argument("names", metavar="[TOPIC]...", nargs=-1)
@asks_cluster
@click.option("--internal", is_flag=True, help="Kafka's own topics too, whose names begin with __.")
@click.option("--json", "is_json", is_flag=True, help="One JSON object a line.")
def topics(names: tuple[str, ...], where: Where, internal: bool, is_json: bool) -> None:
    """List topics: partitions, replicas, what is wrong with them, records, limits.

    Without names all that this principal may see; with --job those of the job. `records` counts offsets, those of
    control records and of what compaction has removed too.

    \b
    Examples:
      headrace kafka topics --bootstrap-servers localhost:9092
      headrace kafka topics rss.events rss.counts --config client.properties
      headrace kafka topics --job counts.py
    """
    clusters = where.clusters()
    for cluster in clusters:
        with cluster.admin("the topics could not be listed") as admin:
            rows = _topic_rows(admin, cluster, names, with_internal=internal)
        if is_json:
            for row in rows:
                click.echo(json.dumps(asdict(row)))
            continue
        if len(clusters) > 1:
            click.echo(f"cluster {cluster.servers}")
        _print_topics(rows)


def _topic_rows(admin: Admin, cluster: Cluster, names: Sequence[str], *, with_internal: bool) -> list[TopicRow]:
    described = _described(admin, cluster, names, with_internal=with_internal)
    led = [
        KafkaTopicPartition(topic.name, number)
        for topic in described
        for number, at in topic.replicas.items()
        if at.leader is not None
    ]
    held = _held(admin, led)
    configs = admin.describe_configs([topic.name for topic in described])
    rows = []
    for topic in described:
        here = [held.get(at) for at in led if at.topic == topic.name]
        found = configs[topic.name]
        rows.append(
            TopicRow(
                topic.name,
                len(topic.partitions),
                max((len(at.replicas) for at in topic.replicas.values()), default=0),
                tuple(number for number, at in topic.replicas.items() if at.leader is None),
                tuple(number for number, at in topic.replicas.items() if len(at.in_sync) < len(at.replicas)),
                None if None in here else sum(number or 0 for number in here),
                {} if isinstance(found, Failure) else {name: found[name] for name in _SHOWN_CONFIGS if name in found},
            )
        )
    return rows


def _held(admin: Admin, partitions: Sequence[KafkaTopicPartition]) -> dict[KafkaTopicPartition, int]:
    """How many offsets each holds, as far as leaders say."""
    try:
        ends, starts = (
            admin.list_offsets(partitions, Position.LATEST),
            admin.list_offsets(partitions, Position.EARLIEST),
        )
    except ClientError as error:
        # A leader that is away, and is still thought to be there. What is known of the topics matters all the more.
        click.echo(f"warning: the numbers of records are not known: {error}", err=True)
        return {}
    found = {}
    for partition in partitions:
        match starts[partition], ends[partition]:
            case int(start), int(end):
                found[partition] = end - start
            case _:  # not for this principal
                continue
    return found


def _described(admin: Admin, cluster: Cluster, names: Sequence[str], *, with_internal: bool) -> list[TopicDescription]:
    """The topics that are meant. Raises for one that was named and is not there."""
    part = cluster.part
    wanted: Iterable[str] = names
    if not names and part is not None:
        matching = _matching(admin, part.patterns) if part.patterns else []
        wanted = dict.fromkeys((*part.reads, *matching, *part.writes))
    elif not names:
        wanted = [name for name in admin.topic_names() if with_internal or not name.startswith("__")]
    listed = list(wanted)
    found = admin.describe_topics(listed) if listed else {}
    topics = []
    for name in listed:
        topic = found[name]
        if isinstance(topic, Failure):
            raise error_of(f"topic {name!r} could not be described", topic, cluster.servers)
        topics.append(topic)
    return topics


def _matching(admin: Admin, patterns: Sequence[str]) -> list[str]:
    return [name for name in admin.topic_names() if any(re.fullmatch(pattern, name) for pattern in patterns)]


def _print_topics(rows: Sequence[TopicRow]) -> None:
    if not rows:
        click.echo("no topics")
        return
    shown = table(
        *("topic", ">partitions", ">replicas", ">records", "cleanup", ">retention", ">max message", ">min in sync"),
        "trouble",
    )
    for row in rows:
        add_row(
            shown,
            row.topic,
            row.partitions,
            row.replication,
            row.records,
            row.configs.get("cleanup.policy"),
            _retention(row.configs),
            _bytes(row.configs.get("max.message.bytes")),
            row.configs.get("min.insync.replicas"),
            _trouble(row),
        )
    print_table(shown)


def _trouble(row: TopicRow) -> str:
    """What is wrong with a topic's partitions.

    >>> _trouble(TopicRow("t", 3, 2, (0,), (0, 2), 0, {}))
    'no leader: 0; too few in sync: 0, 2'
    """
    said = [("no leader", row.leaderless), ("too few in sync", row.under_replicated)]
    return "; ".join(f"{what}: {', '.join(map(str, numbers))}" for what, numbers in said if numbers)


def _retention(configs: Mapping[str, str]) -> str | None:
    """How long, and how much, a topic keeps of a partition.

    >>> _retention({"retention.ms": "604800000", "retention.bytes": "-1"}), _retention({"retention.ms": "-1"})
    ('7 d', 'for ever')
    """
    if "retention.ms" not in configs:
        return None
    ms, most = int(configs["retention.ms"]), configs.get("retention.bytes", "-1")
    unit, size = next(
        ((unit, size) for unit, size in (("d", 86_400_000), ("h", 3_600_000), ("min", 60_000)) if not ms % size),
        ("ms", 1),
    )
    kept = "for ever" if ms < 0 else f"{ms // size} {unit}"
    return kept if most == "-1" else f"{kept}, {_bytes(most)}"


def _bytes(count: str | None) -> str | None:
    return None if count is None else f"{int(count):,} B"


# Offsets


@dataclass(frozen=True, slots=True)
class OffsetRow:
    """A partition's offsets as they are shown; None where there is none, `-1` never."""

    topic: str
    partition: int
    group: str | None
    checkpoint: int | None
    committed: int | None
    end: int | None
    lag: int | None
    member: str | None


@kafka.command()
@asks_cluster
@click.option("--group", metavar="GROUP", help="A group: what it has committed, and who is in it.")
@click.option(
    "--checkpoints",
    metavar="DIR",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="A state folder: how far its job's newest usable checkpoint is.  [with --job: the job's]",
)
@click.option("--topic", "only", metavar="TOPIC", multiple=True, help="This topic's partitions alone. Repeatable.")
@click.option("--json", "is_json", is_flag=True, help="One JSON object a line.")
def offsets(where: Where, group: str | None, checkpoints: Path | None, only: tuple[str, ...], is_json: bool) -> None:
    """Show how far a group, and a job's newest usable checkpoint, have come: offsets, ends, lag, members.

    The lag is counted from the checkpoint, which is where the job would go on, else from what the group has committed.
    A Headrace job joins no group: it commits to one as a report of progress, so its group has no members.

    \b
    Examples:
      headrace kafka offsets --bootstrap-servers localhost:9092 --group news
      headrace kafka offsets --bootstrap-servers localhost:9092 --checkpoints .headrace
      headrace kafka offsets --job counts.py
    """
    clusters = [cluster for cluster in where.clusters() if cluster.part is None or cluster.part.sources]
    if where.job is None and group is None and checkpoints is None:
        raise ConfigError("nothing says whose offsets to show: give --group, --checkpoints or --job")
    for cluster in clusters:
        with cluster.admin("the offsets could not be read") as admin:
            positions = _positions(admin, cluster, checkpoints)
            groups: list[str | None] = (
                [group] if group is not None else [*(cluster.part.groups if cluster.part else ())]
            )
            described = admin.describe_groups([name for name in groups if name]) if groups else {}
            rows = []
            for name in groups or [None]:
                rows += _offset_rows(admin, cluster, name, described.get(name or ""), positions, only)
        heads = []
        for name in groups:
            assert name is not None
            found = described[name]
            if isinstance(found, Failure):
                raise error_of(f"group {name!r} could not be described", found, cluster.servers)
            if name == group and found.state == "DEAD" and not rows:
                # What the brokers say of a group that they do not know.
                raise ExternalError(f"there is no group {name!r} on {cluster.servers}; check --group")
            heads.append(f"group {name!r}: {found.state.lower()}, members: {len(found.members)}")
        if is_json:
            for row in rows:
                click.echo(json.dumps(asdict(row)))
            continue
        for head in [f"cluster {cluster.servers}"] * (len(clusters) > 1) + heads:
            click.echo(head)
        _print_offsets(rows)


def _offset_rows(
    admin: Admin,
    cluster: Cluster,
    group: str | None,
    described: GroupDescription | Failure | None,
    positions: Mapping[KafkaTopicPartition, int],
    only: Sequence[str],
) -> list[OffsetRow]:
    members = {}
    if isinstance(described, GroupDescription):
        members = {at: f"{one.client_id} at {one.host}" for one in described.members for at in one.partitions}
    names = [*only] or ([] if cluster.part is None else [*cluster.part.reads])
    if cluster.part is not None and not only:
        names += _matching(admin, cluster.part.patterns) if cluster.part.patterns else []
    elif not names and group is not None:
        # The brokers are not asked for all that a group has committed, but for each partition: see `client/pure/group`.
        names = [name for name in admin.topic_names() if not name.startswith("__")]
    names = sorted({*names, *(at.topic for at in (*positions, *members) if not only or at.topic in only)})
    topics = admin.describe_topics(names) if names else {}
    there = [
        KafkaTopicPartition(topic.name, number)
        for topic in topics.values()
        if isinstance(topic, TopicDescription)
        for number in topic.partitions
    ]
    committed = admin.committed(group, there, stable=False) if group is not None and there else {}
    has_more = only or (cluster.part is not None)
    shown = [at for at in there if has_more or at in positions or at in members or committed.get(at) is not None]
    gone = [at for at in positions if at not in there and (not only or at.topic in only)]
    ends = admin.list_offsets(shown, Position.LATEST)
    rows = []
    for at in sorted({*shown, *gone}):
        said, end = committed.get(at), ends.get(at)
        if isinstance(said, Failure):
            raise error_of(f"what group {group!r} has committed could not be read", said, cluster.servers)
        reached = positions.get(at, said.offset if isinstance(said, CommittedOffset) else None)
        known = end if isinstance(end, int) else None
        rows.append(
            OffsetRow(
                at.topic,
                at.partition,
                group,
                positions.get(at),
                said.offset if isinstance(said, CommittedOffset) else None,
                known,
                None if known is None or reached is None else known - reached,
                members.get(at),
            )
        )
    return rows


def _print_offsets(rows: Sequence[OffsetRow]) -> None:
    if not rows:
        click.echo("no offsets")
        return
    shown = table("topic", ">partition", ">checkpoint", ">committed", ">end", ">lag", "member")
    for row in rows:
        add_row(shown, row.topic, row.partition, row.checkpoint, row.committed, row.end, row.lag, row.member or "")
    print_table(shown)


def _positions(admin: Admin, cluster: Cluster, checkpoints: Path | None) -> dict[KafkaTopicPartition, int]:
    """Where the newest usable checkpoint would go on. What keeps it from being used is a warning."""
    folder = _job_folder(cluster, checkpoints)
    if folder is None:
        return {}
    job, contents = read_job(folder)
    regions = _usable(job, contents, _markers(admin, contents))
    found = {}
    for region in regions.values():
        for operator_id, operator in region.operators.items():
            if cluster.part is not None and operator_id not in cluster.part.sources:
                continue
            for split in operator.splits.values():
                match split:
                    case {"topic": str(topic), "partition": int(partition), "position": int(position)}:
                        found[KafkaTopicPartition(topic, partition)] = position
                    case _:  # of another kind of source
                        continue
    return found


def _job_folder(cluster: Cluster, checkpoints: Path | None) -> Path | None:
    part = cluster.part
    root = checkpoints if checkpoints is not None else None if part is None else part.checkpoints
    if root is None:
        return None
    if part is not None:
        folder = root / folder_name(part.job)
        if not folder.is_dir():
            folder = root
        return folder if folder.is_dir() and folder in jobs_in(folder) else None
    return the_job_in(root)


def _usable(job: str, contents: FolderContents, markers: Mapping[str, Marker | None]) -> Mapping[str, RegionSnapshot]:
    """Each region's snapshot, as the next start would choose it."""
    match decide(contents, markers, {}):
        case Restore(newest, regions, _):
            _say_which(job, newest, contents)
            return regions
        case AlreadyFinished(manifest):
            _say_which(job, manifest, contents)
            return manifest.regions
        case StartFresh():
            return {}
        case Refuse(reason):
            click.echo(f"warning: the job would not start from its checkpoints: {reason}", err=True)
            return {} if contents.newest is None else contents.newest.regions
        case other:
            assert_never(other)


def _say_which(job: str, manifest: Manifest, contents: FolderContents) -> None:
    click.echo(f"job {job!r}, {contents.status(manifest).value.lower()} {manifest.id}", err=True)


def _markers(admin: Admin, contents: FolderContents) -> dict[str, Marker | None]:
    """The markers of the newest manifest's regions, where they are on this cluster."""
    found: dict[str, Marker | None] = {}
    if contents.newest is None:
        return found
    cluster_id = admin.cluster_id()
    for region, snapshot in contents.newest.regions.items():
        at: Mapping[str, Any] | None = snapshot.location
        if at is None or at.get("cluster_id") != cluster_id:
            continue
        partition = KafkaTopicPartition(str(at["topic"]), int(at["partition"]))
        said = admin.committed(str(at["group"]), [partition], stable=False)[partition]
        if isinstance(said, CommittedOffset):
            found[region] = Marker.decode(said.metadata, f"group {at['group']!r}, topic {at['topic']!r}")
    return found
