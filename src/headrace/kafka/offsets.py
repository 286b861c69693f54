"""Where reading starts and stops: `KafkaOffsetsInitializer`, and how one becomes a number for each partition.

Theory of operation. The enumerator asks the cluster for what `needs` names, and `resolve` decides: offsets in a split
are always numbers, so that what a checkpoint stores means the same when it is read (a `latest` resolved twice loses
what came between, FLINK-28303). `reset` is the one rule for a position that the log does not hold.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Final, TypeAlias, assert_never

from headrace.errors import ConfigError, ExternalError, HeadraceError, InternalError, UserCodeError
from headrace.kafka.client.protocol import ClientError, KafkaTopicPartition

LATEST_OFFSET: Final = -1
"""In place of an offset, as in Flink: behind the last record."""

EARLIEST_OFFSET: Final = -2
"""In place of an offset, as in Flink: the first record. Nothing can stop there."""

COMMITTED_OFFSET: Final = -3
"""In place of an offset, as in Flink: what is committed to the group."""


class KafkaOffsetResetStrategy(Enum):
    """Where to go on when there is no position, or the log does not hold it any more."""

    LATEST = 0
    EARLIEST = 1
    NONE = 2


@dataclass(frozen=True, slots=True)
class Earliest:
    """The first record that is still there."""


@dataclass(frozen=True, slots=True)
class Latest:
    """Behind the last record there is."""


@dataclass(frozen=True, slots=True)
class Committed:
    """What is committed to the group."""


@dataclass(frozen=True, slots=True)
class AtTime:
    """The first record that is not older than this."""

    timestamp_ms: int


@dataclass(frozen=True, slots=True)
class Given:
    """These offsets; for other partitions what is committed to the group, if there is one."""

    offsets: tuple[tuple[KafkaTopicPartition, int], ...]


class PartitionOffsetsRetriever(ABC):
    """What an `OffsetsInitializer` may ask of the source's cluster. Partitions without such an offset are left out."""

    @abstractmethod
    def committed_offsets(self, partitions: Iterable[KafkaTopicPartition]) -> Mapping[KafkaTopicPartition, int]:
        """What is committed to the source's group. Raises `ConfigError` if it has none."""

    @abstractmethod
    def end_offsets(self, partitions: Iterable[KafkaTopicPartition]) -> Mapping[KafkaTopicPartition, int]:
        """Behind the last record of each."""

    @abstractmethod
    def beginning_offsets(self, partitions: Iterable[KafkaTopicPartition]) -> Mapping[KafkaTopicPartition, int]:
        """The first record of each that is still there."""

    @abstractmethod
    def offsets_for_times(
        self, timestamps_to_search: Mapping[KafkaTopicPartition, int]
    ) -> Mapping[KafkaTopicPartition, int]:
        """The first record of each that is not older than its time in ms."""


class OffsetsInitializer(ABC):
    """Decides where partitions start or stop, in place of a `KafkaOffsetsInitializer`. *Extension*: Java's interface.

    >>> class LastHundred(OffsetsInitializer):
    ...     def get_partition_offsets(
    ...         self, partitions: Sequence[KafkaTopicPartition], partition_offsets_retriever: PartitionOffsetsRetriever
    ...     ) -> Mapping[KafkaTopicPartition, int]:
    ...         ends = partition_offsets_retriever.end_offsets(partitions)
    ...         return {partition: max(0, end - 100) for partition, end in ends.items()}
    """

    @abstractmethod
    def get_partition_offsets(
        self, partitions: Sequence[KafkaTopicPartition], partition_offsets_retriever: PartitionOffsetsRetriever
    ) -> Mapping[KafkaTopicPartition, int]:
        """An offset for each of these partitions.

        Also -1 (its end), -2 (its beginning; not as a stop) or -3 (what is committed to the group). A partition that is
        left out is an error where it starts, and has no end where it would stop.
        """

    def get_auto_offset_reset_strategy(self) -> KafkaOffsetResetStrategy:
        """Where to go on if a log does not hold the offset."""
        return KafkaOffsetResetStrategy.EARLIEST


@dataclass(frozen=True, slots=True)
class Custom:
    """What the program's own initializer says."""

    initializer: OffsetsInitializer

    def ask(
        self, partitions: Sequence[KafkaTopicPartition], retriever: PartitionOffsetsRetriever, *, is_stop: bool
    ) -> KafkaOffsetsInitializer:
        """The offsets it gives, as if they had been given. Raises `UserCodeError` for what it raises."""
        name = f"{type(self.initializer).__name__}.get_partition_offsets"
        try:
            offsets = dict(self.initializer.get_partition_offsets(partitions, retriever))
        except (ClientError, HeadraceError):
            raise
        except Exception as error:
            raise UserCodeError(f"`{name}` failed with {type(error).__name__}: {error}", operator=name) from error
        missing = [] if is_stop else [partition for partition in partitions if partition not in offsets]
        if missing:
            raise ConfigError(f"`{name}` has to give an offset for each partition, and gave none for {missing[0]}")
        strategy = self.initializer.get_auto_offset_reset_strategy()
        if is_stop:
            check_stops(offsets)
        return KafkaOffsetsInitializer.offsets(offsets, strategy)


Place: TypeAlias = Earliest | Latest | Committed | AtTime | Given | Custom


def _is_number(number: object) -> bool:
    return isinstance(number, int) and not isinstance(number, bool) and number.bit_length() < 64


def _checked_strategy(strategy: KafkaOffsetResetStrategy, setter: str) -> KafkaOffsetResetStrategy:
    if not isinstance(strategy, KafkaOffsetResetStrategy):
        raise ConfigError(f"`{setter}` takes a KafkaOffsetResetStrategy, got {type(strategy).__name__}")
    return strategy


@dataclass(frozen=True, slots=True)
class KafkaOffsetsInitializer:
    """Where in its partitions a source starts or stops. Made by the static methods.

    >>> KafkaOffsetsInitializer.committed_offsets(KafkaOffsetResetStrategy.EARLIEST)
    KafkaOffsetsInitializer.committed_offsets(EARLIEST)
    """

    place: Place
    reset_strategy: KafkaOffsetResetStrategy

    @staticmethod
    def committed_offsets(
        offset_reset_strategy: KafkaOffsetResetStrategy = KafkaOffsetResetStrategy.NONE,
    ) -> KafkaOffsetsInitializer:
        """What is committed to the source's group; `offset_reset_strategy` where nothing is (NONE: an error)."""
        return KafkaOffsetsInitializer(Committed(), _checked_strategy(offset_reset_strategy, "committed_offsets"))

    @staticmethod
    def timestamp(timestamp: int) -> KafkaOffsetsInitializer:
        """In each partition the first record whose timestamp in ms is not below this; its end if there is none.

        Later records may still have earlier timestamps. Raises `ConfigError` for a negative one.
        """
        if not _is_number(timestamp):
            raise ConfigError(f"`timestamp` takes milliseconds since 1970, a whole number, got {timestamp!r:.200}")
        if timestamp < 0:
            raise ConfigError(f"the timestamp {timestamp} is negative; give milliseconds since 1970")
        return KafkaOffsetsInitializer(AtTime(timestamp), KafkaOffsetResetStrategy.LATEST)

    @staticmethod
    def earliest() -> KafkaOffsetsInitializer:
        """The first record that is still there."""
        return KafkaOffsetsInitializer(Earliest(), KafkaOffsetResetStrategy.EARLIEST)

    @staticmethod
    def latest() -> KafkaOffsetsInitializer:
        """Behind the last record there is when the partition is found."""
        return KafkaOffsetsInitializer(Latest(), KafkaOffsetResetStrategy.LATEST)

    @staticmethod
    def offsets(
        offsets: Mapping[KafkaTopicPartition, int],
        offset_reset_strategy: KafkaOffsetResetStrategy = KafkaOffsetResetStrategy.EARLIEST,
    ) -> KafkaOffsetsInitializer:
        """These offsets. Other partitions take what is committed to the group, else `offset_reset_strategy`.

        *Differences from PyFlink*: NONE fails only for a partition that has no committed offset either; without a
        group id the group is not asked (FLINK-39193).
        """
        if not isinstance(offsets, Mapping):
            raise ConfigError(f"`offsets` takes a dict of partitions and offsets, got {type(offsets).__name__}")
        for partition, offset in offsets.items():
            if not isinstance(partition, KafkaTopicPartition) or not _is_number(offset):
                pair = f"{partition!r:.200}: {offset!r:.200}"
                raise ConfigError(f"`offsets` takes KafkaTopicPartition and whole numbers, and {pair} is in it")
            if offset < COMMITTED_OFFSET:
                raise ConfigError(
                    f"the offset {offset} of {partition} is negative; offsets begin with 0 (-1: its end, -2: its "
                    "beginning, -3: what is committed to the group)"
                )
        strategy = _checked_strategy(offset_reset_strategy, "offsets")
        return KafkaOffsetsInitializer(Given(tuple(sorted(offsets.items()))), strategy)

    @staticmethod
    def of(initializer: KafkaOffsetsInitializer | OffsetsInitializer, setter: str = "of") -> KafkaOffsetsInitializer:
        """*Extension*: one of the program's own, as one of these, for a builder's method."""
        if isinstance(initializer, KafkaOffsetsInitializer):
            return initializer
        if isinstance(initializer, OffsetsInitializer):
            return KafkaOffsetsInitializer(Custom(initializer), initializer.get_auto_offset_reset_strategy())
        raise ConfigError(
            f"`{setter}` takes `KafkaOffsetsInitializer.earliest()` or one of the others, or an `OffsetsInitializer` "
            f"of your own, got {type(initializer).__name__}"
        )

    @property
    def given(self) -> Mapping[KafkaTopicPartition, int]:
        """The offsets that are given by partition."""
        return dict(self.place.offsets) if isinstance(self.place, Given) else {}

    @property
    def needs_group(self) -> bool:
        """Whether it cannot do without what is committed to a group."""
        return isinstance(self.place, Committed) or COMMITTED_OFFSET in self.given.values()

    def __repr__(self) -> str:
        match self.place:
            case Earliest():
                call = "earliest()"
            case Latest():
                call = "latest()"
            case Committed():
                call = f"committed_offsets({self.reset_strategy.name})"
            case AtTime(timestamp_ms):
                call = f"timestamp({timestamp_ms})"
            case Given(offsets):
                listed = ", ".join(f"{partition}: {offset}" for partition, offset in offsets)
                call = f"offsets({{{listed}}}, {self.reset_strategy.name})"
            case Custom(initializer):
                return type(initializer).__name__
            case _:
                assert_never(self.place)
        return f"KafkaOffsetsInitializer.{call}"


@dataclass(frozen=True, slots=True)
class LogOffsets:
    """What the cluster says of one partition: its first offset, the one behind its last, and, where they were asked
    for, what the group committed and the first offset at a time."""

    start: int
    end: int
    committed: int | None = None
    at_time: int | None = None


@dataclass(frozen=True, slots=True)
class Needs:
    """What `resolve` has to know besides start and end."""

    committed: frozenset[KafkaTopicPartition] = field(default_factory=frozenset)
    timestamp_ms: int | None = None


def needs(initializer: KafkaOffsetsInitializer, partitions: frozenset[KafkaTopicPartition], has_group: bool) -> Needs:
    """What to ask the cluster for before `resolve`."""
    match initializer.place:
        case Earliest() | Latest():
            return Needs()
        case Committed():
            return Needs(committed=partitions)
        case AtTime(timestamp_ms):
            return Needs(timestamp_ms=timestamp_ms)
        case Given(offsets):
            without = partitions - {p for p, offset in offsets if offset != COMMITTED_OFFSET}
            return Needs(committed=without if has_group else frozenset())
        case Custom():
            raise InternalError("an initializer of the program's own is asked before")
        case _:
            assert_never(initializer.place)


def check_stops(offsets: Mapping[KafkaTopicPartition, int]) -> None:
    """Raises `ConfigError` for a partition that would stop at its beginning."""
    for partition, offset in offsets.items():
        if offset == EARLIEST_OFFSET:
            raise ConfigError(f"{partition} cannot stop at its earliest offset (-2): nothing of it would be read")


def resolve(initializer: KafkaOffsetsInitializer, partition: KafkaTopicPartition, log: LogOffsets) -> int:
    """The offset for a partition.

    Given and committed offsets are taken as they are, also where the log does not hold them (see `reset`).
    Raises `ExternalError` if there is none and the strategy is NONE.

    >>> resolve(KafkaOffsetsInitializer.latest(), KafkaTopicPartition("t", 0), LogOffsets(start=3, end=7))
    7
    """
    match initializer.place:
        case Earliest():
            return log.start
        case Latest():
            return log.end
        case AtTime():
            return log.end if log.at_time is None else log.at_time
        case Committed():
            offset = log.committed
        case Given(offsets):
            offset = dict(offsets).get(partition, COMMITTED_OFFSET)
            if offset < 0:
                offset = {LATEST_OFFSET: log.end, EARLIEST_OFFSET: log.start}.get(offset, log.committed)
        case Custom():
            raise InternalError("an initializer of the program's own is asked before")
        case _:
            assert_never(initializer.place)
    if offset is not None:
        return offset
    match initializer.reset_strategy:
        case KafkaOffsetResetStrategy.EARLIEST:
            return log.start
        case KafkaOffsetResetStrategy.LATEST:
            return log.end
        case KafkaOffsetResetStrategy.NONE:
            raise ExternalError(
                f"there is no offset for {partition}: none is given and none is committed to the group; give "
                "`committed_offsets` or `offsets` a KafkaOffsetResetStrategy of EARLIEST or LATEST",
                retriable=False,
            )
        case _:
            assert_never(initializer.reset_strategy)


@dataclass(frozen=True, slots=True)
class Reset:
    """A position moved; `reason` says from where, what that skips, and why, for a warning. None: nothing is skipped."""

    offset: int
    reason: str | None


def reset(
    partition: KafkaTopicPartition,
    position: int,
    log: LogOffsets,
    strategy: KafkaOffsetResetStrategy,
    *,
    is_start: bool = False,
    was_recreated: bool = False,
) -> Reset | None:
    """Where to go on, if the log does not hold `position`; None if it does.

    `is_start`: nothing has been read yet, and the position is the log's start of a moment ago, which retention may
    move; following it skips nothing that the program asked for. `was_recreated`: the log is another one, whatever its
    offsets. Raises `ExternalError` if the strategy is NONE.

    >>> gone = reset(KafkaTopicPartition("t", 0), 5, LogOffsets(8, 20), KafkaOffsetResetStrategy.EARLIEST)
    >>> gone.offset, gone.reason
    (8, 'offsets 5 to 7 of t-0 are gone (its log now holds 8 to 19): 3 records were not read; going on at offset 8')
    """
    if log.start <= position <= log.end and not was_recreated:
        return None
    if is_start and position < log.start and not was_recreated:
        return Reset(log.start, None)
    held = f"now holds {log.start} to {log.end - 1}" if log.end > log.start else f"is now empty at offset {log.end}"
    if was_recreated:
        what = (
            f"topic {partition.topic} was deleted and created again, so offset {position} of {partition} means nothing"
        )
        lost = "records of the old topic from there on were not read"
    elif position < log.start:
        what = f"offsets {position} to {log.start - 1} of {partition} are gone"
        lost = f"{log.start - position} records were not read"
    else:
        what = f"offset {position} of {partition} is beyond its log"
        lost = "its topic was created again, or lost its end"
    what = f"{what} (its log {held})"
    match strategy:
        case KafkaOffsetResetStrategy.EARLIEST:
            return Reset(log.start, f"{what}: {lost}; going on at offset {log.start}")
        case KafkaOffsetResetStrategy.LATEST:
            skipped = f", skipping the {log.end - log.start} records that it holds" if log.end > log.start else ""
            return Reset(log.end, f"{what}: {lost}; going on at its end, offset {log.end}{skipped}")
        case KafkaOffsetResetStrategy.NONE:
            raise ExternalError(
                f"{what}: {lost}. Start with another position, or set `auto.offset.reset` to earliest or latest to "
                "accept the loss",
                retriable=False,
            )
        case _:
            assert_never(strategy)
