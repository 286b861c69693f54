"""A region's transactional writer: it stores a small marker atomically with its data.

Theory of operation. Nothing is ever resumed. A checkpoint is committed by `commit(marker)`: the records written since
the last commit and the marker become visible together, or not at all. After a failure `fence` completes a commit under
way, aborts anything open and shuts out every older producer; `read_marker` then says which checkpoint was the last to
be committed. Kafka does this with an offset whose metadata string is the marker; a database could do it with a row.

Invariants. `fence` comes first, `read_marker` after it; `commit` only by the instance that fenced last.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

from headrace.errors import ExternalError


class TransactionLost(ExternalError):
    """The open transaction cannot be committed any more; what it held was never visible.

    Starting again from the last checkpoint produces its records again; nothing is lost.
    """


@dataclass(frozen=True, slots=True)
class TransactionContext:
    """What a transaction may know of the job it serves."""

    job_name: str
    region: str
    checkpoint_interval_ms: int | None
    checkpoint_timeout_ms: int
    commit_retries: int = 10
    """How often a commit of unknown outcome is tried again before it is left to the next start."""
    is_reported: bool = False
    """As in `SourceContext`."""


class Transaction(ABC):
    """One region's transaction. Used from one thread. Writers of the region produce through it."""

    @property
    @abstractmethod
    def location(self) -> Mapping[str, str | int]:
        """Where the marker is kept and under which id transactions run: recorded in every manifest, without secrets.

        Always holds the key `transactional_id`.
        """

    @abstractmethod
    def fence(self, recorded: Mapping[str, str | int] | None = None) -> None:
        """Shut out every older producer of this transaction's id, completing or aborting what they left.

        With `recorded`, the location that an older manifest names, of that id instead of this one's: another
        parallelism, another prefix, a region that is gone.
        """

    @abstractmethod
    def read_marker(self, recorded: Mapping[str, str | int] | None = None) -> str | None:
        """The marker of the last commit at this location (or the `recorded` one); waits for pending ones to settle."""

    @abstractmethod
    def commit(self, marker: str) -> None:
        """Make everything written since the last commit visible, together with the marker; also when that is nothing.

        An unknown outcome is asked for again until it settles. Raises `FencedError` when another producer owns the id
        (a newer copy, or the coordinator of transactions after a timeout), `TransactionLost` for what cannot be
        committed for another reason.
        """

    @abstractmethod
    def close(self) -> None:
        """Release clients without committing. May be called twice.

        What is open is aborted if that is possible within a second or so, as it holds back every `read_committed`
        reader; if not, the next `fence` or the transaction's timeout does it.
        """
