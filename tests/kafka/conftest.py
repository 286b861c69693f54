"""A second cluster, for what spans two or wants other settings."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from headrace.broker import DevBroker


@pytest.fixture(scope="session")
def other_kafka() -> Iterator[DevBroker]:
    """A cluster beside `kafka`, whose brokers create topics that they are asked for."""
    with DevBroker(properties={"auto.create.topics.enable": "true"}) as broker:
        yield broker
