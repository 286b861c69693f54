"""Which cluster a command asks: named by options, or by a job's plan; and clients for it."""

from __future__ import annotations

import contextlib
import functools
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

from headrace.cli.plan import FirstJob, first_job
from headrace.common import options
from headrace.common.configuration import Configuration
from headrace.errors import ConfigError
from headrace.kafka import KafkaSink, KafkaSource
from headrace.kafka.client import default_client
from headrace.kafka.client.protocol import Admin, ClientError, Consumer, Producer
from headrace.kafka.client.transactions import TransactionAdmin
from headrace.kafka.failures import error_of
from headrace.kafka.properties import CONSUMER_DEFAULTS, producer_settings, resolve_secrets, token_source, translate
from headrace.kafka.properties_file import read_properties
from headrace.kafka.property_table import Role, read_int
from headrace.kafka.transaction import transactional_id_of
from headrace.plan.graph import Plan, ReadSource, WriteSink
from headrace.plan.identity import operator_ids, regions
from headrace.plan.parallelism import lanes, with_parallelism

_TIMEOUT_MS = 30_000
_SERVERS = "bootstrap.servers"
_CLIENT_ID = "headrace-cli"


@dataclass(frozen=True, slots=True)
class JobPart:
    """What a job has to do with one cluster. `sources` are operator ids, `patterns` regular expressions of topics."""

    job: str
    checkpoints: Path
    sources: frozenset[str] = frozenset()
    reads: tuple[str, ...] = ()
    patterns: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    transactional_ids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Cluster:
    """A cluster, by the properties that a source's or a sink's builder would take; `part` if a job named it."""

    properties: Mapping[str, str] = field(repr=False)
    part: JobPart | None = None

    @property
    def servers(self) -> str:
        """The brokers to begin with."""
        return self.properties[_SERVERS]

    @property
    def timeout_s(self) -> float:
        """How long an answer is waited for."""
        return read_int(self.properties, "default.api.timeout.ms", _TIMEOUT_MS) / 1000

    @contextlib.contextmanager
    def failing(self, what: str) -> Iterator[None]:
        """Within, a client's failure becomes the error for `what` failed."""
        try:
            yield
        except ClientError as error:
            raise error_of(what, error.failure, self.servers) from None

    @contextlib.contextmanager
    def admin(self, what: str) -> Iterator[Admin]:
        """Asks the cluster; what fails within is the error for `what` failed."""
        with self.failing(what):
            admin = default_client().admin(self._settings(), self.timeout_s, token=token_source(self.properties))
            try:
                yield admin
            finally:
                admin.close()

    @contextlib.contextmanager
    def transactions(self) -> Iterator[TransactionAdmin]:
        """Asks for transactions. To be used behind an `Admin` that has had an answer."""
        with self.failing("open transactions could not be asked for"):
            admin = TransactionAdmin(self._settings(), self.timeout_s, token=token_source(self.properties))
            try:
                yield admin
            finally:
                admin.close()

    @contextlib.contextmanager
    def consumer(self, isolation_level: str, what: str) -> Iterator[Consumer]:
        """Reads whole records; of no group, and commits nothing."""
        own = {
            "group.id": _CLIENT_ID,
            "enable.auto.commit": "false",
            "auto.offset.reset": "error",
            "isolation.level": isolation_level,
            # As a source that ends: what matters here is how soon the end is known.
            "fetch.wait.max.ms": "50",
        }
        with self.failing(what):
            consumer = default_client().consumer(
                {**CONSUMER_DEFAULTS, **self._settings(), **own},
                whole_records=True,
                token=token_source(self.properties),
            )
            try:
                yield consumer
            finally:
                consumer.close()

    def producer(self, own: Mapping[str, str]) -> Producer:
        """A producer with these settings of its own. Raises `ClientError`."""
        settings = {**producer_settings(resolve_secrets(self.properties)), "client.id": _CLIENT_ID, **own}
        return default_client().producer(settings, token=token_source(self.properties))

    def _settings(self) -> dict[str, str]:
        translated = translate(resolve_secrets(self.properties), Role.CONSUMER).settings
        return {**translated, "client.id": _CLIENT_ID}


@dataclass(frozen=True, slots=True)
class Where:
    """What the command line says of the cluster."""

    properties: Mapping[str, str] = field(repr=False)
    job: str | None = None

    def clusters(self) -> list[Cluster]:
        """The clusters that are meant: several if a job reads one and writes another. Raises `ConfigError`."""
        if self.job is None:
            if not self.properties.get(_SERVERS):
                raise ConfigError(
                    "no brokers are named: give --bootstrap-servers HOST:PORT, --config FILE with `bootstrap.servers`, "
                    "or --job JOB.py"
                )
            found = [Cluster(self.properties)]
        else:
            found = [Cluster({**each.properties, **self.properties}, each.part) for each in _clusters_of(self.job)]
        for cluster in found:
            # What is wrong with them is said once, before anything is asked.
            token_source(cluster.properties)
            translate(cluster.properties, Role.CONSUMER)
        return found

    def one(self, topic: str | None = None) -> Cluster:
        """The one cluster that is meant, of a job's the one with this topic. Raises `ConfigError`."""
        found = self.clusters()
        fitting = [c for c in found if c.part is not None and topic in (*c.part.reads, *c.part.writes)]
        if len(fitting or found) > 1:
            servers = " and ".join(cluster.servers for cluster in found)
            raise ConfigError(f"the job works with {len(found)} clusters, {servers}; say which: --bootstrap-servers")
        return (fitting or found)[0]


def asks_brokers(command: Callable[..., None]) -> Callable[..., None]:
    """The options that name brokers and how to log in; the command takes them as `properties`."""

    @click.option("--bootstrap-servers", metavar="HOST:PORT,…", help="The brokers to begin with.")
    @click.option(
        "--config",
        metavar="FILE",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        help="Properties of Kafka's clients, as Java has them: brokers, login, TLS.",
    )
    @click.option(
        "-X",
        "properties",
        metavar="KEY=VALUE",
        multiple=True,
        callback=_properties_of,
        help="A property, over those of the file. Secrets may be env:NAME or file:PATH. Repeatable.",
    )
    @functools.wraps(command)
    def with_properties(
        *arguments: Any,
        bootstrap_servers: str | None,
        config: Path | None,
        properties: dict[str, str],
        **more: Any,
    ) -> None:
        given = {} if config is None else read_properties(config)
        given |= properties
        if bootstrap_servers is not None:
            given[_SERVERS] = bootstrap_servers
        command(*arguments, properties=given, **more)

    return with_properties


def asks_cluster(command: Callable[..., None]) -> Callable[..., None]:
    """The options that say which cluster is meant; the command takes them as `where`."""

    @asks_brokers
    @click.option(
        "--job",
        metavar="JOB.py",
        help='Take all of this from a program\'s first job, which is not run; "JOB.py ARGS" if it takes arguments.',
    )
    @functools.wraps(command)
    def with_cluster(*arguments: Any, properties: dict[str, str], job: str | None, **more: Any) -> None:
        command(*arguments, where=Where(properties, job), **more)

    return with_cluster


def _properties_of(context: click.Context, option: click.Parameter, values: Sequence[str]) -> dict[str, str]:
    properties = {}
    for value in values:
        key, equals, text = value.partition("=")
        if not equals or not key.strip():
            # Not the text itself: it may be a secret.
            raise click.BadParameter("it is not KEY=VALUE, for example security.protocol=SSL")
        properties[key.strip()] = text
    return properties


def _clusters_of(job: str) -> list[Cluster]:
    try:
        words = shlex.split(job)
    except ValueError as error:
        raise ConfigError(f"--job {job!r} cannot be read: {error}; it is a program and its arguments") from None
    if not words:
        raise ConfigError("--job is empty, and names no program")
    program, *arguments = words
    if not Path(program).is_file():
        raise ConfigError(f"--job: there is no program {program!r}; it is a program and its arguments, in one word")
    # What the program prints must not come between this command's own lines.
    with contextlib.redirect_stdout(sys.stderr):
        found = first_job(Path(program), arguments, Configuration())
    if found is None:
        raise ConfigError(f"{program} starts no job, so it names no cluster")
    clusters = clusters_of(found)
    if not clusters:
        raise ConfigError(f"the first job of {program} has neither a KafkaSource nor a KafkaSink")
    return clusters


def clusters_of(job: FirstJob) -> list[Cluster]:
    """The clusters that a job works with, by their brokers, in the order of its plan."""
    plan = with_parallelism(job.plan, options.PARALLELISM.read(job.configuration))
    checkpoints = Path(options.CHECKPOINT_DIR.read(job.configuration) or "")
    ids = operator_ids(plan)
    connectors = [(node.id, connector) for node in plan if (connector := _connector(node.operator)) is not None]
    found = []
    for servers in dict.fromkeys(connector.bootstrap_servers for _, connector in connectors):
        here = [(n, connector) for n, connector in connectors if connector.bootstrap_servers == servers]
        sources = [(n, connector) for n, connector in here if isinstance(connector, KafkaSource)]
        sinks = [connector for _, connector in here if isinstance(connector, KafkaSink)]
        part = JobPart(
            plan.job_name,
            checkpoints,
            frozenset(ids[n] for n, _ in sources),
            _named("topics", [source for _, source in sources]),
            _named("topic_pattern", [source for _, source in sources]),
            _named("topics", sinks),
            tuple(dict.fromkeys(source.group_id for _, source in sources if source.group_id is not None)),
            _transactional_ids(plan, servers),
        )
        found.append(Cluster(dict(here[0][1].properties), part))
    return found


def _connector(operator: object) -> KafkaSource | KafkaSink | None:
    match operator:
        case ReadSource(KafkaSource() as source):
            return source
        case WriteSink(KafkaSink() as sink):
            return sink
        case _:
            return None


def _named(facet: str, connectors: Sequence[KafkaSource | KafkaSink]) -> tuple[str, ...]:
    """The topics, or the pattern, of these."""
    names: dict[str, None] = {}
    for connector in connectors:
        for dataset in connector.get_lineage_vertex().datasets:
            if facet in dataset.facets["kafka"]:
                names[dataset.name] = None
    return tuple(names)


def _transactional_ids(plan: Plan, servers: str) -> tuple[str, ...]:
    """Of every region of every lane that writes exactly once to this cluster."""
    found = []
    for lane in range(lanes(plan)):
        for region in regions(plan, lane):
            sinks = [_connector(plan.node(n).operator) for n in region.exactly_once_sinks]
            ours = [sink for sink in sinks if isinstance(sink, KafkaSink)]
            if ours and ours[0].bootstrap_servers == servers:
                found.append(transactional_id_of(ours, plan.job_name, region.id))
    return tuple(found)
