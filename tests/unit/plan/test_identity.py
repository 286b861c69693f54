"""Stable ids, and which operators commit together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.common import WatermarkStrategy
from headrace.connector import DeliveryGuarantee, Sink
from headrace.connector.builtin import CollectionSource, PrintSink
from headrace.errors import ConfigError
from headrace.functions import MapFunction
from headrace.plan.graph import Map, Plan, PlanBuilder, Process, ReadSource, Reduce, Union, WriteSink
from headrace.plan.identity import is_exactly_once, keeps_state, operator_ids, regions, told_apart_by_order


@dataclass(frozen=True)
class ExactlyOnce(Sink):
    delivery_guarantee: DeliveryGuarantee = DeliveryGuarantee.EXACTLY_ONCE

    def create_writer(self, *_: Any) -> Any:
        raise AssertionError("only looked at")


class Stateful(MapFunction):
    def map(self, value: Any) -> Any:
        return value


class Builder(PlanBuilder):
    """Nodes by what they are; each method gives the node's id."""

    def source(self, name: str = "source") -> int:
        operator = ReadSource(CollectionSource(()), WatermarkStrategy.no_watermarks())
        return self.add(operator, name).id

    def map(self, above: int, name: str = "Map") -> int:
        return self.add(Map(str), name, (above,)).id

    def reduce(self, above: int, name: str = "Reduce") -> int:
        return self.add(Reduce(max), name, (above,), key_selector=str).id

    def keyed_map(self, above: int) -> int:
        return self.add(Map(Stateful()), "Map", (above,), key_selector=str).id

    def process(self, above: int) -> int:
        return self.add(Process(object()), "Process", (above,), key_selector=str).id

    def union(self, *above: int) -> int:
        return self.add(Union(), "Union", above).id

    def sink(self, above: int, sink: Sink | None = None, name: str = "Sink") -> int:
        return self.add(WriteSink(sink or PrintSink()), name, (above,)).id

    def plan(self) -> Plan:
        return self.build("job")


def test_a_map_put_in_between_changes_no_id_of_what_keeps_state() -> None:
    before = Builder()
    counted = before.reduce(before.source())
    after = Builder()
    moved = after.reduce(after.map(after.map(after.source())))
    assert operator_ids(before.plan())[counted] == operator_ids(after.plan())[moved]


def test_an_unrelated_branch_changes_no_id() -> None:
    before = Builder()
    counted = before.reduce(before.source())
    after = Builder()
    after.sink(after.reduce(after.source("another")))
    moved = after.reduce(after.source())
    assert operator_ids(before.plan())[counted] == operator_ids(after.plan())[moved]


def test_exchanging_two_stateful_operators_changes_both_ids() -> None:
    one, other = Builder(), Builder()
    reduced = one.reduce(one.source())
    processed = one.process(reduced)
    processed_first = other.process(other.source())
    reduced_then = other.reduce(processed_first)
    ids, swapped = operator_ids(one.plan()), operator_ids(other.plan())
    assert {ids[reduced], ids[processed]}.isdisjoint({swapped[processed_first], swapped[reduced_then]})


def test_a_source_is_found_by_its_name_and_other_operators_are_not() -> None:
    one, other = Builder(), Builder()
    one.reduce(one.source("news"), "count")
    other.reduce(other.source("news"), "renamed")
    assert operator_ids(one.plan()) == operator_ids(other.plan())
    renamed = Builder()
    renamed.reduce(renamed.source("prices"), "count")
    assert set(operator_ids(one.plan()).values()).isdisjoint(operator_ids(renamed.plan()).values())


def test_ids_of_operators_that_have_no_like_never_change() -> None:
    # These are in the checkpoints of running jobs: a change here has their state refused.
    builder = Builder()
    news, prices = builder.source("news"), builder.source("prices")
    both = builder.union(news, prices)
    builder.map(news)
    builder.map(news)
    per_user = builder.reduce(both, "per user")
    process = builder.process(per_user)
    keyed_map = builder.keyed_map(prices)
    builder.sink(process, ExactlyOnce())
    builder.sink(process, ExactlyOnce(), "other")
    builder.sink(keyed_map)
    plan = builder.plan()
    assert [operator_ids(plan)[node.id] for node in plan] == [
        "e88ae3834d70",
        "c5d68f4cc1c2",
        "6eba676eb848",
        "b4d6670e6879",
        "b4d6670e6879-2",
        "2b098febcb3a",
        "8428755e91cb",
        "882607b754a9",
        "4920549f81b3",
        "4920549f81b3-2",
        "7b1ed206f998",
    ]
    assert [region.id for region in regions(plan)] == ["3f2b3035-0"]


def test_like_siblings_are_told_apart_by_their_names_whatever_their_order() -> None:
    one, other = Builder(), Builder()
    source = one.source()
    per_user, per_topic = one.reduce(source, "per user"), one.reduce(source, "per topic")
    source = other.source()
    other.reduce(other.reduce(source, "per topic"), "below")
    moved = other.reduce(source, "per user")
    ids, swapped = operator_ids(one.plan()), operator_ids(other.plan())
    assert ids[per_user] == swapped[moved]
    assert ids[per_topic] == swapped[1]
    assert told_apart_by_order(one.plan()) == told_apart_by_order(other.plan()) == []


def test_like_siblings_of_one_name_are_told_apart_by_their_order_and_number() -> None:
    builder = Builder()
    source = builder.source()
    nodes = [builder.reduce(source) for _ in range(3)]
    ids = operator_ids(builder.plan())
    stem = ids[nodes[0]].partition("-")[0]
    assert [ids[n] for n in nodes] == [f"{stem}-1of3", f"{stem}-2of3", f"{stem}-3of3"]
    assert told_apart_by_order(builder.plan()) == [tuple(builder.node(n) for n in nodes)]
    builder.change(nodes[1], uid="its own")
    assert [operator_ids(builder.plan())[n] for n in nodes] == [f"{stem}-1of3", "its own", f"{stem}-3of3"]
    assert told_apart_by_order(builder.plan()) == [(builder.node(nodes[0]), builder.node(nodes[2]))]
    builder.change(nodes[0], uid="of its own too")
    assert told_apart_by_order(builder.plan()) == []


def test_sources_of_one_name_are_told_apart_by_their_order_and_number() -> None:
    builder = Builder()
    nodes = [builder.source("Kafka Source") for _ in range(2)]
    builder.source("another")
    ids = operator_ids(builder.plan())
    assert [ids[n].partition("-")[2] for n in nodes] == ["1of2", "2of2"]
    assert told_apart_by_order(builder.plan()) == [tuple(builder.node(n) for n in nodes)]


def test_order_among_operators_without_state_matters_to_nobody() -> None:
    builder = Builder()
    source = builder.source()
    builder.map(source)
    builder.sink(builder.map(source), ExactlyOnce())
    builder.sink(source, ExactlyOnce())
    assert told_apart_by_order(builder.plan()) == []


@pytest.mark.parametrize("is_first", [True, False])
def test_a_map_without_state_takes_no_id_of_one_that_keeps_some(is_first: bool) -> None:
    alone, beside = Builder(), Builder()
    by_itself = alone.keyed_map(alone.source())
    expected = operator_ids(alone.plan())[by_itself]
    source = beside.source()
    if is_first:
        beside.map(source)
    stateful = beside.keyed_map(source)
    beside.map(source)
    ids = operator_ids(beside.plan())
    assert ids[stateful] == expected
    assert len(set(ids.values())) == len(ids)


names = st.sampled_from(["Reduce", "per user", "per topic"])


uids = st.sets(st.integers(0, 3))


@given(st.booleans(), st.lists(names, min_size=1, max_size=4), st.integers(0, 4), names, uids, uids)
def test_an_operator_more_or_less_never_hands_state_to_another(
    of_sources: bool, before: list[str], at: int, added: str, with_uid: set[int], with_uid_too: set[int]
) -> None:
    def ids(names: list[tuple[int, str]], with_uid: set[int]) -> dict[int, str]:
        """Ids by the number that an operator keeps in both programs."""
        builder = Builder()
        source = None if of_sources else builder.source()
        nodes = {}
        for number, name in names:
            nodes[number] = builder.source(name) if source is None else builder.reduce(source, name)
            if number in with_uid:
                builder.change(nodes[number], uid=f"uid {number}")
        found = operator_ids(builder.plan())
        return {number: found[n] for number, n in nodes.items()}

    few = list(enumerate(before))
    many = [*few[:at], (9, added), *few[at:]]
    for one, other in [
        (ids(few, with_uid), ids(many, with_uid | with_uid_too)),
        (ids(many, with_uid), ids(few, with_uid | with_uid_too)),
    ]:
        claimed = {operator_id: number for number, operator_id in other.items()}
        assert all(claimed.get(operator_id, number) == number for number, operator_id in one.items())


def test_a_uid_is_the_id_and_changes_none_below() -> None:
    builder = Builder()
    source = builder.source()
    below = builder.reduce(source)
    automatic = operator_ids(builder.plan())[below]
    builder.change(source, uid="news")
    assert operator_ids(builder.plan()) == {source: "news", below: automatic}


def test_two_operators_with_one_uid_are_refused_by_name() -> None:
    builder = Builder()
    source = builder.source()
    builder.change(builder.map(source, "a"), uid="same")
    builder.change(builder.map(source, "b"), uid="same")
    with pytest.raises(ConfigError, match=r"2 operators have the uid 'same': `a`, `b`; give each its own"):
        operator_ids(builder.plan())


def test_sources_and_everything_keyed_keep_state() -> None:
    builder = Builder()
    source = builder.source()
    nodes = [source, builder.map(source), builder.reduce(source), builder.sink(source)]
    assert [keeps_state(builder.node(n)) for n in nodes] == [True, False, True, False]


def test_what_is_connected_is_one_region_also_by_a_later_union() -> None:
    builder = Builder()
    news, prices, alone = builder.source("news"), builder.source("prices"), builder.source("alone")
    left, right = builder.map(news), builder.map(prices)
    both = builder.sink(builder.union(left, right), ExactlyOnce())
    other = builder.sink(alone)
    found = regions(builder.plan())
    assert [set(region.nodes) for region in found] == [{news, prices, left, right, both - 1, both}, {alone, other}]
    assert found[0].sources == (news, prices)
    assert found[0].exactly_once_sinks == (both,)
    assert found[1].exactly_once_sinks == ()


def test_three_parts_joined_one_after_the_other_are_one_region() -> None:
    builder = Builder()
    a, b, c = builder.source("a"), builder.source("b"), builder.source("c")
    late = builder.union(b, c)
    builder.sink(builder.union(a, late))
    assert len(regions(builder.plan())) == 1


def test_a_regions_id_comes_from_its_exactly_once_sinks_and_its_lane_and_not_from_plan_order() -> None:
    def build(*names: str) -> Plan:
        builder = Builder()
        for name in names:
            builder.change(builder.sink(builder.source(name), ExactlyOnce()), uid=f"to {name}", parallelism=2)
        return builder.plan()

    forward, backward = regions(build("a", "b")), regions(build("b", "a"))
    assert [region.id for region in forward] == [region.id for region in reversed(backward)]
    assert [region.id[:-1] for region in forward] == [region.id[:-1] for region in regions(build("a", "b"), lane=1)]
    assert {region.id[-1] for region in regions(build("a", "b"), lane=1)} == {"1"}


def test_a_regions_id_does_not_change_with_its_sources() -> None:
    found = []
    for name in ("news", "news from elsewhere"):
        builder = Builder()
        builder.change(builder.sink(builder.source(name), ExactlyOnce()), uid="counts")
        found.append(regions(builder.plan())[0].id)
    assert found[0] == found[1]


def test_a_region_without_exactly_once_sinks_is_named_by_its_sources() -> None:
    one, other = Builder(), Builder()
    one.sink(one.source())
    other.sink(other.map(other.source()))
    assert regions(one.plan())[0].id == regions(other.plan())[0].id


def test_a_region_without_sources_is_named_by_its_operators() -> None:
    builder = Builder()
    builder.add(Map(str), "floating")
    assert len(regions(builder.plan())) == 1


def test_only_a_sink_that_says_so_is_exactly_once() -> None:
    builder = Builder()
    source = builder.source()
    nodes = [source, builder.sink(source), builder.sink(source, ExactlyOnce())]
    assert [is_exactly_once(builder.node(n)) for n in nodes] == [False, False, True]


@given(st.lists(st.lists(st.integers(0, 20), max_size=3), min_size=1, max_size=12))
def test_regions_are_the_connected_parts_of_any_plan(shape: list[list[int]]) -> None:
    builder = PlanBuilder()
    for number, above in enumerate(shape):
        inputs = tuple(i % number for i in above) if number else ()
        if inputs:
            builder.add(Union(), "Union", inputs)
        else:
            builder.add(ReadSource(CollectionSource(()), WatermarkStrategy.no_watermarks()), f"source {number}")
    plan = builder.build("job")
    found = regions(plan)
    of = {n: region.id for region in found for n in region.nodes}
    assert sorted(of) == list(range(len(shape)))
    assert len({region.id for region in found}) == len(found)
    assert all(of[node.id] == of[i] for node in plan for i in node.inputs)
    # As many as there are parts: merging any more would join what nothing connects.
    parts = {n: {n} for n in range(len(shape))}
    for node in plan:
        for i in node.inputs:
            joined = parts[node.id] | parts[i]
            for n in joined:
                parts[n] = joined
    assert {frozenset(region.nodes) for region in found} == {frozenset(part) for part in parts.values()}
