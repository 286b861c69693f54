"""`headrace dlq` on a real broker: what it shows of dead letters, and what it sends back."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from confluent_kafka import Consumer, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from tests.crash.harness import Output
from tests.kafka.jobs import TIMEOUT_S, environment
from tests.kafka.test_source import recreate
from tests.processes import wait_until

from headrace.broker import DevBroker
from headrace.checkpoint.storage import CheckpointFolder
from headrace.cli.cluster import Cluster
from headrace.cli.letters import letters_source
from headrace.cli.main import main
from headrace.common import WatermarkStrategy
from headrace.connector import DeadLetter, DeliveryGuarantee, OriginalRecord, Stage
from headrace.datastream import ErrorPolicy
from headrace.kafka import DeadLetterSerializationSchema, KafkaSink, KafkaSource
from headrace.kafka.dead_letters import REPLAYS

FAILED_AT = 1_767_268_800_000


class Letters:
    """A dead-letter topic, the topic that its letters came from, and the command for both."""

    def __init__(self, kafka: DevBroker, make_topic: Callable[..., str], folder: Path) -> None:
        self.servers = kafka.bootstrap_servers
        self.origin = make_topic(hint="prices", partitions=2)
        self.topic = make_topic(hint="dead")
        self.folder = folder

    def letter(self, offset: int, **changes: Any) -> DeadLetter:
        """A letter of record `offset`, in partition 1, of the origin."""
        record = OriginalRecord(
            b'{"price": %d}' % offset,
            b"btc",
            [("trace", b"1"), ("none", None)],
            1_700_000_000_000,
            self.origin,
            1,
            offset,
        )
        letter = DeadLetter(record, Stage.FUNCTION, "parse", "ValueError", "no price", "lag", 7, 0, FAILED_AT + offset)
        inside = {name: changes.pop(name) for name in list(changes) if name in OriginalRecord.__slots__}
        return replace(letter, record=replace(record, **inside), **changes)

    def write(self, *letters: DeadLetter) -> None:
        """Put them into the topic."""
        producer = Producer({"bootstrap.servers": self.servers, "log_level": 2})
        self._produce(producer, letters)

    @contextlib.contextmanager
    def open_transaction(self, *letters: DeadLetter) -> Iterator[Callable[[], None]]:
        """Put them into the topic in a transaction, which what is given commits; it is aborted at the end otherwise."""
        settings = {"bootstrap.servers": self.servers, "log_level": 2, "transactional.id": self.topic}
        producer = Producer(settings)
        producer.init_transactions(TIMEOUT_S)
        producer.begin_transaction()
        self._produce(producer, letters)
        committed = []

        def commit() -> None:
            producer.commit_transaction(TIMEOUT_S)
            committed.append(True)

        yield commit
        if not committed:
            producer.abort_transaction(TIMEOUT_S)

    def _produce(self, producer: Producer, letters: Sequence[DeadLetter]) -> None:
        schema = DeadLetterSerializationSchema(self.topic)
        failed: list[object] = []
        for letter in letters:
            record: Any = schema.serialize(letter, None, None)  # type: ignore[arg-type]
            timestamp = {} if record.timestamp is None else {"timestamp": record.timestamp}
            headers = list(record.headers)
            producer.produce(
                record.topic,
                record.value,
                record.key,
                0,
                on_delivery=lambda error, _: failed.append(error) if error is not None else None,
                headers=headers,
                **timestamp,
            )
        assert producer.flush(TIMEOUT_S) == 0
        assert failed == []

    def run(self, command: str, *arguments: str, status: int = 0) -> Result:
        """`headrace dlq COMMAND TOPIC …`."""
        whole = ["dlq", command, self.topic, "--bootstrap-servers", self.servers, *arguments]
        if command == "replay":
            whole += ["--state-dir", str(self.folder / "state")]
        result = CliRunner().invoke(main, whole)
        assert result.exit_code == status, result.output + repr(result.exception)
        return result

    def sink(self) -> KafkaSink:
        """Where a job writes them."""
        builder = KafkaSink.builder().set_bootstrap_servers(self.servers).set_transactional_id_prefix(self.topic)
        builder.set_record_serializer(DeadLetterSerializationSchema(self.topic))
        return builder.set_delivery_guarantee(DeliveryGuarantee.EXACTLY_ONCE).build()

    def wait_for(self, count: int) -> list[Message]:
        """The letters, once there are so many."""
        return wait_until(
            lambda: len(found := read_all(self.servers, self.topic)) >= count and found, f"{count} letters"
        )  # type: ignore[no-any-return]

    def arrived(self, topic: str = "") -> list[Message]:
        """What a `read_committed` reader finds in the origin, or in another topic, once no transaction is open."""
        # The broker answers a commit a moment before it is written everywhere.
        Output(self.servers, topic or self.origin, 1 if topic else 2).wait_until_closed()
        return read_all(self.servers, topic or self.origin)


def read_all(servers: str, topic: str) -> list[Message]:
    """All that is committed, by partition."""
    settings = {"bootstrap.servers": servers, "group.id": topic, "enable.partition.eof": True, "log_level": 2}
    consumer = Consumer({**settings, "isolation.level": "read_committed"})
    partitions = consumer.list_topics(topic, TIMEOUT_S).topics[topic].partitions
    consumer.assign([TopicPartition(topic, number, 0) for number in partitions])
    found, ended, deadline = [], set(), time.monotonic() + TIMEOUT_S
    while len(ended) < len(partitions):
        assert time.monotonic() < deadline
        message = consumer.poll(1.0)
        if message is None:
            continue
        if message.error() is None:
            found.append(message)
        else:
            ended.add(message.partition())
    consumer.close()
    return sorted(found, key=lambda m: (m.partition(), m.offset()))


def values(messages: Sequence[Message]) -> list[bytes]:
    return [message.value() for message in messages]


def rows(result: Result) -> list[Mapping[str, Any]]:
    return [json.loads(line) for line in result.stdout.splitlines()]


@pytest.fixture
def letters(kafka: DevBroker, make_topic: Callable[..., str], tmp_path: Path) -> Letters:
    return Letters(kafka, make_topic, tmp_path)


def test_list_counts_letters_that_are_alike(letters: Letters) -> None:
    letters.write(letters.letter(1), letters.letter(2), letters.letter(3, operator="price", exception="app.NoPrice"))
    letters.write(letters.letter(4, headers=[(REPLAYS, b"2")]))

    alike, other = rows(letters.run("list", "--json"))
    assert alike == {
        "operator": "parse",
        "exception": "ValueError",
        "stage": "function",
        "topic": letters.origin,
        "count": 3,
        "replayed": 1,
        "first": FAILED_AT + 1,
        "last": FAILED_AT + 4,
    }
    assert (other["operator"], other["exception"], other["count"]) == ("price", "app.NoPrice", 1)
    shown = letters.run("list").stdout.splitlines()
    assert shown[0].split()[:2] == ["letters", "operator"]
    assert shown[1].split()[:5] == ["3", "parse", "ValueError", "function", letters.origin]


def test_show_has_everything_of_a_letter(letters: Letters) -> None:
    letters.write(
        letters.letter(1), letters.letter(2, value=b"\x00\xff", headers=[(REPLAYS, b"1")], message="a\nb\x1b")
    )

    first, second = letters.run("show").stdout.split("\n\n")
    assert first.splitlines()[0] == f"{letters.topic}-0@0"
    for line in ("  operator   parse", "  exception  ValueError", "  message    no price", "  key        btc"):
        assert line in first.splitlines()
    assert f"  record     {letters.origin}-1@1" in first.splitlines()
    assert '  value      {\n               "price": 1\n             }' in first
    assert "  header     trace=1\n  header     none=(none)" in first
    assert "  value      0x00ff" in second
    assert "  message    a\n             b\\x1b" in second
    assert "  replays    1" in second

    one = rows(letters.run("show", "--json", "--partition", "0", "--offset", "1"))
    assert [(row["offset"], row["value"], row["error"]["replays"]) for row in one] == [(1, {"base64": "AP8="}, 1)]


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        (["--operator", "price"], {2}),
        (["--exception", "NoPrice"], {2}),
        (["--exception", "app.NoPrice"], {2}),
        (["--stage", "size"], {3}),
        (["--job", "other"], {4}),
        (["--topic", "elsewhere"], {5}),
        (["--since", f"@{FAILED_AT + 3}"], {3, 4, 5}),
        (["--until", "2026-01-01T12:00:00.003Z"], {1, 2}),
        (["--partition", "0", "--offset", "1"], {2}),
        (["--partition", "1"], set()),
        (["--operator", "parse", "--until", f"@{FAILED_AT + 3}"], {1}),
    ],
)
def test_filters_choose_letters(letters: Letters, asked: list[str], expected: set[int]) -> None:
    letters.write(letters.letter(1), letters.letter(2, operator="price", exception="app.NoPrice"))
    letters.write(
        letters.letter(3, stage=Stage.SIZE), letters.letter(4, job="other"), letters.letter(5, topic="elsewhere")
    )

    found = rows(letters.run("list", "--each", "--json", *asked))

    assert {row["error"]["offset"] for row in found} == expected


def test_records_that_are_no_letters_are_counted_and_left(letters: Letters) -> None:
    letters.write(letters.letter(1))
    producer = Producer({"bootstrap.servers": letters.servers})
    producer.produce(letters.topic, b"something else")
    assert producer.flush(TIMEOUT_S) == 0

    assert "1 records that are no dead letters" in letters.run("list").stderr
    assert "no dead letter" in letters.run("list", "--each").stdout.splitlines()[1]
    assert f"left 1: they are no dead letters of Headrace ({letters.topic}-0@1)" in letters.run("replay").stdout
    assert len(letters.arrived()) == 1


def test_replay_sends_the_original_with_a_count_to_where_it_came_from(letters: Letters) -> None:
    letters.write(letters.letter(1), letters.letter(2, value=None, key=None, headers=[(REPLAYS, b"1"), ("x", b"\xff")]))

    result = letters.run("replay")

    said = [f"sent 2 letters of {letters.topic}:", f"  2 to {letters.origin}"]
    assert result.stdout.splitlines() == said, result.stderr
    first, second = letters.arrived()
    assert (first.value(), first.key(), first.partition()) == (b'{"price": 1}', b"btc", 1)
    assert first.headers() == [("trace", b"1"), ("none", None), (REPLAYS, b"1")]
    assert first.timestamp()[1] == 1_700_000_000_000
    assert (second.value(), second.key(), second.headers()) == (None, None, [("x", b"\xff"), (REPLAYS, b"2")])


def test_a_record_goes_to_the_partition_it_came_from_while_there_is_one(letters: Letters) -> None:
    letters.write(*(letters.letter(n, partition=n) for n in (0, 1, 7)))

    letters.run("replay")

    placed = {message.value(): message.partition() for message in letters.arrived()}
    assert placed.pop(b'{"price": 7}') in (0, 1)
    assert placed == {b'{"price": 0}': 0, b'{"price": 1}': 1}


def test_one_replay_at_a_time_works_in_a_folder(letters: Letters) -> None:
    letters.write(letters.letter(1))
    other = CheckpointFolder(letters.folder / "state", f"dlq-replay-{letters.topic}-turn")
    other.lock()

    refused = letters.run("replay", status=1)
    other.release()

    assert "is already running" in refused.stderr
    assert "sent 1 letters" in letters.run("replay").stdout


def test_properties_come_from_a_file_and_its_group_is_left_alone(letters: Letters) -> None:
    letters.write(letters.letter(1))
    config = letters.folder / "client.properties"
    config.write_text(f"bootstrap.servers={letters.servers}\ngroup.id={letters.topic}\nenable.auto.commit = true\n")

    whole = ["dlq", "replay", letters.topic, "--config", str(config), "-X", "client.rack=a"]
    result = CliRunner().invoke(main, [*whole, "--state-dir", str(letters.folder / "state")])

    assert result.exit_code == 0, result.output
    assert "sent 1 letters" in result.stdout
    consumer = Consumer({"bootstrap.servers": letters.servers, "group.id": letters.topic})
    assert [place.offset for place in consumer.committed([TopicPartition(letters.topic, 0)], TIMEOUT_S)] == [-1001]
    consumer.close()


def test_a_command_without_brokers_is_a_wrong_command_line() -> None:
    result = CliRunner().invoke(main, ["dlq", "list", "dead"])

    assert result.exit_code == 2
    assert "no brokers are named" in result.stderr


def test_a_letter_is_sent_once_by_whatever_runs(letters: Letters) -> None:
    letters.write(letters.letter(1), letters.letter(2, operator="price"), letters.letter(3))

    assert "sent 1 letters" in letters.run("replay", "--operator", "price").stdout
    assert "would send 2 letters" in letters.run("replay", "--dry-run").stdout
    second = letters.run("replay").stdout
    assert "sent 2 letters" in second
    assert f"left 1: replayed by an earlier run; --again sends them once more ({letters.topic}-0@1)" in second
    letters.write(letters.letter(4))
    assert "would send 1 letters" in letters.run("replay", "--dry-run").stdout
    assert "sent 1 letters" in letters.run("replay").stdout
    assert "sent 0 letters" in letters.run("replay").stdout
    assert sorted(values(letters.arrived())) == [b'{"price": %d}' % n for n in (1, 2, 3, 4)]

    assert "would send 4 letters" in letters.run("replay", "--dry-run", "--again").stdout
    assert "sent 4 letters" in letters.run("replay", "--again").stdout
    assert "sent 0 letters" in letters.run("replay").stdout
    assert len(letters.arrived()) == 8


def test_a_dry_run_sends_and_remembers_nothing(letters: Letters) -> None:
    letters.write(letters.letter(1))

    letters.run("replay", "--dry-run")

    assert letters.arrived() == []
    assert not (letters.folder / "state").exists()


def test_a_letter_that_failed_too_often_is_left_and_named(letters: Letters) -> None:
    letters.write(letters.letter(1, headers=[(REPLAYS, b"3")]), letters.letter(2, headers=[(REPLAYS, b"2")]))

    result = letters.run("replay")

    assert "sent 1 letters" in result.stdout
    assert f"left 1: they failed again after --max-replays replays ({letters.topic}-0@0)" in result.stdout
    assert "sent 1 letters" in letters.run("replay", "--max-replays", "4").stdout


def test_an_element_is_sent_only_where_that_is_asked_for(letters: Letters, make_topic: Callable[..., str]) -> None:
    other = make_topic(hint="other")
    letters.write(letters.letter(1), letters.letter(2, value="a text", is_element=True, topic=None, partition=None))

    assert "left 1: they hold the text of an element" in letters.run("replay", "--to", other).stdout
    assert letters.run("replay", "--elements", status=2).stderr == (
        "error: --elements needs --to TOPIC: an element came from no topic\n"
    )
    assert "sent 1 letters" in letters.run("replay", "--to", other, "--elements").stdout
    assert values(letters.arrived(other)) == [b'{"price": 1}', b"a text"]
    assert "sent 1 letters" in letters.run("replay").stdout


def test_a_function_repairs_values_on_the_way(letters: Letters) -> None:
    program = letters.folder / "repair.py"
    program.write_text(
        "import json\n"
        "WRONG = 2\n"
        "def repaired(letter):\n"
        "    price = json.loads(letter.record.value)['price']\n"
        "    return None if price == WRONG else json.dumps({'price': price, 'why': letter.exception}).encode()\n"
    )
    letters.write(letters.letter(1), letters.letter(2))

    result = letters.run("replay", "--map", f"{program}:repaired")

    assert f"left 1: the function of --map gave None ({letters.topic}-0@1)" in result.stdout
    assert values(letters.arrived()) == [b'{"price": 1, "why": "ValueError"}']
    program.write_text("def repaired(letter):\n    return letter.record.value[:letter]\n")
    failed = letters.run("replay", "--again", "--map", f"{program}:repaired", status=1).stderr
    # What the function failed with first, from its own line on.
    assert failed.startswith(f'Traceback (most recent call last):\n  File "{program}", line 2, in repaired\n')
    assert "error: `replay` failed with TypeError: " in failed
    assert "is not FILE.py:function" in letters.run("replay", "--map", "nothing.py", status=2).stderr
    assert "has no function 'other'" in letters.run("replay", "--map", f"{program}:other", status=2).stderr


def test_a_folder_that_was_lost_is_noticed(letters: Letters) -> None:
    letters.write(letters.letter(1))
    letters.run("replay")
    (letters.folder / "state").rename(letters.folder / "lost")

    result = letters.run("replay", status=1)

    assert "the folder was lost, or this is another folder" in result.stderr
    assert "--state-dir names the folder" in result.stderr
    assert "sent 1 letters" in letters.run("replay", "--again").stdout


def test_letters_of_a_topic_that_was_created_again_were_not_sent(kafka: DevBroker, letters: Letters) -> None:
    letters.write(letters.letter(1))
    letters.run("replay")
    admin = AdminClient({"bootstrap.servers": letters.servers, "log_level": 2})
    recreate(admin, kafka, letters.topic)
    letters.write(letters.letter(2))

    assert "sent 1 letters" in letters.run("replay").stdout
    assert values(letters.arrived()) == [b'{"price": 1}', b'{"price": 2}']


def test_letters_of_an_open_transaction_are_not_waited_for(letters: Letters) -> None:
    letters.write(letters.letter(1))
    with letters.open_transaction(letters.letter(2)) as commit:
        letters.write(letters.letter(3))

        assert [row["offset"] for row in rows(letters.run("list", "--each", "--json"))] == [0]
        assert "sent 1 letters" in letters.run("replay").stdout
        commit()
    letters.wait_for(3)
    assert "sent 2 letters" in letters.run("replay").stdout
    assert values(letters.arrived()) == [b'{"price": %d}' % n for n in (1, 2, 3)]


def test_letters_of_a_transaction_that_was_aborted_are_none(letters: Letters) -> None:
    with letters.open_transaction(letters.letter(1)):
        pass
    letters.write(letters.letter(2))
    letters.wait_for(1)

    assert [row["count"] for row in rows(letters.run("list", "--json"))] == [1]
    assert "sent 1 letters" in letters.run("replay").stdout


def test_letters_that_fail_again_come_behind_the_end_of_their_replay_and_are_left_in_the_end(
    kafka: DevBroker, letters: Letters, tmp_path: Path
) -> None:
    """The job that fails on the records goes on meanwhile, and writes to the topic that is replayed."""
    count = 100
    env = environment(tmp_path / "job", execution_checkpointing_interval="50 ms")
    env.on_error(ErrorPolicy.dead_letter(letters.sink()))
    builder = KafkaSource.builder().set_bootstrap_servers(letters.servers).set_topics(letters.origin)
    source = builder.set_value_only_deserializer(json.loads).build()
    prices = env.from_source(source, WatermarkStrategy.no_watermarks(), "prices")
    prices.map(lambda price: price["no such field"]).name("parse").print()
    slow = letters.folder / "slow.py"
    slow.write_text("import time\ndef slowly(letter):\n    time.sleep(0.005)\n    return letter.record.value\n")
    producer = Producer({"bootstrap.servers": letters.servers})
    for number in range(count):
        producer.produce(letters.origin, b'{"price": %d}' % number, partition=number % 2)
    assert producer.flush(TIMEOUT_S) == 0

    job = env.execute_async(f"fails-{letters.topic}")
    try:
        letters.wait_for(count)
        first = letters.run("replay", "--map", f"{slow}:slowly").stdout
        ended_at = time.time() * 1000
        assert f"sent {count} letters" in first
        again = letters.wait_for(2 * count)[count:]
        # They came while the replay still ran.
        assert min(int(dict(letter.headers())["headrace.error.time"]) for letter in again) < ended_at
        for replayed in (1, 2, 3):
            found = letters.wait_for((replayed + 1) * count)
            assert {dict(letter.headers())[REPLAYS] for letter in found[-count:]} == {str(replayed).encode()}
            if replayed < 3:
                assert f"sent {count} letters" in letters.run("replay").stdout
        last = letters.run("replay").stdout
        assert "sent 0 letters" in last
        assert f"left {count}: they failed again after --max-replays replays" in last
    finally:
        job.cancel().result()
    assert len(read_all(letters.servers, letters.topic)) == 4 * count
    assert len(letters.arrived()) == 4 * count


def test_a_topic_that_brokers_do_not_describe_is_an_error_and_nothing_looks_as_if_it_had_not_been_sent(
    letters: Letters, monkeypatch: pytest.MonkeyPatch
) -> None:
    letters.write(letters.letter(1))
    assert "sent 1 letters" in letters.run("replay").stdout
    admin = AdminClient({"bootstrap.servers": letters.servers, "log_level": 2})

    def and_then_it_is_gone(cluster: Cluster, topic: str) -> KafkaSource:
        source = letters_source(cluster, topic)
        admin.delete_topics([topic])[topic].result(TIMEOUT_S)
        wait_until(lambda: topic not in admin.list_topics(timeout=TIMEOUT_S).topics, "the topic is gone")
        return source

    monkeypatch.setattr("headrace.cli.replay.letters_source", and_then_it_is_gone)
    refused = letters.run("replay", "--dry-run", status=1)
    assert f"topic '{letters.topic}' could not be described" in refused.stderr
    assert refused.stdout == ""
