"""`JobID`: what names one run of a job."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class JobID:
    """An id of 32 hexadecimal digits."""

    hex: str

    def __str__(self) -> str:
        return self.hex
