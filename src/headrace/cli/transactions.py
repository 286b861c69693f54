"""`headrace kafka transactions`: what is open, who opened it, what it holds back; and ending what is ours."""

from __future__ import annotations

import contextlib
import json
import re
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Final

import click

from headrace.checkpoint.decision import transactions_to_fence
from headrace.checkpoint.folder import folder_name
from headrace.checkpoint.storage import CheckpointFolder
from headrace.cli.cluster import Cluster, Where, asks_cluster
from headrace.cli.main import FAILED
from headrace.cli.records import when
from headrace.cli.tables import add_row, print_table, table
from headrace.errors import ConfigError, ExternalError, HeadraceError
from headrace.kafka.client.protocol import Admin, ClientError, Failure, KafkaTopicPartition
from headrace.kafka.client.transactions import TransactionAdmin
from headrace.kafka.failures import error_of, may_not, missing_right
from headrace.kafka.open_transactions import HANGING, UNLISTED, OpenTransaction, abort, abort_hanging, find_open

_MAX_SETTING: Final = "transaction.max.timeout.ms"
_DEFAULT_MAX_MS: Final = 900_000
_OWN: Final = re.compile(r".+-[0-9a-f]{8}-[0-9]+", re.S)
"""Every transactional id of Headrace ends with the region and its lane."""
_AT_RISK: Final = (
    "Aborted, its records are never seen by read_committed readers. If the job is running, it is shut out and recovers "
    "by its restart strategy: it produces them again from its last checkpoint, and nothing is lost or repeated. If it "
    "never runs again, nobody produces them again."
)
_AT_RISK_HANGING: Final = "No coordinator knows of it, so nobody could commit it: aborted, it loses nothing."
_FREED_WITHIN_S: Final = 10.0
_AGAIN_S: Final = 0.1


@click.command()
@asks_cluster
@click.option("--topic", "only", metavar="TOPIC", multiple=True, help="Those open in this topic alone. Repeatable.")
@click.option("--hanging", is_flag=True, help="Only what has been open for longer than the brokers' maximum.")
@click.option("--abort", "aborted", metavar="ID", multiple=True, help="Abort this one, of a Headrace job. Repeatable.")
@click.option("--prefix", metavar="PREFIX", help="With --abort: the job's `set_transactional_id_prefix`.")
@click.option("--yes", is_flag=True, help="With --abort: do not ask.")
@click.option("--json", "is_json", is_flag=True, help="One JSON object a line.")
def transactions(
    where: Where,
    only: tuple[str, ...],
    hanging: bool,
    aborted: tuple[str, ...],
    prefix: str | None,
    yes: bool,
    is_json: bool,
) -> None:
    """Show open transactions: whose they are, since when, and which partitions they hold back; abort those of a job.

    A read_committed reader gets nothing behind the first record of an open transaction. What is open for longer than
    its timeout is about to be aborted by the brokers; what is Hanging is known to no coordinator any more, and nobody
    will. Shown are those whose transactional id this principal may describe; Unlisted are others, by what they block.

    --abort takes ids of a Headrace job alone: say whose they are, with --job or --prefix. If that job is running, it is
    shut out, recovers, and produces again what it had written since its last checkpoint: nothing is lost or repeated.

    Needs kafka-python: pip install 'headrace[transactions]'.

    \b
    Examples:
      headrace kafka transactions --bootstrap-servers localhost:9092
      headrace kafka transactions --config client.properties --hanging
      headrace kafka transactions --job counts.py --abort news-counts-f3c7807d-0
    """
    clusters = where.clusters()
    if aborted:
        cluster = _cluster_of(clusters, aborted, prefix)
        with cluster.admin("the transaction could not be aborted") as admin:
            # Who it is and what it wants is settled before another client asks.
            admin.cluster_id()
            with cluster.transactions() as asked:
                for transactional_id in aborted:
                    _abort(cluster, admin, asked, transactional_id, yes=yes)
        return
    is_known = True
    for cluster in clusters:
        with cluster.admin("open transactions could not be asked for") as admin:
            admin.cluster_id()
            limit = admin.broker_setting(_MAX_SETTING)
            with cluster.transactions() as asked:
                looked = find_open(admin, asked, only or None)
        found = list(looked.transactions)
        for partition, failure in sorted(looked.untold.items()):
            is_known = False
            click.echo(error_of(f"what is open in {partition} is not known", failure, cluster.servers), err=True)
        now_ms = int(time.time() * 1000)
        if hanging:
            maximum_ms = _DEFAULT_MAX_MS if limit is None else int(limit)
            found = [one for one in found if one.is_older_than(maximum_ms, now_ms)]
        own = None if cluster.part is None else _own_ids(cluster)
        if is_json:
            for one in found:
                is_own = {} if own is None else {"is_of_job": one.transactional_id in own}
                click.echo(json.dumps({**asdict(one), **is_own}))
            continue
        if len(clusters) > 1:
            click.echo(f"cluster {cluster.servers}")
        if found or not looked.untold:
            _print(found, own, now_ms, "no hanging transactions" if hanging else "no open transactions")
    if not is_known:
        sys.exit(FAILED)


def _print(found: Sequence[OpenTransaction], own: Sequence[str] | None, now_ms: int, none: str) -> None:
    if not found:
        click.echo(none)
        return
    shown = table("transactional id", "producer", ">coordinator", "state", "since", ">timeout", "holds")
    for one in found:
        add_row(
            shown,
            f"{one.transactional_id} (this job's)" if own and one.transactional_id in own else one.transactional_id,
            f"{one.producer_id} epoch {one.producer_epoch}",
            one.coordinator,
            one.state,
            None if one.since_ms is None else f"{when(one.since_ms)} ({_age(now_ms - one.since_ms)})",
            None if one.timeout_ms is None else _age(one.timeout_ms),
            "\n".join(map(str, one.blocks)) or "nothing yet",
        )
    print_table(shown)
    if any(one.state in (HANGING, UNLISTED) for one in found):
        click.echo(
            "Hanging: open in a partition, and no coordinator knows it, so it ends only by being aborted. Unlisted: no "
            "coordinator tells this principal of it, as it hangs, or as Describe on its transactional id is missing",
            err=True,
        )


def _age(ms: int) -> str:
    """For people.

    >>> _age(900), _age(61_000), _age(900_000), _age(93_600_000)
    ('0.9 s', '61.0 s', '15 min', '26 h')
    """
    for unit, size in (("h", 3_600_000), ("min", 60_000)):
        if ms >= 2 * size:
            return f"{ms // size} {unit}"
    return f"{ms / 1000:.1f} s"


def _own_ids(cluster: Cluster) -> list[str]:
    """The transactional ids of the job: by its plan, and those that its checkpoints record."""
    part = cluster.part
    assert part is not None
    recorded = []
    if (part.checkpoints / folder_name(part.job)).is_dir():
        contents = CheckpointFolder(part.checkpoints, part.job).read()
        recorded = [str(at["transactional_id"]) for at in transactions_to_fence(contents, (), fresh=True)]
    return list(dict.fromkeys((*part.transactional_ids, *recorded)))


def _cluster_of(clusters: Sequence[Cluster], aborted: Sequence[str], prefix: str | None) -> Cluster:
    """The cluster of these ids, all of which have to be ours. Raises `ConfigError`."""
    with_job = [cluster for cluster in clusters if cluster.part is not None]
    for transactional_id in aborted:
        is_prefixed = prefix is not None and transactional_id.startswith(f"{prefix}-")
        owners = [cluster for cluster in with_job if transactional_id in _own_ids(cluster)]
        if owners:
            clusters = owners
        elif not is_prefixed or _OWN.fullmatch(transactional_id) is None:
            known = ", ".join(one for cluster in with_job for one in _own_ids(cluster))
            raise ConfigError(
                f"`--abort` {transactional_id}: nobody says that this is a Headrace job's. "
                + (f"The job has {known or 'none'}; give" if with_job else "Give --job JOB.py, or")
                + " --prefix with the prefix of the job's transactional ids; they end with a region, like -f3c7807d-0"
            )
    if len(clusters) > 1:
        raise ConfigError("the job works with several clusters; say which: --bootstrap-servers")
    return clusters[0]


def _abort(cluster: Cluster, admin: Admin, transactions: TransactionAdmin, transactional_id: str, *, yes: bool) -> None:
    one, untold = _find(admin, transactions, transactional_id)
    if one is None:
        if transactional_id not in transactions.transactional_ids():
            raise ExternalError(
                f"no coordinator of {cluster.servers} knows of transactional id {transactional_id!r}, or this "
                "principal needs Describe on it; `headrace kafka transactions` lists those that are open",
                retriable=False,
            )
        if untold:
            raise _untold(cluster, f"no coordinator has a transaction of {transactional_id} open", untold)
        click.echo(f"{transactional_id}: nothing is open")
        return
    since = "" if one.since_ms is None else f", open since {when(one.since_ms)}"
    click.echo(f"{transactional_id}: {one.state}{since}")
    for blocked in one.blocks:
        click.echo(f"  {blocked}")
    click.echo(_AT_RISK_HANGING if one.state == HANGING else _AT_RISK)
    if not yes:
        click.confirm("Abort it?", abort=True)
    if one.state == HANGING:
        # Whoever was asked took some time to answer; what others write meanwhile is no matter.
        again, _ = _find(admin, transactions, transactional_id)
        if again is None or again.identity != one.identity:
            raise ExternalError(f"transaction {transactional_id} is not what it was; look again, nothing was aborted")
        _end(cluster, transactions, one)
    else:
        _shut_out(cluster, transactional_id)
    deadline = time.monotonic() + _FREED_WITHIN_S
    while True:
        left, untold = _find(admin, transactions, transactional_id)
        if left is None or not _is_same(left, one):
            break
        if time.monotonic() > deadline:
            raise ExternalError(
                f"transaction {transactional_id} was aborted, and its coordinator has not ended it after "
                f"{_FREED_WITHIN_S:g} s: it is {left.state}; look again with `headrace kafka transactions`"
            )
        time.sleep(_AGAIN_S)
    if one.state == HANGING and untold:
        raise _untold(cluster, f"transaction {transactional_id} was aborted where it was found", untold)
    click.echo(f"{transactional_id}: aborted")


def _end(cluster: Cluster, transactions: TransactionAdmin, one: OpenTransaction) -> None:
    """In each of its partitions."""
    try:
        abort_hanging(transactions, one)
    except ClientError as error:
        what = f"transaction {one.transactional_id} could not be aborted"
        if error.failure.name == "CLUSTER_AUTHORIZATION_FAILED":
            raise missing_right(what, "ClusterAction", "the cluster") from None
        raise error_of(what, error.failure, cluster.servers) from None


def _is_same(left: OpenTransaction, one: OpenTransaction) -> bool:
    """Whether it is the same transaction still, and none that the job has begun meanwhile."""
    return (left.producer_id, left.producer_epoch, left.since_ms) == (one.producer_id, one.producer_epoch, one.since_ms)


def _untold(cluster: Cluster, what: str, untold: Mapping[KafkaTopicPartition, Failure]) -> HeadraceError:
    """The error for `what` being all that is known."""
    where = ", ".join(map(str, sorted(untold)))
    return error_of(f"{what}; whether it hangs in {where} is not known", untold[min(untold)], cluster.servers)


def _find(
    admin: Admin, transactions: TransactionAdmin, transactional_id: str
) -> tuple[OpenTransaction | None, Mapping[KafkaTopicPartition, Failure]]:
    """The transaction, if it is found, and the partitions whose leaders do not say."""
    found = find_open(admin, transactions)
    one = next((one for one in found.transactions if one.transactional_id == transactional_id), None)
    return one, found.untold


def _shut_out(cluster: Cluster, transactional_id: str) -> None:
    """As a start of the job does: a new producer of the id, which ends what older ones have left open."""
    timeout_ms = "60000"
    own = {
        "transactional.id": transactional_id,
        "transaction.timeout.ms": timeout_ms,
        "delivery.timeout.ms": timeout_ms,
        "enable.idempotence": "true",
        "acks": "all",
    }
    try:
        with contextlib.closing(cluster.producer(own)) as producer:
            abort(producer, cluster.timeout_s)
    except ClientError as error:
        what = f"transaction {transactional_id} could not be aborted"
        if may_not(error.failure, "WRITE"):
            raise missing_right(what, "Write", f"transactional id {transactional_id!r}") from None
        raise error_of(what, error.failure, cluster.servers) from None
