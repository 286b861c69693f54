"""The table of `headrace.checkpoint.decision`, row by row."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.unit.checkpoint.values import INCARNATION, at, baseline, checkpoint, folder, location, marker, region

from headrace.checkpoint.decision import (
    AlreadyFinished,
    Assume,
    BackOff,
    LookAgain,
    OtherCopy,
    Refuse,
    Restore,
    StartFresh,
    TimedOut,
    decide,
    is_same_transaction,
    needs_reread,
    next_id,
    on_fenced,
    superseded,
    transactions_to_fence,
)
from headrace.checkpoint.folder import Damaged, FolderContents
from headrace.checkpoint.manifest import Manifest
from headrace.checkpoint.marker import Marker

BEGIN = baseline(10)
FIRST = checkpoint(BEGIN)
SECOND = checkpoint(FIRST)
PREPARED = folder(FIRST, SECOND, committed=(FIRST,))
COMMITTED = folder(FIRST, SECOND, committed=(FIRST, SECOND))
OLDER = marker(at(3))
AHEAD = marker(at(99))
FOREIGN = marker(at(40, epoch=7, attempt="b7"), "0ther")


def decide_one(contents: FolderContents, found: Marker | None, assume: Assume | None = None) -> object:
    """The decision for a job of one region, `r`."""
    return decide(contents, {"r": found}, {"r": found}, assume=assume)


def assert_restores(decision: object, manifest: Manifest) -> None:
    assert isinstance(decision, Restore), decision
    assert decision.sources == {"r": manifest.id}
    assert decision.regions == {"r": manifest.regions["r"]}


def assert_refuses(decision: object, *words: str) -> None:
    assert isinstance(decision, Refuse), decision
    for word in words:
        assert word in decision.reason


def test_empty_folder_without_marker_starts_fresh() -> None:
    assert decide(folder(), {}, {"r": None}) == StartFresh()


def test_empty_folder_with_a_marker_is_refused_unless_fresh() -> None:
    decision = decide(folder(), {}, {"r": marker(SECOND)})

    assert_refuses(decision, "'r'", "folder was lost", "repeats", "`--from`", "`--fresh`", "`headrace.fresh`")
    assert decide(folder(), {}, {"r": marker(SECOND)}, fresh=True) == StartFresh()


def test_finished_job_is_said_to_be_finished_unless_fresh() -> None:
    contents = folder(SECOND, committed=(SECOND,), finished=SECOND)

    assert decide_one(contents, None) == AlreadyFinished(SECOND)
    assert decide(contents, {"r": None}, {"r": None}, fresh=True) == StartFresh()


@pytest.mark.parametrize("found", [None, marker(BEGIN), OLDER])
def test_restore_takes_the_baseline_whether_claimed_or_not(found: Marker | None) -> None:
    assert_restores(decide_one(folder(BEGIN), found), BEGIN)


@pytest.mark.parametrize("found", [None, marker(SECOND), marker(FIRST), OLDER])
def test_restore_takes_a_flagged_checkpoint_whatever_older_marker_there_is(found: Marker | None) -> None:
    assert_restores(decide_one(COMMITTED, found), SECOND)


def test_restore_takes_prepared_checkpoint_when_its_marker_is_there() -> None:
    assert_restores(decide_one(PREPARED, marker(SECOND)), SECOND)


def test_restore_takes_previous_checkpoint_when_marker_is_the_previous() -> None:
    decision = decide_one(PREPARED, marker(FIRST))

    assert_restores(decision, FIRST)
    assert isinstance(decision, Restore)
    assert decision.newest == SECOND
    assert decision.fallen_back == ("r",)


def test_restore_falls_back_to_a_baseline_too() -> None:
    assert_restores(decide_one(folder(BEGIN, FIRST), marker(BEGIN)), BEGIN)


@pytest.mark.parametrize(
    ("contents", "found", "why"),
    [
        (PREPARED, None, "its marker is gone"),
        (PREPARED, OLDER, "the cluster has lost offsets"),
        (PREPARED, AHEAD, "files were removed from the folder"),
        (PREPARED, FOREIGN, "another checkpoint folder"),
        (COMMITTED, AHEAD, "files were removed from the folder"),
        (COMMITTED, FOREIGN, "another checkpoint folder"),
        (folder(BEGIN), AHEAD, "files were removed from the folder"),
        (folder(BEGIN), FOREIGN, "another checkpoint folder"),
    ],
)
def test_what_nobody_can_know_is_refused_with_the_choices_and_their_risks(
    contents: FolderContents, found: Marker | None, why: str
) -> None:
    choices = "`--assume-committed`", "`--assume-aborted`", "`--fresh`", "`headrace.assume: committed`"
    assert_refuses(decide_one(contents, found), why, "'r'", "loses", "repeats", *choices)

    newest = contents.newest
    assert newest is not None
    assert_restores(decide_one(contents, found, Assume.COMMITTED), newest)
    aborted = FIRST if contents is PREPARED else newest
    assert_restores(decide_one(contents, found, Assume.ABORTED), aborted)


def test_assumption_does_not_override_a_proof() -> None:
    assert_restores(decide_one(PREPARED, marker(SECOND), Assume.ABORTED), SECOND)
    assert_restores(decide_one(PREPARED, marker(FIRST), Assume.COMMITTED), FIRST)


def test_marker_of_the_same_number_by_another_attempt_proves_nothing() -> None:
    stranger = marker(replace(SECOND.id, attempt="zombie"))

    assert_refuses(decide_one(PREPARED, stranger))


def test_baseline_that_superseded_an_incarnation_expects_its_markers() -> None:
    begin = replace(baseline(50, epoch=8), superseded=("0ther",))

    assert_restores(decide_one(folder(begin), FOREIGN), begin)


def test_superseded_incarnation_that_wrote_later_is_refused() -> None:
    begin = replace(baseline(50, epoch=7), superseded=("0ther",))

    assert_refuses(decide_one(folder(begin), FOREIGN), "another checkpoint folder")


def test_regions_decide_separately() -> None:
    begin = baseline(a=region("a"), b=region("b"), plain=region(None))
    first = checkpoint(begin, a=region("a", 1), b=region("b", 1), plain=region(None, 1))

    decision = decide(folder(begin, first), {"a": marker(first), "b": marker(begin)}, {})

    assert isinstance(decision, Restore)
    assert decision.sources == {"a": first.id, "b": begin.id, "plain": first.id}
    assert decision.fallen_back == ("b",)
    assert decision.regions["b"] == begin.regions["b"]


def test_one_region_that_cannot_be_decided_refuses_the_whole() -> None:
    begin = baseline(a=region("a"), b=region("b"))
    first = checkpoint(begin)

    assert_refuses(decide(folder(begin, first), {"a": marker(first), "b": None}, {}), "'b'")


def test_zombie_snapshot_of_an_earlier_epoch_is_not_the_newest() -> None:
    begin = baseline(13, epoch=2)
    zombie = checkpoint(FIRST, 900)

    assert_restores(decide_one(folder(FIRST, begin, zombie), marker(begin)), begin)


def test_region_that_only_this_run_writes_may_hold_an_old_marker() -> None:
    assert_restores(decide(COMMITTED, {"r": marker(SECOND)}, {"r": marker(SECOND), "lane-1": OLDER}), SECOND)
    assert_restores(decide(COMMITTED, {"r": marker(SECOND)}, {"lane-1": FOREIGN}), SECOND)


def test_region_that_only_this_run_writes_tells_a_folder_that_is_behind() -> None:
    markers = {"r": marker(SECOND)}, {"r": marker(SECOND), "lane-1": AHEAD}

    assert_refuses(decide(COMMITTED, *markers), "'lane-1'", "files were removed from the folder")
    assert_restores(decide(COMMITTED, *markers, assume=Assume.COMMITTED), SECOND)


def test_missing_predecessor_is_refused() -> None:
    assert_refuses(decide_one(folder(SECOND), marker(FIRST)), "what it falls back to", "missing", "`--from`")


def test_damaged_predecessor_is_named() -> None:
    damaged = Damaged("epoch-000001-checkpoint-0000000011.json", 1, 11, "manifest m is half-written")
    contents = replace(folder(SECOND), damaged=(damaged,))

    assert_refuses(decide_one(contents, marker(FIRST)), "manifest m is half-written")
    assert_restores(decide_one(contents, marker(SECOND)), SECOND)


@pytest.mark.parametrize("contents", [folder(), folder(BEGIN)])
def test_damaged_newest_manifest_is_never_passed_over(contents: FolderContents) -> None:
    contents = replace(contents, damaged=(Damaged("m", 1, 12, "manifest m is half-written. Restore it"),))

    assert_refuses(decide_one(contents, None), "manifest m is half-written", "repeats records")
    assert decide(contents, {"r": None}, {"r": None}, fresh=True) == StartFresh()


def test_chosen_snapshot_is_restored_whatever_the_markers_say() -> None:
    decision = decide(PREPARED, {"r": None}, {"r": FOREIGN}, chosen=BEGIN)

    assert_restores(decision, BEGIN)
    assert isinstance(decision, Restore)
    assert decision.fallen_back == ()


def test_reread_starts_over_when_the_newest_manifest_has_changed() -> None:
    assert not needs_reread(folder(), folder())
    assert not needs_reread(PREPARED, PREPARED)
    assert needs_reread(folder(), folder(BEGIN))
    assert needs_reread(folder(BEGIN), PREPARED)
    assert needs_reread(PREPARED, folder(baseline(20, epoch=2)))
    assert needs_reread(PREPARED, folder())


def test_reread_goes_on_when_a_flag_or_an_older_manifest_has_changed() -> None:
    assert not needs_reread(PREPARED, COMMITTED)
    assert not needs_reread(COMMITTED, folder(SECOND, committed=(SECOND,)))


def test_reread_notices_a_newest_manifest_that_cannot_be_read() -> None:
    assert needs_reread(PREPARED, replace(PREPARED, damaged=(Damaged("m", 2, 0, "half-written"),)))


def test_fenced_is_every_transaction_of_the_newest_manifest_but_the_own() -> None:
    gone = replace(baseline(epoch=2, a=region("a"), b=region("b")), transactions=(location("a"), location("used")))

    fenced = transactions_to_fence(folder(BEGIN, gone), [location("a"), location("new")])

    assert fenced == (location("used"), location("b"))


def test_fresh_start_fences_the_transactions_of_every_manifest() -> None:
    newest = baseline(epoch=2, a=region("a"))

    assert transactions_to_fence(folder(BEGIN, newest), []) == (location("a"),)
    assert transactions_to_fence(folder(BEGIN, newest), [], fresh=True) == (location("r"), location("a"))
    assert transactions_to_fence(folder(), [location("a")]) == ()


def test_baseline_is_above_every_manifest_and_every_marker() -> None:
    assert next_id(folder(), [None], "me") == at(1, 1, "me")
    assert next_id(COMMITTED, [marker(SECOND), None], "me") == at(13, 2, "me")
    assert next_id(COMMITTED, [FOREIGN], "me") == at(41, 8, "me")
    assert next_id(replace(COMMITTED, damaged=(Damaged("m", 9, 70, ""),)), [], "me") == at(71, 10, "me")


def test_superseded_are_all_incarnations_but_the_own() -> None:
    former = folder(replace(BEGIN, superseded=("bef0re",)))

    assert superseded(former, [FOREIGN, None, marker(FIRST)], "new") == tuple(sorted([INCARNATION, "0ther", "bef0re"]))
    assert superseded(former, [], INCARNATION) == ("bef0re",)
    assert superseded(folder(), [None], "new") == ()


def test_fenced_copy_stops_when_another_has_claimed() -> None:
    newer = marker(at(20, epoch=2))

    verdict = on_fenced(marker(SECOND), [marker(SECOND), newer], claimed=True, waited_ms=0)

    assert verdict == OtherCopy(newer.snapshot)


def test_fenced_copy_recovers_from_a_timeout_when_the_grace_is_over() -> None:
    assert on_fenced(marker(SECOND), [marker(SECOND)], claimed=True, waited_ms=1_000, grace_ms=3_000) == LookAgain(
        2_000
    )
    assert on_fenced(marker(SECOND), [marker(SECOND)], claimed=True, waited_ms=3_000, grace_ms=3_000) == TimedOut()
    assert on_fenced(marker(SECOND), [None], claimed=True, waited_ms=3_000, grace_ms=3_000) == TimedOut()


def test_copy_fenced_before_its_claim_backs_off() -> None:
    assert on_fenced(marker(BEGIN), [marker(at(20, epoch=2))], claimed=False, waited_ms=0) == BackOff()


def test_a_transaction_is_the_same_wherever_its_marker_is_kept_and_however_its_brokers_are_named() -> None:
    one = {"transactional_id": "t", "cluster_id": "c", "bootstrap_servers": "a:1", "group": "g", "topic": "x"}
    assert is_same_transaction(one, {**one, "bootstrap_servers": "a:1,b:1", "group": "h", "topic": "y"})
    assert not is_same_transaction(one, {**one, "cluster_id": "d"})
    assert not is_same_transaction(one, {**one, "transactional_id": "u"})
