"""Beside a running job: savepoints on demand, and the status line."""

from __future__ import annotations

import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from tests.processes import wait_until

from headrace.cli import watch
from headrace.cli.main import main
from headrace.common.completable_future import CompletableFuture

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
    running.send_signal(signal.SIGSTOP)  # so that nothing comes and goes there meanwhile
    shutil.copytree(folder / "numbers", folder / "another", ignore=shutil.ignore_patterns("lock"))
    running.send_signal(signal.SIGCONT)
    result = savepoint(folder, tmp_path / "saved")
    assert result.exit_code == 0, result.output
    running.kill()
    running.wait()
    refused = savepoint(folder, tmp_path / "saved")
    assert refused.exit_code == 1
    assert "2 jobs (another, numbers); name one job's folder in it" in refused.stderr


def test_a_job_that_ends_before_it_has_answered_is_not_waited_for(
    running: subprocess.Popen[str], tmp_path: Path
) -> None:
    folder = tmp_path / ".headrace" / "numbers"
    running.send_signal(signal.SIGSTOP)

    def take_and_die() -> None:
        wait_until(lambda: list(folder.glob("savepoint-*.request")), "the request")
        next(folder.glob("savepoint-*.request")).unlink()
        running.kill()
        running.wait()

    thread = threading.Thread(target=take_and_die)
    thread.start()
    result = savepoint(folder, tmp_path / "saved")
    thread.join()
    assert result.exit_code == 1
    assert "ended before it had answered" in result.stderr


def test_what_is_no_request_and_what_a_job_ends_with_stop_no_answer(tmp_path: Path) -> None:
    ended: Future[str] = Future()
    ended.set_exception(OverflowError("int too big"))

    class Ending:
        progress = None

        def trigger_savepoint(self, target: str) -> CompletableFuture[str]:
            return CompletableFuture(ended)

    (tmp_path / "savepoint-1.request").write_text("{}")
    (tmp_path / "savepoint-2.request").write_text("no JSON")
    (tmp_path / "savepoint-3.request").symlink_to(tmp_path / "gone")
    (tmp_path / "savepoint-4.request").write_text('{"target": "there"}')
    watcher = watch._Watcher(Ending(), tmp_path, None)  # type: ignore[arg-type]
    watcher.look()
    assert json.loads((tmp_path / "savepoint-4.answer").read_bytes()) == {"error": "int too big"}


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
