"""Stable ids: by what name an operator's state is found again, and which operators commit together.

An operator's id is its `uid` where the program gives one. Otherwise it is made from what the operator is: its kind, its
source's name, and the ids of the sources and stateful operators above it. So a `map` that is put in between, or an
unrelated branch, changes no id; exchanging two stateful operators does, and their state is then refused instead of
being handed to the wrong one (Flink hashes the whole topology above, which any insertion changes).
"""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass
from enum import Enum
from typing import assert_never

from headrace.connector import DeliveryGuarantee
from headrace.errors import ConfigError
from headrace.functions import Function
from headrace.plan.graph import (
    AssignTimestamps,
    Filter,
    FlatMap,
    Map,
    Node,
    Plan,
    Process,
    ReadSource,
    Reduce,
    Union,
    WriteSink,
)


@dataclass(frozen=True, slots=True)
class Region:
    """Operators that are connected with each other and therefore commit together; at parallelism 1 in one lane.

    `exactly_once_sinks` and `sources` are node ids.
    """

    id: str
    nodes: tuple[int, ...]
    sources: tuple[int, ...]
    exactly_once_sinks: tuple[int, ...]


class Holds(Enum):
    """What a snapshot can hold for an operator."""

    SPLITS = "splits"
    KEYED_STATE = "keyed state"
    NOTHING = "nothing"


def holds(node: Node) -> Holds:
    """What a snapshot can hold for this operator.

    Keyed state: of a reduction, a process function, or another function object, which may ask for it in `open`. A plain
    callable cannot.
    """
    is_behind_key_by = node.key_selector is not None
    match node.operator:
        case ReadSource():
            return Holds.SPLITS
        case Reduce() | Process():
            return Holds.KEYED_STATE if is_behind_key_by else Holds.NOTHING
        case Map(function) | FlatMap(function) | Filter(function):
            return Holds.KEYED_STATE if is_behind_key_by and isinstance(function, Function) else Holds.NOTHING
        case Union() | AssignTimestamps() | WriteSink():
            return Holds.NOTHING
        case _:
            assert_never(node.operator)


def is_keyed(node: Node) -> bool:
    """Whether the operator has a use for the key of its input."""
    return holds(node) is Holds.KEYED_STATE


def keeps_state(node: Node) -> bool:
    """Whether a snapshot holds something for this operator."""
    return holds(node) is not Holds.NOTHING


def operator_ids(plan: Plan) -> dict[int, str]:
    """Node id → operator id. Raises `ConfigError` when two operators have the same `uid`.

    >>> from headrace.plan.graph import Map, PlanBuilder
    >>> builder = PlanBuilder()
    >>> _ = builder.add(Map(str), "Map")
    >>> builder.change(0, uid="to-text")
    >>> operator_ids(builder.build("job"))
    {0: 'to-text'}
    """
    automatic: dict[int, str] = {}
    stateful_above: dict[int, frozenset[str]] = {}
    seen: Counter[str] = Counter()
    for node in plan:
        above = frozenset[str]().union(*(stateful_above[i] for i in node.inputs)) if node.inputs else frozenset[str]()
        is_source = isinstance(node.operator, ReadSource)
        what = [type(node.operator).__name__, node.name if is_source else "", *sorted(above)]
        digest = hashlib.sha256("\0".join(what).encode()).hexdigest()[:12]
        seen[digest] += 1
        ordinal = seen[digest]
        automatic[node.id] = digest if ordinal == 1 else f"{digest}-{ordinal}"
        stateful_above[node.id] = frozenset({automatic[node.id]}) if keeps_state(node) else above
    ids = {node.id: node.uid or automatic[node.id] for node in plan}
    for operator_id, count in Counter(ids.values()).items():
        if count > 1:
            names = ", ".join(f"`{node.name}`" for node in plan if ids[node.id] == operator_id)
            raise ConfigError(f"{count} operators have the uid {operator_id!r}: {names}; give each its own `.uid(…)`")
    return ids


def regions(plan: Plan, lane: int = 0) -> list[Region]:
    """The plan's connected parts, in plan order, as they are in one lane.

    A region's id comes from the ids of its exactly-once sinks (else of its sources) and the lane, never from plan
    order.
    """
    ids = operator_ids(plan)
    part_of: dict[int, int] = {}
    for node in plan:
        joined = {part_of[i] for i in node.inputs}
        part = min(joined, default=node.id)
        part_of[node.id] = part
        for other, p in part_of.items():
            if p in joined:
                part_of[other] = part
    result = []
    for part in dict.fromkeys(part_of.values()):
        nodes = [node for node in plan if part_of[node.id] == part]
        sources = tuple(node.id for node in nodes if isinstance(node.operator, ReadSource))
        sinks = tuple(node.id for node in nodes if is_exactly_once(node))
        named = sorted(ids[n] for n in (sinks or sources or tuple(node.id for node in nodes)))
        digest = hashlib.sha256("\0".join(named).encode()).hexdigest()[:8]
        result.append(Region(f"{digest}-{lane}", tuple(node.id for node in nodes), sources, sinks))
    return result


def is_exactly_once(node: Node) -> bool:
    """Whether the node is a sink with `DeliveryGuarantee.EXACTLY_ONCE`."""
    return (
        isinstance(node.operator, WriteSink) and node.operator.sink.delivery_guarantee is DeliveryGuarantee.EXACTLY_ONCE
    )
