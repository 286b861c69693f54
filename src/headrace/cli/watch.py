"""Beside a running job: its status line on a terminal, and its answers to `headrace savepoint`.

Theory of operation. A thread looks every quarter of a second. What the job says of itself it makes anew once a second
(`JobProgress`); the line is drawn when there is a new one, and so not while a debugger has the job. A request is a file
in the job's folder, `savepoint-ID.request`, which holds the target; the job's process takes it away, and answers with
`savepoint-ID.answer`. Each file is made whole under another name first.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import secrets
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from rich.console import Console
from rich.live import Live
from rich.text import Text

from headrace.common.completable_future import CompletableFuture
from headrace.errors import ExternalError, HeadraceError, StateError
from headrace.runtime import Job, JobProgress

_LOG = logging.getLogger("headrace")

_LOOK_S = 0.25
_TAKEN_WITHIN_S = 10.0
_TOLD_WITHIN_S = 2.0
"""A job that has ended gives its last answers a moment later."""


@contextlib.contextmanager
def watched(job: Job, folder: Path | None) -> Iterator[None]:
    """Show the job's status and answer requests for savepoints, while it runs. `folder` is the job's own, if any."""
    ended = threading.Event()
    console = Console(stderr=True)
    with contextlib.ExitStack() as stack:
        show: Callable[[str], None] | None = None
        if console.is_terminal:
            # What the program prints goes above the line, where both go to the terminal.
            live = Live(console=console, auto_refresh=False, transient=True, redirect_stdout=sys.stdout.isatty())
            stack.enter_context(live)

            def show(line: str) -> None:
                live.update(Text(line, no_wrap=True, overflow="ellipsis"), refresh=True)

        watcher = _Watcher(job, folder, show)
        thread = threading.Thread(target=watcher.run, args=(ended,), name="headrace-watch", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
            # What was asked for and not answered yet is settled by now.
            watcher.look()


class _Watcher:
    def __init__(self, job: Job, folder: Path | None, show: Callable[[str], None] | None) -> None:
        self._job = job
        self._folder = folder
        self._show = show
        self._shown: JobProgress | None = None
        self._pending: dict[str, CompletableFuture[str]] = {}

    def run(self, ended: threading.Event) -> None:
        while not ended.wait(_LOOK_S):
            self.look()

    def look(self) -> None:
        progress = self._job.progress
        if self._show is not None and progress is not None and progress is not self._shown:
            self._show(status_line(progress, self._shown))
            self._shown = progress
        for request in [] if self._folder is None else list(self._folder.glob("savepoint-*.request")):
            self._take(request)
        for name, future in list(self._pending.items()):
            if not future.done():
                continue
            del self._pending[name]
            try:
                answer = {"path": future.result()}
            except Exception as error:  # noqa: BLE001 - whatever the job has ended with, whoever waits is told
                answer = {"error": str(error)}
            self._answer(Path(name), answer)

    def _take(self, request: Path) -> None:
        try:
            target = json.loads(request.read_bytes())["target"]
            request.unlink()
        except (OSError, ValueError, KeyError, TypeError) as error:
            # Withdrawn just now, or none of ours.
            _LOG.debug("%s is no request: %r", request, error)
            return
        try:
            self._pending[str(request)] = self._job.trigger_savepoint(target)
        except HeadraceError as error:
            self._answer(request, {"error": str(error)})

    def _answer(self, request: Path, answer: dict[str, str]) -> None:
        try:
            _write_whole(request.with_suffix(".answer"), answer)
        except OSError as error:
            _LOG.warning("a request for a savepoint could not be answered: %s", error)


def status_line(progress: JobProgress, before: JobProgress | None) -> str:
    """One line of what a job does; rates are those since `before`.

    >>> status_line(JobProgress(2.0, 9000, 4500, 120, 18, 11.6, 0), JobProgress(1.0, 5000, 2500, 0, 17, 9.0, 0))
    '9,000 in, 4,500 out, 4,000/s, lag 120, checkpoint 18 took 12 ms'
    """
    parts = [f"{progress.records_in:,} in", f"{progress.records_out:,} out"]
    # A worker that took another's place begins to count anew.
    is_on = before is not None and before.restarts == progress.restarts and progress.records_in >= before.records_in
    if before is not None and is_on and progress.at_s > before.at_s:
        parts.append(f"{(progress.records_in - before.records_in) / (progress.at_s - before.at_s):,.0f}/s")
    if progress.lag is not None:
        parts.append(f"lag {progress.lag:,}")
    if progress.checkpoint is not None:
        parts.append(f"checkpoint {progress.checkpoint} took {progress.checkpoint_ms:.0f} ms")
    if progress.restarts:
        parts.append(f"restart {progress.restarts}")
    return ", ".join(parts)


def request_savepoint(folder: Path, target: Path, timeout_s: float, runs: Callable[[], bool]) -> str:
    """Have the job that works in `folder`, and `runs`, write a savepoint below `target`; gives the savepoint's path.

    Raises `StateError` if no job answers, and for what the job says against it; `ExternalError` if it takes too long.
    """
    name = f"savepoint-{secrets.token_hex(6)}"
    request, answer = folder / f"{name}.request", folder / f"{name}.answer"
    _write_whole(request, {"target": str(target.absolute())})
    started_at = seen_at = time.monotonic()
    try:
        while not answer.exists():
            waited_s = time.monotonic() - started_at
            if waited_s > _TAKEN_WITHIN_S and request.exists():
                raise StateError(
                    f"no job answers in {folder}; start it with `headrace run`, on this machine, and ask while it runs"
                )
            if request.exists() or runs():
                seen_at = time.monotonic()
            elif time.monotonic() - seen_at > _TOLD_WITHIN_S:
                raise StateError(f"the job in {folder} ended before it had answered; ask again once it runs")
            if waited_s > timeout_s:
                raise ExternalError(f"the savepoint was not there within {timeout_s:.0f} s; it may still come")
            time.sleep(_LOOK_S / 5)
        said = json.loads(answer.read_bytes())
    finally:
        request.unlink(missing_ok=True)
        answer.unlink(missing_ok=True)
    if "error" in said:
        raise StateError(f"the job wrote no savepoint: {said['error']}")
    return str(said["path"])


def _write_whole(path: Path, content: dict[str, str]) -> None:
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(json.dumps(content), encoding="utf-8")
    os.replace(temporary, path)
