"""What a job has to be allowed to do: the table of the docs, granted to somebody who may do nothing else."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AclBinding, AclOperation, AclPermissionType, ResourcePatternType, ResourceType
from tests.kafka.jobs import TIMEOUT_S, committed, environment, sink
from tests.kafka.secured import MINIMAL_USER, Secured, plain_line

from headrace.common import WatermarkStrategy
from headrace.common.serialization import SimpleStringSchema
from headrace.datastream import StreamExecutionEnvironment
from headrace.errors import ExternalError
from headrace.kafka import DeliveryGuarantee, KafkaOffsetResetStrategy, KafkaOffsetsInitializer, KafkaSource
from headrace.kafka.client.provision import create_topics

DOCS = Path(__file__).parents[2] / "docs" / "guarantees.md"


@dataclass(frozen=True)
class Right:
    """A row of the table."""

    reason: str
    resource: str
    operation: str


def table() -> list[Right]:
    section = DOCS.read_text().split("## What a job has to be allowed to do")[1].split("\n## ")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if line[:1] == "|"]
    return [Right(*row) for row in rows[2:]]


TABLE = table()
COMMITTED_OFFSETS = next(right for right in TABLE if right.reason == "starting from committed offsets")
PROGRESS = next(right for right in TABLE if right.reason.startswith("reporting progress"))


@dataclass(frozen=True)
class Names:
    """What one test's job reads, writes and is called."""

    read: str
    written: str
    marker: str
    group: str

    def of(self, right: Right) -> tuple[ResourceType, str, ResourcePatternType]:
        """The resource of a row. Fails for one that nobody has told this test about."""
        own = (ResourceType.GROUP, f"{self.written}-prefix-", ResourcePatternType.PREFIXED)
        return {
            "each source topic": (ResourceType.TOPIC, self.read, ResourcePatternType.LITERAL),
            "that group": (ResourceType.GROUP, self.group, ResourcePatternType.LITERAL),
            "each sink topic": (ResourceType.TOPIC, self.written, ResourcePatternType.LITERAL),
            "the transactional id `PREFIX-JOB-REGION`": (ResourceType.TRANSACTIONAL_ID, *own[1:]),
            "the group of the same name": own,
            "the marker's topic": (ResourceType.TOPIC, self.marker, ResourcePatternType.LITERAL),
        }[right.resource]

    def granting(self, right: Right) -> AclBinding:
        operation = AclOperation[right.operation.upper()]
        return AclBinding(*self.of(right), f"User:{MINIMAL_USER}", "*", operation, AclPermissionType.ALLOW)


@pytest.fixture
def names(secured: Secured, topic_name: Callable[[str], str]) -> Names:
    """Topics with a record to read. The marker has one of its own, or reading would imply its right."""
    made = Names(topic_name("in"), topic_name("out"), topic_name("marker"), topic_name("group"))
    create_topics(secured.open_servers, {made.read: 1, made.written: 1, made.marker: 1})
    producer = Producer({"bootstrap.servers": secured.open_servers, "log_level": 2})
    producer.produce(made.read, b"a")
    assert producer.flush(TIMEOUT_S) == 0
    return made


def job(secured: Secured, names: Names, folder: Path, *, from_committed: bool = False) -> StreamExecutionEnvironment:
    """Exactly once, as the minimal principal."""
    properties = {
        "security.protocol": "SASL_SSL",
        "sasl.mechanism": "PLAIN",
        "sasl.jaas.config": plain_line(MINIMAL_USER),
        "ssl.ca.location": str(secured.ca),
    }
    reading = KafkaSource.builder().set_bootstrap_servers(secured.servers).set_topics(names.read)
    reading.set_properties(properties).set_value_only_deserializer(SimpleStringSchema()).set_group_id(names.group)
    reading.set_bounded(KafkaOffsetsInitializer.latest())
    if from_committed:
        earliest = KafkaOffsetResetStrategy.EARLIEST
        reading.set_starting_offsets(KafkaOffsetsInitializer.committed_offsets(earliest))
        reading.set_property("commit.offsets.on.checkpoint", "false")
    writing = {**properties, "headrace.marker.topic": names.marker}
    env = environment(folder, execution_checkpointing_interval="1 s")
    stream = env.from_source(reading.build(), WatermarkStrategy.no_watermarks(), "in")
    stream.sink_to(sink(secured.servers, names.written, DeliveryGuarantee.EXACTLY_ONCE, writing))
    return env


def test_a_job_that_may_do_what_the_table_says_runs_exactly_once(
    secured: Secured, names: Names, tmp_path: Path
) -> None:
    with secured.granted([names.granting(right) for right in TABLE]):
        job(secured, names, tmp_path).execute("minimal")
    assert committed(secured.open_servers, names.written) == [b"a"]


def test_a_job_from_committed_offsets_that_reports_none_needs_no_right_to_report_them(
    secured: Secured, names: Names, tmp_path: Path
) -> None:
    with secured.granted([names.granting(right) for right in TABLE if right != PROGRESS]):
        job(secured, names, tmp_path, from_committed=True).execute("minimal")
    assert committed(secured.open_servers, names.written) == [b"a"]


@pytest.mark.parametrize("missing", TABLE, ids=lambda right: f"{right.operation} on {right.resource}")
def test_without_any_one_right_the_start_ends_with_its_name(
    missing: Right, secured: Secured, names: Names, tmp_path: Path
) -> None:
    # Read implies Describe: the job that needs only this one has to be without both.
    from_committed = missing == COMMITTED_OFFSETS
    left = [right for right in TABLE if right != missing and not (from_committed and right == PROGRESS)]
    begun = time.monotonic()
    with secured.granted([names.granting(right) for right in left]):
        with pytest.raises(ExternalError) as raised:
            job(secured, names, tmp_path, from_committed=from_committed).execute("minimal")
        assert time.monotonic() - begun < 20
    assert not raised.value.retriable
    kind, name, _ = names.of(missing)
    what = kind.name.lower().replace("_", " ")
    assert re.search(rf"needs {missing.operation} on (the )?{what}\b", str(raised.value))
    assert f"'{name}" in str(raised.value)
    assert committed(secured.open_servers, names.written) == []


def test_a_topic_that_may_only_be_described_is_no_topic_without_records(
    secured: Secured, names: Names, tmp_path: Path
) -> None:
    """Reading it would give nothing, and no error either."""
    described = Right("", "each source topic", "Describe")
    rights = [right for right in TABLE if right.resource != "each source topic"]
    with (
        secured.granted([names.granting(right) for right in [*rights, described]]),
        pytest.raises(ExternalError, match=f"needs Read on topic '{names.read}'"),
    ):
        job(secured, names, tmp_path).execute("minimal")


def test_a_topic_that_may_not_be_written_is_said_at_the_start_of_a_plain_sink(secured: Secured, names: Names) -> None:
    properties = {"security.protocol": "SASL_SSL", "sasl.mechanism": "PLAIN", "ssl.ca.location": str(secured.ca)}
    properties["sasl.jaas.config"] = plain_line(MINIMAL_USER)
    env = environment()
    env.from_collection(["a"]).sink_to(
        sink(secured.servers, names.written, DeliveryGuarantee.AT_LEAST_ONCE, properties)
    )
    described = Right("", "each sink topic", "Describe")
    with (
        secured.granted([names.granting(described)]),
        pytest.raises(ExternalError, match=f"needs Write on topic '{names.written}'"),
    ):
        env.execute("plain")
