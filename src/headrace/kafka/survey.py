"""Asking the clusters of a plan what its job would need there, without running it: `Facts`, for `findings`.

Theory of operation. There is a `Survey` for each way to a cluster: brokers to begin with, and as whom. All are asked
side by side, each in a thread of its own, in two rounds, as the place of a marker depends on which ways lead to the
same cluster. What a round has not got when its time is over is left out, and said.

Invariants. Nothing is written, created, committed or shut out: a job that runs meanwhile notices nothing. (A cluster
that has never had a group makes its own topic for them when it is asked about one.) A failure ends the questions to its
own cluster alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass, field, replace
from functools import partial
from threading import Thread
from typing import Final

from headrace.checkpoint.manifest import Location, Manifest
from headrace.connector import TransactionContext
from headrace.errors import ConfigError, HeadraceError
from headrace.kafka.client.protocol import (
    Admin,
    ClientError,
    CommittedOffset,
    Failure,
    KafkaTopicPartition,
    Position,
    TopicDescription,
)
from headrace.kafka.client.reports import shared_settings
from headrace.kafka.enumerator import Asked, Partitions, TopicPattern, is_subscribed, topics_of
from headrace.kafka.facts import Checkpointing, Facts, Reads, Transacts, Writes
from headrace.kafka.findings import Finding, findings, partitions_read
from headrace.kafka.offsets import Custom, LogOffsets, needs
from headrace.kafka.properties import translate
from headrace.kafka.property_table import Role
from headrace.kafka.sink import KafkaSink
from headrace.kafka.source import KafkaSource
from headrace.kafka.split import KafkaSplit
from headrace.kafka.transaction import names_of
from headrace.plan.graph import Plan, ReadSource, WriteSink
from headrace.plan.identity import operator_ids, regions
from headrace.plan.parallelism import lanes

_CALL_S: Final = 10.0
"""How long one answer is waited for, if the properties do not say less: nobody waits here for brokers to come back."""
_ROUND_S: Final = 60.0


@dataclass
class Survey:
    """One way to a cluster, what the job does there, and what was found out so far."""

    facts: Facts
    create_admin: Callable[[], Admin]
    reads: list[Reads] = field(default_factory=list)
    writes: list[Writes] = field(default_factory=list)
    transacts: list[Transacts] = field(default_factory=list)
    recorded: list[Location] = field(default_factory=list)
    """Where the newest checkpoint says that markers are, on whatever cluster."""
    _admin: Admin | None = None

    @property
    def operators(self) -> list[str]:
        """Their names, each once."""
        return list(dict.fromkeys([*(one.operator for one in self.reads), *(one.operator for one in self.writes)]))

    @property
    def cluster_id(self) -> str | None:
        """None: not known."""
        return None if self.facts.cluster is None else self.facts.cluster.cluster_id

    def findings(self, checkpointing: Checkpointing) -> list[Finding]:
        """What would go wrong here."""
        return findings(self.facts, self.reads, self.writes, self.transacts, checkpointing)

    def connect(self) -> None:
        """The first round: who is there."""
        try:
            self._admin = self.create_admin()
        except HeadraceError as error:
            self.complain(self.operators[0], str(error))
            return
        connectors: list[tuple[str, KafkaSource | KafkaSink]] = [(one.operator, one.source) for one in self.reads]
        for operator, connector in [*connectors, *((one.operator, one.sink) for one in self.writes)]:
            try:
                connector.check_client()
            except HeadraceError as error:
                self.complain(operator, str(error))
        self._note(cluster=self._admin.describe_cluster())

    def ask(self, is_beside: Callable[[KafkaSource], bool]) -> None:
        """The second round: everything else, what matters most first."""
        admin = self._admin
        assert admin is not None
        self._note(broker=admin.broker_settings())
        self._name_transactions(is_beside)
        if any(isinstance(reads.subscription, TopicPattern) for reads in self.reads):
            self._note(existing=tuple(admin.topic_names()))
        self._ask_subscribers(admin)
        names = sorted(self._topics())
        self._note(topics=admin.describe_topics(names) if names else {})
        described = [topic.name for topic in self.facts.topics.values() if isinstance(topic, TopicDescription)]
        self._note(settings=admin.describe_configs(described))
        for group in self._groups():
            self._note(group_rights={**self.facts.group_rights, group: admin.group_operations(group)})
            self._note(groups={**self.facts.groups, **admin.describe_groups([group])})
        for reads in self.reads:
            self._note(logs={**self.facts.logs, **self._logs(admin, reads)})
        self._ask_times(admin)
        self._read_markers(admin)

    def close(self) -> None:
        """Let go of the client."""
        if self._admin is not None:
            self._admin.close()

    def _note(self, **found: object) -> None:
        self.facts = replace(self.facts, **found)  # type: ignore[arg-type]  # by name, and tested

    def complain(self, operator: str, text: str) -> None:
        """Say what could not be found out, or what is wrong before anybody is asked."""
        self._note(complaints=(*self.facts.complaints, (operator, text)))

    def _name_transactions(self, is_beside: Callable[[KafkaSource], bool]) -> None:
        for index, one in enumerate(self.transacts):
            try:
                transactional_id, place = names_of(one.sinks, one.sources, one.context, is_beside)
            except ConfigError as error:
                self.complain(one.operators[0], str(error))
                continue
            self.transacts[index] = replace(one, transactional_id=transactional_id, place=place)

    def _ask_subscribers(self, admin: Admin) -> None:
        for index, reads in enumerate(self.reads):
            if not isinstance(asked := reads.source.subscription, Asked):
                continue
            try:
                named = asked.subscriber.get_subscribed_topic_partitions(admin)
            except ClientError:
                raise
            except Exception as error:  # noqa: BLE001 - the program's own code may raise anything
                name = f"{type(asked.subscriber).__name__}.get_subscribed_topic_partitions"
                self.complain(reads.operator, f"`{name}` failed with {type(error).__name__}: {error}")
                continue
            self.reads[index] = replace(reads, subscription=Partitions(tuple(sorted(named))))

    def _topics(self) -> set[str]:
        names = {writes.sink.topic for writes in self.writes if writes.sink.topic is not None}
        names |= {one.place.topic for one in self.transacts if one.place is not None}
        for reads in self.reads:
            if reads.subscription is not None:
                names.update(topics_of(reads.subscription, self.facts.existing))
            names |= {split.partition.topic for split in reads.restored}
        return names

    def _groups(self) -> list[str]:
        groups = [one.place.group for one in self.transacts if one.place is not None]
        for reads in self.reads:
            if reads.source.group_id is not None and (reads.commits or reads.source.starting.needs_group):
                groups.append(reads.source.group_id)
        return list(dict.fromkeys(groups))

    def _logs(self, admin: Admin, reads: Reads) -> Mapping[KafkaTopicPartition, LogOffsets]:
        """The logs of what is restored, or else of what would be begun; none that may not be read."""
        source, topics = reads.source, self.facts.topics
        if reads.restored:
            unread = [split.partition for split in reads.restored if not split.is_finished]
            partitions = [one for one in unread if isinstance(topics.get(one.topic), TopicDescription)]
            wanted = None
        elif reads.subscription is None or isinstance(source.starting.place, Custom):
            return {}
        else:
            partitions = partitions_read(reads.subscription, topics.values())
            wanted = needs(source.starting, frozenset(partitions), source.group_id is not None)
        ends = _known(admin.list_offsets(partitions, Position.LATEST))
        starts = _known(admin.list_offsets(partitions, Position.EARLIEST))
        at_times = committed = {}
        if wanted is not None and wanted.timestamp_ms is not None:
            at_times = _known(admin.list_offsets(partitions, wanted.timestamp_ms))
        if wanted is not None and wanted.committed and source.group_id is not None:
            found = admin.committed(source.group_id, sorted(wanted.committed), stable=False)
            if any(isinstance(one, Failure) for one in found.values()):
                return {}
            committed = {p: one.offset for p, one in found.items() if isinstance(one, CommittedOffset)}
        return {
            p: LogOffsets(starts[p], ends[p], committed.get(p), at_times.get(p))
            for p in partitions
            if p in starts and p in ends
        }

    def _ask_times(self, admin: Admin) -> None:
        """When the brokers have written last, where it is they who say when."""
        stamped = [
            t for t in self.facts.settings if self.facts.of_topic(t, "message.timestamp.type") == "LogAppendTime"
        ]
        described = [topic for t in stamped if isinstance(topic := self.facts.topics[t], TopicDescription)]
        partitions = [KafkaTopicPartition(topic.name, n) for topic in described for n in topic.partitions]
        newest: dict[str, int] = {}
        for partition, at_ms in _known(admin.newest_times(partitions)).items():
            newest[partition.topic] = max(at_ms, newest.get(partition.topic, 0))
        self._note(newest_ms=newest, asked_at_ms=_now_ms())

    def _read_markers(self, admin: Admin) -> None:
        places = {
            str(at["transactional_id"]): (str(at["group"]), str(at["topic"]))
            for at in self.recorded
            if at["cluster_id"] == self.cluster_id
        }
        for one in self.transacts:
            if one.place is not None and one.transactional_id is not None:
                places.setdefault(one.transactional_id, (one.place.group, one.place.topic))
        for transactional_id, (group, topic) in places.items():
            partition = KafkaTopicPartition(topic, 0)
            found = admin.committed(group, [partition], stable=False)[partition]
            marker = found.metadata if isinstance(found, CommittedOffset) else found
            self._note(markers={**self.facts.markers, transactional_id: marker})


def _now_ms() -> int:
    return int(time.time() * 1000)


def _known(
    found: Mapping[KafkaTopicPartition, int | Failure | None],
) -> dict[KafkaTopicPartition, int]:
    return {partition: one for partition, one in found.items() if isinstance(one, int)}


def surveys_of(
    plan: Plan, checkpointing: Checkpointing, newest: Manifest | None, *, restored: Manifest | None
) -> list[Survey]:
    """What to ask for a plan that has been through `with_parallelism`.

    `newest` is the newest snapshot in the folder, `restored` the one that the job may go on from; None: there is none.
    """
    by_way: dict[object, Survey] = {}
    ids = operator_ids(plan)

    def survey_of(role: Role, properties: Mapping[str, str], create: Callable[[], Admin]) -> Survey:
        settings = dict(shared_settings(translate(properties, role).settings))
        settings.pop("client.id", None)
        way = (frozenset(settings.items()), properties.get("headrace.token.source"))
        return by_way.setdefault(way, Survey(Facts(properties["bootstrap.servers"]), create))

    for node in plan:
        match node.operator:
            case ReadSource(source=KafkaSource() as source):
                create = partial(source.create_admin, "check-admin-client", min(_CALL_S, source.timeout_s))
                subscription = None if isinstance(source.subscription, Asked) else source.subscription
                commits = source.commits(checkpointing.interval_ms is not None)
                reads = Reads(node.name, source, subscription, commits, _splits(ids[node.id], source, restored))
                survey_of(Role.CONSUMER, dict(source.properties), create).reads.append(reads)
            case WriteSink(sink=KafkaSink() as sink):
                create = partial(sink.create_admin, min(_CALL_S, sink.timeout_s))
                way = survey_of(Role.PRODUCER, dict(sink.properties), create)
                way.writes.append(Writes(node.name, sink, node.tolerates))
            case _:
                pass
    for lane in range(lanes(plan)):
        for region in regions(plan, lane):
            written = [plan.node(n) for n in region.exactly_once_sinks]
            sinks = [
                op.sink for n in written if isinstance(op := n.operator, WriteSink) if isinstance(op.sink, KafkaSink)
            ]
            read = [plan.node(n).operator for n in region.sources]
            sources = tuple(operator.source for operator in read if isinstance(operator, ReadSource))
            if sinks:
                context = TransactionContext(
                    plan.job_name, region.id, checkpointing.interval_ms, checkpointing.timeout_ms
                )
                way = next(s for s in by_way.values() if any(w.sink is sinks[0] for w in s.writes))
                way.transacts.append(
                    Transacts(
                        tuple(n.name for n in written),
                        tuple(sinks),
                        sources,
                        context,
                        lane,
                        max(n.parallelism or 1 for n in written),
                    )
                )
    surveys = list(by_way.values())
    for survey in surveys:
        if newest is not None:
            survey.recorded += [region.location for region in newest.regions.values() if region.location is not None]
    return surveys


def _splits(operator_id: str, source: KafkaSource, restored: Manifest | None) -> tuple[KafkaSplit, ...]:
    snapshots = [] if restored is None else restored.regions.values()
    operators = [region.operators[operator_id] for region in snapshots if operator_id in region.operators]
    splits = [source.decode_split(split) for operator in operators for split in operator.splits.values()]
    found = [split for split in splits if isinstance(split, KafkaSplit)]
    subscription = source.subscription
    if source.keeps_unsubscribed or isinstance(subscription, Asked):
        return tuple(found)
    return tuple(split for split in found if is_subscribed(subscription, split.partition))


def ask_all(surveys: Sequence[Survey], tell: Callable[[str], None]) -> None:
    """Ask every cluster, both rounds; returns in bounded time. `tell` takes lines for whoever waits."""
    _round(surveys, "connecting to", lambda survey: survey.connect(), tell)
    connected = [survey for survey in surveys if survey.cluster_id is not None and survey.facts.failure is None]

    def is_on(survey: Survey) -> Callable[[KafkaSource], bool]:
        return lambda source: any(
            other.cluster_id == survey.cluster_id for other in connected for r in other.reads if r.source is source
        )

    for survey in connected:
        for transaction in survey.transacts:
            if (problem := _spans_clusters(transaction, connected)) is not None:
                survey.complain(transaction.operators[0], problem)
    _round(connected, "asking", lambda survey: survey.ask(is_on(survey)), tell)


def _spans_clusters(transaction: Transacts, surveys: Sequence[Survey]) -> str | None:
    homes: dict[str | None, Writes] = {}
    for survey in surveys:
        for writes in survey.writes:
            if any(writes.sink is sink for sink in transaction.sinks):
                homes[survey.cluster_id] = writes
    if len(homes) < 2:
        return None
    listed = ", ".join(f"`{writes.operator}` to {writes.sink.bootstrap_servers}" for writes in homes.values())
    return (
        "its EXACTLY_ONCE sinks write to several clusters, which no transaction spans: "
        f"{listed}; give some of them DeliveryGuarantee.AT_LEAST_ONCE, or make several jobs of it"
    )


def _round(surveys: Iterable[Survey], what: str, ask: Callable[[Survey], None], tell: Callable[[str], None]) -> None:
    deadline = time.monotonic() + _ROUND_S
    asked: list[tuple[Survey, Future[None]]] = []
    for survey in surveys:
        tell(f"{what} {survey.facts.servers}")
        done: Future[None] = Future()
        # A daemon, as nothing ends a call that never comes back, of a program's own subscriber or token source.
        Thread(target=_run, args=(ask, survey, done), name="headrace-check", daemon=True).start()
        asked.append((survey, done))
    for survey, done in asked:
        try:
            done.result(max(0.0, deadline - time.monotonic()))
        except FutureTimeout:
            # Its thread may still use the client.
            survey._admin = None
            survey.facts = replace(survey.facts, failure=Failure("_TIMED_OUT", f"no answer within {_ROUND_S:g} s"))
        except ClientError as error:
            survey.facts = replace(survey.facts, failure=error.failure)


def _run(ask: Callable[[Survey], None], survey: Survey, done: Future[None]) -> None:
    try:
        ask(survey)
        done.set_result(None)
    except BaseException as error:  # noqa: BLE001 - raised where it is waited for
        done.set_exception(error)
