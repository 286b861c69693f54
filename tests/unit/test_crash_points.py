from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from headrace.crash_points import CRASH_POINTS, VARIABLE, crash_point
from headrace.errors import InternalError


def start(setting: str, *names: str) -> subprocess.Popen[str]:
    program = (
        "import sys; from headrace.crash_points import crash_point; [crash_point(n) for n in sys.argv[1:]]; print(1)"
    )
    return subprocess.Popen(
        [sys.executable, "-c", program, *names],
        env={**os.environ, VARIABLE: setting, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_every_crash_point_has_one_name_and_says_what_is_true_there() -> None:
    names = [name for name, _ in CRASH_POINTS]

    assert len(names) == len(set(names))
    assert all(words for _, words in CRASH_POINTS)


def test_crash_point_that_is_not_listed_is_a_defect() -> None:
    with pytest.raises(InternalError, match=r"'checkpoint\.unheard' is not listed"):
        crash_point("checkpoint.unheard")


@pytest.mark.parametrize(("setting", "code"), [("baseline.written@2", -signal.SIGKILL), ("baseline.written@3", 0)])
def test_process_ends_at_the_hit_that_is_asked_for(setting: str, code: int) -> None:
    process = start(setting, "baseline.written", "checkpoint.prepared", "baseline.written")

    process.communicate()

    assert process.returncode == code


def test_process_halts_and_goes_on_when_woken_up() -> None:
    process = start("baseline.written@1:stop", "baseline.written")

    _, status = os.waitpid(process.pid, os.WUNTRACED)
    assert os.WIFSTOPPED(status)
    os.kill(process.pid, signal.SIGCONT)
    out, _ = process.communicate()

    assert (process.returncode, out) == (0, "1\n")


@pytest.mark.parametrize(
    "setting", ["unheard@1", "baseline.written", "baseline.written@0", "baseline.written@x", "baseline.written@1:no"]
)
def test_setting_that_cannot_be_met_is_refused(setting: str) -> None:
    process = start(setting, "baseline.written")

    _, error = process.communicate()

    assert process.returncode == 1
    assert f"`{VARIABLE}` is '{setting}'" in error
