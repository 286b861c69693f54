"""`headrace dlq replay`: the job that sends dead letters back, each once.

Theory of operation. What was sent is state of the job, a bit for each letter, in the checkpoints of its folder; it is
committed in one transaction with the records. So every run reads the topic from its beginning to the end that it had at
the start, whatever its filters are, and sends what is meant and was not sent before: also a run behind one that was
killed. Letters that come of what it sends are behind that end.

Each run's source has a `uid` of its own, as its position means nothing to the next run: the state does. A run that
follows one that had come to its end starts from that one's last checkpoint.
"""

from __future__ import annotations

import contextvars
import logging
import runpy
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

from headrace import runtime
from headrace.checkpoint.folder import Status, manifest_name
from headrace.checkpoint.manifest import Manifest
from headrace.checkpoint.storage import CheckpointFolder
from headrace.cli.cluster import Cluster
from headrace.cli.letters import Found, Selection, letters_source, letters_stream
from headrace.cli.watch import watched
from headrace.common import Configuration, JobClient, JobExecutionResult, Types, options
from headrace.connector import DeadLetter
from headrace.datastream import KeyedProcessFunction, RuntimeContext, StreamExecutionEnvironment
from headrace.datastream.job import launch_engine
from headrace.datastream.state import ValueStateDescriptor
from headrace.errors import ConfigError, DataError, StateError
from headrace.kafka import (
    DeliveryGuarantee,
    KafkaProducerRecord,
    KafkaRecordSerializationSchema,
    KafkaSink,
    KafkaSinkContext,
)
from headrace.kafka.client.protocol import Failure
from headrace.kafka.dead_letters import REPLAYS, replays
from headrace.kafka.failures import error_of
from headrace.plan.graph import Plan
from headrace.runtime.signals import stopped_by_signals

_LOG = logging.getLogger("headrace")

Repair = Callable[[DeadLetter], "bytes | None"]
"""Makes a new value of a letter; None leaves it."""

_PREFIX = "headrace-dlq"
_CHUNK = 1024
"""Letters whose bits are in one number: what a letter costs in memory is one bit, what an update costs is this many."""

_INTERVAL_MS = 200


class Fate(Enum):
    """What became of a letter that is meant."""

    REPLAYED = "replayed"
    BEFORE = "replayed by an earlier run; --again sends them once more"
    TOO_OFTEN = "they failed again after --max-replays replays"
    ELEMENT = (
        "they hold the text of an element, not the bytes of a record: there is no topic that they came from, and what "
        "reads a record may not read this; --elements with --to sends them all the same"
    )
    NO_RECORD = "they do not say which topic they came from; --to names one"
    UNREPAIRED = "the function of --map gave None"
    NO_LETTER = "they are no dead letters of Headrace"


@dataclass(frozen=True, slots=True)
class Order:
    """What to do with the letters that are meant. `to` None: back to where each came from."""

    selection: Selection
    to: str | None = None
    max_replays: int = 3
    with_elements: bool = False
    repair: Repair | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one letter; `record` is what is sent."""

    place: str
    fate: Fate
    record: KafkaProducerRecord | None = None


def outcome(order: Order, found: Found, *, was_replayed: bool) -> Outcome:
    """What becomes of a letter that is meant."""
    letter = found.letter
    if letter is None:
        return Outcome(found.place, Fate.NO_LETTER)
    if was_replayed:
        return Outcome(found.place, Fate.BEFORE)
    if replays(letter.record) >= order.max_replays:
        return Outcome(found.place, Fate.TOO_OFTEN)
    if letter.record.is_element and not order.with_elements:
        return Outcome(found.place, Fate.ELEMENT)
    topic = order.to or letter.record.topic
    if topic is None:
        return Outcome(found.place, Fate.NO_RECORD)
    value: bytes | None = letter.record.value
    if order.repair is not None:
        value = order.repair(letter)
        if value is None:
            return Outcome(found.place, Fate.UNREPAIRED)
        if not isinstance(value, bytes):
            raise DataError(f"the function of --map has to give bytes or None, and gave {value!r:.200}")
    return Outcome(found.place, Fate.REPLAYED, replayed(letter, topic, value))


def replayed(letter: DeadLetter, topic: str, value: bytes | None) -> KafkaProducerRecord:
    """The record that a letter is sent as: the original, which says how often it was replayed."""
    original = letter.record
    count = str(replays(original) + 1).encode()
    headers = [(name, data) for name, data in original.headers if name != REPLAYS]
    partition = original.partition if topic == original.topic else None
    return KafkaProducerRecord(topic, value, original.key, partition, original.timestamp, [*headers, (REPLAYS, count)])


class _Replay(KeyedProcessFunction):
    """Decides, and remembers what was sent."""

    def __init__(self, order: Order) -> None:
        self._order = order

    def open(self, runtime_context: RuntimeContext) -> None:
        self._sent = runtime_context.get_state(ValueStateDescriptor("sent", Types.PICKLED_BYTE_ARRAY()))

    def process_element(self, value: Found, ctx: KeyedProcessFunction.Context) -> Iterator[Outcome]:
        if not self._order.selection.takes(value):
            return
        sent: int = self._sent.value() or 0
        bit = 1 << value.offset % _CHUNK
        result = outcome(self._order, value, was_replayed=bool(sent & bit))
        if result.record is not None:
            self._sent.update(sent | bit)
        yield result


class _Records(KafkaRecordSerializationSchema):
    """Each record to the partition it came from, where that is still there."""

    def __init__(self, to: str | None) -> None:
        self.topic: str | None = to

    def serialize(self, element: Any, context: KafkaSinkContext, timestamp: int | None) -> KafkaProducerRecord:
        record: KafkaProducerRecord = element.record
        if record.partition is None or record.partition in context.get_partitions_for_topic(record.topic):
            return record
        return record._replace(partition=None)


class Replay:
    """Runs of one job: from one dead-letter topic to where its letters came from, or to one other topic."""

    def __init__(self, cluster: Cluster, topic: str, order: Order, state_dir: Path) -> None:
        self._cluster = cluster
        self._topic = topic
        self._order = order
        self._state_dir = state_dir
        self._job: runtime.Job | None = None
        self.name = f"dlq-replay-{topic}" + ("" if order.to is None else f"-to-{order.to}")
        self._folder = CheckpointFolder(state_dir, self.name)

    @property
    def was_stopped(self) -> bool:
        """Whether a signal has ended it before its end."""
        return self._job is not None and self._job.is_stopping

    def run(self, *, again: bool) -> Iterator[Outcome]:
        """What became of each letter that is meant, once that is committed.

        `again`: what was sent before is forgotten first, unless that run was cut off: then it goes on. Raises
        `StateError` where it is not known what was sent before.
        """
        # One process at a time from the look on, not only from the start: another one's end must not be overlooked.
        turn = CheckpointFolder(self._state_dir, f"{self.name}-turn")
        turn.lock()
        try:
            contents = self._folder.read()
            is_cut_off = contents.newest is not None and contents.status(contents.newest) is not Status.FINISHED
            configuration = Configuration()
            configuration.set_string(options.CHECKPOINT_DIR.key, str(self._state_dir.absolute()))
            if again and not is_cut_off:
                configuration.set_string(options.FRESH.key, "true")
            elif contents.newest is not None and not is_cut_off:
                configuration.set_string(options.RECOVERY_PATH.key, self._file(contents.newest))
            if again and is_cut_off:
                _LOG.warning(
                    "the replay before this one did not come to its end, so this one goes on with it, and --again has "
                    "no effect; give it once more to send everything again"
                )
            yield from self._outcomes(configuration, is_dry=False)
        except StateError as error:
            raise StateError(
                f"{error}. Of a replay: --state-dir names the folder, and --again takes the place of `--fresh`"
            ) from None
        finally:
            turn.release()

    def dry_run(self, *, again: bool) -> Iterator[Outcome]:
        """What would become of each letter that is meant; nothing is sent, and nothing is remembered.

        Of a run that was killed in its last commit it does not know whether that succeeded: it asks nobody.
        """
        contents = self._folder.read()
        known = [m for m in contents.manifests if contents.status(m) is not Status.PREPARED]
        configuration = Configuration()
        is_cut_off = contents.newest is not None and contents.status(contents.newest) is not Status.FINISHED
        if known and (is_cut_off or not again):
            configuration.set_string(options.RECOVERY_PATH.key, self._file(known[-1]))
        return self._outcomes(configuration, is_dry=True)

    def _file(self, manifest: Manifest) -> str:
        return str(self._folder.path / manifest_name(manifest))

    def _outcomes(self, configuration: Configuration, *, is_dry: bool) -> Iterator[Outcome]:
        configuration.set_string(options.IGNORE_UNCLAIMED_STATE.key, "true")
        # Whoever sees it fail starts it again, and it goes on.
        configuration.set_string(options.RESTART_STRATEGY.key, "none")
        env = StreamExecutionEnvironment.get_execution_environment(configuration)
        env.set_parallelism(1)
        if not is_dry:
            env.enable_checkpointing(_INTERVAL_MS)
        source = letters_source(self._cluster, self._topic)
        topic_id = self._topic_id()
        outcomes = (
            letters_stream(env, source)
            .uid(f"letters-{secrets.token_hex(6)}")
            # A topic that was created again has letters that were not sent.
            .key_by(lambda found: (topic_id, found.partition, found.offset // _CHUNK))
            .process(_Replay(self._order))
            .name("replay")
            .uid("replay")
        )
        if not is_dry:
            outcomes.filter(lambda one: one.record is not None).sink_to(self._sink()).name("records").uid("records")
        context = contextvars.copy_context()
        context.run(launch_engine.set, self)
        found: Any = context.run(outcomes.execute_and_collect, self.name)
        with stopped_by_signals(lambda: [] if self._job is None or self._job.has_ended else [self._job]), found:
            yield from found

    def _topic_id(self) -> str | None:
        with self._cluster.admin(f"topic {self._topic!r} could not be described") as admin:
            described = admin.describe_topics([self._topic])[self._topic]
        if isinstance(described, Failure):
            # With another answer here all letters would look as if they had not been sent.
            raise error_of(f"topic {self._topic!r} could not be described", described, self._cluster.servers)
        return described.topic_id

    def _sink(self) -> KafkaSink:
        builder = (
            KafkaSink.builder().set_properties(self._cluster.properties).set_record_serializer(_Records(self._order.to))
        )
        builder.set_delivery_guarantee(DeliveryGuarantee.EXACTLY_ONCE)
        return builder.set_transactional_id_prefix(_PREFIX).build()

    # The engine that takes the job

    def run_job(self, plan: Plan, configuration: Configuration) -> JobExecutionResult:
        return runtime.run_job(plan, configuration)

    def start_job(self, plan: Plan, configuration: Configuration) -> JobClient:
        self._job = runtime.start_job(plan, configuration, lambda job: watched(job, None))
        return self._job


def load_repair(text: str) -> Repair:
    """The function that `FILE.py:function` names."""
    path, _, name = text.rpartition(":")
    if not path or not name.isidentifier() or not Path(path).is_file():
        raise ConfigError(f"--map {text!r} is not FILE.py:function, with a file that exists")
    function = runpy.run_path(path).get(name)
    if not callable(function):
        raise ConfigError(f"--map: {path} has no function {name!r}")
    return function  # type: ignore[no-any-return]
