"""The client protocol on `confluent_kafka`'s Python objects, which is loaded when the first client is made.

| module | holds |
|---|---|
| `consumer`, `producer`, `admin` | one kind of client each |
| `group` | what a coordinator knows of a group |
| `probe` | a second look at a port that closes connections |
| `reports` | what they share: how a client is set up, what it reports, and failures as values |
"""

from headrace.kafka.client.protocol import Settings
from headrace.kafka.client.pure.admin import PureAdmin
from headrace.kafka.client.pure.consumer import PureConsumer
from headrace.kafka.client.pure.producer import PureProducer


class PureClient:
    """Makes clients on `confluent_kafka`."""

    def consumer(self, settings: Settings, *, with_keys: bool = False, with_headers: bool = False) -> PureConsumer:
        return PureConsumer(settings, with_keys=with_keys, with_headers=with_headers)

    def producer(self, settings: Settings) -> PureProducer:
        return PureProducer(settings)

    def admin(self, settings: Settings, timeout_s: float) -> PureAdmin:
        return PureAdmin(settings, timeout_s)


__all__ = ["PureAdmin", "PureClient", "PureConsumer", "PureProducer"]
