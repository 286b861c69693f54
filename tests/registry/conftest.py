"""What the tests with a schema registry share: Confluent's own client, names, and messages without a compiler."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator

import pytest
from confluent_kafka.schema_registry import SchemaRegistryClient


@pytest.fixture
def confluent(registry: str) -> Iterator[SchemaRegistryClient]:
    """Confluent's client, which knows nothing yet."""
    with SchemaRegistryClient({"url": registry}) as client:
        yield client


@pytest.fixture
def name() -> Callable[[str], str]:
    """Makes names that no other test uses."""
    return lambda hint: f"{hint}_{uuid.uuid4().hex[:12]}"
