"""The Kafka client: one protocol, batches in and batches out, and its implementations.

- `protocol`: what the rest of `headrace.kafka` may ask.
- `pure`: the implementation on `confluent_kafka`.
- `admin`: creating topics, for the development broker, the demonstration and the tests.

Nothing outside this package imports `confluent_kafka`, and here it is imported when the first client is made.
"""

from headrace.kafka.client.protocol import Client
from headrace.kafka.client.pure import PureClient


def default_client() -> Client:
    """The implementation that sources and sinks use."""
    return PureClient()


__all__ = ["Client", "default_client"]
