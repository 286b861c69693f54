"""A plan as text, for people: what is read and written, what keeps state under which id, and what is guaranteed.

Says nothing of how a source or a sink is set up, but its type: settings may hold secrets.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import assert_never

from headrace.common.watermark_strategy import WatermarkStrategy
from headrace.connector import DeliveryGuarantee
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
from headrace.plan.identity import Region, is_keyed, operator_ids, regions, told_apart_by_order
from headrace.plan.parallelism import lanes


def explain(plan: Plan) -> str:
    """The plan as text, without a newline at its end. Raises `ConfigError` when two operators have the same `uid`.

    >>> from headrace.common import WatermarkStrategy
    >>> from headrace.connector.builtin import CollectionSource, PrintSink
    >>> from headrace.plan.graph import PlanBuilder
    >>> builder = PlanBuilder()
    >>> _ = builder.add(ReadSource(CollectionSource((1, 2)), WatermarkStrategy.no_watermarks()), "numbers")
    >>> _ = builder.add(WriteSink(PrintSink()), "Print", (0,))
    >>> builder.change(0, uid="numbers")
    >>> print(explain(builder.build("job")))  # doctest: +NORMALIZE_WHITESPACE
    job `job`: 2 operators in 1 region, parallelism 1
    <BLANKLINE>
    region f3c7807d-0
      0  source  numbers        uid numbers      CollectionSource, ends by itself; no watermarks
      1  sink    Print    <- 0  id 422be0c2763a  PrintSink, AT_LEAST_ONCE
    <BLANKLINE>
    runs as one loop for each source
      numbers -> Print
    <BLANKLINE>
    on failure and restart
      state and source offsets: guaranteed consistent, both come from one checkpoint
      `Print` (AT_LEAST_ONCE): guarantees each result is acknowledged before the checkpoint completes; may repeat
    """
    ids = operator_ids(plan)
    parts = regions(plan)
    count = f"{_counted(len(plan.nodes), 'operator')} in {_counted(len(parts), 'region')}"
    lines = [f"job `{plan.job_name}`: {count}, parallelism {lanes(plan)}"]
    for region in parts:
        lines += ["", *_region(plan, region, ids)]
    lines += ["", "runs as one loop for each source", *(f"  {path}" for path in _paths(plan))]
    lines += ["", "on failure and restart", *(f"  {line}" for line in _guarantees(plan))]
    if notes := list(_notes(plan)):
        lines += ["", "worth knowing", *(f"  {note}" for note in notes)]
    return "\n".join(lines)


def _region(plan: Plan, region: Region, ids: dict[int, str]) -> Iterator[str]:
    sinks = ", ".join(f"`{plan.node(n).name}`" for n in region.exactly_once_sinks)
    parallelism = max(plan.node(n).parallelism or 1 for n in region.nodes)
    each = f" and its like in each of {parallelism} lanes" if parallelism > 1 else ""
    yield f"region {region.id}{each}" + (f": one transaction, for {sinks}" if sinks else "")
    rows = [_row(plan.node(n), ids[n]) for n in region.nodes]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        yield "  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def _row(node: Node, operator_id: str) -> tuple[str, ...]:
    inputs = "<- " + ", ".join(map(str, node.inputs)) if node.inputs else ""
    named = f"uid {node.uid}" if node.uid else f"id {operator_id}"
    about = "; ".join(filter(None, (_about(node), _on_error(node))))
    return (str(node.id), _kind(node), node.name, inputs, named, about)


def _on_error(node: Node) -> str:
    if node.dead_letters is not None:
        return f"what fails goes to {node.dead_letters}"
    return "what fails is dropped" if node.tolerates else ""


def _kind(node: Node) -> str:
    match node.operator:
        case ReadSource():
            return "source"
        case Map():
            return "map"
        case FlatMap():
            return "flat_map"
        case Filter():
            return "filter"
        case Process():
            return "process"
        case Reduce():
            return "reduce"
        case Union():
            return "union"
        case AssignTimestamps():
            return "timestamps"
        case WriteSink():
            return "sink"
        case _:
            assert_never(node.operator)


def _about(node: Node) -> str:
    match node.operator:
        case ReadSource(source, strategy):
            end = "ends by itself" if source.ends else "never ends"
            return f"{type(source).__name__}, {end}; {_event_time(strategy)}"
        case AssignTimestamps(strategy):
            return _event_time(strategy)
        case WriteSink(sink):
            return f"{type(sink).__name__}, {sink.delivery_guarantee.name}"
        case _ if is_keyed(node):
            return "keyed, keeps state"
        case Process():
            return "not keyed: no state"
        case _:
            return "" if node.key_selector is None else "keyed"


def _event_time(strategy: WatermarkStrategy) -> str:
    if strategy.generator_supplier is not None:
        return "watermarks of its own generator"
    match strategy.out_of_orderness_ms:
        case None:
            return "no watermarks"
        case 0:
            return "watermarks, in order"
        case _:
            return f"watermarks, at most {strategy.out_of_orderness_ms} ms out of order"


def _paths(plan: Plan) -> Iterator[str]:
    """Each way from a source to where it ends, by the operators' names."""

    def below(node: Node) -> Iterator[list[str]]:
        consumers = plan.consumers(node.id)
        if not consumers:
            yield [node.name]
        for consumer in consumers:
            for path in below(consumer):
                yield [node.name, *path]

    for node in plan:
        if isinstance(node.operator, ReadSource):
            yield from map(" -> ".join, below(node))


def _guarantees(plan: Plan) -> Iterator[str]:
    yield "state and source offsets: guaranteed consistent, both come from one checkpoint"
    for node in plan:
        if not isinstance(node.operator, WriteSink):
            continue
        guarantee = node.operator.sink.delivery_guarantee
        match guarantee:
            case DeliveryGuarantee.EXACTLY_ONCE:
                promise = "guarantees each result is visible once to `read_committed` readers"
            case DeliveryGuarantee.AT_LEAST_ONCE:
                promise = "guarantees each result is acknowledged before the checkpoint completes; may repeat"
            case DeliveryGuarantee.NONE:
                promise = "does not guarantee anything"
            case _:
                assert_never(guarantee)
        yield f"`{node.name}` ({guarantee.name}): {promise}"


def _notes(plan: Plan) -> Iterator[str]:
    yield from order_warnings(plan)
    warned_of = {node.id for alike in told_apart_by_order(plan) for node in alike}
    for node in plan:
        needs_uid = node.uid is None and node.id not in warned_of
        if needs_uid and isinstance(node.operator, ReadSource):
            yield f"`{node.name}` is found again by this name after an edit; give it a `.uid(...)` to rename it freely"
        elif needs_uid and node.key_selector is not None and isinstance(node.operator, Process | Reduce):
            yield (
                f"`{node.name}` keeps state under an id made of what is above it; give it a `.uid(...)`, and an edited "
                "program finds the state again"
            )
        if not isinstance(node.operator, WriteSink) and not plan.consumers(node.id):
            yield f"`{node.name}` has no sink: what it gives goes nowhere"


def order_warnings(plan: Plan) -> list[str]:
    """What an edit could do to operators whose state is found again by nothing but their order in the program."""
    ids = operator_ids(plan)
    warnings = []
    for alike in told_apart_by_order(plan):
        are_sources = isinstance(alike[0].operator, ReadSource)
        goes_on = "reads on at another's positions" if are_sources else "goes on with another's state"
        warnings.append(
            f"{len(alike)} {'sources' if are_sources else 'keyed operators'} can only be told apart by their order in "
            f"the program: {', '.join(f'`{node.name}` ({ids[node.id]!r})' for node in alike)}. If they are exchanged, "
            f"each {goes_on}; with one more or one less, a start is refused. Give each its own `.uid(...)`: "
            "the id shown here, where there are checkpoints already"
        )
    return warnings


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" + ("" if count == 1 else "s")
