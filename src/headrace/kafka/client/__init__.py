"""The Kafka client: one protocol, batches in and batches out, and its implementations.

- `protocol`: what the rest of `headrace.kafka` may ask.
- `native`: the implementation on librdkafka's C API, where its extension was built.
- `pure`: the implementation on `confluent_kafka`'s objects, everywhere.
- `reports`: what both make of a client's reports.
- `transactions`: transactions of a whole cluster, on `kafka-python`.
- `provision`: waiting for brokers and creating topics, for the development broker and the tests.

Nothing outside this package imports `confluent_kafka`, and here it is imported when the first client is made.
"""

import functools
import logging
import os

from headrace.errors import ConfigError
from headrace.kafka.client.native import NativeClient, NativeUnavailableError
from headrace.kafka.client.protocol import Client
from headrace.kafka.client.pure import PureClient

_LOG = logging.getLogger("headrace.kafka")

CHOICE = "HEADRACE_CLIENT"
"""The environment variable that says which implementation to use: `native` or `pure`."""


def default_client() -> Client:
    """The implementation that sources and sinks use: the native one if it can be had, unless `HEADRACE_CLIENT` says
    which. Raises `ConfigError` if that one cannot be had."""
    return _client(os.environ.get(CHOICE, ""))


@functools.cache
def _client(choice: str) -> Client:
    match choice:
        case "pure":
            _LOG.info("Kafka client: pure, as `%s` says", CHOICE)
            return PureClient()
        case "native" | "":
            try:
                client = NativeClient()
            except NativeUnavailableError as error:
                if choice:
                    raise ConfigError(
                        f"`{CHOICE}` is native, and the native Kafka client cannot be used: {error}; install a C "
                        f"compiler and Headrace again, or set `{CHOICE}` to pure"
                    ) from None
                _LOG.info("Kafka client: pure; the native one cannot be used: %s", error)
                return PureClient()
            why = f", as `{CHOICE}` says" if choice else ""
            _LOG.info("Kafka client: native, on librdkafka %s%s", client.version, why)
            return client
        case _:
            raise ConfigError(f"`{CHOICE}` is {choice!r}; it has to be native or pure")


__all__ = ["Client", "default_client"]
