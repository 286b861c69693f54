"""The DataStream API, module for module as `pyflink.datastream`. Every call adds to the plan and does nothing else."""

from headrace.common.refusal import refuse_names
from headrace.connector import DeadLetter, ErrorPolicy, OriginalRecord
from headrace.datastream.checkpoint_config import CheckpointConfig
from headrace.datastream.checkpointing_mode import CheckpointingMode
from headrace.datastream.data_stream import CloseableIterator, DataStream, DataStreamSink, KeyedStream
from headrace.datastream.execution_mode import RuntimeExecutionMode
from headrace.datastream.externalized_checkpoint_retention import ExternalizedCheckpointRetention
from headrace.datastream.functions import (
    FilterFunction,
    FlatMapFunction,
    KeyedProcessFunction,
    KeySelector,
    MapFunction,
    ProcessFunction,
    ReduceFunction,
    RuntimeContext,
)
from headrace.datastream.stream_execution_environment import StreamExecutionEnvironment
from headrace.datastream.time_domain import TimeDomain
from headrace.datastream.timerservice import TimerService

__all__ = [
    "CheckpointConfig",
    "CheckpointingMode",
    "CloseableIterator",
    "DataStream",
    "DataStreamSink",
    "DeadLetter",
    "ErrorPolicy",
    "ExternalizedCheckpointRetention",
    "FilterFunction",
    "FlatMapFunction",
    "KeySelector",
    "KeyedProcessFunction",
    "KeyedStream",
    "MapFunction",
    "OriginalRecord",
    "ProcessFunction",
    "ReduceFunction",
    "RuntimeContext",
    "RuntimeExecutionMode",
    "StreamExecutionEnvironment",
    "TimeDomain",
    "TimerService",
]

_WINDOWS = "there are no windows yet; use `key_by` and a `KeyedProcessFunction` with state"
_CONNECTED = "give both streams one type, use `union`, and one function for both"
_BROADCAST = "there is no broadcast state yet"
_ASYNC = "there are no asynchronous functions; call what you need in a `map`"
_STORAGE = "set `execution.checkpointing.dir` in the Configuration"
_BACKEND = "leave it out: keyed state is kept in memory"

__getattr__ = refuse_names(
    __name__,
    {
        "AggregateFunction": _WINDOWS,
        "AsyncDataStream": _ASYNC,
        "AsyncFunction": _ASYNC,
        "AsyncRetryPredicate": _ASYNC,
        "AsyncRetryStrategy": _ASYNC,
        "BroadcastConnectedStream": _BROADCAST,
        "BroadcastProcessFunction": _BROADCAST,
        "BroadcastStream": _BROADCAST,
        "CheckpointStorage": _STORAGE,
        "CoFlatMapFunction": _CONNECTED,
        "CoMapFunction": _CONNECTED,
        "CoProcessFunction": _CONNECTED,
        "ConnectedStreams": _CONNECTED,
        "CountWindow": _WINDOWS,
        "CustomCheckpointStorage": _STORAGE,
        "CustomStateBackend": _BACKEND,
        "EmbeddedRocksDBStateBackend": _BACKEND,
        "FileSystemCheckpointStorage": _STORAGE,
        "GlobalWindow": _WINDOWS,
        "HashMapStateBackend": _BACKEND,
        "JobManagerCheckpointStorage": _STORAGE,
        "KeyedBroadcastProcessFunction": _BROADCAST,
        "KeyedCoProcessFunction": _CONNECTED,
        "MemorySize": "leave it out: one machine has one slot",
        "MergingWindowAssigner": _WINDOWS,
        "OutputTag": "there are no side outputs; use a `filter` for each output",
        "Partitioner": "with parallelism 1 there is nothing to partition",
        "PredefinedOptions": _BACKEND,
        "ProcessWindowFunction": _WINDOWS,
        "SinkFunction": "the old sinks are Java objects; use `sink_to`",
        "SlotSharingGroup": "leave it out: one machine has one slot",
        "SourceFunction": "the old sources are Java objects; use `from_source`",
        "StateBackend": _BACKEND,
        "TimeWindow": _WINDOWS,
        "Trigger": _WINDOWS,
        "TriggerResult": _WINDOWS,
        "Window": _WINDOWS,
        "WindowAssigner": _WINDOWS,
        "WindowFunction": _WINDOWS,
        "WindowedStream": _WINDOWS,
    },
)
