"""The job as data: nodes in the order they were written, each with its operator, its inputs, what names it, and what
becomes of a record that it fails on.

A `Plan` is frozen. The API writes it through a `PlanBuilder`, in which a later `.name()` or `.uid()` replaces a node
by a changed copy; nothing runs, connects or validates before the plan is taken.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from headrace.common.watermark_strategy import WatermarkStrategy
from headrace.connector import ErrorPolicy, Sink, Source


@dataclass(frozen=True, slots=True)
class ReadSource:
    """Records of a source, with watermarks made per split."""

    source: Source
    watermark_strategy: WatermarkStrategy


@dataclass(frozen=True, slots=True)
class Map:
    """One element out for each in. `function` is a `MapFunction` or any callable."""

    function: Any


@dataclass(frozen=True, slots=True)
class FlatMap:
    """Any number out for each in. `function` is a `FlatMapFunction` or any callable that gives an iterable or None."""

    function: Any


@dataclass(frozen=True, slots=True)
class Filter:
    """Those in for which the function is true. `function` is a `FilterFunction` or any callable."""

    function: Any


@dataclass(frozen=True, slots=True)
class Process:
    """A `ProcessFunction`, or a `KeyedProcessFunction` on a keyed input."""

    function: Any


@dataclass(frozen=True, slots=True)
class Reduce:
    """A rolling reduction per key. `function` is a `ReduceFunction` or any callable of two values."""

    function: Any


@dataclass(frozen=True, slots=True)
class Union:
    """All elements of all inputs; the watermark is the inputs' minimum."""


@dataclass(frozen=True, slots=True)
class AssignTimestamps:
    """New timestamps and watermarks, in place of the input's."""

    watermark_strategy: WatermarkStrategy


@dataclass(frozen=True, slots=True)
class WriteSink:
    """Records into a sink; no output."""

    sink: Sink


Operator = ReadSource | Map | FlatMap | Filter | Process | Reduce | Union | AssignTimestamps | WriteSink


@dataclass(frozen=True, slots=True)
class Node:
    """One operator in its place.

    `key_selector` (a `KeySelector` or any callable) is set where the input is keyed; `uid` where the program says so;
    `parallelism` where it differs from the job's; `error_policy` where the program says what becomes of a record that
    the operator fails on. `dead_letters` is the sink for those, in a plan that is built; it has no `inputs`.
    """

    id: int
    operator: Operator
    name: str
    inputs: tuple[int, ...] = ()
    key_selector: Any = None
    uid: str | None = None
    parallelism: int | None = None
    error_policy: ErrorPolicy | None = None
    dead_letters: int | None = None

    @property
    def tolerates(self) -> bool:
        """Whether the job goes on when the operator fails on a record."""
        return self.error_policy is not None and self.error_policy.tolerates


@dataclass(frozen=True, slots=True)
class Plan:
    """A whole job: nodes in topological order (each behind its inputs)."""

    job_name: str
    nodes: tuple[Node, ...]

    def __iter__(self) -> Iterator[Node]:
        return iter(self.nodes)

    def node(self, node_id: int) -> Node:
        """The node with this id."""
        return self.nodes[node_id]

    def consumers(self, node_id: int) -> list[Node]:
        """The nodes that take this one's output, in plan order; twice where one takes it twice."""
        return [node for node in self.nodes for i in node.inputs if i == node_id]


@dataclass(slots=True)
class PlanBuilder:
    """Collects nodes while a program describes its job."""

    _nodes: list[Node] = field(default_factory=list)

    def add(self, operator: Operator, name: str, inputs: tuple[int, ...] = (), key_selector: Any = None) -> Node:
        """Append a node; its id is its position."""
        node = Node(len(self._nodes), operator, name, inputs, key_selector)
        self._nodes.append(node)
        return node

    def change(self, node_id: int, **changes: Any) -> None:
        """Replace a node by a copy with other `name`, `uid`, `parallelism` or `error_policy`."""
        self._nodes[node_id] = replace(self._nodes[node_id], **changes)

    def node(self, node_id: int) -> Node:
        """The node as it stands now."""
        return self._nodes[node_id]

    def build(self, job_name: str, error_policy: ErrorPolicy | None = None) -> Plan:
        """The plan of everything added so far, with a sink behind it for each that dead letters go to.

        `error_policy` holds for operators without their own.
        """
        nodes = list(self._nodes)
        sinks: dict[int, Node] = {}
        for node in self._nodes:
            policy = node.error_policy or error_policy
            if policy is None:
                continue
            dead_letters = None
            if (sink := policy.sink) is not None:
                if id(sink) not in sinks:
                    sinks[id(sink)] = Node(len(nodes), WriteSink(sink), "Dead letters")
                    nodes.append(sinks[id(sink)])
                dead_letters = sinks[id(sink)].id
            nodes[node.id] = replace(node, error_policy=policy, dead_letters=dead_letters)
        return Plan(job_name, tuple(nodes))

    def clear(self) -> None:
        """Forget all nodes, as `execute` does once it has taken the plan."""
        self._nodes.clear()
