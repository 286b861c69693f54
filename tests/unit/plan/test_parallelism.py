"""How many lanes a plan runs in, and what is refused as elements would have to change their lane."""

from __future__ import annotations

import pytest
from tests.unit.plan.test_identity import Builder
from tests.unit.runtime.endless import Numbers

from headrace.common import WatermarkStrategy
from headrace.connector import ErrorPolicy
from headrace.connector.builtin import PrintSink
from headrace.errors import NotSupportedError
from headrace.plan.graph import Plan, ReadSource
from headrace.plan.identity import regions
from headrace.plan.parallelism import idle_default, lanes, with_parallelism


class ParallelBuilder(Builder):
    def numbers(self, name: str = "numbers") -> int:
        return self.add(ReadSource(Numbers(), WatermarkStrategy.no_watermarks()), name).id


def parallelism(plan: Plan, default: int) -> list[int | None]:
    return [node.parallelism for node in with_parallelism(plan, default)]


def test_the_default_counts_where_an_operator_says_nothing() -> None:
    builder = ParallelBuilder()
    builder.sink(builder.map(builder.numbers()))
    assert parallelism(builder.plan(), 3) == [3, 3, 3]
    assert lanes(with_parallelism(builder.plan(), 3)) == 3


def test_unconnected_parts_may_differ_and_each_has_regions_in_its_own_lanes_only() -> None:
    builder = ParallelBuilder()
    wide = builder.numbers("wide")
    builder.sink(wide)
    narrow = builder.numbers("narrow")
    builder.sink(narrow, name="other")
    for n in (narrow, narrow + 1):
        builder.change(n, parallelism=1)
    plan = with_parallelism(builder.plan(), 3)
    assert [[region.sources for region in regions(plan, lane)] for lane in range(3)] == [
        [(wide,), (narrow,)],
        [(wide,)],
        [(wide,)],
    ]


def test_what_one_subtask_reads_runs_in_one_lane() -> None:
    builder = ParallelBuilder()
    builder.sink(builder.reduce(builder.source()))
    assert parallelism(builder.plan(), 4) == [1, 1, 1]


def test_what_one_subtask_reads_may_join_what_all_read() -> None:
    builder = ParallelBuilder()
    builder.sink(builder.union(builder.source(), builder.numbers()))
    assert parallelism(builder.plan(), 2) == [1, 2, 2, 2]


@pytest.mark.parametrize("behind", [1, 3])
def test_two_operators_one_behind_the_other_need_the_same_parallelism(behind: int) -> None:
    builder = ParallelBuilder()
    mapped = builder.map(builder.numbers())
    builder.change(mapped, parallelism=behind)
    with pytest.raises(NotSupportedError, match=rf"parallelism {behind} of `Map` behind parallelism 2 of `numbers`"):
        with_parallelism(builder.plan(), 2)


def test_a_keyed_operator_needs_parallelism_one() -> None:
    builder = ParallelBuilder()
    builder.reduce(builder.numbers())
    with pytest.raises(NotSupportedError, match="parallelism 2 of `Reduce`, which is keyed"):
        with_parallelism(builder.plan(), 2)
    assert parallelism(builder.plan(), 1) == [1, 1]


def test_more_subtasks_behind_a_collection_are_refused_where_they_are_asked_for() -> None:
    builder = ParallelBuilder()
    mapped = builder.map(builder.source())
    builder.change(mapped, parallelism=2)
    with pytest.raises(NotSupportedError, match=r"parallelism 2 of `Map`.*one subtask"):
        with_parallelism(builder.plan(), 1)


def test_a_default_that_has_no_effect_at_all_is_told_of() -> None:
    builder = ParallelBuilder()
    builder.sink(builder.source())
    plan = with_parallelism(builder.plan(), 3)
    assert lanes(plan) == 1
    assert "`parallelism.default` 3 has no effect: `source` is read by one subtask" in (idle_default(plan, 3) or "")
    assert idle_default(with_parallelism(builder.plan(), 1), 1) is None

    builder.sink(builder.numbers(), name="more")
    assert idle_default(with_parallelism(builder.plan(), 3), 3) is None


def test_a_sink_for_dead_letters_runs_where_the_others_do() -> None:
    builder = ParallelBuilder()
    builder.sink(builder.numbers())
    for chosen in (1, 2):
        for n in (0, 1):
            builder.change(n, parallelism=chosen)
        plan = with_parallelism(builder.build("job", ErrorPolicy.dead_letter(PrintSink())), 3)
        assert [node.parallelism for node in plan] == [chosen] * 3
