"""Fixtures that every kind of test shares: a real Kafka, started once per run, and topics of one's own."""

from __future__ import annotations

import faulthandler
import os
import tempfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from tests.registry.apicurio import ApicurioRegistry

from headrace.broker import KAFKA_VERSIONS, DevBroker
from headrace.datastream.job import unnamed_jobs
from headrace.kafka.client.provision import create_topics

# How long an example takes is the machine's affair.
settings.register_profile("any machine", settings.default, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")


class CrashReport:
    """Keeps the name of the test that runs, and the stacks if the interpreter crashes, in a file."""

    def __init__(self, path: str) -> None:
        self._file = open(path, "wb", buffering=0)  # noqa: SIM115 - for the crash, to the end of the process
        faulthandler.enable(self._file)

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self._file.seek(0)
        self._file.truncate()
        self._file.write(f"{nodeid}\n".encode())


# Behind pytest's own, which would have the stacks in the middle of the output.
@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    if path := os.environ.get("HEADRACE_TEST_CRASH"):
        config.pluginmanager.register(CrashReport(path))


@pytest.fixture(autouse=True)
def no_jobs_before() -> Iterator[None]:
    """Each test is a program of its own: its jobs without a name are numbered from the first on."""
    token = unnamed_jobs.set(0)
    yield
    unnamed_jobs.reset(token)


@pytest.fixture(scope="session")
def kafka() -> Iterator[DevBroker]:
    """A running broker for the whole test run. `HEADRACE_TEST_KAFKA_VERSION` chooses another version."""
    with DevBroker(os.environ.get("HEADRACE_TEST_KAFKA_VERSION", KAFKA_VERSIONS[0])) as broker:
        yield broker


@pytest.fixture(scope="session")
def registry() -> Iterator[str]:
    """The address of a running schema registry for the whole test run."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder, ApicurioRegistry(Path(folder)) as running:
        yield running.url


@pytest.fixture
def topic_name(request: pytest.FixtureRequest) -> Callable[[str], str]:
    """Makes names that no other test uses, for topics, groups and transactional ids."""

    def make(hint: str = "topic") -> str:
        return f"{hint}-{uuid.uuid4().hex[:12]}"

    return make


@pytest.fixture
def make_topic(kafka: DevBroker, topic_name: Callable[[str], str]) -> Callable[..., str]:
    """Creates a topic with a name of its own on the shared broker: `make_topic(partitions=4, hint="in")`."""

    def make(partitions: int = 1, hint: str = "topic", **config: str) -> str:
        name = topic_name(hint)
        create_topics(kafka.bootstrap_servers, {name: partitions}, config=config)
        return name

    return make
