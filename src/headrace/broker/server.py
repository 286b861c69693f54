"""One Kafka server process, from its folder: start, ready, kill, pause, stop.

Theory of operation: the JVM is the child of a supervisor (see `supervisor`), which ends it when we are gone. What
it prints is appended to `server.log` in the server's folder, and tells when the server is ready: Kafka's last step
of starting up, after the broker was registered and let in by the controller, is to say so.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from headrace.broker import supervisor
from headrace.errors import ExternalError

_READY = "Kafka Server started"
_POLL_S = 0.01
_SHOWN_LINES = 12

# Set for other programs' JVMs; here they could change how the server starts, or what it prints.
_JAVA_VARIABLES = ("JAVA_TOOL_OPTIONS", "JDK_JAVA_OPTIONS", "_JAVA_OPTIONS", "CLASSPATH")

_LOGGING = (
    "-Dorg.slf4j.simpleLogger.logFile=System.out",
    "-Dorg.slf4j.simpleLogger.showDateTime=true",
    "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd'T'HH:mm:ss.SSS",
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
    "-Dorg.slf4j.simpleLogger.log.kafka.server.KafkaRaftServer=info",
)


class PortTakenError(ExternalError):
    """A server found its port in use."""


def java_command(java: Path, jars: Sequence[Path], flags: Sequence[str], main_class: str, *args: str) -> list[str]:
    """The command line that runs one of Kafka's main classes."""
    return [str(java), *flags, *_LOGGING, "-cp", os.pathsep.join(map(str, jars)), main_class, *args]


def java_environment() -> dict[str, str]:
    """This process's environment without what would change how a JVM starts."""
    return {name: value for name, value in os.environ.items() if name not in _JAVA_VARIABLES}


def telling_lines(log: str) -> list[str]:
    """The lines of a server's log that say why it failed: its first errors and exceptions, or else its last lines.

    >>> telling_lines("all well\\nERROR Exiting Kafka\\n\\tat a.b.C(C.java:1)\\njava.net.BindException: in use")
    ['ERROR Exiting Kafka', 'java.net.BindException: in use']
    """
    lines = [line for line in log.splitlines() if line.strip() and not line.startswith("\tat ")]
    telling = [line for line in lines if any(sign in line for sign in ("ERROR", "FATAL", "Exception", "Error:"))]
    return telling[:_SHOWN_LINES] or lines[-_SHOWN_LINES:]


class Server:
    """One server. `folder` holds `server.properties`, `server.log` and the data; `command` starts the JVM.

    If we die, the server is ended, and the folder `remove_if_orphaned` deleted. It may be the same for several servers:
    each supervisor deletes it after its own server's end, so the last one does after all ends.
    """

    def __init__(self, node_id: int, folder: Path, command: Sequence[str], *, remove_if_orphaned: Path | None) -> None:
        self.node_id = node_id
        self.folder = folder
        self.log = folder / "server.log"
        self._command = list(command)
        self._remove = str(remove_if_orphaned or "")
        self._supervisor: subprocess.Popen[bytes] | None = None
        self.pid = 0
        self._is_paused = False
        self._log_start = 0

    @property
    def is_running(self) -> bool:
        return self._supervisor is not None and self._supervisor.poll() is None

    def start(self) -> None:
        """Starts the JVM; returns before it is ready."""
        self._log_start = self.log.stat().st_size if self.log.exists() else 0
        self._supervisor = subprocess.Popen(
            [sys.executable, "-I", "-S", supervisor.__file__, str(self.log), self._remove, *self._command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
            env=java_environment(),
        )
        self.pid = 0
        self._is_paused = False
        told = self._told()
        if not told:
            self.kill()
            raise ExternalError(f"the process of Kafka server {self.node_id} could not be started", retriable=False)
        self.pid = int(told)

    def wait_until_ready(self, deadline: float) -> None:
        """Returns when the server takes requests. `deadline` is on `time.monotonic`'s clock.

        Raises `PortTakenError` or `ExternalError`, with the lines of the log that say why, if it ends instead or
        the deadline passes.
        """
        while True:
            ended = not self.is_running
            log = self.log_since_start()
            if _READY in log:
                return
            if ended or time.monotonic() > deadline:
                what = "ended before it was ready" if ended else "was not ready in time"
                kind = PortTakenError if "Address already in use" in log else ExternalError
                lines = "\n".join(f"  {line}" for line in telling_lines(log))
                raise kind(f"Kafka server {self.node_id} {what}; its log {self.log} says:\n{lines}")
            time.sleep(_POLL_S)

    def log_since_start(self) -> str:
        """What this run of the server has printed so far."""
        with self.log.open("rb") as stream:
            stream.seek(self._log_start)
            return stream.read().decode(errors="replace")

    def kill(self) -> None:
        """`kill -9`; returns when the process is gone. Does nothing if it is not running."""
        process = self._supervisor
        if process is None:
            return
        if process.poll() is None and self.pid:
            # Only the supervisor reaps the process, and then ends: the pid is nobody else's here.
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
        process.wait()
        for pipe in (process.stdin, process.stdout):
            assert pipe is not None
            pipe.close()
        self._supervisor = None

    def pause(self) -> None:
        """Stops the process where it is (SIGSTOP): to clients, a server that hangs. Returns when it has stopped."""
        if self.is_running and not self._is_paused:
            os.kill(self.pid, signal.SIGSTOP)
            self._is_paused = self._told() == "stopped"

    def resume(self) -> None:
        """Lets a paused process go on."""
        if self.is_running and self._is_paused:
            os.kill(self.pid, signal.SIGCONT)
            self._is_paused = False

    def terminate(self) -> None:
        """Asks the server to shut down cleanly; returns at once."""
        if self.is_running:
            self.resume()
            os.kill(self.pid, signal.SIGTERM)

    def wait_until_ended(self, deadline: float) -> None:
        """Returns when the process is gone; it is killed at the deadline."""
        if self._supervisor is None:
            return
        with suppress(subprocess.TimeoutExpired):
            self._supervisor.wait(max(0.0, deadline - time.monotonic()))
        self.kill()

    def _told(self) -> str:
        """The next line of the supervisor; empty when it has ended."""
        assert self._supervisor is not None
        assert self._supervisor.stdout is not None
        return self._supervisor.stdout.readline().decode().strip()
