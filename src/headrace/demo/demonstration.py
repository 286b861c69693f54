"""The demonstration's story: a broker, a million items, a job that is killed three times, and an independent count.

Theory of operation. The job is a process of its own, started by `headrace run` as a user would. It is killed with
SIGKILL as soon as a consumer can see 20, 50 and 80 % of its results, so always in the midst of its work: a kill that
finds the job finished fails the demonstration. In between nothing is helped along: the job is only started again.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from headrace.broker import DevBroker
from headrace.demo import items
from headrace.demo.verification import Reader, Verdict, verify
from headrace.errors import ConfigError, ExternalError
from headrace.kafka.client import default_client
from headrace.kafka.client.protocol import ClientError

JOB = Path(__file__).with_name("count_per_source.py")
KILL_AT = (0.2, 0.5, 0.8)
"""Shares of the results that are visible when the job is killed."""

INTERVAL_MS = 200
FULL_SIZE = 1_000_000
_PATIENCE_S = 60.0
_DRAIN_S = 0.1
_SHOWN_LINES = 20


@dataclass(frozen=True, slots=True)
class Stretch:
    """From one start of the job to its end: until a consumer could see a result, and what came in what time after that.

    The first transaction's results are not counted, as they were made before.
    """

    first_result_s: float
    results: int
    working_s: float


@dataclass(frozen=True, slots=True)
class Outcome:
    """The demonstration's result."""

    records: int
    verdict: Verdict
    stretches: tuple[Stretch, ...]

    @property
    def recoveries_s(self) -> tuple[float, ...]:
        """From each new start to the next result that a consumer could see; Python's own start is in it."""
        return tuple(stretch.first_result_s for stretch in self.stretches[1:])

    @property
    def results_per_s(self) -> float:
        """Throughput of the stretches between the first visible result and a kill, or the end."""
        return sum(s.results for s in self.stretches) / max(1e-9, sum(s.working_s for s in self.stretches))


def checkpoint_interval_ms(records: int) -> int:
    """Shorter for fewer records, so that there is something to kill in the midst of.

    >>> checkpoint_interval_ms(1_000_000), checkpoint_interval_ms(100_000)
    (200, 20)
    """
    return max(10, min(INTERVAL_MS, INTERVAL_MS * records // FULL_SIZE))


def demonstrate(records: int, kafka_version: str, say: Callable[[str], None]) -> Outcome:
    """Run all of it; `say` is told the story, line by line. Raises `ExternalError` when it cannot be told to its end.

    Raises `ConfigError` if an extra is missing.
    """
    if find_spec("orjson") is None:
        raise ConfigError("the demonstration's job needs an extra: pip install 'headrace[json,broker]'")
    say(f"starting Apache Kafka {kafka_version}")
    with (
        DevBroker(kafka_version, topics=items.TOPICS) as broker,
        tempfile.TemporaryDirectory(prefix="headrace-demo-") as folder,
    ):
        servers = broker.bootstrap_servers
        say(f"writing {records:,} news items to {items.NEWS}, and {records // 100:,} prices to {items.PRICES}")
        expected = _fill(servers, records)
        total = expected.total()
        interval_ms = checkpoint_interval_ms(records)
        say(f"running {JOB.name}: counts to {items.COUNTS}, exactly once, a checkpoint every {interval_ms} ms")
        with Reader(servers, items.COUNTS, items.TOPICS[items.COUNTS]) as reader:
            stretches = _run_with_kills(servers, Path(folder), interval_ms, total, reader, say)
        say("counting with a plain read_committed consumer")
        with Reader(servers, items.COUNTS, items.TOPICS[items.COUNTS]) as reader:
            verdict = verify(reader.to_the_end(), expected)
    return Outcome(total, verdict, tuple(stretches))


def _fill(servers: str, records: int) -> Counter[str]:
    """Write the input; gives the number of items by source."""
    now_ms = int(time.time() * 1000)
    expected: Counter[str] = Counter()
    settings = {"bootstrap.servers": servers, "linger.ms": "20", "queue.buffering.max.messages": "500000"}
    producer = default_client().producer(settings)
    try:
        for values, sources in items.news(records, now_ms):
            producer.produce(items.NEWS, values, None, None)
            expected += sources
        values, sources = items.prices(records // 100, now_ms)
        producer.produce(items.PRICES, values, None, None)
        expected += sources
        left = producer.flush(_PATIENCE_S)
        if left or (failures := producer.take_failures()):
            raise ExternalError(
                f"the input could not be written: {failures[0] if not left else f'{left} records left'}"
            )
    except ClientError as error:
        raise ExternalError(f"the input could not be written: {error}") from None
    finally:
        producer.close()
    return expected


def _run_with_kills(
    servers: str, folder: Path, interval_ms: int, total: int, reader: Reader, say: Callable[[str], None]
) -> list[Stretch]:
    """Run the job to its end, killing it on the way."""
    stretches: list[Stretch] = []
    visible = 0
    for share in (*KILL_AT, 1.0):
        started_at = time.monotonic()
        with _job(servers, folder, interval_ms) as process:
            first_at, first = 0.0, 0
            last_at = started_at
            while visible < share * total or not first_at:
                came = reader.count(0.02)
                now = time.monotonic()
                if came:
                    visible += came
                    first_at, last_at = first_at or now, now
                elif first_at and not first:
                    first = visible
                elif share == 1.0 and process.poll() == 0:
                    break  # with results missing, perhaps: the count will say so
                elif process.poll() is not None:
                    raise ExternalError(
                        f"the job ended by itself (status {process.returncode}) with {visible:,} of {total:,} results "
                        f"visible:\n{_log(folder)}"
                    )
                elif now - last_at > _PATIENCE_S:
                    raise ExternalError(f"no new result within {_PATIENCE_S:.0f} s:\n{_log(folder)}")
            first_at = first_at or last_at
            stretch = Stretch(first_at - started_at, visible - (first or visible), last_at - first_at)
            if share == 1.0:
                _wait_for_end(process, folder)
            else:
                process.kill()
                if process.wait() != -signal.SIGKILL:
                    raise ExternalError(f"the kill at {share:.0%} found the job finished; use more `--records`")
        # What the job had committed by then and nobody had looked at is none of the next one's work.
        while came := reader.count(_DRAIN_S):
            visible += came
        stretches.append(stretch)
        if share < 1.0:
            if visible >= total:
                raise ExternalError(f"the kill at {share:.0%} found all results written; use more `--records`")
            say(f"  {visible / total:4.0%} visible   kill -9 {process.pid}, and start it again")
    say(f"  {visible / total:4.0%} visible   the job has finished")
    return stretches


@contextlib.contextmanager
def _job(servers: str, folder: Path, interval_ms: int) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "headrace", "run", "--state-dir", str(folder / "state")]
    command += ["-D", f"execution.checkpointing.interval={interval_ms}ms", str(JOB), "--bootstrap-servers", servers]
    with (folder / "job.log").open("ab") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=dict(os.environ))
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def _wait_for_end(process: subprocess.Popen[bytes], folder: Path) -> None:
    try:
        status = process.wait(_PATIENCE_S)
    except subprocess.TimeoutExpired:
        raise ExternalError(f"the job did not end after its last result:\n{_log(folder)}") from None
    if status != 0:
        raise ExternalError(f"the job failed at its end (status {status}):\n{_log(folder)}")


def _log(folder: Path) -> str:
    """The end of what the job said."""
    lines = (folder / "job.log").read_text(errors="replace").splitlines()
    return "\n".join(f"  {line}" for line in lines[-_SHOWN_LINES:])
