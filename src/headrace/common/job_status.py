"""`JobStatus`: where a job is in its life."""

from __future__ import annotations

from enum import Enum


class JobStatus(Enum):
    """Where a job is in its life. A *globally terminal* job is over; no other copy will take it up again."""

    CREATED = 0
    RUNNING = 1
    FAILING = 2
    FAILED = 3
    CANCELLING = 4
    CANCELED = 5
    FINISHED = 6
    RESTARTING = 7
    SUSPENDED = 8
    RECONCILING = 9

    def is_globally_terminal_state(self) -> bool:
        return self in (JobStatus.FAILED, JobStatus.CANCELED, JobStatus.FINISHED)

    def is_terminal_state(self) -> bool:
        return self is JobStatus.SUSPENDED or self.is_globally_terminal_state()
