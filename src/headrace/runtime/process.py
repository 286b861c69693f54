"""What a job asks of the process that it runs in: to be the only one of its name, and a place for what it logs."""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Iterator

from headrace.checkpoint.storage import CheckpointFolder
from headrace.errors import StateError
from headrace.plan.graph import Plan
from headrace.plan.identity import is_exactly_once

log = logging.getLogger("headrace")

_running: dict[str, CheckpointFolder] = {}
"""The exactly-once jobs of this process, by name."""


@contextlib.contextmanager
def alone_in_this_process(plan: Plan, folder: CheckpointFolder) -> Iterator[None]:
    """Raises `StateError` if a job of this name runs here already: both would have the same transactional ids."""
    name = plan.job_name
    if not any(is_exactly_once(node) for node in plan):
        yield
        return
    # One step: jobs run in threads.
    if (other := _running.setdefault(name, folder)) is not folder:
        raise StateError(
            f"a job {name!r} runs in this process already, and works in {other.path}: both would have the same "
            "transactional ids; give one of them another name"
        )
    try:
        yield
    finally:
        del _running[name]


@contextlib.contextmanager
def log_through(handler: logging.Handler) -> Iterator[None]:
    """Show what Headrace says, from INFO, by this handler."""
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%H:%M:%S"))
    level = log.level
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(level)


@contextlib.contextmanager
def log_to_stderr() -> Iterator[None]:
    """Show what Headrace says while a job runs, unless the program has set up logging itself."""
    if log.hasHandlers():
        yield
        return
    with log_through(logging.StreamHandler(sys.stderr)):
        yield
