from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.checkpoint.values import baseline, checkpoint, location

from headrace.checkpoint.decision import Refuse, Restore
from headrace.checkpoint.manifest import FileRef, KeyedFile, Manifest, OperatorSnapshot, RegionSnapshot
from headrace.checkpoint.redistribution import RegionLayout, deal, key_groups_of, lane_of, redistribute
from headrace.plan.identity import Holds


def restore(manifest: Manifest, **sources: Manifest) -> Restore:
    """All regions from `manifest`, but for those that are named with another."""
    chosen = {name: sources.get(name, manifest) for name in manifest.regions}
    return Restore(manifest, {r: m.regions[r] for r, m in chosen.items()}, {r: m.id for r, m in chosen.items()})


def reading(*splits: str) -> RegionSnapshot:
    return RegionSnapshot({"source": OperatorSnapshot({split: {"offset": 5} for split in splits})}, location("old"))


HOLDS = {"source": Holds.SPLITS, "count": Holds.KEYED_STATE}


def lanes(*names: str) -> dict[str, RegionLayout]:
    return {name: RegionLayout({"source": (lane,)}, location(name), holds=HOLDS) for lane, name in enumerate(names)}


def splits(result: object) -> dict[str, list[str]]:
    assert isinstance(result, dict), result
    return {
        name: sorted(snapshot.operators["source"].splits) if "source" in snapshot.operators else []
        for name, snapshot in result.items()
    }


@given(st.integers(1, 128), st.integers(1, 64))
def test_every_key_group_belongs_to_exactly_one_lane(max_parallelism: int, parallelism: int) -> None:
    parallelism = min(parallelism, max_parallelism)

    groups = [key_groups_of(lane, parallelism, max_parallelism) for lane in range(parallelism)]

    assert [group for own in groups for group in own] == list(range(max_parallelism))
    for lane, own in enumerate(groups):
        assert {lane_of(group, parallelism, max_parallelism) for group in own} == {lane}


@given(st.sets(st.text(max_size=4)), st.integers(1, 5))
def test_splits_are_dealt_evenly_and_completely(ids: set[str], count: int) -> None:
    dealt = deal(ids, range(count))

    assert sorted(split for own in dealt.values() for split in own) == sorted(ids)
    assert max(map(len, dealt.values())) - min(map(len, dealt.values())) <= 1


def test_regions_keep_their_splits_when_nothing_has_changed() -> None:
    before = baseline(a=reading("s0", "s1", "s2"), b=reading("s3"))

    result = redistribute(restore(before), lanes("a", "b"), max_parallelism=128)

    assert splits(result) == {"a": ["s0", "s1", "s2"], "b": ["s3"]}
    assert isinstance(result, dict)
    assert result["a"].location == location("a")


def test_splits_are_dealt_anew_over_more_lanes() -> None:
    before = baseline(a=reading("s0", "s1", "s2", "s3"))

    result = redistribute(restore(before), lanes("a", "b"), max_parallelism=128)

    assert splits(result) == {"a": ["s0", "s2"], "b": ["s1", "s3"]}


def test_one_lane_takes_all_splits() -> None:
    before = baseline(a=reading("s0"), b=reading("s1"), c=reading())

    assert splits(redistribute(restore(before), lanes("a"), max_parallelism=128)) == {"a": ["s0", "s1"]}


def test_region_that_had_no_splits_is_left_alone() -> None:
    before = baseline(a=reading("s0", "s1"), b=RegionSnapshot({}))

    assert splits(redistribute(restore(before), lanes("a", "b"), max_parallelism=128)) == {"a": ["s0", "s1"], "b": []}


def test_source_without_splits_is_kept_where_it_is_claimed() -> None:
    before = baseline(a=RegionSnapshot({"source": OperatorSnapshot()}))

    result = redistribute(restore(before), lanes("a"), max_parallelism=128)

    assert isinstance(result, dict)
    assert result["a"].operators == {"source": OperatorSnapshot()}


def test_split_discovered_in_a_checkpoint_that_its_region_lost_is_unknown_again() -> None:
    begin = baseline(a=reading("s0"), b=reading("s1"))
    first = checkpoint(begin, a=reading("s0"), b=reading("s1", "s2"))

    result = redistribute(restore(first, b=begin), lanes("a", "b"), max_parallelism=128)

    assert splits(result) == {"a": ["s0"], "b": ["s1"]}


def test_split_at_two_positions_is_refused() -> None:
    moved = RegionSnapshot({"source": OperatorSnapshot({"s0": {"offset": 6}})})
    before = baseline(a=reading("s0"), b=moved)

    result = redistribute(restore(before), lanes("a"), max_parallelism=128)

    assert isinstance(result, Refuse)
    assert "split 's0' of operator 'source' is in regions 'a' and 'b'" in result.reason


def test_split_twice_at_one_position_is_one_split() -> None:
    before = baseline(a=reading("s0"), b=reading("s0"))

    assert splits(redistribute(restore(before), lanes("c"), max_parallelism=128)) == {"c": ["s0"]}


LOW, HIGH = KeyedFile(FileRef("low", 1, ""), 0, 63), KeyedFile(FileRef("high", 1, ""), 64, 127)


def counting(*files: KeyedFile) -> RegionSnapshot:
    return RegionSnapshot({"count": OperatorSnapshot(keyed=files)})


def test_keyed_files_go_to_every_region_that_owns_some_of_their_groups() -> None:
    before = baseline(a=counting(LOW, HIGH))
    layout = {f"r{lane}": RegionLayout({"count": (lane,)}, holds=HOLDS) for lane in range(3)}

    result = redistribute(restore(before), layout, max_parallelism=128)

    assert isinstance(result, dict)
    assert {name: r.operators["count"].keyed for name, r in result.items()} == {
        "r0": (LOW,),
        "r1": (LOW, HIGH),
        "r2": (HIGH,),
    }


def test_lane_that_owns_none_of_a_files_groups_does_not_get_it() -> None:
    layout = {f"r{lane}": RegionLayout({"count": (lane,)}, holds=HOLDS) for lane in range(2)}

    result = redistribute(restore(baseline(a=counting(LOW, HIGH))), layout, max_parallelism=128)

    assert isinstance(result, dict)
    assert [r.operators["count"].keyed for r in result.values()] == [(LOW,), (HIGH,)]


def test_keyed_files_of_several_regions_come_together_in_one() -> None:
    before = baseline(a=counting(LOW), b=counting(HIGH))

    result = redistribute(restore(before), {"all": RegionLayout({"count": (0, 1)}, holds=HOLDS)}, max_parallelism=128)

    assert isinstance(result, dict)
    assert result["all"].operators["count"].keyed == (LOW, HIGH)


def test_other_number_of_key_groups_is_refused_where_there_is_keyed_state() -> None:
    layout = {"a": RegionLayout({"count": (0,), "source": (0,)}, holds=HOLDS)}

    result = redistribute(restore(baseline(a=counting(LOW))), layout, max_parallelism=256)

    assert isinstance(result, Refuse)
    assert "divided into 128 key groups, the job now asks for 256" in result.reason
    assert splits(redistribute(restore(baseline(a=reading("s0"))), layout, max_parallelism=256)) == {"a": ["s0"]}


def test_unclaimed_state_is_refused_by_name_unless_it_is_to_be_ignored() -> None:
    before = baseline(a=replace(counting(LOW), operators={**counting(LOW).operators, **reading("s0").operators}))

    refused = redistribute(restore(before), lanes("a"), max_parallelism=128)
    ignored = redistribute(restore(before), lanes("a"), max_parallelism=128, ignore_unclaimed=True)

    assert isinstance(refused, Refuse)
    assert "'count'" in refused.reason
    assert "`execution.state-recovery.ignore-unclaimed-state: true`" in refused.reason
    assert isinstance(ignored, dict)
    assert set(ignored["a"].operators) == {"source"}


def test_unclaimed_state_is_named_as_its_operator_was_and_beside_it_what_the_program_has() -> None:
    gone = {
        "5fa9": OperatorSnapshot({"s0": {"offset": 5}}, name="old topic"),
        "c0de": OperatorSnapshot(keyed=(LOW,), name="count"),
        "count-2": OperatorSnapshot(keyed=(HIGH,), name="count-2"),
    }
    names, able = {"77aa": "new topic", "sink": "sink"}, {"77aa": Holds.SPLITS, "sink": Holds.NOTHING}
    layout = {"a": RegionLayout({"77aa": (0,), "sink": (0,)}, names=names, holds=able)}

    refused = redistribute(restore(baseline(a=RegionSnapshot(gone))), layout, max_parallelism=128)

    assert isinstance(refused, Refuse)
    assert refused.reason.startswith(
        "the snapshot holds state of source `old topic` ('5fa9'), keyed operator `count` ('c0de'), keyed operator "
        "'count-2', which no operator of this program claims (it has `new topic` ('77aa'), 'sink')"
    )


def test_state_is_handed_on_under_todays_name_of_its_operator() -> None:
    before = baseline(a=RegionSnapshot({"c0de": OperatorSnapshot(keyed=(LOW,), name="count")}))
    layout = {"a": RegionLayout({"c0de": (0,)}, names={"c0de": "count per user"}, holds={"c0de": Holds.KEYED_STATE})}

    result = redistribute(restore(before), layout, max_parallelism=128)

    assert isinstance(result, dict)
    assert result["a"].operators["c0de"] == OperatorSnapshot(keyed=(LOW,), name="count per user")


@pytest.mark.parametrize(
    ("able", "now"),
    [
        (Holds.NOTHING, "which keeps no state"),
        (Holds.SPLITS, "a source"),
        (Holds.KEYED_STATE, "a keyed operator"),
    ],
)
@pytest.mark.parametrize("uid", ["news", "count"])
def test_operator_that_cannot_hold_what_its_uid_held_does_not_claim_it(uid: str, able: Holds, now: str) -> None:
    held = {"news": OperatorSnapshot({"s0": {"offset": 5}}, name="Kafka"), "count": OperatorSnapshot(keyed=(LOW,))}
    was = {"news": "source `Kafka` ('news'; {})", "count": "keyed operator 'count' ({})"}
    layout = {"a": RegionLayout({uid: (0,)}, names={uid: "other"}, holds={uid: able})}
    before = restore(baseline(a=RegionSnapshot({uid: held[uid]})))

    result = redistribute(before, layout, max_parallelism=128)
    ignored = redistribute(before, layout, max_parallelism=128, ignore_unclaimed=True)

    assert isinstance(ignored, dict)
    if able is {"news": Holds.SPLITS, "count": Holds.KEYED_STATE}[uid]:
        assert result == ignored
        assert not ignored["a"].operators[uid].is_empty
    else:
        assert isinstance(result, Refuse)
        assert f"state of {was[uid].format(f'now the uid of `other`, {now}')}, which no operator" in result.reason
        assert ignored["a"].operators == {}


def test_uids_that_two_operators_exchanged_are_refused_both() -> None:
    held = {"source": OperatorSnapshot({"s0": {"offset": 5}}), "count": OperatorSnapshot(keyed=(LOW,))}
    swapped = {"source": Holds.KEYED_STATE, "count": Holds.SPLITS}
    layout = {"a": RegionLayout({"source": (0,), "count": (0,)}, holds=swapped)}

    result = redistribute(restore(baseline(a=RegionSnapshot(held))), layout, max_parallelism=128)

    assert isinstance(result, Refuse)
    assert "keyed operator 'count' (now the uid of" in result.reason
    assert "source 'source' (now the uid of" in result.reason


def test_state_that_nobody_can_hold_may_be_dropped_whatever_its_key_groups() -> None:
    layout = {"a": RegionLayout({"count": (0,)}, holds={"count": Holds.NOTHING})}
    before = restore(baseline(a=counting(LOW)))

    result = redistribute(before, layout, max_parallelism=256, ignore_unclaimed=True)

    assert isinstance(result, dict)
    assert result["a"].operators == {}


def test_operator_without_state_needs_no_claim() -> None:
    before = baseline(a=RegionSnapshot({"gone": OperatorSnapshot(), **reading("s0").operators}))

    assert splits(redistribute(restore(before), lanes("a"), max_parallelism=128)) == {"a": ["s0"]}


def test_operator_that_has_state_in_one_region_only_needs_a_claim() -> None:
    empty = RegionSnapshot({"gone": OperatorSnapshot()})
    before = baseline(a=empty, b=RegionSnapshot({"gone": OperatorSnapshot({"s0": {"offset": 5}})}))

    result = redistribute(restore(before), lanes("a", "b"), max_parallelism=128)

    assert isinstance(result, Refuse)
    assert "state of source 'gone', which no operator of this program claims" in result.reason
