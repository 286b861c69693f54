"""Fixtures of the crash suite: jobs, brokers that may be killed, seeds, and what is said of it all in the end."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.crash.harness import KILLED, Input, Job, Line, Output

from headrace.broker import KAFKA_VERSIONS, DevBroker
from headrace.kafka.client.provision import create_topics

SEED = "HEADRACE_CRASH_SEED"


LEDGER = pytest.StashKey[dict[str, Line]]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[LEDGER] = {}


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    lines = config.stash.get(LEDGER, {})
    if lines:
        terminalreporter.section(f"crash suite, Kafka {_version()}")
    for suite, line in lines.items():
        terminalreporter.write_line(
            f"{suite}: {line.tests} tests, {line.kills} kills and halts, {line.records} records, {line.lost} lost, "
            f"{line.repeated} repeated, {line.seconds:.0f} s"
        )


@pytest.fixture
def ledger(request: pytest.FixtureRequest) -> Iterator[Line]:
    """The line of this module in the summary."""
    line = request.config.stash[LEDGER].setdefault(request.path.stem.removeprefix("test_"), Line())
    started_at = time.monotonic()
    yield line
    line.tests += 1
    line.seconds += time.monotonic() - started_at


@pytest.fixture
def make_job(
    kafka: DevBroker, topic_name: Callable[[str], str], tmp_path: Path, ledger: Line
) -> Iterator[Callable[..., Job]]:
    """Makes jobs with topics of their own, and ends all of their processes when the test is over."""
    made: list[Job] = []

    def make(*arguments: str, broker: DevBroker = kafka, per_partition: int = 0, **config: str) -> Job:
        name = topic_name("job")
        create_topics(broker.bootstrap_servers, {f"{name}-in": 4})
        create_topics(broker.bootstrap_servers, {f"{name}-out": 3}, config=config)
        folder = tmp_path / name
        folder.mkdir()
        job = Job(
            bootstrap=broker.bootstrap_servers,
            input=Input(broker.bootstrap_servers, f"{name}-in"),
            output=Output(broker.bootstrap_servers, f"{name}-out"),
            folder=folder,
            prefix=name,
            arguments=arguments,
        )
        made.append(job)
        if per_partition:
            job.input.produce(per_partition)
        return job

    yield make
    for job in made:
        ledger.kills += sum(run.halts + (run.process.returncode == KILLED) for run in job.runs)
        if job.found is not None:
            ledger.records += job.found.records
            ledger.lost += len(job.found.lost)
            ledger.repeated += len(job.found.repeated)
        job.clean_up()


@pytest.fixture(scope="session")
def mortal_kafka() -> Iterator[DevBroker]:
    """A broker that tests may kill and pause. It looks for transactions whose time is over twice a second."""
    with DevBroker(
        _version(), properties={"transaction.abort.timed.out.transaction.cleanup.interval.ms": "500"}
    ) as broker:
        yield broker


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    """The seed of a randomised test. The long selection draws a new one each time; it is printed with the command."""
    if SEED in os.environ:
        drawn = int(os.environ[SEED])
    else:
        is_long = request.node.get_closest_marker("full") is not None
        drawn = random.SystemRandom().randrange(1 << 32) if is_long else 1
    print(f"seed {drawn}; again with: {SEED}={drawn} make test-crash ARGS='-k {request.node.originalname}'")
    return drawn


def _version() -> str:
    return os.environ.get("HEADRACE_TEST_KAFKA_VERSION", KAFKA_VERSIONS[0])
