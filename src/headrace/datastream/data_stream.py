"""`DataStream`, `KeyedStream`, `DataStreamSink`: what a program describes its job with.

Each call adds an operator to the plan and does nothing else, except `execute_and_collect`, which runs the job.
"""

from __future__ import annotations

import warnings
from collections import deque
from collections.abc import Callable, Iterator
from itertools import islice
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from headrace.common import ExecutionConfig, JobClient, Row, TypeInformation, Types, WatermarkStrategy, options
from headrace.common.refusal import not_supported, refuse_names, refuses
from headrace.connector import ErrorPolicy, Sink
from headrace.connector.builtin import Collected, CollectSink, PrintSink
from headrace.connector.legacy import SinkFunction
from headrace.datastream.job import Place, checked_name, checked_policy
from headrace.errors import ConfigError
from headrace.functions import (
    FilterFunction,
    FlatMapFunction,
    KeyedProcessFunction,
    KeySelector,
    MapFunction,
    ProcessFunction,
    ReduceFunction,
    RuntimeContext,
)
from headrace.plan.graph import (
    AssignTimestamps,
    Filter,
    FlatMap,
    Map,
    Operator,
    Process,
    Reduce,
    Union,
    WriteSink,
)

if TYPE_CHECKING:
    from headrace.datastream.stream_execution_environment import StreamExecutionEnvironment

_PARTITIONING = "leave it out: elements stay in the subtask that read them, whatever the parallelism"
_WINDOWS = "there are no windows yet; use `key_by` and a `KeyedProcessFunction` with state"
_AGGREGATION = "use `reduce`"
_ON_KEYED = "call it on the operator before or behind; a keyed stream is no operator of its own, in PyFlink neither"


@refuses(
    {
        "broadcast": _PARTITIONING + ", and there is no broadcast state yet",
        "cache": "leave it out: nothing is kept from one job to the next",
        "connect": "give both streams one type and use `union`",
        "forward": _PARTITIONING,
        "get_side_output": "use a `filter` for each output",
        "partition_custom": _PARTITIONING,
        "project": "use `map`",
        "rebalance": _PARTITIONING,
        "rescale": _PARTITIONING,
        "set_max_parallelism": "set it for the whole job, with `StreamExecutionEnvironment.set_max_parallelism`",
        "set_uid_hash": "use `uid`",
        "shuffle": _PARTITIONING,
        "window_all": _WINDOWS,
    }
)
class DataStream:
    """A stream of elements: the output of one operator.

    >>> from headrace.datastream import StreamExecutionEnvironment
    >>> env = StreamExecutionEnvironment.get_execution_environment()
    >>> words = env.from_collection(["to be", "or not to be"]).flat_map(str.split).map(str.upper)
    >>> words.name("shout").get_name()
    'shout'

    *Differences from PyFlink*: declared types (`output_type`, `key_type`) are noted and need not be given; elements
    are handed on as they are.
    """

    def __init__(self, environment: StreamExecutionEnvironment, place: Place, type_info: TypeInformation) -> None:
        self._environment = environment
        self._place = place
        self._type = type_info

    # What names the operator, and where it runs

    def get_name(self) -> str:
        return self._environment.job.node(self._place).name

    def name(self, name: str) -> Self:
        """Name the operator, for people."""
        self._environment.job.change(self._place, name=checked_name("name", name))
        return self

    def uid(self, uid: str) -> Self:
        """Name the operator, for its state: an edited program finds the state again by it."""
        self._environment.job.change(self._place, uid=checked_name("uid", uid))
        return self

    def set_parallelism(self, parallelism: int) -> Self:
        """The number of subtasks, where it is not the job's."""
        self._environment.job.change(self._place, parallelism=_checked_parallelism(parallelism))
        return self

    def force_non_parallel(self) -> Self:
        return self.set_parallelism(1)

    def on_error(self, policy: ErrorPolicy) -> Self:
        """What becomes of a record that this operator fails on; a source fails on what it cannot deserialize.

        *Extension*: in Flink the job fails, which holds here too where nothing is said.
        """
        self._environment.job.change(self._place, error_policy=checked_policy(policy))
        return self

    def set_description(self, description: str) -> Self:
        """No effect."""
        return self

    def set_buffer_timeout(self, timeout_millis: int) -> Self:
        """No effect: no record waits for a buffer to fill."""
        return self

    def start_new_chain(self) -> Self:
        """No effect: results are the same, however operators are chained."""
        return self

    def disable_chaining(self) -> Self:
        """No effect: results are the same, however operators are chained."""
        return self

    def slot_sharing_group(self, slot_sharing_group: str) -> Self:
        """No effect: one machine has one slot."""
        return self

    def get_type(self) -> TypeInformation:
        """The declared type, or that of any Python value."""
        return self._type

    def get_execution_environment(self) -> StreamExecutionEnvironment:
        return self._environment

    def get_execution_config(self) -> ExecutionConfig:
        return self._environment.get_config()

    # Operators

    def map(self, func: MapFunction | Callable[[Any], Any], output_type: TypeInformation | None = None) -> DataStream:
        """One element out for each in."""
        _check_function(func, MapFunction)
        return self._behind(Map(func), "Map", output_type)

    def flat_map(
        self, func: FlatMapFunction | Callable[[Any], Any], output_type: TypeInformation | None = None
    ) -> DataStream:
        """Any number of elements out for each in: those that the function yields, or returns in an iterable."""
        _check_function(func, FlatMapFunction)
        return self._behind(FlatMap(func), "FlatMap", output_type)

    def filter(self, func: FilterFunction | Callable[[Any], Any]) -> DataStream:
        """Those elements for which the function is true."""
        _check_function(func, FilterFunction)
        return self._behind(Filter(func), "Filter", self._element_type())

    def process(self, func: ProcessFunction, output_type: TypeInformation | None = None) -> DataStream:
        """Any number of elements out for each in, by a function that knows timestamps and watermarks."""
        if not isinstance(func, ProcessFunction):
            hint = "; call key_by before it" if isinstance(func, KeyedProcessFunction) else ""
            raise TypeError(f"a ProcessFunction is required for a DataStream, got {type(func).__name__}{hint}")
        return self._behind(Process(func), "PROCESS", output_type)

    def key_by(
        self, key_selector: KeySelector | Callable[[Any], Any], key_type: TypeInformation | None = None
    ) -> KeyedStream:
        """The same elements, by key: those of one key go through one subtask, in order, and share state."""
        if not isinstance(key_selector, KeySelector) and not callable(key_selector):
            raise TypeError("Parameter key_selector should be type of KeySelector or a callable function.")
        if isinstance(key_selector, type) and issubclass(key_selector, KeySelector):
            kind = key_selector.__name__
            raise ConfigError(f"the class {kind} is given; give one of its instances: `{kind}()`")
        return KeyedStream(self, key_selector, key_type)

    def union(self, *streams: DataStream) -> DataStream:
        """All elements of these streams, in any order; the watermark is the lowest of theirs."""
        inputs = [self, *streams]
        for stream in inputs:
            if not isinstance(stream, DataStream):
                raise TypeError(f"a DataStream is required for union, got {type(stream).__name__}")
            if stream._environment is not self._environment:
                raise ConfigError("streams of two environments cannot be united; make both from the same one")
        places = tuple(stream._values()._place for stream in inputs)
        place = self._environment.job.add(Union(), "Union", places)
        return DataStream(self._environment, place, self._element_type())

    def assign_timestamps_and_watermarks(self, watermark_strategy: WatermarkStrategy) -> DataStream:
        """The same elements, with timestamps and watermarks as the strategy says, in place of those they have.

        *Differences from PyFlink*: one operator, whether or not there is a timestamp assigner.
        """
        if not isinstance(watermark_strategy, WatermarkStrategy):
            raise TypeError(f"a WatermarkStrategy is required, got {type(watermark_strategy).__name__}")
        return self._behind(AssignTimestamps(watermark_strategy), "Timestamps/Watermarks", self._element_type())

    # Where streams end

    def sink_to(self, sink: Sink) -> DataStreamSink:
        """Write the elements into a sink."""
        if not isinstance(sink, Sink):
            raise TypeError(f"a Sink is required, got {type(sink).__name__}; build it first if it is a builder")
        return self._write(sink, "Sink")

    def add_sink(self, sink_func: SinkFunction) -> DataStreamSink:
        """Write the elements into a sink of Flink's old API: a `FlinkKafkaProducer`. Warns, with the new spelling.

        Raises `NotSupportedError` for any other sink; those of the new API are for `sink_to`.
        """
        if not isinstance(sink_func, SinkFunction):
            if isinstance(sink_func, Sink):
                raise TypeError(f"`add_sink` takes a FlinkKafkaProducer; {type(sink_func).__name__} is for `sink_to`")
            raise not_supported(
                f"add_sink({type(sink_func).__name__})", "of the old sinks there is `FlinkKafkaProducer`; use `sink_to`"
            )
        sink = sink_func.to_sink()
        warnings.warn(sink_func.new_spelling(), DeprecationWarning, stacklevel=2)
        return self._write(sink, "Unnamed")

    def print(self, sink_identifier: str | None = None) -> DataStreamSink:
        """Write each element to the standard output, on a line of its own; behind the identifier, if any."""
        return self._write(PrintSink(sink_identifier or ""), "Print to Std. Out")

    def execute_and_collect(
        self, job_execution_name: str | None = None, limit: int | None = None
    ) -> CloseableIterator | list[Any]:
        """Run the job, and iterate over this stream's elements; with `limit`, a list of the first so many.

        With checkpoints on, an element is shown once the checkpoint behind it is complete. The job is cancelled when
        the iterator is closed. What the job fails with is raised behind the last element.
        """
        if limit is not None and limit < 1:
            raise ValueError(f"limit must be at least 1, is {limit}")
        collected = Collected()
        on_checkpoint = self._environment.job.settings.read(options.CHECKPOINT_INTERVAL) is not None
        self._elements()._write(CollectSink(collected, on_checkpoint), "Collect")
        elements = CloseableIterator(self._environment.execute_async(job_execution_name), collected)
        if limit is None:
            return elements
        with elements:
            return list(islice(elements, limit))

    # Keyed streams put something else in place of these

    _key_selector: Any = None

    def _behind(self, operator: Operator, name: str, type_info: TypeInformation | None) -> DataStream:
        place = self._environment.job.add(operator, name, (self._place,), self._key_selector)
        return DataStream(self._environment, place, type_info or Types.PICKLED_BYTE_ARRAY())

    def _write(self, sink: Sink, name: str) -> DataStreamSink:
        place = self._environment.job.add(WriteSink(sink), name, (self._place,), self._key_selector)
        return DataStreamSink(self._environment, place)

    def _element_type(self) -> TypeInformation:
        return self._type

    def _values(self) -> DataStream:
        return self

    def _elements(self) -> DataStream:
        return self


@refuses(
    {
        "broadcast": _ON_KEYED,
        "cache": _ON_KEYED,
        "count_window": _WINDOWS,
        "disable_chaining": _ON_KEYED,
        "force_non_parallel": _ON_KEYED,
        "forward": _ON_KEYED,
        "get_name": _ON_KEYED,
        "max": _AGGREGATION,
        "max_by": _AGGREGATION,
        "min": _AGGREGATION,
        "min_by": _AGGREGATION,
        "name": _ON_KEYED,
        "partition_custom": _ON_KEYED,
        "rebalance": _ON_KEYED,
        "rescale": _ON_KEYED,
        "set_buffer_timeout": _ON_KEYED,
        "set_description": _ON_KEYED,
        "set_max_parallelism": _ON_KEYED,
        "set_parallelism": _ON_KEYED,
        "set_uid_hash": _ON_KEYED,
        "shuffle": _ON_KEYED,
        "slot_sharing_group": _ON_KEYED,
        "start_new_chain": _ON_KEYED,
        "sum": _AGGREGATION,
        "uid": _ON_KEYED,
        "window": _WINDOWS,
    }
)
class KeyedStream(DataStream):
    """A stream whose elements have keys. The operator that comes next has state for each key.

    >>> from headrace.datastream import StreamExecutionEnvironment
    >>> env = StreamExecutionEnvironment.get_execution_environment()
    >>> totals = env.from_collection([("a", 1), ("b", 2), ("a", 3)]).key_by(lambda pair: pair[0])
    >>> totals.reduce(lambda total, pair: (total[0], total[1] + pair[1])).get_name()
    'Reduce'

    *Differences from PyFlink*: sinks get the elements (PyFlink's get rows of key and element); `print` keeps its
    identifier.
    """

    def __init__(self, origin: DataStream, key_selector: Any, key_type: TypeInformation | None) -> None:
        row_type = Types.ROW([key_type or Types.PICKLED_BYTE_ARRAY(), origin._type])
        super().__init__(origin._environment, origin._place, row_type)
        self._origin = origin
        self._key_selector = key_selector

    def process(  # type: ignore[override]
        self, func: KeyedProcessFunction, output_type: TypeInformation | None = None
    ) -> DataStream:
        """Any number of elements out for each in, by a function that knows time, key and state."""
        if not isinstance(func, KeyedProcessFunction):
            raise TypeError(f"KeyedProcessFunction is required for KeyedStream, got {type(func).__name__}.")
        return self._behind(Process(func), "KEYED PROCESS", output_type)

    def reduce(self, func: ReduceFunction | Callable[[Any, Any], Any]) -> DataStream:
        """The running result for each key: one element out for each in, the first as it is."""
        _check_function(func, ReduceFunction)
        return self._behind(Reduce(func), "Reduce", self._element_type())

    def key_by(
        self, key_selector: KeySelector | Callable[[Any], Any], key_type: TypeInformation | None = None
    ) -> KeyedStream:
        """The same elements by another key."""
        return self._origin.key_by(key_selector, key_type)

    def _element_type(self) -> TypeInformation:
        return self._origin._type

    def _values(self) -> DataStream:
        """The same elements, as the output of an operator."""
        return self.map(_identity, self._origin._type).name("Values")

    def _elements(self) -> DataStream:
        """Rows of key and element: what this stream holds, seen from outside."""
        return self.map(_WithKey(self._key_selector), self._type).name("Key and value")


@refuses({"set_uid_hash": "use `uid`"})
class DataStreamSink:
    """Where a stream ends: a sink in the plan."""

    def __init__(self, environment: StreamExecutionEnvironment, place: Place) -> None:
        self._environment = environment
        self._place = place

    def name(self, name: str) -> DataStreamSink:
        """Name the sink, for people."""
        self._environment.job.change(self._place, name=checked_name("name", name))
        return self

    def uid(self, uid: str) -> DataStreamSink:
        """Name the sink, for its part in a checkpoint: an edited program finds it again by this."""
        self._environment.job.change(self._place, uid=checked_name("uid", uid))
        return self

    def set_parallelism(self, parallelism: int) -> DataStreamSink:
        """The number of subtasks, where it is not the job's."""
        self._environment.job.change(self._place, parallelism=_checked_parallelism(parallelism))
        return self

    def on_error(self, policy: ErrorPolicy) -> DataStreamSink:
        """What becomes of a record of which this sink cannot write what came of it: it cannot be serialized, or is
        larger than the topic takes.

        *Extension*: in Flink the job fails, which holds here too where nothing is said.
        """
        self._environment.job.change(self._place, error_policy=checked_policy(policy))
        return self

    def set_description(self, description: str) -> DataStreamSink:
        """No effect."""
        return self

    def disable_chaining(self) -> DataStreamSink:
        """No effect: results are the same, however operators are chained."""
        return self

    def slot_sharing_group(self, slot_sharing_group: str) -> DataStreamSink:
        """No effect: one machine has one slot."""
        return self


class CloseableIterator:
    """The elements of a running job, from `DataStream.execute_and_collect`. Closing it cancels the job.

    Use it in a `with` statement, or read it to its end.
    """

    def __init__(self, job: JobClient, collected: Collected) -> None:
        self._job = job
        self._collected = collected
        self._taken: deque[Any] = deque()
        self._closed = False
        self._result = job.get_job_execution_result()
        self._result.when_done(collected.end)

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        if not self._taken and not self._closed:
            self._taken.extend(self._collected.take() or ())
        if self._taken:
            return self._taken.popleft()
        if not self._closed:
            self._closed = True
            self._result.result()
        raise StopIteration

    def next(self) -> Any:
        return self.__next__()

    def close(self) -> None:
        """Cancel the job, if it still runs, and wait for its end. May be called twice."""
        if not self._closed:
            self._closed = True
            self._taken.clear()
            self._collected.abandon()
            if not self._result.done():
                self._job.cancel()
                self._collected.wait_for_end()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc_val: BaseException | None, exc_tb: TracebackType | None
    ) -> None:
        self.close()


class _WithKey(MapFunction):
    """Puts an element's key before it."""

    def __init__(self, key_selector: Any) -> None:
        self._selector = key_selector if isinstance(key_selector, KeySelector) else None
        self._get_key = key_selector if self._selector is None else self._selector.get_key

    def open(self, runtime_context: RuntimeContext) -> None:
        if self._selector is not None:
            self._selector.open(runtime_context)

    def close(self) -> None:
        if self._selector is not None:
            self._selector.close()

    def map(self, value: Any) -> Row:
        return Row(self._get_key(value), value)


def _identity(value: Any) -> Any:
    return value


def _check_function(func: Any, function_type: type[Any]) -> None:
    if not isinstance(func, function_type) and not callable(func):
        raise TypeError(f"The input must be a {function_type.__name__} or a callable function")
    if isinstance(func, type) and issubclass(func, function_type):
        raise ConfigError(f"the class {func.__name__} is given; give one of its instances: `{func.__name__}()`")


def _checked_parallelism(parallelism: int) -> int:
    if not isinstance(parallelism, int) or parallelism < 1:
        raise ConfigError(f"the parallelism of an operator must be a whole number from 1 on, is {parallelism!r}")
    return parallelism


__getattr__ = refuse_names(
    __name__,
    {
        "WindowedStream": _WINDOWS,
        "AllWindowedStream": _WINDOWS,
        "ConnectedStreams": "give both streams one type and use `union`",
        "BroadcastStream": "there is no broadcast state yet",
        "BroadcastConnectedStream": "there is no broadcast state yet",
        "CachedDataStream": "nothing is kept from one job to the next",
    },
)
