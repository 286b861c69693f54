"""`RuntimeContext`: what a function can ask of the engine that runs it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from headrace.common.refusal import refuses
from headrace.functions.state import ValueState, ValueStateDescriptor
from headrace.metrics.metricbase import MetricGroup

_STATE = "keep a value of your own kind (a list, a dict) in a `ValueState`"


@refuses(
    {
        "get_list_state": _STATE,
        "get_map_state": _STATE,
        "get_reducing_state": _STATE,
        "get_aggregating_state": _STATE,
    }
)
class RuntimeContext(ABC):
    """Where a function runs, and the state it keeps; given to `Function.open`."""

    @abstractmethod
    def get_task_name(self) -> str:
        """The operator's name."""

    @abstractmethod
    def get_number_of_parallel_subtasks(self) -> int: ...

    @abstractmethod
    def get_max_number_of_parallel_subtasks(self) -> int:
        """The number of key groups."""

    @abstractmethod
    def get_index_of_this_subtask(self) -> int:
        """From 0."""

    @abstractmethod
    def get_attempt_number(self) -> int:
        """0 at first, one more after each restart within a run."""

    @abstractmethod
    def get_task_name_with_subtasks(self) -> str:
        """Name, index from 1 and number of subtasks, as in `Map (1/1)`."""

    @abstractmethod
    def get_job_parameter(self, key: str, default_value: str) -> Any:
        """One of the job's global parameters (`ExecutionConfig.set_global_job_parameters`)."""

    @abstractmethod
    def get_metrics_group(self) -> MetricGroup:
        """Where the function's own metrics are asked for, in `open`."""

    @abstractmethod
    def get_state(self, state_descriptor: ValueStateDescriptor) -> ValueState[Any]:
        """The state of this name, for whichever key is current when it is used. On keyed streams only."""
