"""A measured program: one process, with those it starts, whose CPU time and memory are sampled while it runs."""

from __future__ import annotations

import bisect
import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil  # type: ignore[import-untyped]

_SAMPLE_S = 0.05
_CHILDREN_S = 1.0
_SHOWN_LINES = 25


class Measured:
    """Starts `command` on entry and ends it, with its children, on exit. Its output goes to `log`."""

    def __init__(self, command: Sequence[str], log: Path, environ: Mapping[str, str] | None = None) -> None:
        self._command = list(command)
        self._log = log
        self._environ = {**os.environ, **(environ or {})}
        self._times_s: list[float] = []
        self._cpu_s: list[float] = []
        self._rss_bytes: list[int] = []
        self._stolen_s: list[float] = []
        self._ended = threading.Event()
        self._sampler = threading.Thread(target=self._sample, name="sampler", daemon=True)

    def __enter__(self) -> Self:
        with self._log.open("wb") as out:
            self.started_s = time.time()
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env=self._environ,
                start_new_session=True,
            )
        self._sampler.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._ended.set()
        self._sampler.join()
        # The program leads a group of its own, so whatever it started and left behind goes with it.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    def wait(self, timeout_s: float) -> None:
        """Returns when the program has ended well; raises with the end of its output otherwise."""
        try:
            code = self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise RuntimeError(f"still running after {timeout_s:.0f} s\n{self.tail()}") from None
        if code:
            raise RuntimeError(f"ended with exit code {code}\n{self.tail()}")

    def terminate(self) -> None:
        """SIGTERM to the program."""
        self._process.terminate()

    def output(self) -> str:
        """What the program printed."""
        return self._log.read_text(errors="replace")

    def tail(self) -> str:
        """The last lines that the program printed."""
        lines = self.output().splitlines()[-_SHOWN_LINES:]
        return "\n".join([" ".join(self._command), *(f"  | {line}" for line in lines)])

    def cpu_s(self, from_s: float, to_s: float) -> float:
        """CPU seconds used between two moments of the wall clock."""
        return self._at(self._cpu_s, to_s) - self._at(self._cpu_s, from_s)

    def stolen_s(self, from_s: float, to_s: float) -> float:
        """CPU seconds, of all cores, that the host of a virtual machine gave to others; 0 where that is not told."""
        return self._at(self._stolen_s, to_s) - self._at(self._stolen_s, from_s)

    def rss_bytes(self, from_s: float, to_s: float) -> list[int]:
        """Samples of the resident memory between two moments of the wall clock."""
        first, last = bisect.bisect_left(self._times_s, from_s), bisect.bisect_right(self._times_s, to_s)
        return self._rss_bytes[first:last]

    def _at(self, samples: Sequence[float], moment_s: float) -> float:
        at = bisect.bisect_left(self._times_s, moment_s)
        if at == 0 or at == len(self._times_s):
            return samples[0 if at == 0 else -1]
        earlier, later = self._times_s[at - 1], self._times_s[at]
        part = (moment_s - earlier) / (later - earlier)
        return samples[at - 1] + part * (samples[at] - samples[at - 1])

    def _sample(self) -> None:
        main = psutil.Process(self._process.pid)
        family, looked_s = [main], 0.0
        spent: dict[int, float] = {}
        while not self._ended.wait(_SAMPLE_S):
            now_s = time.time()
            if now_s - looked_s > _CHILDREN_S:
                looked_s = now_s
                with contextlib.suppress(psutil.NoSuchProcess):
                    family = [main, *main.children(recursive=True)]
            rss_bytes = 0
            for process in family:
                # One that has ended keeps the CPU time it had at its last sample.
                with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                    used = process.cpu_times()
                    spent[process.pid] = used.user + used.system
                    rss_bytes += process.memory_info().rss
            if rss_bytes:
                self._times_s.append(now_s)
                self._cpu_s.append(sum(spent.values()))
                self._rss_bytes.append(rss_bytes)
                self._stolen_s.append(getattr(psutil.cpu_times(), "steal", 0.0))
