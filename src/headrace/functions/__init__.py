"""What users subclass and the engine calls: functions, their contexts, state descriptors and handles, time."""

from headrace.functions.context import RuntimeContext
from headrace.functions.function import (
    FilterFunction,
    FlatMapFunction,
    Function,
    KeySelector,
    MapFunction,
    ReduceFunction,
)
from headrace.functions.process import KeyedProcessFunction, ProcessFunction
from headrace.functions.state import State, StateDescriptor, ValueState, ValueStateDescriptor
from headrace.functions.timers import TimeDomain, TimerService

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
    "State",
    "StateDescriptor",
    "TimeDomain",
    "TimerService",
    "ValueState",
    "ValueStateDescriptor",
]
