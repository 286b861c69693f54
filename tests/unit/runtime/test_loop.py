"""The generated loop does what the operators say, one by one: compared with the plainest interpreter of a plan."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from headrace.common.watermark_strategy import WatermarkStrategy
from headrace.connector.builtin import CollectionSource, PrintSink
from headrace.plan.graph import (
    AssignTimestamps,
    Filter,
    FlatMap,
    Map,
    Node,
    Plan,
    PlanBuilder,
    Process,
    ReadSource,
    Reduce,
    Union,
    WriteSink,
)
from headrace.runtime.loop import DESERIALIZER, Calls, Loop, compile_loop
from headrace.runtime.watermarks import NO_TIMESTAMP, Watermarks

STRATEGY = WatermarkStrategy.for_monotonous_timestamps()
FUNCTIONS: dict[type, list[Callable[..., Any]]] = {
    Map: [lambda x: x + 1, lambda x: x * 3, lambda x: -x],
    Filter: [lambda x: x % 2 == 0, lambda x: x > 0, lambda x: False],
    FlatMap: [lambda x: [x, x + 1], lambda x: None, lambda x: (y for y in range(x % 4))],
    Reduce: [lambda a, b: a + b, max],
}


class Stamp:
    """A process function's context that shows the timestamp it was given."""

    element_timestamp = NO_TIMESTAMP


def with_time(value: int, context: Stamp) -> list[int]:
    return [value + context.element_timestamp % 7]


def some_of(value: int) -> list[int] | None:
    """A deserializer that gives any number of elements for a record."""
    return None if value % 4 == 0 else [value, value + 1, value + 2][: value % 4]


def some_or_none(value: int) -> int | None:
    """A deserializer that passes over some records."""
    return value if value % 3 else None


def with_own_time(value: int, time: int) -> tuple[int, int]:
    """A serializer that wants to know the time."""
    return value, time


MANY, SOME, TIMED = "many", "some", "timed"


def calls_of(plan: Plan) -> dict[int, Calls]:
    calls = {}
    for node in plan:
        key = node.key_selector
        match node.operator:
            case Map(f) | Filter(f) | FlatMap(f):
                calls[node.id] = Calls(call=f, key=key)
            case Reduce(f):
                calls[node.id] = Calls(call=f, key=key, table={})
            case Process(f):
                calls[node.id] = Calls(call=f, context=Stamp())
            case ReadSource(_, strategy):
                assigns = strategy.timestamp_assigner is not None
                calls[node.id] = Calls(
                    call={MANY: some_of, SOME: some_or_none}.get(node.name),
                    gives_many=node.name == MANY,
                    skips=node.name == SOME,
                    extract=(lambda x, t: t + abs(x) % 11) if assigns else None,
                    generator=assigns or None,
                )
            case WriteSink() if node.name == TIMED:
                calls[node.id] = Calls(call=with_own_time, takes_time=True)
            case AssignTimestamps():
                calls[node.id] = Calls(extract=lambda x, t: t + abs(x) % 5, generator=Watermarks(0))
            case _:
                calls[node.id] = Calls()
    return calls


def run_loop(loop: Loop, records: list[int], times: list[int]) -> dict[int, list[tuple[int, int]]]:
    outputs: dict[int, tuple[list[int], list[int]]] = {n: ([], []) for n in loop.sinks}
    steps = loop.run(iter(records), times, Watermarks(0), outputs)
    if loop.is_generator:
        list(steps)
    result = {}
    for n, (elements, stamps) in outputs.items():
        result[n] = list(zip(elements, times if n in loop.aligned else stamps, strict=True))
    return result


def interpret(plan: Plan, source: int, records: list[int], times: list[int]) -> dict[int, list[tuple[int, int]]]:
    tables: dict[int, dict[Any, Any]] = {}
    result: dict[int, list[tuple[int, int]]] = {}

    def emit(node: Node, value: int, time: int) -> Iterator[tuple[int, int]]:
        match node.operator:
            case Map(f):
                yield f(value), time
            case Filter(f):
                if f(value):
                    yield value, time
            case FlatMap(f):
                yield from ((y, time) for y in f(value) or ())
            case Process(_):
                yield value + time % 7, time
            case Reduce(f):
                table, key = tables.setdefault(node.id, {}), node.key_selector(value)
                table[key] = f(table[key], value) if key in table else value
                yield table[key], time
            case AssignTimestamps():
                yield value, time + abs(value) % 5
            case WriteSink():
                result.setdefault(node.id, []).append(((value, time) if node.name == TIMED else value, time))
            case _:
                yield value, time

    def push(node_id: int, value: int, time: int) -> None:
        for consumer in plan.consumers(node_id):
            for out in list(emit(consumer, value, time)):
                push(consumer.id, *out)

    operator = plan.node(source).operator
    assert isinstance(operator, ReadSource)
    assigns = operator.watermark_strategy.timestamp_assigner is not None
    elements: Callable[[int], Any] = {
        MANY: lambda record: some_of(record) or (),
        SOME: lambda record: [record] if record % 3 else [],
    }.get(plan.node(source).name, lambda record: [record])
    for record, time in zip(records, times, strict=True):
        for value in elements(record):
            push(source, value, time + abs(value) % 11 if assigns else time)
    return result


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    builder = PlanBuilder()
    strategy = STRATEGY.with_timestamp_assigner(lambda x, t: t) if draw(st.booleans()) else STRATEGY
    source = builder.add(ReadSource(CollectionSource(()), strategy), draw(st.sampled_from(["source", MANY, SOME])))
    streams = [source.id]
    for _ in range(draw(st.integers(0, 7))):
        above = draw(st.sampled_from(streams))
        kind = draw(st.sampled_from([Map, Filter, FlatMap, Reduce, Process, AssignTimestamps, Union]))
        if kind is Union:
            inputs = (above, draw(st.sampled_from(streams)))
            streams.append(builder.add(Union(), "union", inputs).id)
        elif kind is Process:
            streams.append(builder.add(Process(with_time), "process", (above,)).id)
        elif kind is AssignTimestamps:
            streams.append(builder.add(AssignTimestamps(STRATEGY), "time", (above,)).id)
        else:
            function = draw(st.sampled_from(FUNCTIONS[kind]))
            key = (lambda x: x % 3) if kind is Reduce else None
            streams.append(builder.add(kind(function), "op", (above,), key_selector=key).id)
    for above in draw(st.lists(st.sampled_from(streams), min_size=1, max_size=3)):
        builder.add(WriteSink(PrintSink()), draw(st.sampled_from(["sink", TIMED])), (above,))
    return builder.build("job")


@given(plans(), st.lists(st.integers(-20, 20), max_size=12))
def test_any_tree_of_operators_gives_what_its_operators_give_one_by_one(plan: Plan, records: list[int]) -> None:
    times = [1_000 + 10 * i for i in range(len(records))]
    loop = compile_loop(plan, 0, calls_of(plan))
    ran = {n: out for n, out in run_loop(loop, records, times).items() if out}
    if loop.passes_through:
        ran = {n: list(zip(records, times, strict=True)) for n in loop.sinks if records}
    assert ran == interpret(plan, 0, records, times)


def chain(*operators: Any) -> Plan:
    builder = PlanBuilder()
    builder.add(ReadSource(CollectionSource(()), STRATEGY), "source")
    for i, operator in enumerate(operators):
        builder.add(operator, f"op {i}", (i,))
    return builder.build("job")


def test_a_chain_of_maps_keeps_the_batchs_own_timestamps() -> None:
    plan = chain(Map(str), Map(str.encode), WriteSink(PrintSink()))
    loop = compile_loop(plan, 0, calls_of(plan))
    assert loop.aligned == {3}
    assert "for v in records:" in loop.source
    assert not loop.is_generator


def test_none_of_a_record_without_a_value_is_an_element_also_where_none_of_bytes_is_not() -> None:
    plan = chain(WriteSink(PrintSink()))
    calls = calls_of(plan) | {0: Calls(call=lambda v: v if v == 1 else None, skips=True)}
    loop = compile_loop(plan, 0, calls)
    records: Any = [None, 1, 2, None]
    assert run_loop(loop, records, [10, 11, 12, 13]) == {1: [(None, 10), (1, 11), (None, 13)]}


def test_a_source_that_goes_straight_to_its_sinks_is_not_looped_over() -> None:
    plan = chain(WriteSink(PrintSink()))
    assert compile_loop(plan, 0, calls_of(plan)).passes_through
    plan = chain(Map(str), WriteSink(PrintSink()))
    assert not compile_loop(plan, 0, calls_of(plan)).passes_through


def test_each_line_that_calls_user_code_names_its_node() -> None:
    plan = chain(Map(int), Filter(bool), FlatMap(list), WriteSink(PrintSink()))
    loop = compile_loop(plan, 0, calls_of(plan))
    assert set(loop.node_at_line.values()) == {1, 2, 3}


def test_the_deserializers_line_is_not_the_assigners() -> None:
    plan = chain(Map(str), WriteSink(PrintSink()))
    calls = calls_of(plan) | {0: Calls(call=int, extract=lambda x, t: t, generator=True)}
    loop = compile_loop(plan, 0, calls)
    lines = {node: loop.source.splitlines()[number - 1] for number, node in loop.node_at_line.items()}
    assert "d0(" in lines[DESERIALIZER]
    assert "d0(" not in lines[0]


def test_a_flat_map_that_gives_much_is_interrupted_to_write_its_output() -> None:
    plan = chain(FlatMap(lambda x: range(x)), WriteSink(PrintSink()))
    loop = compile_loop(plan, 0, calls_of(plan))
    outputs: dict[int, tuple[list[int], list[int]]] = {2: ([], [])}
    longest = total = 0
    for _ in loop.run(iter([12_000]), [0], Watermarks(0), outputs):
        longest = max(longest, len(outputs[2][0]))
        total += len(outputs[2][0])
        outputs[2][0].clear()
    assert total == 12_000
    assert longest == 5_000
