"""`headrace dlq replay`, killed and started again: each letter is sent once."""

from __future__ import annotations

import json
import random
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from confluent_kafka import Producer
from tests.crash.harness import KILLED, Line, Output, Run, tally
from tests.processes import DEADLINE_S

from headrace.broker import DevBroker
from headrace.connector import DeadLetter, OriginalRecord, Stage
from headrace.kafka import DeadLetterSerializationSchema
from headrace.kafka.client.provision import create_topics

PARTITIONS = 3
OPERATORS = ("parse", "price")

SLOW = """
import json, time

def repaired(letter):
    time.sleep(0.002)
    return json.dumps({**json.loads(letter.record.value), "repaired": True}).encode()
"""


class Replays:
    """Letters of two operators, and runs of the command that sends them."""

    def __init__(self, bootstrap: str, name: str, folder: Path, letters: int) -> None:
        self.origin = Output(bootstrap, f"{name}-origin", PARTITIONS)
        self.ids = {f"{number}": OPERATORS[number % 2] for number in range(letters)}
        self.runs: list[Run] = []
        self._bootstrap = bootstrap
        self._dead = f"{name}-dead"
        self._folder = folder
        self._program = folder / "slow.py"
        self._program.write_text(SLOW)
        create_topics(bootstrap, {self.origin.topic: PARTITIONS, self._dead: PARTITIONS})
        self._write()

    def _write(self) -> None:
        producer = Producer({"bootstrap.servers": self._bootstrap, "log_level": 2})
        schema = DeadLetterSerializationSchema(self._dead)
        for number, (record, operator) in enumerate(self.ids.items()):
            value = json.dumps({"id": record, "key": operator}).encode()
            original = OriginalRecord(value, None, [], None, self.origin.topic, number % PARTITIONS, number)
            letter = DeadLetter(original, Stage.FUNCTION, operator, "ValueError", "no", "job", None, 0, number)
            written = schema.serialize(letter, None, None)  # type: ignore[arg-type]
            producer.produce(self._dead, written.value, headers=list(written.headers), partition=number % PARTITIONS)
        assert producer.flush(DEADLINE_S) == 0

    def start(self, *arguments: str, crash: str = "") -> Run:
        """Start the command; `crash` arms a crash point."""
        whole = [sys.executable, "-m", "headrace", "dlq", "replay", self._dead, "--bootstrap-servers", self._bootstrap]
        whole += ["--state-dir", str(self._folder / "state"), "--map", f"{self._program}:repaired", *arguments]
        environment = {"HEADRACE_CRASH_POINT": crash} if crash else {}
        run = Run(whole, self._folder / f"run-{len(self.runs) + 1}.log", environment)
        self.runs.append(run)
        return run

    def check(self) -> None:
        """Each letter was sent once, and repaired."""
        self.origin.wait_until_closed()
        results = self.origin.read()
        found = tally(self.ids, results)
        assert found.is_exact, f"{found}\n" + "\n".join(f"--- {run.log_file}\n{run.log()[-1500:]}" for run in self.runs)
        assert all(result["repaired"] for result in results)


@pytest.fixture
def make_replays(
    kafka: DevBroker, topic_name: Callable[[str], str], tmp_path: Path, ledger: Line
) -> Iterator[Callable[[int], Replays]]:
    made = []

    def make(letters: int) -> Replays:
        made.append(Replays(kafka.bootstrap_servers, topic_name("replay"), tmp_path, letters))
        return made[-1]

    yield make
    for replays in made:
        ledger.kills += sum(run.process.returncode == KILLED for run in replays.runs)
        ledger.records += len(replays.ids)
        for run in replays.runs:
            run.clean_up()
        replays.origin.close()


def kill_at_random(replays: Replays, draw: random.Random, kills: int) -> None:
    """Runs with filters and without, each killed at any moment; then one that comes to its end."""
    for _ in range(kills):
        asked = draw.choice([(), ("--operator", OPERATORS[0]), ("--operator", OPERATORS[1])])
        run = replays.start(*asked)
        moment = time.monotonic() + draw.uniform(0.2, 1.4)
        while (left := moment - time.monotonic()) > 0 and run.is_running:
            time.sleep(min(left, 0.01))
        if run.is_running:
            run.kill()
        else:
            run.wait(0)
    replays.start().wait(0)


def test_a_replay_that_is_killed_at_random_moments_sends_each_letter_once(
    make_replays: Callable[[int], Replays], seed: int
) -> None:
    replays = make_replays(1000)

    kill_at_random(replays, random.Random(seed), kills=6)

    replays.check()


@pytest.mark.parametrize("name", ["checkpoint.prepared", "transaction.committed", "checkpoint.finished_flag"])
def test_a_replay_that_is_killed_at_a_crash_point_sends_each_letter_once(
    make_replays: Callable[[int], Replays], name: str
) -> None:
    replays = make_replays(300)

    # A run behind one that has come to its end: that one's checkpoint is what it begins with.
    replays.start("--operator", OPERATORS[0], "--partition", "0").wait(0)
    replays.start(crash=f"{name}@1").wait(KILLED)
    replays.start().wait(0)

    replays.check()


def test_a_replay_that_is_stopped_says_so_and_is_gone_on_with(make_replays: Callable[[int], Replays]) -> None:
    replays = make_replays(600)

    run = replays.start()
    replays.origin.wait_for(1, run)
    run.send(signal.SIGTERM)
    run.wait(0)
    assert "stopped before the end; start it again, and it goes on" in run.log()
    # What was sent is known, whatever else is asked for: the run before has not come to its end.
    replays.start("--again").wait(0)

    replays.check()
    assert "--again has no effect" in replays.runs[-1].log()


@pytest.mark.full
@pytest.mark.parametrize("part", range(3))
def test_a_replay_that_is_killed_many_times_sends_each_letter_once(
    make_replays: Callable[[int], Replays], seed: int, part: int
) -> None:
    replays = make_replays(6000)

    kill_at_random(replays, random.Random(f"{seed}-{part}"), kills=20)

    replays.check()
