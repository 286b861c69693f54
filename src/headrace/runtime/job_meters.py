"""The metrics of a job as a whole, under Flink's names; those of its operators are `meters`."""

from __future__ import annotations

from dataclasses import dataclass

from headrace.common.job_status import JobStatus
from headrace.metrics.registry import Sample, Scope

_SCOPE = Scope("jobmanager_job")


@dataclass(slots=True)
class CheckpointCounts:
    """A job's checkpoints, over all its attempts. `size_bytes` is that of the last complete one's state."""

    begun: int = 0
    completed: int = 0
    under_way: int = 0
    last_number: int | None = None
    last_ms: float = 0.0
    size_bytes: int = 0
    failed: int = 0
    """Those that were given up, or ended with their attempt. Counted, as another thread reads this at any moment."""

    def give_up(self) -> None:
        """What is under way has failed."""
        self.failed += self.under_way
        self.under_way = 0


def job_samples(checkpoints: CheckpointCounts, status: JobStatus, since_ms: int, restarts: int) -> tuple[Sample, ...]:
    """The metrics of a job that has had its `status` for `since_ms`."""
    number = checkpoints.last_number
    values: dict[str, float] = {
        "uptime": since_ms if status is JobStatus.RUNNING else 0,
        "downtime": since_ms if status is JobStatus.RESTARTING else 0,
        "numRestarts": restarts,
        "totalNumberOfCheckpoints": checkpoints.begun,
        "numberOfInProgressCheckpoints": checkpoints.under_way,
        "numberOfCompletedCheckpoints": checkpoints.completed,
        "numberOfFailedCheckpoints": checkpoints.failed,
        "lastCompletedCheckpointId": -1 if number is None else number,
        "lastCheckpointDuration": -1 if number is None else int(checkpoints.last_ms),
        "lastCheckpointSize": -1 if number is None else checkpoints.size_bytes,
    }
    return tuple(Sample(_SCOPE, name, value) for name, value in values.items())
