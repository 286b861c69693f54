"""Stable ids: by what name an operator's state is found again, and which operators commit together.

An operator's id is its `uid` where the program gives one. Otherwise it is made from what the operator is: its kind, its
source's name, and the ids of the sources and stateful operators above it. So a `map` that is put in between, or an
unrelated branch, changes no id (Flink hashes the whole topology above, which any insertion changes).

Siblings that keep state and are alike in all of this, two reductions of one stream say, are told apart by their names,
and those that share their name too by their order, as in "the second of two". With one more or one less of them, their
state is refused instead of being handed to the wrong one.

What automatic ids do not notice: that two siblings of one name were exchanged (`told_apart_by_order` finds them, for a
warning), and that stateful operators of one kind, one below the other, were exchanged or got another one before them.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple, assert_never

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
    automatic = _automatic_ids(plan)
    ids = {node.id: node.uid or automatic[node.id] for node in plan}
    for operator_id, count in Counter(ids.values()).items():
        if count > 1:
            names = ", ".join(f"`{node.name}`" for node in plan if ids[node.id] == operator_id)
            raise ConfigError(f"{count} operators have the uid {operator_id!r}: {names}; give each its own `.uid(…)`")
    return ids


def told_apart_by_order(plan: Plan) -> list[tuple[Node, ...]]:
    """The sources and stateful operators without a `uid` that only their order tells apart, those alike together.

    >>> from headrace.plan.graph import PlanBuilder, Reduce
    >>> builder = PlanBuilder()
    >>> for name in ("Reduce", "per user", "Reduce"):
    ...     _ = builder.add(Reduce(max), name, key_selector=str)
    >>> [[node.id for node in alike] for alike in told_apart_by_order(builder.build("job"))]
    [[0, 2]]
    """
    without_uid = [tuple(plan.node(n) for n in alike if plan.node(n).uid is None) for alike in _alike(_traits(plan))]
    return [alike for alike in without_uid if len(alike) > 1 and keeps_state(alike[0])]


class _Traits(NamedTuple):
    """What an automatic id is made of. `above` are the nearest sources and stateful operators, by node id."""

    kind: str
    name: str
    above: frozenset[int]
    keeps_state: bool


def _traits(plan: Plan) -> dict[int, _Traits]:
    traits: dict[int, _Traits] = {}
    seen_below: dict[int, frozenset[int]] = {}
    for node in plan:
        above = frozenset[int]().union(*(seen_below[i] for i in node.inputs))
        name = node.name if isinstance(node.operator, ReadSource) else ""
        traits[node.id] = _Traits(type(node.operator).__name__, name, above, keeps_state(node))
        seen_below[node.id] = frozenset({node.id}) if keeps_state(node) else above
    count = Counter(traits.values())
    # Of one that has no like, the name says nothing: it may be changed.
    return {
        n: own._replace(name=plan.node(n).name) if own.keeps_state and count[own] > 1 else own
        for n, own in traits.items()
    }


def _alike(traits: dict[int, _Traits]) -> list[list[int]]:
    """The operators, those with the same traits together, in plan order."""
    alike: dict[_Traits, list[int]] = {}
    for n, own in traits.items():
        alike.setdefault(own, []).append(n)
    return list(alike.values())


def _automatic_ids(plan: Plan) -> dict[int, str]:
    traits = _traits(plan)
    place = {n: (index, len(alike)) for alike in _alike(traits) for index, n in enumerate(alike, 1)}
    stateful = {own for own in traits.values() if own.keeps_state}
    ids: dict[int, str] = {}
    for n, own in traits.items():
        what = [own.kind, own.name, *sorted(ids[i] for i in own.above)]
        digest = hashlib.sha256("\0".join(what).encode()).hexdigest()[:12]
        index, count = place[n]
        if own.keeps_state:
            ids[n] = digest if count == 1 else f"{digest}-{index}of{count}"
        else:
            # Nothing is found again by this one: it makes way for an operator with state, wherever that stands.
            index += own._replace(keeps_state=True) in stateful
            ids[n] = digest if index == 1 else f"{digest}-{index}"
    return ids


def connected(plan: Plan) -> list[tuple[int, ...]]:
    """The plan's connected parts, in plan order, as node ids. Dead letters connect, too."""
    part_of = {node.id: node.id for node in plan}
    for node in plan:
        for other in (*node.inputs, *(() if node.dead_letters is None else (node.dead_letters,))):
            joined = {part_of[node.id], part_of[other]}
            part_of.update({n: min(joined) for n, part in part_of.items() if part in joined})
    return [tuple(n for n, p in part_of.items() if p == part) for part in sorted(set(part_of.values()))]


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
