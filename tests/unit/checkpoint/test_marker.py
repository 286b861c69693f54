from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.checkpoint.marker import Marker, SnapshotId, draw_id
from headrace.errors import StateError

ids = st.from_regex(r"[0-9a-f]{12}", fullmatch=True)
numbers = st.integers(0, 2**63)


@given(ids, numbers, ids, numbers)
def test_marker_survives_its_text(incarnation: str, epoch: int, attempt: str, number: int) -> None:
    marker = Marker(incarnation, SnapshotId(epoch, number, attempt))

    text = marker.encode()

    assert Marker.decode(text, "group g") == marker
    assert len(text.encode()) < 200


@pytest.mark.parametrize("text", ["", "42", "{}", "committed by Kafka Connect", "x" * 4096])
def test_text_of_another_application_is_named(text: str) -> None:
    with pytest.raises(StateError, match=r"at group g .* another application commits to this group") as caught:
        Marker.decode(text, "group g")

    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    "text", ["headrace/1", "headrace/one", "headrace/2 incarnation=a epoch=1 attempt=b number=2", "headrace/1 epoch=-1"]
)
def test_text_of_another_version_is_named(text: str) -> None:
    with pytest.raises(StateError, match=r"at group g .*use the version that wrote it"):
        Marker.decode(text, "group g")


def test_later_epoch_comes_after_every_number_of_an_earlier_one() -> None:
    assert SnapshotId(2, 5, "b") > SnapshotId(1, 900, "a")
    assert SnapshotId(2, 6, "b") > SnapshotId(2, 5, "b")


def test_drawn_ids_differ_and_are_fit_for_file_names() -> None:
    drawn = {draw_id() for _ in range(100)}

    assert len(drawn) == 100
    assert all(len(name) == 12 and name.isalnum() and name == name.lower() for name in drawn)
