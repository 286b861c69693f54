"""The plan, and the builder that the API writes it with."""

from __future__ import annotations

from dataclasses import FrozenInstanceError

import pytest

from headrace.plan.graph import Filter, Map, PlanBuilder, Union


def test_nodes_are_numbered_in_the_order_they_are_added() -> None:
    builder = PlanBuilder()
    first, second = builder.add(Map(str), "a"), builder.add(Filter(bool), "b", (0,))
    plan = builder.build("job")
    assert [node.id for node in plan] == [first.id, second.id] == [0, 1]
    assert plan.node(1) is second
    assert plan.job_name == "job"


def test_a_change_replaces_the_node_and_not_a_plan_that_was_taken() -> None:
    builder = PlanBuilder()
    builder.add(Map(str), "a")
    taken = builder.build("job")
    builder.change(0, name="b", uid="u", parallelism=2)
    assert taken.node(0).name == "a"
    changed = builder.node(0)
    assert (changed.name, changed.uid, changed.parallelism) == ("b", "u", 2)
    with pytest.raises(FrozenInstanceError):
        changed.name = "c"  # type: ignore[misc]


def test_a_consumer_that_takes_an_input_twice_is_there_twice() -> None:
    builder = PlanBuilder()
    builder.add(Map(str), "a")
    builder.add(Union(), "u", (0, 0))
    builder.add(Map(str), "b", (0,))
    plan = builder.build("job")
    assert [node.name for node in plan.consumers(0)] == ["u", "u", "b"]
    assert plan.consumers(2) == []


def test_clearing_begins_a_new_plan() -> None:
    builder = PlanBuilder()
    builder.add(Map(str), "a")
    builder.clear()
    assert builder.build("job").nodes == ()
    assert builder.add(Map(str), "b").id == 0
