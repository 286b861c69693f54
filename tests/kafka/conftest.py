"""Other clusters (a second one, for what spans two or wants other settings, and one with security), and a source."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import pytest
from tests.kafka.secured import Secured, secured_broker

from headrace.broker import KAFKA_VERSIONS, DevBroker
from headrace.common import SimpleStringSchema
from headrace.kafka import KafkaSource, KafkaSourceBuilder
from headrace.kafka.client.native import NativeClient, NativeUnavailableError
from headrace.kafka.client.protocol import Client
from headrace.kafka.client.pure import PureClient


@pytest.fixture(scope="session")
def other_kafka() -> Iterator[DevBroker]:
    """A cluster beside `kafka`, whose broker creates topics that it is asked for, and soon ends what has timed out."""
    properties = {
        "auto.create.topics.enable": "true",
        "transaction.abort.timed.out.transaction.cleanup.interval.ms": "500",
        # It is paused by tests. A cluster that gave it up meanwhile would tell its clients of no broker at all, and
        # librdkafka (2.16) then asks nobody again.
        "broker.session.timeout.ms": "600000",
        "log.cleaner.backoff.ms": "100",
    }
    with DevBroker(properties=properties) as broker:
        yield broker


@pytest.fixture(scope="session")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    """A broker with TLS, logins and authorisation."""
    version = os.environ.get("HEADRACE_TEST_KAFKA_VERSION", KAFKA_VERSIONS[0])
    with secured_broker(tmp_path_factory.mktemp("certificates"), version) as broker:
        yield broker


@pytest.fixture(scope="session")
def native() -> Client:
    """The native client. Without a C compiler there is none, which is a way to install Headrace."""
    try:
        return NativeClient()
    except NativeUnavailableError as error:
        pytest.skip(f"no native client here: {error}")


@pytest.fixture(params=["pure", "native"])
def client(request: pytest.FixtureRequest) -> Client:
    """Each of the two clients."""
    made: Client = PureClient() if request.param == "pure" else request.getfixturevalue("native")
    return made


@pytest.fixture
def read(kafka: DevBroker) -> Callable[..., KafkaSourceBuilder]:
    """`read(*topics)`: a builder of a source that reads text; without topics it has none yet."""

    def read(*topics: str) -> KafkaSourceBuilder:
        made = KafkaSource.builder().set_bootstrap_servers(kafka.bootstrap_servers)
        made.set_value_only_deserializer(SimpleStringSchema())
        return made.set_topics(*topics) if topics else made

    return read
