"""The marker: what a committed transaction says about itself."""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass
from typing import Final

from headrace.errors import StateError

_VERSION: Final = 1
_TEXT: Final = re.compile(
    r"headrace/(?P<version>\d+) incarnation=(?P<incarnation>\w+) epoch=(?P<epoch>\d+) attempt=(?P<attempt>\w+) "
    r"number=(?P<number>\d+)"
)


def draw_id() -> str:
    """A random id for an incarnation or an attempt: 12 lower-case hexadecimal digits."""
    return secrets.token_hex(6)


@dataclass(frozen=True, slots=True, order=True)
class SnapshotId:
    """Which snapshot: made in this epoch, with this number, by this attempt.

    The order is the order of recovery: a later epoch comes after everything of an earlier one, whatever the numbers,
    so that what a paused copy writes when it wakes up is never taken for the newest.
    """

    epoch: int
    number: int
    attempt: str

    def __str__(self) -> str:
        return f"{self.number} of epoch {self.epoch} (attempt {self.attempt})"


@dataclass(frozen=True, slots=True)
class Marker:
    """The proof that a snapshot was committed, stored atomically with the records it covers.

    >>> marker = Marker("5e1f", SnapshotId(epoch=3, number=17, attempt="a7"))
    >>> marker.encode()
    'headrace/1 incarnation=5e1f epoch=3 attempt=a7 number=17'
    >>> Marker.decode(marker.encode(), "group g") == marker
    True
    """

    incarnation: str
    snapshot: SnapshotId

    def encode(self) -> str:
        """The marker as text: under 200 bytes, far below Kafka's limit of 4,096 for offset metadata."""
        at = self.snapshot
        return (
            f"headrace/{_VERSION} incarnation={self.incarnation} epoch={at.epoch} attempt={at.attempt} "
            f"number={at.number}"
        )

    @staticmethod
    def decode(text: str, where: str) -> Marker:
        """The inverse of `encode`. `where` names the place in errors: group, topic and partition.

        Raises `StateError` for text that is no marker: somebody else writes there.
        """
        match = _TEXT.fullmatch(text)
        if match is None:
            if text.startswith("headrace/"):
                raise StateError(
                    f"the marker at {where} is {text[:80]!r}, which this version of Headrace cannot read; "
                    "use the version that wrote it, or a newer one"
                )
            raise StateError(
                f"the offset committed at {where} holds {text[:80]!r}, which is no marker of Headrace: another "
                "application commits to this group. Stop it, or set `headrace.marker.group` to a group of the job's own"
            )
        if int(match["version"]) > _VERSION:
            raise StateError(
                f"the marker at {where} has version {match['version']}, this Headrace reads up to {_VERSION}; "
                "use the version that wrote it, or a newer one"
            )
        return Marker(match["incarnation"], SnapshotId(int(match["epoch"]), int(match["number"]), match["attempt"]))
