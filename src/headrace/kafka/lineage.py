"""Which topics of which cluster a source reads and a sink writes, for whoever keeps a map of an organisation's data.

In the shape of Flink's `LineageVertex` (FLIP-314). *Extension*: PyFlink has none of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from headrace.connector import Boundedness
from headrace.kafka.properties import masked


@dataclass(frozen=True, slots=True)
class LineageDataset:
    """A topic, or the pattern that topics match.

    `namespace` is `kafka://` with the brokers to begin with; `facets` has, under `kafka`, the `topics` or the
    `topic_pattern`, and the `properties`, without any secret.
    """

    name: str
    namespace: str
    facets: Mapping[str, Mapping[str, object]]


@dataclass(frozen=True, slots=True)
class LineageVertex:
    """What one source or sink has to do with; `boundedness` is None for a sink."""

    datasets: tuple[LineageDataset, ...]
    boundedness: Boundedness | None = None


def kafka_datasets(
    topics: Iterable[str], pattern: str | None, properties: Mapping[str, str]
) -> tuple[LineageDataset, ...]:
    """A data set for each topic, or one for the pattern.

    >>> (news,) = kafka_datasets(["rss.events"], None, {"bootstrap.servers": "a:9092", "sasl.password": "x"})
    >>> news.name, news.namespace
    ('rss.events', 'kafka://a:9092')
    >>> news.facets["kafka"]["properties"]["sasl.password"]
    '***'
    """
    names = list(topics)
    facet: dict[str, object] = {"properties": masked(properties)}
    if names:
        facet["topics"] = names
    if pattern is not None:
        facet["topic_pattern"] = pattern
    namespace = f"kafka://{properties.get('bootstrap.servers', '')}"
    return tuple(LineageDataset(name, namespace, {"kafka": facet}) for name in names or [pattern or ""])
