"""Named places where the order of durable effects matters, and where a test may end or halt the process.

A crash point is a call, `crash_point("checkpoint.prepared")`, that does nothing unless the process was started with

    HEADRACE_CRASH_POINT=checkpoint.prepared@3        end by SIGKILL at the third time it is passed
    HEADRACE_CRASH_POINT=checkpoint.prepared@3:stop   halt by SIGSTOP instead, as a paused machine does
    HEADRACE_CRASH_POINT=commit.region@3#1            in the worker of lane 1 only, if lanes have processes

A worker that takes a lost one's place is not armed any more.

Invariants. Every name is listed in `CRASH_POINTS`, and every listed name is hit by a test.
"""

from __future__ import annotations

import os
import signal
from functools import cache
from typing import Final

from headrace.errors import ConfigError, InternalError

VARIABLE: Final = "HEADRACE_CRASH_POINT"

CRASH_POINTS: Final[tuple[tuple[str, str], ...]] = (
    ("start.fencing", "one transactional id is fenced, others may not be"),
    ("start.fenced", "every older producer is shut out, no marker is read"),
    ("start.markers_read", "the markers are read, the folder is not read again"),
    ("lane.fenced", "the worker that takes a lost one's place has shut it out, nothing else"),
    ("claim.between", "one region holds the baseline's marker, others may"),
    ("claim.committed", "every region holds the baseline's marker"),
    ("checkpoint.triggered", "a checkpoint has its number, nothing else"),
    ("checkpoint.flushed", "everything written is acknowledged, no state is written"),
    ("checkpoint.acknowledged", "all workers have taken their snapshot, no manifest names it"),
    ("commit.before", "a checkpoint is durable, its commit is about to be asked for"),
    ("commit.region", "one region is about to commit, others may have"),
    ("commit.between", "one region has committed, others may have"),
    ("commit.after", "every region has committed, the checkpoint is not flagged"),
    ("offsets.committed", "offsets are on their way to the group, nothing is pruned"),
    ("transaction.offsets_sent", "the marker is in the transaction, which is open"),
    ("transaction.committed", "the transaction is committed, the worker has not said so"),
    ("checkpoint.state_written", "a state file is durable, no manifest names it yet"),
    ("checkpoint.manifest_synced", "a manifest is on disk under its temporary name only"),
    ("baseline.written", "a baseline is durable: the epoch is taken, nothing is claimed"),
    ("checkpoint.prepared", "a checkpoint is durable, no region has committed it"),
    ("checkpoint.committed_flag", "a checkpoint is marked as committed"),
    ("checkpoint.finished_flag", "a checkpoint is marked as the job's last"),
    ("checkpoint.pruning", "older manifests are removed, their files are not"),
    ("checkpoint.pruned", "everything that no recovery could name is removed"),
    ("savepoint.files_copied", "a savepoint's files are copied, its manifest is not"),
    ("savepoint.written", "a savepoint is complete"),
)
"""Each name, and what is true of the world there."""


def armed_in(lane: int, text: str) -> str | None:
    """What `HEADRACE_CRASH_POINT` is to be in a lane's own process.

    >>> armed_in(1, "commit.region@3:stop#1"), armed_in(0, "commit.region@3:stop#1"), armed_in(0, "commit.region@3")
    ('commit.region@3:stop', None, 'commit.region@3')
    """
    where, _, only = text.partition("#")
    return where if only in ("", str(lane)) else None


class _Armed:
    """The point this process is to end at, counting down."""

    def __init__(self, text: str) -> None:
        where, _, action = text.partition(":")
        name, _, hit = where.partition("@")
        if name not in _NAMES or not hit.isdigit() or int(hit) < 1 or action not in ("", "kill", "stop"):
            raise ConfigError(
                f"`{VARIABLE}` is {text!r}; it has to be NAME@HIT or NAME@HIT:stop, with one of the names "
                + ", ".join(known for known, _ in CRASH_POINTS)
            )
        self.name = name
        self.left = int(hit)
        self.signal = signal.SIGSTOP if action == "stop" else signal.SIGKILL

    def hit(self, name: str) -> None:
        if name == self.name:
            self.left -= 1
            if self.left == 0:
                os.kill(os.getpid(), self.signal)


_NAMES: Final = frozenset(name for name, _ in CRASH_POINTS)


@cache
def _armed() -> _Armed | None:
    text = os.environ.get(VARIABLE)
    return _Armed(text) if text and "#" not in text else None


def crash_point(name: str) -> None:
    """End or halt the process here, if it was started with `HEADRACE_CRASH_POINT` naming this point.

    Raises `InternalError` for a name that is not in `CRASH_POINTS`.
    """
    if name not in _NAMES:
        raise InternalError(f"crash point {name!r} is not listed in headrace.crash_points; add it there")
    if (armed := _armed()) is not None:
        armed.hit(name)
