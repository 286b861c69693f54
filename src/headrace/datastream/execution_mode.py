"""`RuntimeExecutionMode`: streaming, or one of Flink's other modes, which are refused where they are set."""

from __future__ import annotations

from enum import Enum


class RuntimeExecutionMode(Enum):
    """How a job runs. Headrace streams; a job on bounded sources ends by itself."""

    STREAMING = 0
    BATCH = 1
    AUTOMATIC = 2
