"""What the crash suite works with: input that is known, a job in a process of its own, and an independent reader.

Theory of operation. An `Input` remembers the id and the key of every record that it produces. A `Job` starts
`counting.py` on it as often as is needed, each start being a `Run`: a process that a test kills, halts, wakes up and
waits for. An `Output` reads what became of it with a plain `read_committed` consumer that knows nothing of Headrace,
and `tally` compares. Nothing here waits for a time to pass: everything waits for something to happen, with a deadline.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, IsolationLevel, KafkaError, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec
from tests.processes import DEADLINE_S, wait_until

PROGRAM = Path(__file__).with_name("counting.py")
KILLED = -signal.SIGKILL


# --- input -----------------------------------------------------------------------------------------------------------


class Input:
    """A topic whose every record is known: `ids` maps each one's id to its key, per partition in order."""

    def __init__(self, bootstrap: str, topic: str, partitions: int = 4, keys: int = 7) -> None:
        self.topic = topic
        self.partitions = partitions
        self.records: dict[int, list[tuple[str, str]]] = defaultdict(list)
        self._bootstrap = bootstrap
        self._keys = keys

    @property
    def count(self) -> int:
        """How many records have been produced."""
        return sum(map(len, self.records.values()))

    @property
    def ids(self) -> dict[str, str]:
        """Every record's key, by its id."""
        return {record: key for records in self.records.values() for record, key in records}

    def produce(
        self, per_partition: int, *, partitions: Iterable[int] | None = None, pad: int = 0, transactional: bool = False
    ) -> None:
        """Append records to each of the `partitions` (all if None)."""
        settings: dict[str, Any] = {"bootstrap.servers": self._bootstrap, "acks": "all", "log_level": 2}
        settings["message.max.bytes"] = max(1_000_000, pad + 1_000)
        if transactional:
            settings["transactional.id"] = f"input-{self.topic}"
        producer = Producer(settings)
        if transactional:
            producer.init_transactions(DEADLINE_S)
            producer.begin_transaction()
        for partition in range(self.partitions) if partitions is None else partitions:
            for _ in range(per_partition):
                number = len(self.records[partition])
                record, key = f"{partition}-{number}", f"k{(number * 5 + partition) % self._keys}"
                value = {"id": record, "key": key} | ({"pad": pad} if pad else {})
                producer.produce(self.topic, json.dumps(value).encode(), partition=partition)
                self.records[partition].append((record, key))
                producer.poll(0)
        assert producer.flush(DEADLINE_S) == 0
        if transactional:
            producer.commit_transaction(DEADLINE_S)


# --- output ----------------------------------------------------------------------------------------------------------


class Output:
    """What a `read_committed` reader finds in a topic, or several."""

    def __init__(self, bootstrap: str, topic: str, partitions: int = 3) -> None:
        self.topic = topic
        self.others: tuple[str, ...] = ()
        """More topics, with the same number of partitions each."""
        self.partitions = partitions
        self._bootstrap = bootstrap
        self._seen: list[dict[str, Any]] = []
        self._follower: Consumer | None = None

    def wait_until_written(self, times: int, ids: Mapping[str, str], run: Run) -> None:
        """Wait until every record was written so often, in transactions of whatever fate; `run` must not end before."""
        consumer, written = self._consumer("read_uncommitted"), Counter[str]()

        def is_written() -> bool:
            written.update(
                json.loads(message.value())["id"] for message in consumer.consume(10_000, 0.02) if not message.error()
            )
            return all(written[record] >= times for record in ids)

        run.wait_for(is_written, f"every record is written {times} times to {self.topic}")
        consumer.close()

    def visible(self) -> int:
        """How many results are visible by now, as far as this reader has come."""
        if self._follower is None:
            self._follower = self._consumer()
        for message in self._follower.consume(10_000, 0.02):
            if message.error() is None:
                self._seen.append(json.loads(message.value()))
        return len(self._seen)

    def wait_for(self, count: int, run: Run | None = None) -> None:
        """Wait until so many results are visible; `run` must not end before."""

        what = f"{count} results in {self.topic}"
        if run is None:
            wait_until(lambda: self.visible() >= count, what)
        else:
            run.wait_for(lambda: self.visible() >= count, what)

    def read(self) -> list[dict[str, Any]]:
        """Every visible result, read anew."""
        consumer, results, ended = self._consumer(), [], set()
        deadline = time.monotonic() + DEADLINE_S
        while len(ended) < len(self._places()):
            assert time.monotonic() < deadline, f"{self.topic} could not be read to its end"
            for message in consumer.consume(10_000, 0.1):
                if (error := message.error()) is None:
                    results.append(json.loads(message.value()))
                elif error.code() == KafkaError._PARTITION_EOF:
                    ended.add((message.topic(), message.partition()))
        consumer.close()
        return results

    def _places(self) -> list[TopicPartition]:
        topics = (self.topic, *self.others)
        return [TopicPartition(topic, partition) for topic in topics for partition in range(self.partitions)]

    def ends(self, level: IsolationLevel = IsolationLevel.READ_COMMITTED) -> dict[tuple[str, int], int]:
        """The end of each partition's log, for a reader of this level."""
        admin = AdminClient({"bootstrap.servers": self._bootstrap, "log_level": 2})
        latest = {place: OffsetSpec.latest() for place in self._places()}
        asked = admin.list_offsets(latest, isolation_level=level, request_timeout=30)
        return {(at.topic, at.partition): future.result(DEADLINE_S).offset for at, future in asked.items()}

    def open_partitions(self) -> dict[tuple[str, int], tuple[int, int]]:
        """The partitions with a transaction open in them: end for a `read_committed` reader, and end of the log."""
        committed, written = self.ends(IsolationLevel.READ_COMMITTED), self.ends(IsolationLevel.READ_UNCOMMITTED)
        return {
            partition: (committed[partition], written[partition])
            for partition in written
            if committed[partition] != written[partition]
        }

    def wait_until_closed(self) -> None:
        """Wait until no transaction is open: the broker answers a commit a moment before it is written everywhere."""
        wait_until(lambda: not self.open_partitions(), f"no transaction is open in {self.topic}", 20)

    def close(self) -> None:
        """Release the reader."""
        if self._follower is not None:
            self._follower.close()
            self._follower = None

    def _consumer(self, isolation_level: str = "read_committed") -> Consumer:
        consumer = Consumer(
            {
                "bootstrap.servers": self._bootstrap,
                "group.id": f"reader-{self.topic}",
                "isolation.level": isolation_level,
                "enable.auto.commit": False,
                "enable.partition.eof": True,
                "fetch.queue.backoff.ms": 5,
                "log_level": 0,
            }
        )
        consumer.assign([TopicPartition(place.topic, place.partition, 0) for place in self._places()])
        return consumer


@dataclass(frozen=True, slots=True)
class Tally:
    """What became of the input. `keys_wrong`: keys whose counts are not 1..n, as their state must have been."""

    records: int
    lost: tuple[str, ...]
    repeated: tuple[str, ...]
    foreign: tuple[str, ...]
    keys_wrong: tuple[str, ...]

    @property
    def is_exact(self) -> bool:
        """Nothing lost, nothing repeated, and the state equal to the input's true counts."""
        return not (self.lost or self.repeated or self.foreign or self.keys_wrong)

    def __str__(self) -> str:
        def shown(name: str, values: tuple[str, ...]) -> str:
            return f"{len(values)} {name}" + (f" ({', '.join(values[:12])})" if values else "")

        parts = (shown(name, getattr(self, name)) for name in ("lost", "repeated", "foreign", "keys_wrong"))
        return f"{self.records} records: " + ", ".join(parts)


def tally(ids: Mapping[str, str], results: Iterable[Mapping[str, Any]]) -> Tally:
    """Compare results with the input, `ids` → key."""
    came: Counter[str] = Counter()
    counts: dict[str, list[int]] = defaultdict(list)
    uncounted = set()
    for result in results:
        came[result["id"]] += 1
        if "count" in result:
            counts[result["key"]].append(result["count"])
        else:
            uncounted.add(result["id"])
    # A job that counts nothing has no state to be right or wrong; dead letters have no count.
    expected = Counter(key for record, key in ids.items() if record not in uncounted) if counts else Counter[str]()
    return Tally(
        records=len(ids),
        lost=tuple(record for record in ids if record not in came),
        repeated=tuple(record for record, times in came.items() if times > 1),
        foreign=tuple(record for record in came if record not in ids),
        keys_wrong=tuple(
            key
            for key in sorted(expected | Counter(counts.keys()))
            if sorted(counts[key]) != [*range(1, expected[key] + 1)]
        ),
    )


def has_right_state(ids: Mapping[str, str], results: Iterable[Mapping[str, Any]]) -> bool:
    """Whether each key's counts are 1..n although some may come twice: the state was right all the time."""
    expected, counts = Counter(ids.values()), defaultdict(set)
    for result in results:
        counts[result["key"]].add(result["count"])
    return counts == {key: {*range(1, n + 1)} for key, n in expected.items()}


@dataclass
class Line:
    """What one file of tests did: how often a job or a broker was killed or halted, and what became of the records.

    Tests in which records have to be repeated, by the user's word, are left out of the last three.
    """

    tests: int = 0
    kills: int = 0
    records: int = 0
    lost: int = 0
    repeated: int = 0
    seconds: float = 0.0


# --- the job ---------------------------------------------------------------------------------------------------------


class Run:
    """One start of the job."""

    def __init__(self, command: list[str], log: Path, environment: Mapping[str, str]) -> None:
        self.log_file = log
        self.halts = 0
        with log.open("wb") as file:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                env={**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONFAULTHANDLER": "1", **environment},
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def is_running(self) -> bool:
        return self.process.poll() is None

    def log(self) -> str:
        """Everything it has said."""
        return self.log_file.read_text(errors="replace")

    def wait_for(self, condition: Callable[[], Any], what: str) -> Any:
        """Wait for `condition` to be true; the process must not end before."""

        def is_met() -> Any:
            is_running = self.is_running
            met = condition()
            assert met or is_running, f"ended with {self.process.returncode} before {what}:\n{self.log()[-6000:]}"
            return met

        try:
            return wait_until(is_met, what)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.last_words()}") from None

    def last_words(self) -> str:
        """The end of its log, with where it stands if it still runs."""
        if self.is_running:
            before = self.log_file.stat().st_size
            self.wake()
            self.send(signal.SIGUSR1)
            wait_until(lambda: self.log_file.stat().st_size > before + 100 or not self.is_running, "a traceback", 10)
        return "\n".join(line for line in self.log().splitlines() if "DEBUG checkpoint" not in line)[-6000:]

    def wait_for_log(self, text: str) -> None:
        """Wait until it has said this."""
        self.wait_for(lambda: text in self.log(), f"{text!r} in its log")

    def wait(self, status: int | None = None, deadline_s: float = DEADLINE_S) -> int:
        """Wait for its end; `status` is what it has to be."""
        try:
            found = self.process.wait(deadline_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still running after {deadline_s:.0f} s:\n{self.last_words()}") from None
        assert status is None or found == status, f"exit status {found}, not {status}:\n{self.log()[-6000:]}"
        return found

    def wait_until_halted(self) -> None:
        """Wait until it is halted by SIGSTOP, as a crash point with `:stop` does."""

        def is_halted() -> bool:
            pid, status = os.waitpid(self.pid, os.WNOHANG | os.WUNTRACED)
            if pid and not os.WIFSTOPPED(status):
                self.process.returncode = os.waitstatus_to_exitcode(status)
                raise AssertionError(f"ended with {self.process.returncode} instead of halting:\n{self.log()[-6000:]}")
            return bool(pid)

        wait_until(is_halted, f"the job is halted:\n{self.log()[-4000:]}")
        self.halts += 1

    def wake(self) -> None:
        """Let a halted process go on."""
        os.kill(self.pid, signal.SIGCONT)

    def halt(self) -> None:
        """Pause it where it is."""
        os.kill(self.pid, signal.SIGSTOP)
        self.wait_until_halted()

    def send(self, number: signal.Signals) -> None:
        """Send a signal."""
        os.kill(self.pid, number)

    def kill(self) -> None:
        """`kill -9`. It must not have ended by itself before."""
        assert self.is_running, f"ended by itself with {self.process.returncode}:\n{self.log()[-6000:]}"
        self.process.kill()
        self.wait()

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Have it stop with a last checkpoint, once it has begun."""
        self.wait_for(lambda: re.search("job `.*` (starts|resumes) from", self.log()), "it begins")
        self.send(number)
        self.wait(0)

    def clean_up(self) -> None:
        """End it, whatever its state."""
        if self.process.returncode is None:
            self.process.kill()
            self.process.wait()


@dataclass
class Job:
    """A job on an input and an output of its own, which is started as often as it takes."""

    bootstrap: str
    input: Input
    output: Output
    folder: Path
    prefix: str
    name: str = "counting"
    arguments: tuple[str, ...] = ()
    runs: list[Run] = field(default_factory=list)
    found: Tally | None = None

    @property
    def state(self) -> Path:
        """Where its checkpoints are."""
        return self.folder / "state" / self.name

    def start(
        self, *arguments: str, crash: str = "", state_dir: Path | None = None, command: tuple[str, ...] = ()
    ) -> Run:
        """Start it; `crash` arms a crash point (`name@hit`, `name@hit:stop`)."""
        state_dir = state_dir or self.folder / "state"
        whole = [sys.executable, *command, str(PROGRAM)]
        whole += ["--bootstrap", self.bootstrap, "--input", self.input.topic, "--output", self.output.topic]
        whole += ["--prefix", self.prefix, "--name", self.name, *self.arguments, *arguments]
        if not command:
            whole += ["-D", f"execution.checkpointing.dir={state_dir}"]
        environment = {"HEADRACE_CRASH_POINT": crash} if crash else {}
        run = Run(whole, self.folder / f"run-{len(self.runs) + 1}.log", environment)
        self.runs.append(run)
        return run

    def crash_at(self, crash: str, *arguments: str) -> Run:
        """Start it, and wait until it has killed itself at a crash point."""
        run = self.start(*arguments, crash=crash)
        run.wait(KILLED)
        return run

    def halt_at(self, crash: str, *arguments: str) -> Run:
        """Start it, and wait until it has halted itself at a crash point."""
        run = self.start(*arguments, crash=f"{crash}:stop")
        run.wait_until_halted()
        return run

    def finish(self, *arguments: str) -> Run:
        """Start it, wait until every result is visible, and have it stop."""
        run = self.start(*arguments)
        self.catch_up(run)
        run.stop()
        return run

    def catch_up(self, run: Run) -> None:
        """Wait until every result is visible."""
        self.output.wait_for(self.input.count, run)

    def manifests(self) -> list[dict[str, Any]]:
        """The manifests in its folder, oldest first; without those that a running job removes meanwhile."""
        found = []
        for file in self.manifest_files():
            with contextlib.suppress(FileNotFoundError):
                found.append(json.loads(file.read_text()))
        return found

    def manifest_files(self) -> list[Path]:
        """Their files."""
        return sorted(self.state.glob("epoch-*.json"), key=_age)

    def marker_group(self) -> str:
        """The group that its markers are kept under."""
        return str(self.manifests()[-1]["transactions"][0]["group"])

    def tally(self) -> Tally:
        """What became of its input, once no transaction is open any more."""
        self.output.wait_until_closed()
        return tally(self.input.ids, self.output.read())

    def check(self) -> Tally:
        """Nothing lost, nothing repeated, the state right, no transaction open."""
        self.found = found = self.tally()
        assert found.is_exact, f"{found}\n" + "\n".join(f"--- {run.log_file}\n{run.log()[-1500:]}" for run in self.runs)
        return found

    def clean_up(self) -> None:
        """End every run."""
        for run in self.runs:
            run.clean_up()
        self.output.close()


def _age(file: Path) -> tuple[int, int]:
    parts = file.stem.split("-")
    return int(parts[1]), int(parts[3]) if len(parts) > 2 else 0
