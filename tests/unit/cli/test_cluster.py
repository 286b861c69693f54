"""Which clusters a command asks, from its options and from a job's plan."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from headrace.cli.cluster import Where
from headrace.cli.main import main
from headrace.errors import ConfigError

PROGRAM = """
import sys
from headrace.common import Configuration, SimpleStringSchema, WatermarkStrategy
from headrace.datastream import StreamExecutionEnvironment
from headrace.datastream.connectors.kafka import *

print("said by the program", sys.argv[1:])
env = StreamExecutionEnvironment.get_execution_environment()
source = KafkaSource.builder().set_bootstrap_servers("in:9092").set_group_id("news").set_topics("rss.b", "rss.a")
source.set_property("sasl.password", "env:SECRET").set_value_only_deserializer(SimpleStringSchema())
def sink(servers, topic, prefix):
    schema = KafkaRecordSerializationSchema.builder().set_topic(topic)
    schema.set_value_serialization_schema(SimpleStringSchema())
    built = KafkaSink.builder().set_bootstrap_servers(servers).set_record_serializer(schema.build())
    if prefix:
        built.set_delivery_guarantee(DeliveryGuarantee.EXACTLY_ONCE).set_transactional_id_prefix(prefix)
    return built.build()
stream = env.from_source(source.build(), WatermarkStrategy.no_watermarks(), "in").uid("in")
stream.sink_to(sink("out:9092", "rss.c", "mine")).uid("out")
stream.sink_to(sink("in:9092", "rss.d", None))
env.set_parallelism(2)
env.execute("two clusters")
"""


@pytest.fixture
def program(tmp_path: Path) -> Path:
    path = tmp_path / "a job.py"
    path.write_text(PROGRAM)
    return path


def test_a_jobs_plan_says_what_it_does_with_each_cluster(program: Path, capsys: pytest.CaptureFixture[str]) -> None:
    inside, outside = Where({"client.rack": "r1"}, f"'{program}' --some argument").clusters()

    assert capsys.readouterr().out == ""
    assert inside.part is not None
    assert outside.part is not None
    assert inside.servers == "in:9092"
    assert inside.properties["client.rack"] == "r1"
    assert inside.part.job == "two clusters"
    assert inside.part.checkpoints == program.parent / ".headrace"
    assert (inside.part.reads, inside.part.writes) == (("rss.b", "rss.a"), ("rss.d",))
    assert (inside.part.groups, inside.part.sources) == (("news",), frozenset({"in"}))
    assert inside.part.transactional_ids == ()
    assert (outside.part.reads, outside.part.writes) == ((), ("rss.c",))
    first, second = outside.part.transactional_ids
    assert first.startswith("mine-two clusters-")
    assert (first[-2:], second[-2:]) == ("-0", "-1")
    assert "env:SECRET" not in repr(inside)


def test_the_topic_says_which_of_a_jobs_clusters_is_meant(program: Path) -> None:
    where = Where({}, f"'{program}'")
    assert where.one("rss.c").servers == "out:9092"
    assert where.one("rss.d").servers == "in:9092"
    with pytest.raises(ConfigError, match="in:9092 and out:9092; say which"):
        where.one("rss.unknown")


@pytest.mark.parametrize(
    ("job", "said"),
    [
        ("missing.py", "there is no program 'missing.py'"),
        ("'unbalanced", "cannot be read"),
        ("", "names no program"),
        ("no_job.py", "starts no job"),
        ("no_kafka.py", "neither a KafkaSource nor a KafkaSink"),
    ],
)
def test_a_program_without_a_cluster_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, job: str, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("no_job.py").write_text("")
    Path("no_kafka.py").write_text(
        "from headrace.datastream import StreamExecutionEnvironment as E\n"
        "e = E.get_execution_environment()\ne.from_collection([1]).print()\ne.execute()\n"
    )
    result = CliRunner().invoke(main, ["kafka", "topics", "--job", job])
    assert result.exit_code == 2
    assert said in result.stderr


def test_every_command_has_examples() -> None:
    for command in ("topics", "tail", "offsets", "transactions"):
        result = CliRunner().invoke(main, ["kafka", command, "--help"])
        assert f"headrace kafka {command} " in result.output
        assert "--config FILE" in result.output
