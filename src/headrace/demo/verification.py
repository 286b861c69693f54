"""What a plain `read_committed` consumer finds in the output topic, against what went in.

Nothing of the engine takes part: neither its source, nor its state, nor its checkpoints.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from headrace.errors import ExternalError
from headrace.kafka.client import default_client
from headrace.kafka.client.protocol import ClientError, EndOfPartition, KafkaTopicPartition, Records

_RECORDS = 10_000
_PATIENCE_S = 60.0


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was found. `broken` are the sources whose counts are not 1 to the number of their items."""

    results: int
    lost: int
    repeated: int
    broken: tuple[str, ...]

    @property
    def holds(self) -> bool:
        """Whether each item gave exactly one result, and every count is right."""
        return not self.lost and not self.repeated and not self.broken


class Reader:
    """A plain consumer of a topic from its beginning, that sees what is committed."""

    def __init__(self, bootstrap_servers: str, topic: str, partitions: int) -> None:
        settings = {
            "bootstrap.servers": bootstrap_servers,
            "group.id": "demonstration",
            "enable.auto.commit": "false",
            "isolation.level": "read_committed",
            "auto.offset.reset": "error",
            "fetch.queue.backoff.ms": "5",
        }
        self._consumer = default_client().consumer(settings)
        self._positions = {KafkaTopicPartition(topic, number): 0 for number in range(partitions)}
        self._consumer.assign(self._positions)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._consumer.close()

    def count(self, timeout_s: float) -> int:
        """How many results have become visible since the last call; waits at most `timeout_s` for the first."""
        try:
            events = self._consumer.consume(_RECORDS, timeout_s)
        except ClientError as error:
            raise ExternalError(f"the results could not be read: {error}") from None
        return sum(len(event.values) for event in events if isinstance(event, Records))

    def to_the_end(self) -> Iterator[bytes]:
        """Every value until each partition has been read to its end. Raises `ExternalError` when nothing comes."""
        open_partitions = set(self._positions)
        deadline = time.monotonic() + _PATIENCE_S
        while open_partitions:
            for event in self._consumer.consume(_RECORDS, 0.5):
                match event:
                    case Records():
                        yield from (value for value in event.values if value is not None)
                    case EndOfPartition(partition):
                        open_partitions.discard(partition)
                    case _:
                        continue
                deadline = time.monotonic() + _PATIENCE_S
            if time.monotonic() > deadline:
                raise ExternalError(f"the results could not be read to their end within {_PATIENCE_S:.0f} s")


def verify(results: Iterator[bytes], expected: Mapping[str, int]) -> Verdict:
    """Compare results, as JSON with `source` and `count`, with the number of items that each source had.

    >>> verify(iter([b'{"source": "a", "count": 1}', b'{"source": "a", "count": 1}']), {"a": 2})
    Verdict(results=2, lost=1, repeated=1, broken=('a',))
    """
    seen = {source: bytearray(count + 1) for source, count in expected.items()}
    strange: set[str] = set()
    total = repeated = 0
    for result in results:
        total += 1
        found = json.loads(result)
        source, count = found["source"], found["count"]
        times = seen.get(source)
        if times is None or not 0 < count < len(times):
            strange.add(source)
        elif times[count]:
            repeated += 1
        else:
            times[count] = 1
    missing = {source: len(times) - 1 - sum(times) for source, times in seen.items()}
    broken = strange | {source for source, lost in missing.items() if lost}
    return Verdict(total, sum(missing.values()), repeated, tuple(sorted(broken)))
