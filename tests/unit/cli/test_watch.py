"""Beside a running job: savepoints on demand, and the status line."""

from __future__ import annotations

import os
import pty
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from headrace.cli import watch
from headrace.cli.main import main

PROGRAM = """
import time
from headrace.datastream import StreamExecutionEnvironment
env = StreamExecutionEnvironment.get_execution_environment()
env.enable_checkpointing(10_000)
def slowly(n):
    print(n, flush=True)
    time.sleep(0.001)
    return n
env.from_collection(range(1_000_000)).uid("numbers").map(slowly).print("out")
env.execute("numbers")
"""


@pytest.fixture
def program(tmp_path: Path) -> Path:
    path = tmp_path / "job.py"
    path.write_text(PROGRAM)
    return path


@pytest.fixture
def running(program: Path) -> Iterator[subprocess.Popen[str]]:
    """The job, once it has shown its first element."""
    command = [sys.executable, "-m", "headrace", "run", str(program)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "0\n"
        drain = subprocess.Popen(["cat"], stdin=process.stdout, stdout=subprocess.DEVNULL)
        yield process
        process.kill()
        drain.wait()


def savepoint(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["savepoint", *map(str, arguments)])


def test_a_running_job_writes_savepoints_and_another_goes_on_from_one(
    running: subprocess.Popen[str], program: Path, tmp_path: Path
) -> None:
    results = [savepoint(tmp_path / ".headrace", tmp_path / "saved") for _ in range(2)]
    assert [result.exit_code for result in results] == [0, 0], results[0].output
    paths = [Path(result.output.strip()) for result in results]
    assert paths[0] != paths[1]
    name = r"savepoint-\w+-\d+-\d+-[0-9a-f]{12}"
    assert re.fullmatch(name, paths[0].name)
    assert re.search(rf"--from savepoints/{name} market_lag\.py", CliRunner().invoke(main, ["run", "--help"]).output)
    assert all((path / "savepoint.json").is_file() and path.parent == tmp_path / "saved" for path in paths)
    assert running.poll() is None
    shown = CliRunner().invoke(main, ["checkpoints", "show", str(paths[0])]).output
    position = int(re.findall(r"split collection: position (\d+)", shown)[0])
    command = [sys.executable, "-m", "headrace", "run", "--from", str(paths[0]), "--state-dir", str(tmp_path / "new")]
    with subprocess.Popen([*command, str(program)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"%d\n" % position
        other.kill()
    assert not list((tmp_path / ".headrace" / "numbers").glob("savepoint-*"))


def test_of_several_jobs_in_a_folder_the_one_that_runs_is_asked(running: subprocess.Popen[str], tmp_path: Path) -> None:
    folder = tmp_path / ".headrace"
    shutil.copytree(folder / "numbers", folder / "another", ignore=shutil.ignore_patterns("lock"))
    result = savepoint(folder, tmp_path / "saved")
    assert result.exit_code == 0, result.output
    running.kill()
    running.wait()
    refused = savepoint(folder, tmp_path / "saved")
    assert refused.exit_code == 1
    assert "2 jobs (another, numbers); name one job's folder in it" in refused.stderr


def test_where_no_job_runs_nobody_answers(
    running: subprocess.Popen[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    running.kill()
    running.wait()
    monkeypatch.setattr(watch, "_TAKEN_WITHIN_S", 0.1)
    result = savepoint(tmp_path / ".headrace", tmp_path / "saved")
    assert result.exit_code == 1
    assert "no job answers" in result.stderr
    assert not list((tmp_path / ".headrace" / "numbers").glob("savepoint-*"))


def test_on_a_terminal_the_status_is_a_line_and_elsewhere_it_is_not(program: Path) -> None:
    command = [sys.executable, "-m", "headrace", "run", str(program)]
    parent, child = pty.openpty()
    environ = {**os.environ, "TERM": "xterm", "COLUMNS": "120"}
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=child, env=environ) as process:
        os.close(child)
        said = b""
        while not re.search(rb"[\d,]+ in, [\d,]+ out, [\d,]+/s", said):
            said += os.read(parent, 4096)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
        while not re.search(rb"job `numbers` has stopped with checkpoint \d+", said):
            said += os.read(parent, 4096)
    os.close(parent)
    assert b"starts from the beginning" in said
