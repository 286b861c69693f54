"""Jobs with workers of their own, ended in every way there is: nothing of them is left."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tests.processes import is_gone, wait_until

PROGRAM = """
import logging, os, sys
from pathlib import Path
from headrace.common import Configuration, WatermarkStrategy
from headrace.datastream import StreamExecutionEnvironment
from tests.unit.runtime.endless import Numbers

logging.basicConfig(level=logging.DEBUG)
trouble = Path(sys.argv[1])

def check(number):
    if number % 100 == 0 and trouble.exists():
        raise ValueError("told to fail")
    return number

env = StreamExecutionEnvironment.get_execution_environment(Configuration())
env.set_parallelism(2)
source = Numbers(("a", "b", "c"))
env.from_source(source, WatermarkStrategy.no_watermarks(), "numbers").map(check).filter(lambda n: n < 0).print()
env.execute("endless")
"""
ROOT = Path(__file__).parents[3]


def start_and_end(folder: Path, way: str, number: int) -> None:
    """Start the job, end it, and check what is said and that no process is left."""
    program, trouble, log = folder / "program.py", folder / f"trouble-{number}", folder / f"{number}.log"
    program.write_text(PROGRAM)
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": path, "TMPDIR": str(folder / "temporary")}
    with log.open("wb") as file:
        process = subprocess.Popen([sys.executable, str(program), str(trouble)], stderr=file, env=environment)

    def said(text: str) -> bool:
        assert process.poll() is None, log.read_text()
        return re.search(text, log.read_text()) is not None

    try:
        wait_until(lambda: said("job `endless` starts from"), "the job begins")
        workers = [int(pid) for pid in re.findall(r"works in process (\d+)", log.read_text())]
        assert len(workers) == 2
        match way:
            case "SIGTERM" | "SIGINT":
                process.send_signal(getattr(signal, way))
                assert process.wait(60) == 0, log.read_text()
            case "twice":
                process.send_signal(signal.SIGTERM)
                process.send_signal(signal.SIGINT)
                assert process.wait(60) in (0, 128 + signal.SIGINT, 128 + signal.SIGTERM)
            case "SIGKILL":
                process.kill()
                process.wait(60)
            case "halted":
                os.kill(workers[0], signal.SIGSTOP)
                process.kill()
                process.wait(60)
            case "error":
                trouble.touch()
                assert process.wait(60) == 1
                assert "ValueError: told to fail" in log.read_text()
            case "worker":
                os.kill(workers[1], signal.SIGKILL)
                assert process.wait(60) == 1
                assert "was ended by SIGKILL" in log.read_text()
        wait_until(lambda: all(map(is_gone, workers)), f"the workers end after {way}")
    finally:
        process.kill()
        process.wait()


WAYS = ("SIGTERM", "SIGINT", "twice", "SIGKILL", "halted", "error", "worker")


def check_all(folder: Path, rounds: int) -> None:
    (folder / "temporary").mkdir()
    for number in range(rounds):
        start_and_end(folder, WAYS[number % len(WAYS)], number)
    # What a run leaves behind that was killed itself, the next one takes away.
    start_and_end(folder, "SIGTERM", rounds)
    assert list((folder / "temporary").iterdir()) == []


def test_nothing_is_left_of_a_job_however_it_ends(tmp_path: Path) -> None:
    check_all(tmp_path, len(WAYS))


@pytest.mark.full
def test_nothing_is_left_of_two_hundred_jobs_however_they_end(tmp_path: Path) -> None:
    check_all(tmp_path, 200)
