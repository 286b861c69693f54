"""Waiting for what processes do, and asking the system whether they live."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from typing import Any

DEADLINE_S = 90.0


def wait_until(condition: Callable[[], Any], what: str, deadline_s: float = DEADLINE_S) -> Any:
    """Wait for `condition` to be true, and give what it gave."""
    deadline = time.monotonic() + deadline_s
    while not (value := condition()):
        assert time.monotonic() < deadline, f"waited {deadline_s:.0f} s in vain: {what}"
        time.sleep(0.01)
    return value


def state_of(pid: int) -> str:
    """The letter that `ps` has for it: `T` halted, `Z` dead and not asked for yet; nothing if it is gone."""
    asked = subprocess.run(["ps", "-o", "state=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return asked.stdout.strip()[:1]


def is_gone(pid: int) -> bool:
    """Whether it has ended."""
    return state_of(pid) in ("", "Z")
