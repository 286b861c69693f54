"""`CheckpointingMode`: what is guaranteed of state after a failure."""

from __future__ import annotations

from enum import Enum


class CheckpointingMode(Enum):
    """What is guaranteed of state after a failure. Headrace keeps EXACTLY_ONCE, whichever is set."""

    EXACTLY_ONCE = 0
    AT_LEAST_ONCE = 1
