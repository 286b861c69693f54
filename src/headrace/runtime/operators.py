"""A user's function made ready for the loop: copied, opened with its context, bound to its state."""

from __future__ import annotations

import pickle
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any, assert_never

import cloudpickle

from headrace.checkpoint.manifest import KeyedFile
from headrace.common import WatermarkStrategy
from headrace.errors import ConfigError, InternalError, NotSupportedError, UserCodeError
from headrace.functions import (
    FilterFunction,
    FlatMapFunction,
    Function,
    KeyedProcessFunction,
    KeySelector,
    MapFunction,
    ProcessFunction,
    ReduceFunction,
    RuntimeContext,
    TimerService,
    ValueState,
    ValueStateDescriptor,
)
from headrace.metrics.metricbase import MetricGroup
from headrace.metrics.registry import unreported
from headrace.plan.graph import (
    AssignTimestamps,
    Filter,
    FlatMap,
    Map,
    Node,
    Process,
    ReadSource,
    Reduce,
    Union,
    WriteSink,
)
from headrace.plan.identity import is_keyed
from headrace.runtime.loop import Calls
from headrace.runtime.watermarks import NO_TIMESTAMP, Progress
from headrace.state.heap import HeapState
from headrace.state.key_groups import check_key

REDUCE_STATE = "_reduce"
"""The state in which a rolling reduction keeps its value; the name that Flink gives it in PyFlink."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a function runs. `attempt_number` counts the restarts of this run."""

    subtask: int
    parallelism: int
    max_parallelism: int
    attempt_number: int
    job_parameters: Mapping[str, str]


@dataclass(slots=True)
class CurrentKey:
    """The key of the element that an operator is working on; written by the loop."""

    key: Any = None


class HeapValueState(ValueState[Any]):
    """One state of one operator: the current key's entry in a dict."""

    __slots__ = ("_current", "_table")

    def __init__(self, table: dict[Any, Any], current: CurrentKey) -> None:
        self._table = table
        self._current = current

    def value(self) -> Any:
        """The current key's value, or None."""
        return self._table.get(self._current.key)

    def update(self, value: Any) -> None:
        """Set the current key's value; None clears it."""
        table, key = self._table, self._current.key
        if value is None:
            table.pop(key, None)
        else:
            if key not in table:
                check_key(key)
            table[key] = value

    def clear(self) -> None:
        """Forget the current key's value."""
        self._table.pop(self._current.key, None)


@dataclass(slots=True)
class OperatorTime(TimerService):
    """The clock that one operator sees; its watermark is written by the worker."""

    progress: Progress = field(default_factory=Progress)

    def current_processing_time(self) -> int:
        """The wall clock, in ms."""
        return int(time.time() * 1000)

    def current_watermark(self) -> int:
        """The operator's watermark, in ms; the smallest long while there is none."""
        return NO_TIMESTAMP if self.progress.watermark is None else self.progress.watermark


class ElementContext(ProcessFunction.Context, KeyedProcessFunction.Context):
    """What a process function may ask about the element at hand."""

    def __init__(self, clock: TimerService, current: CurrentKey) -> None:
        self._clock = clock
        self._current = current
        self.element_timestamp = NO_TIMESTAMP

    def timer_service(self) -> TimerService:
        """The operator's clock."""
        return self._clock

    def timestamp(self) -> int | None:
        """The element's timestamp in ms, or None if it has none."""
        return None if self.element_timestamp == NO_TIMESTAMP else self.element_timestamp

    def get_current_key(self) -> Any:
        """The key of the element."""
        return self._current.key


class SubtaskContext(RuntimeContext):
    """What `open` is given: where the function runs, and its keyed state."""

    def __init__(self, name: str, place: Place, keyed: KeyedContext | None, metrics: MetricGroup) -> None:
        self._name = name
        self._metrics = metrics
        self._place = place
        self._keyed = keyed

    def get_task_name(self) -> str:
        """The operator's name."""
        return self._name

    def get_number_of_parallel_subtasks(self) -> int:
        """The operator's parallelism."""
        return self._place.parallelism

    def get_max_number_of_parallel_subtasks(self) -> int:
        """The number of key groups, which bounds the parallelism."""
        return self._place.max_parallelism

    def get_index_of_this_subtask(self) -> int:
        """0 to parallelism - 1."""
        return self._place.subtask

    def get_attempt_number(self) -> int:
        """0 for the first attempt of this run, one more for each restart."""
        return self._place.attempt_number

    def get_task_name_with_subtasks(self) -> str:
        """As `Map (1/2)`."""
        return f"{self._name} ({self._place.subtask + 1}/{self._place.parallelism})"

    def get_job_parameter(self, key: str, default_value: str) -> Any:
        """One of the job's global parameters."""
        return self._place.job_parameters.get(key, default_value)

    def get_metrics_group(self) -> MetricGroup:
        """The operator's own group."""
        return self._metrics

    def get_state(self, state_descriptor: ValueStateDescriptor) -> ValueState[Any]:
        """The state of this name, of the current key."""
        if self._keyed is None:
            raise ConfigError("it asks for keyed state, but its input is not keyed; put `key_by` before it")
        return HeapValueState(self._keyed.backend.table(state_descriptor.name), self._keyed.current)


@dataclass(slots=True)
class KeyedContext:
    """A keyed operator's state and current key."""

    backend: HeapState
    current: CurrentKey


class OpenOperator:
    """One operator of the plan on a worker, from `open` to `close`."""

    def __init__(self, node: Node, place: Place, metrics: MetricGroup | None = None) -> None:
        self.node = node
        self.time = OperatorTime()
        self.keyed: KeyedContext | None = None
        if is_keyed(node):
            self.keyed = KeyedContext(HeapState(node.name), CurrentKey())
        self._place = place
        self._context = SubtaskContext(node.name, place, self.keyed, metrics or unreported())
        self._opened: list[Function] = []

    def restore(self, files: Iterable[KeyedFile], read: Callable[[Any], bytes]) -> None:
        """Take the keyed state of a snapshot, before `open`."""
        for keyed in files:
            if self.keyed is None:
                raise InternalError(f"`{self.node.name}` is handed keyed state, and keeps none")
            groups = range(keyed.first_group, keyed.last_group + 1)
            self.keyed.backend.restore(read(keyed.file), groups, self._place.max_parallelism)

    def open(self) -> Calls:
        """Open the user's functions and hand out what the loop calls."""
        key = None
        if self.keyed is not None:
            key = self._open_function(self.node.key_selector, KeySelector, "get_key")
        match self.node.operator:
            case Map(function):
                call = self._open_function(function, MapFunction, "map")
            case FlatMap(function):
                call = self._open_function(function, FlatMapFunction, "flat_map")
            case Filter(function):
                call = self._open_function(function, FilterFunction, "filter")
            case Reduce(function):
                call = self._open_function(function, ReduceFunction, "reduce")
                assert self.keyed is not None
                return Calls(call=call, key=key, table=self.keyed.backend.table(REDUCE_STATE))
            case Process(function):
                base = KeyedProcessFunction if self.keyed is not None else ProcessFunction
                call = self._open_function(function, base, "process_element")
                current = self.keyed.current if self.keyed is not None else CurrentKey()
                return Calls(call=call, key=key, keyed=current, context=ElementContext(self.time, current))
            case ReadSource() | Union() | AssignTimestamps() | WriteSink():
                raise InternalError(f"`{self.node.name}` has no function to open")
            case _:
                assert_never(self.node.operator)
        return Calls(call=call, key=key, keyed=self.keyed.current if self.keyed is not None else None)

    def close(self) -> None:
        """Close the user's functions, the last opened first."""
        while self._opened:
            function = self._opened.pop()
            try:
                function.close()
            except Exception as error:
                raise UserCodeError(
                    f"`{self.node.name}` failed in close(): {error!r}", operator=self.node.name
                ) from error

    def _open_function(self, function: Any, base: type[Function], method: str) -> Callable[..., Any]:
        """A fresh copy of the user's function, opened."""
        own = _copied(function, f"the function of `{self.node.name}`", "create that in `open()`")
        if not isinstance(own, base):
            return own  # type: ignore[no-any-return]
        try:
            own.open(self._context)
        except Exception as error:
            error.__traceback__ = error.__traceback__ and error.__traceback__.tb_next  # from the user's function on
            where = f"`{self.node.name}` failed in open()"
            if isinstance(error, ConfigError):
                kind = NotSupportedError if isinstance(error, NotSupportedError) else ConfigError
                raise kind(f"{where}: {error}") from error
            raise UserCodeError(f"{where}: {error!r}", operator=self.node.name) from error
        self._opened.append(own)
        return getattr(own, method)  # type: ignore[no-any-return]


def timestamp_extractor(strategy: WatermarkStrategy, name: str) -> Callable[[Any, int], int] | None:
    """A fresh copy of the strategy's timestamp assigner, as the function to call; None: there is none."""
    own = _copied(strategy.timestamp_assigner, f"the timestamp assigner of `{name}`", "create that when it is called")
    return None if own is None else own.extract_timestamp


def generator_supplier(strategy: WatermarkStrategy, name: str) -> Callable[[], Any] | None:
    """A fresh copy of what makes the strategy's own watermark generators; None: it has none."""
    what = f"the watermark generator of `{name}`"
    return _copied(strategy.generator_supplier, what, "create that when it is called")  # type: ignore[no-any-return]


class _Copier(cloudpickle.CloudPickler):  # type: ignore[misc]
    """Copies functions, and leaves classes as they are: elements are of the program's own, whoever makes them."""

    def __init__(self, out: BytesIO, classes: list[type[Any]]) -> None:
        super().__init__(out)
        self._classes = classes

    def persistent_id(self, value: Any) -> int | None:
        if not isinstance(value, type):
            return None
        self._classes.append(value)
        return len(self._classes) - 1


class _Copied(pickle.Unpickler):
    def __init__(self, copied: BytesIO, classes: list[type[Any]]) -> None:
        super().__init__(copied)
        self._classes = classes

    def persistent_load(self, pid: int) -> type[Any]:
        return self._classes[pid]


def _copied(function: Any, what: str, cure: str) -> Any:
    """A copy of what the program gave, so that nothing but state survives a restart."""
    out, classes = BytesIO(), list[type[Any]]()
    try:
        _Copier(out, classes).dump(function)
        return _Copied(BytesIO(out.getvalue()), classes).load()
    except Exception as error:
        raise ConfigError(
            f"{what} cannot be copied to where it runs: {error}. "
            f"It holds something that cannot be pickled (a connection, a lock, a generator): {cure}"
        ) from error
