"""Writing, with and without transactions, on a handle of librdkafka."""

from __future__ import annotations

from collections.abc import Sequence

from headrace.kafka.client.native import _librdkafka
from headrace.kafka.client.protocol import (
    ClientError,
    ClientFailed,
    Failure,
    Headers,
    KafkaTopicPartition,
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


class NativeProducer:
    """`Producer` on `_librdkafka.Producer`: what that says beside its calls is kept, and told as causes."""

    def __init__(self, settings: Settings, token: TokenSource | None = None) -> None:
        self._settings = settings
        self._token = token
        self._reports = Reports()
        self._is_stuck = False
        self._handle = _librdkafka.Producer(settings, on_token=token, on_statistics=log_statistics, on_log=log_line)

    def produce(
        self,
        topic: str,
        values: Sequence[bytes | None],
        keys: Sequence[bytes | None] | None = None,
        timestamps: Sequence[int] | None = None,
        partitions: Sequence[int] | None = None,
        headers: Sequence[Headers] | None = None,
    ) -> None:
        if told := self._handle.produce(topic, values, keys, timestamps, partitions, headers):
            self._hear(told)

    def _hear(self, told: Sequence[Failure | ClientFailed]) -> None:
        for one in told:
            if isinstance(one, ClientFailed):
                self._reports.hear(one.failure)
            else:
                self._reports.failures.append(one)

    def poll(self) -> None:
        if told := self._handle.events():
            self._hear(told)

    def flush(self, timeout_s: float) -> int:
        left = 1
        while left and timeout_s > 0:
            # What fails counts until it is heard of.
            left = self._handle.flush(min(WAIT_SLICE_S, timeout_s))
            timeout_s -= WAIT_SLICE_S
            self.poll()
        return left

    def take_failures(self) -> list[Failure]:
        return self._reports.take_failures()

    def init_transactions(self, timeout_s: float) -> None:
        try:
            self._handle.init_transactions(timeout_s)
        except ClientError as error:
            self.poll()
            raise ClientError(with_cause(error.failure, self._reports)) from None

    def begin_transaction(self) -> None:
        self._handle.begin_transaction()

    def send_offsets(self, group: str, partition: KafkaTopicPartition, offset: int, metadata: str) -> None:
        try:
            call_unless_stuck(
                lambda: self._handle.send_offsets(group, partition, offset, metadata, TRANSACTION_CALL_S),
                Stuck(self._settings, group, partition, self._token).is_stuck,
            )
        except ClientError as error:
            # The thread keeps the handle, which nobody else can use any more.
            self._is_stuck = error.failure.name == STUCK
            raise ClientError(with_cause(error.failure, self._reports)) from None

    def commit_transaction(self, timeout_s: float) -> None:
        try:
            self._handle.commit_transaction(timeout_s)
        except ClientError as error:
            raise ClientError(with_cause(error.failure, self._reports)) from None

    def abort_transaction(self, timeout_s: float) -> None:
        if self._is_stuck:
            raise ClientError(Failure(STUCK, "the client is still in a call"))
        self._handle.abort_transaction(timeout_s)

    def close(self) -> None:
        if not self._is_stuck:
            self._handle.close()
