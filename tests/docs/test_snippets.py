"""Every snippet of the README and the docs runs, in order, on a real broker.

A Python block is a program, named by its first line (`# name.py`). It is run where it stands, unless a `headrace run`
or `headrace check` of the page takes it. Shell blocks are run line by line: `headrace …` as it is (`headrace broker` is
the test's own broker, on which the topics that it names are created); `make …` has to be a target that there is,
`pip install` to name an extra.
"""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import tomllib
import uuid
from pathlib import Path

import pytest
from tests.docs.pages import PAGES, ROOT, Snippet, snippets

from headrace.broker import DevBroker
from headrace.cli.broker import broker as broker_command
from headrace.kafka.client.provision import create_topics

_ADDRESS = "localhost:9092"
_REGISTRY = "http://localhost:8081"
_SAYS_IT_RUNS = re.compile(r"job `.*` (starts from the beginning|resumes from)")
_TIMEOUT_S = 60


class Page:
    """A page while it is run: its folder, and its own names on the broker."""

    def __init__(self, path: Path, folder: Path, kafka: DevBroker, registry: str) -> None:
        self.folder = folder
        self._bootstrap = kafka.bootstrap_servers
        self._registry = registry
        self._names = f"docs-{uuid.uuid4().hex[:8]}."
        self._all = snippets(path)
        self._run_by_command = {
            word
            for snippet in self._all
            if snippet.language == "sh"
            for line in snippet.text.splitlines()
            if line.startswith(("headrace run", "headrace check"))
            for word in line.split()
            if word.endswith(".py")
        }

    def run(self) -> None:
        for snippet in self._all:
            match snippet.language:
                case "python":
                    self._python(snippet)
                case "sh":
                    for line in snippet.text.splitlines():
                        self._shell(self._here(line.partition("  #")[0].strip()))
                case other:
                    pytest.fail(f"line {snippet.line}: nobody knows how to run {other!r}")

    def _here(self, text: str) -> str:
        """With this broker and registry, and topics that no other test uses."""
        return text.replace(_ADDRESS, self._bootstrap).replace(_REGISTRY, self._registry).replace("rss.", self._names)

    def _python(self, snippet: Snippet) -> None:
        named = re.match(r"# ([\w.]+\.py)\b", snippet.text)
        program = self.folder / (named[1] if named else f"line_{snippet.line}.py")
        program.write_text(self._here(snippet.text), encoding="utf-8")
        if program.name not in self._run_by_command:
            self._call([sys.executable, str(program)])

    def _shell(self, line: str) -> None:
        words = shlex.split(line)
        match words:
            case []:
                pass
            case ["make", *rest]:
                targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.M)
                assert rest[-1] in targets, line
            case ["pip", "install", package]:
                project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
                extra = re.fullmatch(r"headrace\[(\w+)\]", package)
                assert extra is not None, line
                assert extra[1] in project["optional-dependencies"], line
            case ["headrace", "broker", *options]:
                context = broker_command.make_context("broker", options)
                create_topics(self._bootstrap, context.params["topics"])
            case ["headrace", "run", *_]:
                self._run_until_it_works(words)
            case ["headrace", *_]:
                self._call([sys.executable, "-m", *map(self._here, words)])
            case _:
                pytest.fail(f"nobody knows how to run {line!r}")

    def _run_until_it_works(self, words: list[str]) -> None:
        """A job that never ends is stopped as Ctrl-C does, once it has begun."""
        with subprocess.Popen(
            [sys.executable, "-m", *words],
            cwd=self.folder,
            stderr=subprocess.PIPE,
            text=True,
            env=dict(os.environ),
        ) as process:
            assert process.stderr is not None
            # A job that says nothing is ended, and the line that is missing fails the test.
            deadline = threading.Timer(_TIMEOUT_S, process.kill)
            deadline.start()
            said = ""
            while not _SAYS_IT_RUNS.search(said):
                line = process.stderr.readline()
                assert line, f"{shlex.join(words)} ended before it ran:\n{said}"
                said += line
            self._wait_for_results()
            process.send_signal(signal.SIGINT)
            said += process.communicate()[1]
            deadline.cancel()
        assert process.returncode == 0, said

    def _wait_for_results(self) -> None:
        """Until the page's own reader, which comes further down, finds what it looks for."""
        reader = next((s for s in self._all if s.language == "python" and s.text.startswith("# look.py")), None)
        if reader is not None:
            program = self.folder / "look.py"
            program.write_text(self._here(reader.text), encoding="utf-8")
            self._call([sys.executable, str(program)])

    def _call(self, command: list[str]) -> None:
        done = subprocess.run(
            command,
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
            env=dict(os.environ),
            check=False,
        )
        assert done.returncode == 0, f"{shlex.join(command)}\n{done.stdout}\n{done.stderr}"


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_every_snippet_of_a_page_runs(
    path: Path, tmp_path: Path, kafka: DevBroker, request: pytest.FixtureRequest
) -> None:
    # A page that has nothing to do with a registry does not wait for one.
    registry = request.getfixturevalue("registry") if _REGISTRY in path.read_text(encoding="utf-8") else ""
    Page(path, tmp_path, kafka, registry).run()
