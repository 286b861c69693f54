"""The measurements: throughput, time to the first result, latency, memory. Each checks what the run wrote.

Throughput is from append to append: records written after the first, divided by the time from the broker's append of
the first output to that of the last. Start-up is so left out for everybody, and what the program thinks is not asked.
CPU is that of the program and its children (the broker's is not in it) between the same two moments.
"""

from __future__ import annotations

import contextlib
import os
import re
import statistics
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import orjson

from contestants import JOBS, Job, Name, Run, command, environ
from peers import Peers
from process import Measured
from records import altered, decoded, key, record
from topics import PARTITIONS, Output, Topics

_RUN_TIMEOUT_S = 600.0
_FIRST_TIMEOUT_S = 120.0
_SCRAPE_S = 1.0
_CHECKED = 10
"""Of the map's outputs, one in so many is compared whole; of all it is looked whether each input's is there once."""


@dataclass(frozen=True, slots=True)
class Throughput:
    """Records per second over the whole run and over its second half, and CPU microseconds per record.

    `stolen` is the share of the machine's cores that its host gave to others meanwhile. The resident memory is the most
    that each half of the run took: an allocator keeps what its queues once needed, so that it grows in steps, seldom.
    """

    records_s: float
    second_half_s: float
    cpu_us: float
    stolen: float
    rss_first_mb: float
    rss_second_mb: float


@dataclass(frozen=True, slots=True)
class Latency:
    """Milliseconds from the append of an input to the append of its output."""

    p50_ms: float
    p99_ms: float
    max_ms: float
    records: int


@contextlib.contextmanager
def _scraped(process: Measured, *, wanted: bool) -> Iterator[None]:
    """Reads the program's metrics each second, from when it says where they are."""
    if not wanted:
        yield
        return
    ended = threading.Event()
    pages: list[bytes] = []

    def scrape() -> None:
        while not ended.wait(_SCRAPE_S if pages else 0.05):
            if (url := re.search(r"metrics of job .*: (http:\S+)", process.output())) is not None:
                with contextlib.suppress(OSError), urllib.request.urlopen(url[1], timeout=5) as answer:
                    pages.append(answer.read())

    thread = threading.Thread(target=scrape, name="scraper", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
    if not any(b"pendingRecords" in page for page in pages):
        raise RuntimeError(f"its metrics were read {len(pages)} times, and never whole\n{process.tail()}")


class Bench:
    """Runs contestants on one broker; each run has names and a folder of its own."""

    def __init__(self, bootstrap: str, folder: Path, peers: Peers | None) -> None:
        self.topics = Topics(bootstrap)
        self._bootstrap = bootstrap
        self._folder = folder
        self._peers = peers
        self._runs = 0

    def throughput(self, row: str, name: Name, source: str, records: int) -> Throughput:
        """One bounded run over the `records` records of topic `source`."""
        run = self._new_run(f"{row}-{name}", source)
        # What earlier runs wrote is on the disk now, and not while this one is measured.
        os.sync()
        with self._started(name, JOBS[row], run) as process, _scraped(process, wanted=name == "scraped"):
            process.wait(_RUN_TIMEOUT_S + records / 5_000)
            check = _Check(row, records)
            output = self.topics.read(run.output, check)
            check.verify()
            start_s, end_s = output.first_ms / 1000, output.last_ms / 1000
            cpu_us = process.cpu_s(start_s, end_s) / records * 1e6
            stolen = process.stolen_s(start_s, end_s) / (end_s - start_s) / (os.cpu_count() or 1)
            memory = process.rss_bytes(start_s, end_s)
        self.topics.delete(run.output)
        return _throughput(output, cpu_us, stolen, memory)

    def first_result(self, name: Name, source: str) -> float:
        """Seconds from the start of the process until a reader that waits at the output topic has a record."""
        run = self._new_run(f"first-{name}", source)
        reader = self.topics.reader(run.output, committed=False)
        try:
            # Reports the end of the partitions: it is connected, and waits at the broker from now on.
            reader.consume(PARTITIONS, 1.0)
            with self._started(name, JOBS["map-alo"], run) as process:
                started_s, elapsed_s = time.monotonic(), 0.0
                while not elapsed_s:
                    message = reader.poll(0.1)
                    if message is not None and message.error() is None:
                        elapsed_s = time.monotonic() - started_s
                    elif time.monotonic() - started_s > _FIRST_TIMEOUT_S:
                        raise RuntimeError(f"no result in {_FIRST_TIMEOUT_S:.0f} s\n{process.tail()}")
                process.wait(_FIRST_TIMEOUT_S)
        finally:
            reader.close()
        self.topics.delete(run.output)
        return elapsed_s

    def latency(self, name: Name, seconds: float, per_second: int) -> Latency:
        """An unbounded job at a low rate: every output's append time less its input's. The broker's clock, in ms."""
        source = self.topics.create(f"bench.latency.{self._runs}", append_time=True)
        run = self._new_run(f"latency-{name}", source, unbounded=True)
        failed: list[object] = []
        producer = self.topics.producer(failed.append, linger_ms=0)
        with self._started(name, JOBS["map-alo"], run) as process:
            sent = self._until_it_answers(run, process, lambda number: producer.produce(source, record(number)))
            warm, total = sent, sent + int(seconds * per_second)
            begun_s = time.monotonic()
            for number in range(warm, total):
                due_s = begun_s + (number - warm) / per_second
                time.sleep(max(0.0, due_s - time.monotonic()))
                producer.produce(source, record(number), None, number % PARTITIONS)
                producer.poll(0)
            producer.flush(30)
            deadline = time.monotonic() + 30
            while len(outputs := self._by_id(run.output)) < total:
                if failed or time.monotonic() > deadline or not process.is_running:
                    raise RuntimeError(f"{len(outputs)} of {total} results came {failed[:1]}\n{process.tail()}")
        inputs = self._by_id(source)
        self.topics.delete(run.output, source)
        took_ms = sorted(outputs[number] - inputs[number] for number in range(warm, total))
        p99 = took_ms[int(len(took_ms) * 0.99)]
        return Latency(statistics.median(took_ms), p99, took_ms[-1], len(took_ms))

    def _until_it_answers(self, run: Run, process: Measured, send: Callable[[int], None]) -> int:
        """Sends a record now and then until one comes out; returns how many were sent. Then all are written."""
        reader = self.topics.reader(run.output, committed=False)
        sent, deadline = 0, time.monotonic() + _FIRST_TIMEOUT_S
        try:
            while True:
                send(sent)
                sent += 1
                message = reader.poll(0.2)
                if message is not None and message.error() is None:
                    return sent
                if not process.is_running or time.monotonic() > deadline:
                    raise RuntimeError(f"no result to {sent} records\n{process.tail()}")
        finally:
            reader.close()

    def _by_id(self, topic: str) -> dict[int, int]:
        return {orjson.loads(value)["id"]: at_ms for value, at_ms in self.topics.append_times(topic).items()}

    def _started(self, name: Name, job: Job, run: Run) -> Measured:
        line = command(name, job, run, self._peers)
        return Measured(line, run.folder / "output.log", environ(name, self._peers))

    def _new_run(self, what: str, source: str, *, unbounded: bool = False) -> Run:
        self._runs += 1
        run_id = f"bench-{self._runs}-{what}"
        folder = self._folder / run_id
        folder.mkdir()
        output = self.topics.create(f"{run_id}.output", append_time=True)
        return Run(self._bootstrap, source, output, run_id, folder, unbounded)


class _Check:
    """Looks whether a run's outputs are those of inputs 0 to `records` - 1."""

    def __init__(self, row: str, records: int) -> None:
        self._row = row
        self._records = records
        self._count = 0
        self._seen = bytearray(records)
        self._updates: Counter[str] = Counter()
        self._sums: Counter[str] = Counter()

    def __call__(self, values: list[bytes]) -> None:
        self._count += len(values)
        if self._row == "keyed":
            for value in values:
                item = orjson.loads(value)
                self._updates[item["source"]] += 1
                self._sums[item["source"]] += item["count"]
            return
        for place, value in enumerate(values):
            item = decoded(value, JOBS[self._row].encoding)
            number = item["id"]
            if not 0 <= number < self._records or self._seen[number]:
                raise RuntimeError(f"{self._row}: this output came twice, or of no input: {value!r}")
            self._seen[number] = True
            if place % _CHECKED == 0:
                right = value == record(number) if self._row == "bytes" else altered(item, number)
                if not right:
                    raise RuntimeError(f"{self._row}: this output is wrong: {value!r}")

    def verify(self) -> None:
        """Raises unless each record that went in has come out."""
        if self._count != self._records:
            raise RuntimeError(f"{self._row}: {self._records:,} records went in, {self._count:,} came out")
        if self._row == "keyed":
            expected = Counter(key(number) for number in range(self._records))
            # Counts 1..n, each once, add up to n(n+1)/2.
            if self._updates != expected or any(self._sums[k] != n * (n + 1) // 2 for k, n in expected.items()):
                raise RuntimeError("keyed: the counts that came out are not 1..n for every key")


def _throughput(output: Output, cpu_us: float, stolen: float, memory: list[int]) -> Throughput:
    half, mega = max(1, len(memory) // 2), 1e6
    return Throughput(
        output.rate(),
        output.rate(0.5),
        cpu_us,
        stolen,
        max(memory[:half], default=0) / mega,
        max(memory[half:], default=0) / mega,
    )
