from __future__ import annotations

import threading
from typing import Any

import pytest

from headrace.connector import SinkWriter, SourceContext, WriterContext
from headrace.connector.builtin import Collected, CollectionSource, CollectionSplit, CollectSink, PrintSink
from headrace.errors import StateError

SOURCE_CONTEXT = SourceContext("job", "op", 0, 1, commits_offsets=False)


def writer_of(sink: PrintSink | CollectSink, subtask: int = 0, parallelism: int = 1) -> SinkWriter:
    return sink.create_writer(WriterContext("job", "op", subtask, parallelism), None)


def test_a_collection_is_read_in_order_and_then_finished() -> None:
    source = CollectionSource(("a", "b", "c"))
    reader = source.create_reader(SOURCE_CONTEXT)
    reader.add_splits(source.create_enumerator(SOURCE_CONTEXT).start(None))
    (first,) = reader.poll(2, 0)
    assert (first.values, first.timestamps, reader.is_finished("collection")) == (["a", "b"], None, False)
    (second,) = reader.poll(2, 0)
    assert (second.values, reader.is_finished("collection")) == (["c"], True)
    assert list(reader.poll(2, 0)) == []
    assert second.origin.describe(0) == "element 2 of the collection: 'c'"


def test_a_position_is_behind_what_was_processed_and_not_behind_what_was_read() -> None:
    source = CollectionSource(tuple(range(10)))
    reader = source.create_reader(SOURCE_CONTEXT)
    reader.add_splits([CollectionSplit(3)])
    (batch,) = reader.poll(5, 0)
    assert reader.snapshot() == [CollectionSplit(3)]
    batch.origin.advance(2)
    assert reader.snapshot() == [CollectionSplit(5)]


def test_a_restored_collection_goes_on_at_its_position() -> None:
    source = CollectionSource((1, 2, 3))
    stored = source.encode_split(CollectionSplit(2))
    enumerator = source.create_enumerator(SOURCE_CONTEXT)
    reader = source.create_reader(SOURCE_CONTEXT)
    reader.add_splits(enumerator.start([source.decode_split(stored)]))
    assert [batch.values for batch in reader.poll(10, 0)] == [[3]]


@pytest.mark.parametrize("data", [{}, {"position": -1}, {"position": "2"}])
def test_a_position_that_cannot_be_read_is_a_state_error(data: dict[str, Any]) -> None:
    with pytest.raises(StateError, match="position in a collection"):
        CollectionSource(()).decode_split(data)


def test_a_function_that_changes_an_element_does_not_change_what_is_read_again() -> None:
    source = CollectionSource(([1],))
    for _ in range(2):
        reader = source.create_reader(SOURCE_CONTEXT)
        reader.add_splits([CollectionSplit(0)])
        (batch,) = reader.poll(1, 0)
        assert batch.values == [[1]]
        batch.values[0].append(2)


@pytest.mark.parametrize(
    ("identifier", "parallelism", "line"), [("", 1, "x"), ("id", 1, "id> x"), ("", 2, "2> x"), ("id", 2, "id:2> x")]
)
def test_printed_lines_begin_as_flinks(
    capsys: pytest.CaptureFixture[str], identifier: str, parallelism: int, line: str
) -> None:
    writer_of(PrintSink(identifier), subtask=1, parallelism=parallelism).write(["x", None], None)
    assert capsys.readouterr().out.splitlines() == [line, line.replace("x", "None")]


def test_elements_are_collected() -> None:
    collected = Collected()
    writer_of(CollectSink(collected, on_checkpoint=False)).write([1, 2], None)
    assert collected.take() == [1, 2]


def test_the_job_waits_while_the_program_has_enough_to_take() -> None:
    collected = Collected(capacity=2)
    collected.put([1, 2])
    put_more = threading.Thread(target=collected.put, args=([3],))
    put_more.start()
    assert collected.take() == [1, 2]
    put_more.join(10)
    assert collected.take() == [3]


def test_a_job_that_waits_goes_on_when_the_program_takes_nothing_more() -> None:
    collected = Collected(capacity=1)
    collected.put([1])
    put_more = threading.Thread(target=collected.put, args=([2],), daemon=True)
    put_more.start()
    collected.abandon()
    put_more.join(10)
    assert not put_more.is_alive()


def test_what_nobody_takes_any_more_is_dropped_and_holds_nothing_up() -> None:
    collected = Collected(capacity=1)
    collected.put([1])
    collected.abandon()
    collected.put([2])
    collected.end()
    collected.wait_for_end()
    assert collected.take() is None
