"""A plan as text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from headrace.common import Duration, WatermarkStrategy
from headrace.connector import Boundedness, DeliveryGuarantee, ErrorPolicy, Sink, Source, SourceContext
from headrace.connector.builtin import CollectionSource, PrintSink
from headrace.errors import ConfigError
from headrace.plan.explain import explain
from headrace.plan.graph import (
    AssignTimestamps,
    Filter,
    FlatMap,
    Map,
    Operator,
    Plan,
    PlanBuilder,
    Process,
    ReadSource,
    Reduce,
    Union,
    WriteSink,
)

UNORDERED = WatermarkStrategy.no_watermarks()


@dataclass(frozen=True)
class NeverEnding(Source):
    """A source that says nothing of itself but its type, whatever it holds."""

    password: str = "opensesame"

    @property
    def boundedness(self) -> Boundedness:
        return Boundedness.CONTINUOUS_UNBOUNDED

    def create_enumerator(self, context: SourceContext) -> Any:
        raise AssertionError("a plan is explained without touching anything")

    create_reader = create_enumerator
    encode_split = decode_split = create_enumerator  # type: ignore[assignment]


@dataclass(frozen=True)
class Guaranteed(Sink):
    delivery_guarantee: DeliveryGuarantee = DeliveryGuarantee.EXACTLY_ONCE
    token: str = "opensesame"

    def create_writer(self, *_: Any) -> Any:
        raise AssertionError("a plan is explained without touching anything")


def plan_of(*steps: tuple[Operator, str, tuple[int, ...]], keyed: tuple[int, ...] = (), **uids: int) -> Plan:
    builder = PlanBuilder()
    for number, (operator, name, inputs) in enumerate(steps):
        builder.add(operator, name, inputs, key_selector=str if number in keyed else None)
    for uid, node_id in uids.items():
        builder.change(node_id, uid=uid)
    return builder.build("job")


def line_with(text: str, plan: Plan) -> str:
    return next(line for line in explain(plan).splitlines() if text in line)


def test_operators_of_every_kind_are_shown_with_what_they_are() -> None:
    ordered = WatermarkStrategy.for_monotonous_timestamps()
    late = WatermarkStrategy.for_bounded_out_of_orderness(Duration.of_seconds(5))
    plan = plan_of(
        (ReadSource(NeverEnding(), UNORDERED), "news", ()),
        (ReadSource(CollectionSource((1,)), ordered), "prices", ()),
        (Union(), "both", (0, 1)),
        (Map(str), "to text", (2,)),
        (FlatMap(str.split), "words", (3,)),
        (Filter(bool), "some", (4,)),
        (AssignTimestamps(late), "late", (5,)),
        (Process(object()), "plain", (6,)),
        (Process(object()), "latest", (7,)),
        (Reduce(max), "best", (8,)),
        (Map(str), "keyed map", (9,)),
        (WriteSink(PrintSink()), "print", (10,)),
        keyed=(8, 9, 10),
    )
    expected = {
        "news": "source NeverEnding, never ends; no watermarks",
        "prices": "source CollectionSource, ends by itself; watermarks, in order",
        "both": "union <- 0, 1",
        "to text": "map <- 2",
        "words": "flat_map <- 3",
        "some": "filter <- 4",
        "late": "timestamps watermarks, at most 5000 ms out of order",
        "plain": "process not keyed: no state",
        "latest": "process keyed, keeps state",
        "best": "reduce keyed, keeps state",
        "keyed map": "map keyed",
        "print": "sink PrintSink, AT_LEAST_ONCE",
    }
    for name, words in expected.items():
        line = line_with(f"  {name}  ", plan)
        assert all(word in line for word in words.split()), (line, words)


def test_what_becomes_of_records_that_fail_is_shown_and_commits_together() -> None:
    builder = PlanBuilder()
    builder.add(ReadSource(NeverEnding(), UNORDERED), "news")
    builder.add(Map(str), "parse", (0,))
    builder.add(WriteSink(PrintSink()), "print", (1,))
    builder.change(1, error_policy=ErrorPolicy.dead_letter(Guaranteed()))
    builder.change(2, error_policy=ErrorPolicy.drop())
    plan = builder.build("job")
    assert line_with("  parse  ", plan).endswith("what fails goes to 3")
    assert line_with("  print  ", plan).endswith("PrintSink, AT_LEAST_ONCE; what fails is dropped")
    assert "fails" not in line_with("  news  ", plan)
    assert "1 region" in explain(plan)
    assert line_with("region ", plan).endswith("one transaction, for `Dead letters`")


def test_each_way_from_a_source_to_its_end_is_one_line() -> None:
    plan = plan_of(
        (ReadSource(NeverEnding(), UNORDERED), "news", ()),
        (Map(str), "map", (0,)),
        (WriteSink(PrintSink()), "left", (1,)),
        (WriteSink(PrintSink()), "right", (1,)),
        (ReadSource(NeverEnding(), UNORDERED), "prices", ()),
    )
    lines = explain(plan).splitlines()
    at = lines.index("runs as one loop for each source")
    assert lines[at + 1 : at + 4] == ["  news -> map -> left", "  news -> map -> right", "  prices"]


def test_a_region_names_the_sinks_that_share_its_transaction() -> None:
    plan = plan_of(
        (ReadSource(NeverEnding(), UNORDERED), "news", ()),
        (WriteSink(Guaranteed()), "once", (0,)),
        (WriteSink(Guaranteed()), "again", (0,)),
        (ReadSource(NeverEnding(), UNORDERED), "prices", ()),
        (WriteSink(PrintSink()), "print", (3,)),
    )
    regions = [line for line in explain(plan).splitlines() if line.startswith("region ")]
    assert len(regions) == 2
    assert regions[0].endswith(": one transaction, for `once`, `again`")
    assert ":" not in regions[1]
    assert explain(plan).startswith("job `job`: 5 operators in 2 regions, parallelism 1\n")


@pytest.mark.parametrize(
    ("guarantee", "promise"),
    [
        (DeliveryGuarantee.EXACTLY_ONCE, "guarantees each result is visible once to `read_committed` readers"),
        (DeliveryGuarantee.AT_LEAST_ONCE, "guarantees each result is acknowledged before the checkpoint completes"),
        (DeliveryGuarantee.NONE, "does not guarantee anything"),
    ],
)
def test_each_sink_says_what_it_guarantees(guarantee: DeliveryGuarantee, promise: str) -> None:
    plan = plan_of((ReadSource(NeverEnding(), UNORDERED), "news", ()), (WriteSink(Guaranteed(guarantee)), "sink", (0,)))
    assert f"  `sink` ({guarantee.name}): {promise}" in explain(plan)


def test_what_an_edit_could_lose_is_worth_knowing() -> None:
    steps: tuple[tuple[Operator, str, tuple[int, ...]], ...] = (
        (ReadSource(NeverEnding(), UNORDERED), "news", ()),
        (Reduce(max), "best", (0,)),
    )
    text = explain(plan_of(*steps, keyed=(1,)))
    assert "`news` is found again by this name after an edit" in text
    assert "`best` keeps state under an id made of what is above it" in text
    assert "`best` has no sink: what it gives goes nowhere" in text
    named = explain(plan_of(*steps, (WriteSink(PrintSink()), "print", (1,)), keyed=(1,), a=0, b=1))
    assert "worth knowing" not in named


def test_operators_that_only_their_order_tells_apart_are_worth_knowing_with_the_ids_that_they_have() -> None:
    plan = plan_of(
        (ReadSource(NeverEnding(), UNORDERED), "news", ()),
        (Reduce(max), "best", (0,)),
        (Reduce(max), "best", (0,)),
        (Reduce(min), "least", (0,)),
        keyed=(1, 2, 3),
        news=0,
    )
    notes = explain(plan).partition("worth knowing\n")[2].splitlines()
    [alike] = [note for note in notes if "can only be told apart by their order" in note]
    ids = [line.split(" id ")[1].split()[0] for line in explain(plan).splitlines() if "reduce  best" in line]
    assert f"2 keyed operators can only be told apart by their order in the program: `best` ('{ids[0]}'), " in alike
    assert f"`best` ('{ids[1]}')" in alike
    assert [note for note in notes if "made of what is above it" in note and "`best`" in note] == []
    assert [note for note in notes if "made of what is above it" in note and "`least`" in note] != []


def test_no_secret_of_a_source_or_sink_is_shown() -> None:
    plan = plan_of((ReadSource(NeverEnding(), UNORDERED), "news", ()), (WriteSink(Guaranteed()), "sink", (0,)))
    assert "opensesame" in repr(plan)
    assert "opensesame" not in explain(plan)


def test_a_uid_that_is_there_twice_is_refused() -> None:
    builder = PlanBuilder()
    for number in range(2):
        builder.add(ReadSource(NeverEnding(), UNORDERED), f"source {number}")
        builder.change(number, uid="same")
    with pytest.raises(ConfigError, match=r"2 operators have the uid 'same': `source 0`, `source 1`"):
        explain(builder.build("job"))
