"""The client protocol on librdkafka's C API, with handles of its own: batches cross into C as a whole.

| file | holds |
|---|---|
| `_librdkafka.pyx`, `librdkafka.h` | the handles, in Cython, and the part of the library's API that they use |
| `producer` | a producer; the consumer of `_librdkafka` is one as it is |

The library is the one that the installed `confluent_kafka` has brought along, whatever its file is called: its
functions are looked up through the extension module of `confluent_kafka`, which depends on it. Asking a cluster, or the
coordinator of a group, is not done by the thousand, so `pure.admin` and `pure.group` serve here too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from headrace.kafka.client.protocol import Consumer, OnStatistics, Settings, TokenSource
from headrace.kafka.client.pure import PureAdmin
from headrace.kafka.client.reports import log_line, log_statistics

if TYPE_CHECKING:
    from headrace.kafka.client.native.producer import NativeProducer

OLDEST = (2, 5)
"""Of librdkafka: what confluent-kafka's own lower bound brings."""

NEXT = (3, 0)
"""Of librdkafka, which may lay out its structures in another way."""


class NativeUnavailableError(Exception):
    """The native client cannot be used here; the message says why."""


class NativeClient:
    """Makes clients on librdkafka's C API. Raises `NativeUnavailableError` where that is not to be had."""

    def __init__(self) -> None:
        try:
            from headrace.kafka.client.native import _librdkafka
        except ImportError as error:
            raise NativeUnavailableError(f"its extension is not built for this Python ({error})") from None
        from confluent_kafka import cimpl

        try:
            number, version = _librdkafka.load(cimpl.__file__)
        except OSError as error:
            raise NativeUnavailableError(str(error)) from None
        if not OLDEST <= (number >> 24, number >> 16 & 0xFF) < NEXT:
            oldest, following = (".".join(map(str, one)) for one in (OLDEST, NEXT))
            raise NativeUnavailableError(
                f"it needs librdkafka {oldest} or newer, but below {following}, and confluent-kafka has {version}"
            )
        self.version = version
        """Of librdkafka."""

    def consumer(
        self,
        settings: Settings,
        *,
        with_text: bool = False,
        whole_records: bool = False,
        token: TokenSource | None = None,
        on_statistics: OnStatistics | None = None,
    ) -> Consumer:
        from headrace.kafka.client.native import _librdkafka

        return _librdkafka.Consumer(
            {**settings, "log_level": "4", "enable.partition.eof": "true"},
            with_text=with_text,
            whole_records=whole_records,
            on_token=token,
            on_statistics=on_statistics or log_statistics,
            on_log=log_line,
        )

    def producer(
        self, settings: Settings, *, token: TokenSource | None = None, on_statistics: OnStatistics | None = None
    ) -> NativeProducer:
        from headrace.kafka.client.native.producer import NativeProducer

        return NativeProducer({**settings, "log_level": "4"}, token, on_statistics)

    def admin(self, settings: Settings, timeout_s: float, *, token: TokenSource | None = None) -> PureAdmin:
        return PureAdmin(settings, timeout_s, token)

    def murmur2_partitions(self, keys: Sequence[bytes], partition_count: int) -> list[int]:
        from headrace.kafka.client.native import _librdkafka

        return _librdkafka.murmur2_partitions(keys, partition_count)
