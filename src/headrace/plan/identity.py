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

from headrace.connector import DeliveryGuarantee
from headrace.errors import ConfigError
from headrace.functions import Function
from headrace.plan.graph import Filter, FlatMap, Map, Node, Plan, Process, ReadSource, Reduce, WriteSink


@dataclass(frozen=True, slots=True)
class Region:
    """Operators that are connected with each other and therefore commit together; at parallelism 1 in one lane.

    `exactly_once_sinks` and `sources` are node ids.
    """

    id: str
    nodes: tuple[int, ...]
    sources: tuple[int, ...]
    exactly_once_sinks: tuple[int, ...]


def is_keyed(node: Node) -> bool:
    """Whether the operator has a use for the key: a reduction, a process function, or another function object, which
    may
    ask for keyed state in `open`. A plain callable cannot."""
    match node.operator:
        case Reduce() | Process():
            return node.key_selector is not None
        case Map(function) | FlatMap(function) | Filter(function):
            return node.key_selector is not None and isinstance(function, Function)
        case _:
            return False


def keeps_state(node: Node) -> bool:
    """Whether a snapshot holds something for this operator."""
    return isinstance(node.operator, ReadSource) or is_keyed(node)


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


def connected(plan: Plan) -> list[tuple[int, ...]]:
    """The plan's connected parts, in plan order, as node ids."""
    part_of: dict[int, int] = {}
    for node in plan:
        joined = {part_of[i] for i in node.inputs}
        part = min(joined, default=node.id)
        part_of[node.id] = part
        for other, p in part_of.items():
            if p in joined:
                part_of[other] = part
    return [tuple(n for n, p in part_of.items() if p == part) for part in dict.fromkeys(part_of.values())]


def regions(plan: Plan, lane: int = 0) -> list[Region]:
    """The plan's connected parts, in plan order, as they are in one lane; without those that have fewer lanes.

    A region's id comes from the ids of its exactly-once sinks (else of its sources) and the lane, never from plan
    order.
    """
    ids = operator_ids(plan)
    result = []
    for part in connected(plan):
        nodes = [plan.node(n) for n in part]
        if lane >= max(node.parallelism or 1 for node in nodes):
            continue
        sources = tuple(node.id for node in nodes if isinstance(node.operator, ReadSource))
        sinks = tuple(node.id for node in nodes if is_exactly_once(node))
        named = sorted(ids[n] for n in (sinks or sources or part))
        digest = hashlib.sha256("\0".join(named).encode()).hexdigest()[:8]
        result.append(Region(f"{digest}-{lane}", part, sources, sinks))
    return result


def is_exactly_once(node: Node) -> bool:
    """Whether the node is a sink with `DeliveryGuarantee.EXACTLY_ONCE`."""
    return (
        isinstance(node.operator, WriteSink) and node.operator.sink.delivery_guarantee is DeliveryGuarantee.EXACTLY_ONCE
    )
