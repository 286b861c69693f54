"""The client protocol on `confluent_kafka`'s Python objects, which is loaded when the first client is made.

| module | holds |
|---|---|
| `consumer`, `producer`, `admin` | one kind of client each |
| `group` | what the coordinator of a group knows |
| `probe` | a second look at a port that closes connections |
| `reports` | how a client is set up so that its reports are heard, and reports as values |
| `murmur2` | which partition Java chooses |
"""

from collections.abc import Sequence

from headrace.kafka.client.protocol import OnStatistics, Settings, TokenSource
from headrace.kafka.client.pure.admin import PureAdmin
from headrace.kafka.client.pure.consumer import PureConsumer
from headrace.kafka.client.pure.murmur2 import murmur2
from headrace.kafka.client.pure.producer import PureProducer


class PureClient:
    """Makes clients on `confluent_kafka`."""

    def consumer(
        self,
        settings: Settings,
        *,
        with_text: bool = False,
        whole_records: bool = False,
        token: TokenSource | None = None,
        on_statistics: OnStatistics | None = None,
    ) -> PureConsumer:
        return PureConsumer(
            settings,
            with_text=with_text,
            whole_records=whole_records,
            token=token,
            on_statistics=on_statistics,
        )

    def producer(
        self, settings: Settings, *, token: TokenSource | None = None, on_statistics: OnStatistics | None = None
    ) -> PureProducer:
        return PureProducer(settings, token, on_statistics)

    def admin(self, settings: Settings, timeout_s: float, *, token: TokenSource | None = None) -> PureAdmin:
        return PureAdmin(settings, timeout_s, token)

    def murmur2_partitions(self, keys: Sequence[bytes], partition_count: int) -> list[int]:
        return [(murmur2(key) & 0x7FFFFFFF) % partition_count for key in keys]


__all__ = ["PureAdmin", "PureClient", "PureConsumer", "PureProducer"]
