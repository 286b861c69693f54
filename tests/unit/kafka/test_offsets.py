"""How starting and stopping offsets become numbers, and what happens when a log does not hold a position."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.errors import ConfigError, ExternalError
from headrace.kafka import KafkaOffsetResetStrategy, KafkaOffsetsInitializer, KafkaTopicPartition
from headrace.kafka.offsets import LogOffsets, Needs, needs, reset, resolve

P0, P1 = KafkaTopicPartition("t", 0), KafkaTopicPartition("t", 1)
EARLIEST, LATEST, NONE = (
    KafkaOffsetResetStrategy.EARLIEST,
    KafkaOffsetResetStrategy.LATEST,
    KafkaOffsetResetStrategy.NONE,
)
LOG = LogOffsets(start=10, end=20)


@pytest.mark.parametrize(
    ("initializer", "log", "offset"),
    [
        (KafkaOffsetsInitializer.earliest(), LOG, 10),
        (KafkaOffsetsInitializer.latest(), LOG, 20),
        (KafkaOffsetsInitializer.timestamp(5), LogOffsets(10, 20, at_time=13), 13),
        (KafkaOffsetsInitializer.timestamp(5), LOG, 20),
        (KafkaOffsetsInitializer.committed_offsets(), LogOffsets(10, 20, committed=12), 12),
        (KafkaOffsetsInitializer.committed_offsets(EARLIEST), LOG, 10),
        (KafkaOffsetsInitializer.committed_offsets(LATEST), LOG, 20),
        (KafkaOffsetsInitializer.offsets({P0: 15}), LOG, 15),
        (KafkaOffsetsInitializer.offsets({P0: 15}), LogOffsets(10, 20, committed=12), 15),
        (KafkaOffsetsInitializer.offsets({P1: 15}), LogOffsets(10, 20, committed=12), 12),
        (KafkaOffsetsInitializer.offsets({P1: 15}), LOG, 10),
        (KafkaOffsetsInitializer.offsets({P1: 15}, LATEST), LOG, 20),
        (KafkaOffsetsInitializer.offsets({P1: 15}, NONE), LogOffsets(10, 20, committed=12), 12),
    ],
)
def test_offsets_are_resolved_as_flink_does(initializer: KafkaOffsetsInitializer, log: LogOffsets, offset: int) -> None:
    assert resolve(initializer, P0, log) == offset


@pytest.mark.parametrize(
    "initializer", [KafkaOffsetsInitializer.committed_offsets(), KafkaOffsetsInitializer.offsets({P1: 1}, NONE)]
)
def test_a_partition_without_any_offset_is_refused_by_name(initializer: KafkaOffsetsInitializer) -> None:
    with pytest.raises(ExternalError, match=r"no offset for t-0.*KafkaOffsetResetStrategy"):
        resolve(initializer, P0, LOG)


def test_only_what_is_needed_is_asked_for() -> None:
    both = frozenset({P0, P1})
    assert needs(KafkaOffsetsInitializer.latest(), both, True) == Needs()
    assert needs(KafkaOffsetsInitializer.timestamp(7), both, True) == Needs(timestamp_ms=7)
    assert needs(KafkaOffsetsInitializer.committed_offsets(), both, True) == Needs(committed=both)
    assert needs(KafkaOffsetsInitializer.offsets({P0: 1}), both, True) == Needs(committed=frozenset({P1}))
    assert needs(KafkaOffsetsInitializer.offsets({P0: 1}), both, False) == Needs()


@pytest.mark.parametrize("position", [10, 15, 20])
def test_a_position_that_the_log_holds_stays(position: int) -> None:
    assert reset(P0, position, LOG, NONE) is None


def test_trimmed_records_are_named_and_the_strategy_is_applied() -> None:
    moved = reset(P0, 4, LOG, EARLIEST)
    assert moved is not None
    assert moved.offset == 10
    assert moved.reason is not None
    assert "offsets 4 to 9 of t-0 are gone" in moved.reason
    assert "6 records were not read" in moved.reason
    latest = reset(P0, 4, LOG, LATEST)
    assert latest is not None
    assert latest.offset == 20
    assert latest.reason is not None
    assert "skipping the 10 records that it holds" in latest.reason


@pytest.mark.parametrize(("position", "was_recreated"), [(4, False), (21, False), (15, True)])
def test_without_a_strategy_a_lost_position_is_an_error_that_names_it(position: int, was_recreated: bool) -> None:
    with pytest.raises(ExternalError, match=rf"{position} .*of t-0|offset {position} of t-0") as raised:
        reset(P0, position, LOG, NONE, was_recreated=was_recreated)
    assert not raised.value.retriable
    assert "holds 10 to 19" in str(raised.value)


def test_an_unread_start_follows_the_start_of_its_log_in_silence() -> None:
    moved = reset(P0, 4, LOG, NONE, is_start=True)
    assert moved is not None
    assert (moved.offset, moved.reason) == (10, None)


def test_a_recreated_topic_is_read_from_its_start_although_the_offset_exists() -> None:
    moved = reset(P0, 15, LOG, EARLIEST, was_recreated=True)
    assert moved is not None
    assert moved.offset == 10
    assert moved.reason is not None
    assert "deleted and created again" in moved.reason


@given(
    st.integers(0, 50),
    st.integers(0, 50),
    st.integers(0, 50),
    st.sampled_from([EARLIEST, LATEST]),
    st.booleans(),
    st.booleans(),
)
def test_reset_always_lands_in_the_log_and_tells_of_every_gap(
    position: int, start: int, size: int, strategy: KafkaOffsetResetStrategy, is_start: bool, was_recreated: bool
) -> None:
    log = LogOffsets(start, start + size)
    moved = reset(P0, position, log, strategy, is_start=is_start, was_recreated=was_recreated)
    offset = position if moved is None else moved.offset
    assert log.start <= offset <= log.end
    if moved is not None and moved.reason is None:
        assert is_start
        assert moved.offset == log.start


def test_impossible_offsets_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"-4 of t-0 is negative"):
        KafkaOffsetsInitializer.offsets({P0: -4})
    with pytest.raises(ConfigError, match=r"timestamp -5 is negative"):
        KafkaOffsetsInitializer.timestamp(-5)
