"""Splits and keyed state of a snapshot, laid out over today's regions and lanes.

A start may find its job with another parallelism, other operators, or regions restored from different snapshots. These
functions say which of today's regions gets what; nothing is read or copied here.

*Splits.* Which splits there are is read off the regions' snapshots and nothing else, so that a split which was
discovered in a checkpoint that its region lost is simply unknown, and is discovered again. Where an operator is in the
same regions as before, each keeps its splits; otherwise they are dealt out anew, evenly. Within one epoch a split never
moves from region to region, so one split in two regions at different positions cannot be the work of one job: there is
no position that neither loses nor repeats records, and it is refused.

*Keyed state.* Its files are handed whole to every region that owns one of their key groups; each lane reads its groups.

*Claims.* State is claimed by the operator of its uid, if that can hold it: no map takes over a source's splits.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import assert_never

from headrace.checkpoint.decision import Refuse, Restore
from headrace.checkpoint.manifest import KeyedFile, Location, OperatorSnapshot, RegionSnapshot
from headrace.connector import JsonValue
from headrace.plan.identity import Holds


@dataclass(frozen=True, slots=True)
class RegionLayout:
    """One of today's regions: which lanes (subtasks) of each operator uid it runs, and its transaction's location.

    `names` are the operators' names by uid, for people; `holds` says what each of them can take over.
    """

    operators: Mapping[str, tuple[int, ...]]
    location: Location | None = None
    names: Mapping[str, str] = field(default_factory=dict)
    holds: Mapping[str, Holds] = field(kw_only=True)


def key_groups_of(lane: int, parallelism: int, max_parallelism: int) -> range:
    """The key groups that one lane of an operator owns, as Flink divides them.

    >>> [key_groups_of(lane, 3, 128) for lane in range(3)]
    [range(0, 43), range(43, 86), range(86, 128)]
    """
    start = -(-lane * max_parallelism // parallelism)
    return range(start, ((lane + 1) * max_parallelism - 1) // parallelism + 1)


def lane_of(key_group: int, parallelism: int, max_parallelism: int) -> int:
    """The lane that owns a key group: the inverse of `key_groups_of`.

    >>> lane_of(43, 3, 128)
    1
    """
    return key_group * parallelism // max_parallelism


def deal(split_ids: Iterable[str], lanes: Sequence[int]) -> dict[int, list[str]]:
    """Splits over lanes, evenly, the same way every time.

    >>> deal(["t-2", "t-0", "t-1"], [0, 1])
    {0: ['t-0', 't-2'], 1: ['t-1']}
    """
    ordered = sorted(split_ids)
    return {lane: ordered[index :: len(lanes)] for index, lane in enumerate(lanes)}


def takes(holds: Holds | None, snapshot: OperatorSnapshot) -> bool:
    """Whether an operator of today that can hold this (None: there is none) takes over all of a snapshot."""
    return (not snapshot.splits or holds is Holds.SPLITS) and (not snapshot.keyed or holds is Holds.KEYED_STATE)


def redistribute(
    restore: Restore,
    layout: Mapping[str, RegionLayout],
    *,
    max_parallelism: int,
    ignore_unclaimed: bool = False,
) -> dict[str, RegionSnapshot] | Refuse:
    """What each of today's regions begins with.

    Refuses state that no operator of today claims, unless `ignore_unclaimed` drops it; keyed state that was divided
    into another number of key groups; and a split at two positions.
    """
    found: dict[str, dict[str, OperatorSnapshot]] = {}
    for region, snapshot in restore.regions.items():
        for uid, operator in snapshot.operators.items():
            found.setdefault(uid, {})[region] = operator
    today = {uid: region.holds[uid] for region in layout.values() for uid in region.operators}
    # An empty one is lost without harm, but kept where it is claimed: a source without splits is no new source.
    unclaimed = [uid for uid in sorted(found) if not all(takes(today.get(uid), o) for o in found[uid].values())]
    if unclaimed and not ignore_unclaimed:
        names = {uid: name for region in layout.values() for uid, name in region.names.items()}
        held = [_described(uid, found[uid].values(), today.get(uid), names.get(uid, "")) for uid in unclaimed]
        return Refuse(_unclaimed(held, [_named(uid, names.get(uid, "")) for uid in sorted(today)]))
    claimed = sorted(uid for uid in set(today) & set(found) if uid not in unclaimed)
    before = restore.newest.max_parallelism
    if before != max_parallelism and any(o.keyed for uid in claimed for o in found[uid].values()):
        return Refuse(
            f"the snapshot's keyed state is divided into {before} key groups, the job now asks for {max_parallelism}; "
            f"set `pipeline.max-parallelism` back to {before}, or start over with `--fresh`, which repeats records"
        )

    regions: dict[str, dict[str, OperatorSnapshot]] = {region: {} for region in layout}
    for uid in claimed:
        lanes = {region: own.operators[uid] for region, own in layout.items() if uid in own.operators}
        splits = _splits(uid, found[uid], lanes, set(restore.regions))
        if isinstance(splits, Refuse):
            return splits
        parallelism = sum(map(len, lanes.values()))
        files = dict.fromkeys(file for operator in found[uid].values() for file in operator.keyed)
        for region, own in lanes.items():
            regions[region][uid] = OperatorSnapshot(
                splits=splits[region],
                keyed=tuple(file for file in files if _owns(own, file, parallelism, max_parallelism)),
                name=layout[region].names.get(uid, ""),
            )
    return {region: RegionSnapshot(operators, layout[region].location) for region, operators in regions.items()}


def _splits(
    uid: str, found: Mapping[str, OperatorSnapshot], lanes: Mapping[str, tuple[int, ...]], recorded: set[str]
) -> dict[str, dict[str, Mapping[str, JsonValue]]] | Refuse:
    """One operator's splits, by region."""
    owner: dict[str, str] = {}
    all_splits: dict[str, Mapping[str, JsonValue]] = {}
    for region, operator in found.items():
        for split_id, split in operator.splits.items():
            if split_id in all_splits and dict(all_splits[split_id]) != dict(split):
                return Refuse(
                    f"split {split_id!r} of operator {uid!r} is in regions {owner[split_id]!r} and {region!r} of the "
                    "snapshot at different positions: its manifests were mixed up or altered. Start from another "
                    "snapshot with `--from`, or start over with `--fresh`; both repeat records"
                )
            all_splits.setdefault(split_id, split)
            owner.setdefault(split_id, region)
    if set(found) <= set(lanes) and set(lanes) <= recorded:
        return {region: dict(found[region].splits) if region in found else {} for region in lanes}
    places = [region for region, own in lanes.items() for _ in own]
    result: dict[str, dict[str, Mapping[str, JsonValue]]] = {region: {} for region in lanes}
    for place, dealt in deal(all_splits, range(len(places))).items():
        result[places[place]].update({split_id: all_splits[split_id] for split_id in dealt})
    return result


def _owns(lanes: Iterable[int], file: KeyedFile, parallelism: int, max_parallelism: int) -> bool:
    ranges = (key_groups_of(lane, parallelism, max_parallelism) for lane in lanes)
    return any(groups.start <= file.last_group and file.first_group < groups.stop for groups in ranges)


def _named(uid: str, name: str, note: str = "") -> str:
    named = [f"`{name}`", repr(uid)] if name and name != uid else [repr(uid)]
    first, *about = [*named, note] if note else named
    return f"{first} ({'; '.join(about)})" if about else first


def _described(uid: str, snapshots: Iterable[OperatorSnapshot], holds: Holds | None, name: str) -> str:
    """An operator of the snapshot as it was when that was taken, and what today's operator of its uid is, if any."""
    snapshots = list(snapshots)
    kind = "source" if any(snapshot.splits for snapshot in snapshots) else "keyed operator"
    match holds:
        case None:
            note = ""
        case Holds.SPLITS:
            note = f"now the uid of `{name or uid}`, a source"
        case Holds.KEYED_STATE:
            note = f"now the uid of `{name or uid}`, a keyed operator"
        case Holds.NOTHING:
            note = f"now the uid of `{name or uid}`, which keeps no state"
        case _:
            assert_never(holds)
    return f"{kind} {_named(uid, snapshots[0].name, note)}"


def _unclaimed(held: Sequence[str], claimed: Sequence[str]) -> str:
    return (
        f"the snapshot holds state of {', '.join(held)}, which no operator of this program claims (it has "
        f"{', '.join(claimed)}). Give the operator that continues it the same `uid`; or drop the state with "
        "`execution.state-recovery.ignore-unclaimed-state: true`, and what it held is lost"
    )
