"""A second cluster, for what spans two or wants other settings."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from headrace.broker import DevBroker


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
