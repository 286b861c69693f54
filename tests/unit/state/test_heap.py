from __future__ import annotations

import itertools
import json
import pickle
import sys
import types

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.errors import ConfigError, NotSupportedError, StateError
from headrace.state.heap import HeapState
from headrace.state.key_groups import key_group

ALL = range(128)


def restored(data: bytes, groups: range = ALL) -> HeapState:
    state = HeapState("count")
    state.restore(data, groups, 128)
    return state


def data_of(state: HeapState) -> bytes:
    return b"".join(state.snapshot(128))


@given(
    st.dictionaries(st.text() | st.integers() | st.none() | st.tuples(st.text(), st.integers()), st.integers()),
    st.dictionaries(st.text(), st.lists(st.integers())),
)
def test_state_survives_its_snapshot(counts: dict[object, int], lists: dict[str, list[int]]) -> None:
    state = HeapState("count")
    state.table("count").update(counts)
    state.table("lists").update(lists)

    again = restored(data_of(state))

    assert again.table("count") == counts
    assert again.table("lists") == lists
    assert again.is_empty == state.is_empty == (not counts and not lists)


@given(st.dictionaries(st.integers(), st.integers()), st.lists(st.integers(0, 128), max_size=3))
def test_lanes_restore_their_key_groups_and_nothing_else(counts: dict[int, int], cuts: list[int]) -> None:
    state = HeapState("count")
    state.table("count").update(counts)
    data = data_of(state)
    bounds = [0, *sorted(cuts), 128]

    together: dict[int, int] = {}
    for first, end in itertools.pairwise(bounds):
        own = restored(data, range(first, end)).table("count")
        assert all(first <= key_group(key) < end for key in own)
        assert not together.keys() & own.keys()
        together |= own

    assert together == counts


def test_table_is_one_object_for_as_long_as_the_state_lives() -> None:
    state = HeapState("count")
    table = state.table("count")
    other = HeapState("count")
    other.table("count")["a"] = 1

    state.restore(data_of(other), ALL, 128)

    assert state.table("count") is table
    assert table == {"a": 1}


def test_several_files_are_restored_into_one_state() -> None:
    one, other = HeapState("count"), HeapState("count")
    one.table("count")["a"] = 1
    other.table("count")["b"] = 2

    state = restored(data_of(one))
    state.restore(data_of(other), ALL, 128)

    assert state.table("count") == {"a": 1, "b": 2}


def test_snapshot_is_of_the_moment_it_was_taken() -> None:
    state = HeapState("count")
    state.table("count")["a"] = [1]
    chunks = state.snapshot(128)

    state.table("count")["a"].append(2)

    assert restored(b"".join(chunks)).table("count") == {"a": [1]}


def test_value_that_cannot_be_pickled_is_named() -> None:
    state = HeapState("count")
    state.table("fine")["a"] = 1
    state.table("bad")[("a", 1)] = lambda: 0

    with pytest.raises(
        ConfigError, match="state 'bad' of operator 'count' holds a function under a key of type tuple"
    ) as caught:
        state.snapshot(128)

    assert caught.value.__cause__ is not None


class Once:
    """Fails to be pickled the first time only."""

    tries = 0

    def __reduce__(self) -> tuple[type[Once], tuple[()]]:
        Once.tries += 1
        if Once.tries == 1:
            raise RuntimeError("not now")
        return Once, ()


def test_failure_that_does_not_come_back_is_raised_as_it_was() -> None:
    state = HeapState("count")
    state.table("t")["a"] = Once()

    with pytest.raises(RuntimeError, match="not now"):
        state.snapshot(128)


class Crowded:
    """Memory runs out while it is pickled."""

    def __reduce__(self) -> str:
        raise MemoryError


def test_memory_that_runs_out_is_no_fault_of_the_state() -> None:
    state = HeapState("count")
    state.table("t")["a"] = Crowded()

    with pytest.raises(MemoryError):
        state.snapshot(128)


def test_key_that_has_no_group_is_refused_by_operator_and_state() -> None:
    state = HeapState("count")
    state.table("t")[object()] = 1

    with pytest.raises(NotSupportedError, match=r"state 't' of operator 'count': a builtins\.object cannot be a key"):
        state.snapshot(128)


def test_state_of_a_class_that_is_gone_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("the_users_module")
    exec("class Total: pass", module.__dict__)
    monkeypatch.setitem(sys.modules, "the_users_module", module)
    state = HeapState("count")
    state.table("t")["a"] = module.Total()
    data = data_of(state)
    monkeypatch.delattr(module, "Total")

    with pytest.raises(StateError, match=r"state of operator 'count' cannot be read by this program: .*Total"):
        restored(data)


def test_other_number_of_key_groups_is_refused() -> None:
    state = HeapState("count")

    with pytest.raises(
        StateError, match=r"divided into 64 key groups, not 128; set `pipeline.max-parallelism` back to 64"
    ):
        restored(b"".join(state.snapshot(64)))


@pytest.mark.parametrize("data", [b"", b"headrace heap state 2\n{}", pickle.dumps({})])
def test_content_of_another_format_is_refused(data: bytes) -> None:
    with pytest.raises(StateError, match="is not heap state of a format that this version of Headrace reads"):
        restored(data)


def test_groups_that_are_not_wanted_are_not_unpickled() -> None:
    header = {"operator": "count", "max_parallelism": 128, "groups": [[3, 4], [9, 7]]}
    data = b"headrace heap state 1\n" + json.dumps(header).encode() + b"\n" + b"junkgarbage"

    assert restored(data, range(4, 9)).is_empty
