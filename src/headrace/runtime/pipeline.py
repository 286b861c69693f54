"""One source at work: its reader, its loop, the watermarks of its splits, and the writers below it.

A pipeline runs in steps of about 50 ms of work, whatever the user's functions cost, so that barriers, timers and
signals are never kept waiting: it starts with few records, grows while they are quick, and looks at the clock after
every slice.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from itertools import repeat
from types import TracebackType
from typing import Any

from headrace.common.watermark_strategy import Alignment
from headrace.connector import Batch, DeadLetter, RecordTooLarge, SinkWriter, SourceReader
from headrace.errors import ConfigError, DataError
from headrace.plan.graph import Node, Plan, ReadSource
from headrace.runtime.failures import Failures, blamed, is_of_the_record, reason, stage
from headrace.runtime.loop import DESERIALIZER, Loop
from headrace.runtime.operators import generator_supplier
from headrace.runtime.watermarks import NO_TIMESTAMP, Progress, Watermarks, combine, watermarks_of

STEP_S = 0.05
"""Work between two looks at the mail."""

MAX_RECORDS = 500
"""Records per poll. 500 beats 5,000 by a quarter: they stay in the cache, and young for the garbage collector."""

MAX_SLICE = 250
"""Records between two looks at the clock: what a function that becomes slow all at once can cost."""


def next_batch_size(size: int, records: int, elapsed_s: float) -> int:
    """How many records to take next, after `records` took `elapsed_s`: what fits into a step, at most twice `size`.

    >>> next_batch_size(16, 16, 0.0001), next_batch_size(400, 100, 5.0)
    (32, 1)
    """
    fitting = int(records * STEP_S / elapsed_s) if elapsed_s > 0 else MAX_RECORDS
    return max(1, min(fitting, size * 2, MAX_RECORDS))


def never() -> bool:
    """Nobody calls."""
    return False


class Pipeline:
    """A source of the plan, with everything below it. `writers` are shared with pipelines above the same sinks."""

    def __init__(
        self,
        plan: Plan,
        node: Node,
        reader: SourceReader,
        loop: Loop,
        writers: Mapping[int, SinkWriter],
        clock: Callable[[], float],
        failures: Failures,
    ) -> None:
        assert isinstance(node.operator, ReadSource)
        self.node = node
        self.reader = reader
        self._plan = plan
        self._loop = loop
        self._writers = writers
        self._clock = clock
        self._failures = failures
        self._ends = node.operator.source.ends
        self._strategy = node.operator.watermark_strategy
        self._takes_given_time = (
            self._strategy.out_of_orderness_ms is not None and self._strategy.timestamp_assigner is None
        )
        self._generator_supplier = generator_supplier(self._strategy, node.name)
        self._generators: dict[str, Watermarks] = {}
        self._reached: dict[str, Progress] = {}
        self._paused: set[str] = set()
        self._active: set[str] = set()
        self._pending: deque[Batch] = deque()
        self._start = 0
        # One at first: nobody knows what the functions cost.
        self._size = 1
        dead_letters = {n.dead_letters for n in plan if n.dead_letters is not None}
        self._outputs: dict[int, tuple[list[Any], list[int]]] = {n: ([], []) for n in (*loop.sinks, *dead_letters)}
        self.records_in = 0
        self.written = dict.fromkeys(self._outputs, 0)
        """Records by sink."""
        self.idle_since: float | None = None
        """Since when nothing has come, by the clock."""
        self._last: tuple[Watermarks, int] | None = None

    @property
    def records_out(self) -> int:
        """Records handed to writers."""
        return sum(self.written.values())

    @property
    def last_timestamp(self) -> int | None:
        """The timestamp of the last record that was processed, in ms; with an assigner of the program's own the highest
        of its split. None: there is none."""
        if self._last is None:
            return None
        generator, given = self._last
        timestamp = given if self._strategy.timestamp_assigner is None else generator.max_timestamp
        return None if timestamp < 0 else timestamp

    def add_splits(self, splits: Sequence[Any]) -> None:
        """Read these splits too."""
        self.reader.add_splits(splits)
        for split in splits:
            self._generators[split.split_id] = watermarks_of(self._strategy, self._generator_supplier, self.node.name)

    @property
    def is_finished(self) -> bool:
        """Whether every split has been read to its end and everything read has been processed."""
        return self._ends and not self._pending and all(map(self.reader.is_finished, self._generators))

    def step(self, timeout_s: float, is_called: Callable[[], bool] = never) -> bool:
        """Work for about `STEP_S`, or until `is_called`, which is asked now and then. Waits at most `timeout_s` for the
        first record. False: nothing came."""
        deadline, has_worked = self._clock() + STEP_S, False
        while True:
            if not self._pending:
                self._pending.extend(self.reader.poll(self._size, 0 if has_worked else timeout_s))
                if not self._pending:
                    if not has_worked and self.idle_since is None:
                        self.idle_since = self._clock()
                    return has_worked
                if not has_worked:
                    deadline = self._clock() + STEP_S
            has_worked = True
            if not self._process(self._pending[0], deadline, is_called):
                return True
            self._pending.popleft()
            self._start = 0
            if self._clock() >= deadline or is_called():
                return True

    def progress(self, now_ms: float) -> Progress:
        """How far this source has come in event time, over all splits that are not at their end.

        A reader is finished with a split once its last records are handed out; while they wait here, it is not over.
        """
        waiting = {batch.origin.split_id for batch in self._pending}
        self._reached.clear()
        for split_id, generator in self._generators.items():
            if split_id in waiting or not self.reader.is_finished(split_id):
                # One that is paused would have more to give.
                came = split_id in self._active or split_id in self._paused
                caught_up = not came and not self._pending and self.reader.is_caught_up(split_id)
                self._reached[split_id] = generator.progress(now_ms, records_came=came, is_caught_up=caught_up)
        self._active.clear()
        return combine(self._reached.values())

    @property
    def alignment(self) -> Alignment | None:
        """How far this source's splits may run ahead of others."""
        return self._strategy.alignment

    @property
    def reached(self) -> Progress:
        """What `progress` said last."""
        return combine(self._reached.values())

    def align(self, behind: int | None, max_drift_ms: int) -> None:
        """Pause the splits that are too far ahead of where the group is `behind`, and resume the others."""
        ahead = set()
        if behind is not None:
            limit = behind + max_drift_ms
            ahead = {s for s, at in self._reached.items() if at.watermark is not None and at.watermark > limit}
        self.reader.pause_or_resume_splits(ahead - self._paused, self._paused - ahead)
        self._paused = ahead

    def _process(self, batch: Batch, deadline: float, is_called: Callable[[], bool]) -> bool:
        """Run the loop over the rest of a batch, until the deadline or a call; True when all of it is done."""
        values, timestamps, loop = batch.values, batch.timestamps, self._loop
        split_id = batch.origin.split_id
        generator = self._generators[split_id]
        self._active.add(split_id)
        self.idle_since = None
        size, position = len(values), self._start
        written = dict.fromkeys(loop.aligned, position)
        is_done = True
        while position < size:
            before = self._clock()
            stop = min(position + self._size, position + MAX_SLICE, size)
            part = values[position:stop]
            times = None if timestamps is None else timestamps[position:stop]
            if loop.passes_through:
                for n in loop.sinks:
                    self._writers[n].write(part, times)
                    self.written[n] += stop - position
            else:
                self._run(batch, part, times, generator, written, stop)
            if times is not None and self._takes_given_time:
                generator.max_timestamp = max(generator.max_timestamp, max(times))
            elapsed = self._clock() - before
            self._size = next_batch_size(self._size, stop - position, elapsed)
            position = stop
            if position < size and (before + elapsed >= deadline or is_called()):
                is_done = False
                break
        self._write(timestamps, written)
        batch.origin.advance(position)
        self.records_in += position - self._start
        self._last = (generator, NO_TIMESTAMP if timestamps is None else timestamps[position - 1])
        self._start = position
        return is_done

    def _run(
        self,
        batch: Batch,
        part: Sequence[Any],
        times: Sequence[int] | None,
        generator: Watermarks,
        written: dict[int, int],
        stop: int,
    ) -> None:
        records: Any = iter(part)
        done = 0
        while True:
            clocked = repeat(NO_TIMESTAMP) if times is None else times[done:]
            try:
                steps = self._loop.run(records, clocked, generator, self._outputs)
            except Exception as error:  # noqa: BLE001 - the user's function may raise anything
                failed: Exception | None = error
            else:
                failed = self._write_at_each(steps, batch, written) if self._loop.is_generator else None
            if failed is None:
                return
            # The same iterator goes on behind the record.
            done = len(part) - records.__length_hint__()
            self._do_without(failed, batch, stop - len(part) + done - 1)

    def _write_at_each(self, steps: Any, batch: Batch, written: dict[int, int]) -> Exception | None:
        """Write what there is at each step of a loop; what it fails with, if it does."""
        steps = iter(steps)
        while True:
            try:
                next(steps)
            except StopIteration:
                return None
            except Exception as error:  # noqa: BLE001 - the user's function may raise anything
                return error
            self._write(batch.timestamps, written)

    def _write(self, timestamps: Sequence[int] | None, written: dict[int, int]) -> None:
        for n, (elements, times) in self._outputs.items():
            if not elements:
                continue
            self.written[n] += len(elements)
            if n in written:
                first = written[n]
                written[n] = first + len(elements)
                self._writers[n].write(elements, None if timestamps is None else timestamps[first : written[n]])
            else:
                self._writers[n].write(elements, times)
                times.clear()
            elements.clear()

    def _do_without(self, error: Exception, batch: Batch, index: int) -> None:
        """Withdraw what came of the record that an operator failed on, and do with the record what the operator's
        policy says. Raises where that has the job fail, with the user's own traceback below."""
        frame, line = self._loop_frame(error), None
        cause = error.__cause__
        if frame is None and isinstance(error, RuntimeError) and isinstance(cause, StopIteration):
            # Python's own, for a loop that is a generator: a function that it called raised the other.
            frame, error = self._loop_frame(cause), cause
        if frame is not None:
            line = self._loop.node_at_line.get(frame.tb_lineno)
            error.__traceback__ = frame.tb_next
        # A line without a node is the loop's own, where records come from: as good as the deserializer's.
        deserializes = line is None or line == DESERIALIZER
        node = self.node if line is None or deserializes else self._plan.node(line)
        at = stage(node, error, deserializes=deserializes)
        if frame is None or line is None or not node.tolerates or not is_of_the_record(error):
            raise blamed(node, error, batch.origin.describe(index), at)
        marks = frame.tb_frame.f_locals
        for n in self._loop.sinks:
            for column in self._outputs[n]:
                del column[marks[f"m{n}"] :]
        self._failures.count(node, error, batch.origin, index, at)
        if node.dead_letters is not None:
            self._put_dead_letter(node.dead_letters, self._failures.dead_letter(node, error, batch.origin, index, at))

    def _loop_frame(self, error: BaseException) -> TracebackType | None:
        """The loop's own frame in a traceback."""
        frame = error.__traceback__
        while frame is not None and frame.tb_frame.f_code is not self._loop.run.__code__:
            frame = frame.tb_next
        return frame

    def _put_dead_letter(self, n: int, letter: DeadLetter) -> None:
        writer, record, (elements, times) = self._writers[n], letter.record, self._outputs[n]
        timestamp = NO_TIMESTAMP if record.timestamp is None else record.timestamp
        element: Any = letter
        if writer.serialize is not None:
            try:
                element = (
                    writer.serialize(letter, timestamp) if writer.serializes_timestamp else writer.serialize(letter)
                )
            except Exception as error:
                if not is_of_the_record(error):
                    raise
                at = f"topic {record.topic}, partition {record.partition}, offset {record.offset}"
                where = "an element" if record.is_element else f"the record at {at}"
                message = (
                    f"`{letter.operator}` failed on {where} ({letter.message}), and the dead letter cannot be written: "
                    f"{reason(error)}"
                )
                if isinstance(error, RecordTooLarge):
                    raise DataError(message) from error
                # No restart helps.
                cure = "its sink has to take a `DeadLetter`, as a KafkaSink does with a `DeadLetterSerializationSchema`"
                raise ConfigError(f"{message}; {cure}") from error
        elements.append(element)
        times.append(timestamp)
