"""Functions, where PyFlink has them."""

from headrace.common.refusal import refuse_names
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
)

__all__ = [
    "FilterFunction",
    "FlatMapFunction",
    "Function",
    "KeySelector",
    "KeyedProcessFunction",
    "MapFunction",
    "ProcessFunction",
    "ReduceFunction",
    "RuntimeContext",
    "TimerService",
]

_WINDOWS = "there are no windows yet; use `key_by` and a `KeyedProcessFunction` with state"
_CONNECTED = "give both streams one type, use `union`, and one function for both"
_BROADCAST = "there is no broadcast state yet"
_ASYNC = "there are no asynchronous functions; call what you need in a `map`"

__getattr__ = refuse_names(
    __name__,
    {
        "AggregateFunction": _WINDOWS,
        "AllWindowFunction": _WINDOWS,
        "AsyncFunction": _ASYNC,
        "AsyncFunctionDescriptor": _ASYNC,
        "AsyncRetryPredicate": _ASYNC,
        "AsyncRetryStrategy": _ASYNC,
        "BaseBroadcastProcessFunction": _BROADCAST,
        "BroadcastProcessFunction": _BROADCAST,
        "CoFlatMapFunction": _CONNECTED,
        "CoMapFunction": _CONNECTED,
        "CoProcessFunction": _CONNECTED,
        "KeyedBroadcastProcessFunction": _BROADCAST,
        "KeyedCoProcessFunction": _CONNECTED,
        "Partitioner": "with parallelism 1 there is nothing to partition",
        "ProcessAllWindowFunction": _WINDOWS,
        "ProcessWindowFunction": _WINDOWS,
        "SinkFunction": "of the old sinks there is `FlinkKafkaProducer`; use `sink_to`",
        "SourceFunction": "of the old sources there is `FlinkKafkaConsumer`; use `from_source`",
        "WindowFunction": _WINDOWS,
    },
)
