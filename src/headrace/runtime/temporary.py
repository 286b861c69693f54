"""The folder for checkpoints of a run that is not given one: gone with the run, or swept by a later one."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from headrace.checkpoint.storage import CheckpointFolder
from headrace.errors import ExternalError, StateError

_PREFIX = "headrace-job-"


@contextlib.contextmanager
def temporary_root() -> Iterator[Path]:
    """A new folder, removed behind the block; removes those of runs that were killed, too."""
    with tempfile.TemporaryDirectory(prefix=_PREFIX) as name:
        root = Path(name)
        _sweep(root)
        yield root


def _sweep(own: Path) -> None:
    """Remove what was left of this user's runs, and is held by nobody any more."""
    for folder in own.parent.glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError, StateError, ExternalError):
            if folder == own or folder.stat().st_uid != os.getuid():
                continue
            # An empty one belongs to a run that is just taking it.
            locks = [lock for lock in folder.glob("*/lock") if lock.stat().st_size]
            held = [CheckpointFolder(folder, lock.parent.name) for lock in locks]
            for each in held:
                each.lock()
            if held:
                shutil.rmtree(folder, ignore_errors=True)
            for each in held:
                each.release()
