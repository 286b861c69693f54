"""What becomes of a record that an operator fails on: the job fails, the record is dropped, or it is a dead letter."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from headrace.connector.batch import OriginalRecord
from headrace.connector.sink import DeliveryGuarantee, Sink
from headrace.errors import ConfigError, DataError


@dataclass(frozen=True)
class ErrorPolicy:
    """What becomes of a record that an operator fails on. *Extension*: in Flink the job fails, and fails again.

    >>> ErrorPolicy.drop()
    ErrorPolicy.drop()
    >>> from headrace.connector.builtin import PrintSink
    >>> ErrorPolicy.dead_letter(PrintSink())
    ErrorPolicy.dead_letter(PrintSink(identifier=''))

    Given to `DataStream.on_error`, `DataStreamSink.on_error`, or, for all operators, to
    `StreamExecutionEnvironment.on_error`. Results of a record go out whole or not at all: what came of it before the
    failure is withdrawn. What it has changed in keyed state by then stays. A broker or a service that does not answer
    (`ExternalError`) and a wrong setting (`ConfigError`) are no fault of a record, and always fail the job.
    """

    tolerates: bool
    sink: Sink | None = None

    @staticmethod
    def fail() -> ErrorPolicy:
        """The job fails and restarts by its restart strategy. What holds where nothing else is said."""
        return ErrorPolicy(False)

    @staticmethod
    def drop() -> ErrorPolicy:
        """The record is dropped, counted and logged."""
        return ErrorPolicy(True)

    @staticmethod
    def dead_letter(sink: Sink) -> ErrorPolicy:
        """The record goes to `sink`, as a `DeadLetter`; under EXACTLY_ONCE in one transaction with the results.

        A `KafkaSink` writes it with a `DeadLetterSerializationSchema`, byte for byte as it was read. Raises
        `ConfigError` for a sink that might lose it.
        """
        if not isinstance(sink, Sink):
            raise ConfigError(f"`ErrorPolicy.dead_letter` takes a sink, got {sink!r:.200}")
        if sink.delivery_guarantee is DeliveryGuarantee.NONE:
            raise ConfigError(
                "the sink for dead letters has DeliveryGuarantee.NONE and might lose them; give it AT_LEAST_ONCE, or "
                "EXACTLY_ONCE where the results have that"
            )
        return ErrorPolicy(True, sink)

    def __repr__(self) -> str:
        if self.sink is not None:
            return f"ErrorPolicy.dead_letter({self.sink!r})"
        return f"ErrorPolicy.{'drop' if self.tolerates else 'fail'}()"


class Stage(Enum):
    """Where a record failed. *Extension*."""

    DESERIALIZATION = "deserialization"
    FUNCTION = "function"
    SERIALIZATION = "serialization"
    SIZE = "size"


class RecordTooLarge(DataError):
    """What was made of a record is larger than the outside takes."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A record that an operator failed on, with what happened. *Extension*.

    `exception` is the name of the exception's class. `checkpoint` is the number of the snapshot that the job went on
    from, or of the last checkpoint that had begun since; `attempt` counts the restarts of the run, `failed_at` is ms
    since the epoch.
    """

    record: OriginalRecord
    stage: Stage
    operator: str
    exception: str
    message: str
    job: str
    checkpoint: int | None
    attempt: int
    failed_at: int
