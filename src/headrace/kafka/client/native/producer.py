"""Writing, with and without transactions, on a handle of librdkafka."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence

from headrace.kafka.client.native import _librdkafka
from headrace.kafka.client.protocol import (
    ClientError,
    ClientFailed,
    Failure,
    KafkaTopicPartition,
    OnStatistics,
    ProducerRecord,
    Settings,
    TokenSource,
)
from headrace.kafka.client.pure.group import TRANSACTION_CALL_S, Stuck
from headrace.kafka.client.reports import (
    STUCK,
    WAIT_SLICE_S,
    Reports,
    call_unless_stuck,
    log_line,
    log_statistics,
    with_cause,
)

FLUSH_SLICE_S = 0.002
"""Between these deliveries are heard of, which a flush waits for."""


class NativeProducer:
    """`Producer` on `_librdkafka.Producer`: what that says beside its calls is kept, and told as causes."""

    def __init__(
        self, settings: Settings, token: TokenSource | None = None, on_statistics: OnStatistics | None = None
    ) -> None:
        self._settings = settings
        self._token = token
        self._reports = Reports()
        self._is_stuck = False
        self._handle = _librdkafka.Producer(
            settings, on_token=token, on_statistics=on_statistics or log_statistics, on_log=log_line
        )

    def produce(
        self,
        topic: str,
        values: Sequence[bytes | None],
        keys: Sequence[bytes | None] | None = None,
        timestamps: Sequence[int] | None = None,
        partitions: Sequence[int] | None = None,
    ) -> None:
        told = self._handle.produce(topic, values, keys, timestamps, partitions)
        self._reports.handed_over += len(values)
        if told:
            self._hear(told)

    def produce_records(self, records: Sequence[ProducerRecord]) -> None:
        told = self._handle.produce_records(records)
        self._reports.handed_over += len(records)
        if told:
            self._hear(told)

    def _hear(self, told: Sequence[Failure | ClientFailed]) -> None:
        fatal: Failure | None = None
        for one in told:
            if isinstance(one, ClientFailed):
                self._reports.hear(one.failure)
                fatal = one.failure if one.failure.is_fatal else fatal
            else:
                self._reports.failures.append(one)
        if fatal is not None:
            raise ClientError(fatal)
        self._reports.raise_hopeless(lambda: self._handle.flush(0.0))

    def partitions(self, topic: str, timeout_s: float) -> tuple[int, ...]:
        deadline, slice_s = time.monotonic() + timeout_s, WAIT_SLICE_S
        while True:
            # A token may be wanted first.
            self.poll()
            begun = time.monotonic()
            slice_s = min(slice_s, max(0.0, deadline - begun))
            try:
                return tuple(sorted(self._handle.partitions(topic, slice_s)))
            except ClientError as error:
                if time.monotonic() - begun < slice_s or time.monotonic() >= deadline:
                    raise ClientError(with_cause(error.failure, self._reports)) from None
            # An answer that comes later than that is thrown away.
            slice_s *= 2

    def poll(self) -> None:
        if told := self._handle.events():
            self._hear(told)

    def flush(self, timeout_s: float) -> int:
        deadline = time.monotonic() + timeout_s
        while True:
            # A record counts until its delivery is heard of.
            self.poll()
            left = self._handle.flush(min(FLUSH_SLICE_S, max(0.0, deadline - time.monotonic())))
            if not left or time.monotonic() >= deadline:
                return left

    def take_failures(self) -> list[Failure]:
        return self._reports.take_failures()

    def _in_slices(self, call: Callable[[float], None], timeout_s: float) -> None:
        """Make a call that can be made again, for short times, and hear between them of what it has to wait for:
        deliveries, tokens that are wanted."""
        deadline = time.monotonic() + timeout_s
        self.poll()
        while True:
            begun = time.monotonic()
            slice_s = min(WAIT_SLICE_S, max(0.0, deadline - begun))
            try:
                return call(slice_s)
            except ClientError as error:
                # What was fatal is told by the call itself.
                with contextlib.suppress(ClientError):
                    self.poll()
                # It may say why it had to wait (the coordinator is loading) instead of that its time was over.
                is_over = error.failure.is_retriable and time.monotonic() - begun >= slice_s
                if not is_over or time.monotonic() >= deadline:
                    raise ClientError(with_cause(error.failure, self._reports)) from None

    def init_transactions(self, timeout_s: float) -> None:
        self._in_slices(self._handle.init_transactions, timeout_s)
        self._reports.has_succeeded = True

    def begin_transaction(self) -> None:
        self._handle.begin_transaction()

    def send_offsets(self, group: str, partition: KafkaTopicPartition, offset: int, metadata: str) -> None:
        # Also if something else ends the wait: the thread keeps the handle as long as it is in the call.
        self._is_stuck = True
        try:
            call_unless_stuck(
                lambda: self._handle.send_offsets(group, partition, offset, metadata, TRANSACTION_CALL_S),
                Stuck(self._settings, group, partition, self._token).is_stuck,
            )
        except ClientError as error:
            self._is_stuck = error.failure.name == STUCK
            raise ClientError(with_cause(error.failure, self._reports)) from None
        except ValueError:
            # It was closed before.
            self._is_stuck = False
            raise
        self._is_stuck = False

    def commit_transaction(self, timeout_s: float) -> None:
        self._in_slices(self._handle.commit_transaction, timeout_s)

    def abort_transaction(self, timeout_s: float) -> None:
        if self._is_stuck:
            raise ClientError(Failure(STUCK, "the client is still in a call"))
        self._in_slices(self._handle.abort_transaction, timeout_s)

    def close(self) -> None:
        if not self._is_stuck:
            self._handle.close()
