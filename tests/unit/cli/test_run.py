"""`headrace run`: a program as `python` would run it, with settings over its own, and what its failures look like."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from headrace.cli.main import main
from headrace.common.configuration import launch_configuration
from headrace.datastream.job import launch_engine

HEAD = """
import sys
from headrace.common import Configuration
from headrace.datastream import StreamExecutionEnvironment
env = StreamExecutionEnvironment.get_execution_environment()
"""
COUNT = (
    HEAD
    + """
env.enable_checkpointing(1000)
numbers = env.from_collection(range(10)).uid("numbers")
numbers.key_by(lambda n: n % 2).reduce(lambda a, b: a + b).uid("sum").print()
env.execute("sums")
"""
)


@pytest.fixture
def program(tmp_path: Path) -> Callable[[str], Path]:
    """Writes a program into a folder of its own."""

    def write(text: str, name: str = "job.py") -> Path:
        path = tmp_path / "program" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        return path

    return write


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["run", *map(str, arguments)])


def test_a_program_sees_its_arguments_its_folder_and_its_own_main(program: Callable[[str], Path]) -> None:
    path = program("import sys, neighbour\nprint(sys.argv, __name__, neighbour.where)")
    (path.parent / "neighbour.py").write_text("where = 'beside'")
    before = sys.argv, list(sys.path)
    result = run(path, "--fresh", "-D", "x", "y")
    assert result.output == f"{[str(path), '--fresh', '-D', 'x', 'y']} __main__ beside\n"
    assert (sys.argv, sys.path) == before
    sys.modules.pop("neighbour")


def test_a_job_runs_and_exits_with_0(program: Callable[[str], Path]) -> None:
    result = run(program(COUNT))
    assert (result.exit_code, result.stdout.split()[-2:]) == (0, ["20", "25"])


def test_checkpoints_are_kept_beside_the_program_and_a_finished_job_is_not_run_again(
    program: Callable[[str], Path],
) -> None:
    path = program(COUNT)
    run(path)
    assert (path.parent / ".headrace" / "sums").is_dir()
    assert run(path).stdout == ""
    assert run("--fresh", path).stdout.split()[-2:] == ["20", "25"]


def test_a_state_folder_of_the_command_line_goes_over_the_programs(
    program: Callable[[str], Path], tmp_path: Path
) -> None:
    own, given, by_key = (tmp_path / name for name in ("own", "given", "by-key"))
    setting = f"env.configure(Configuration().set_string('execution.checkpointing.dir', {str(own)!r}))\n"
    path = program(COUNT.replace("env.enable", setting + "env.enable"))
    assert run(path).exit_code == 0
    assert (own / "sums").is_dir()
    assert run("--state-dir", given, path).exit_code == 0
    assert run("-D", f"state.checkpoints.dir={by_key}", path).exit_code == 0
    assert (given / "sums").is_dir()
    assert (by_key / "sums").is_dir()
    assert not (path.parent / ".headrace").exists()


def test_a_job_goes_on_from_the_checkpoint_it_is_told(program: Callable[[str], Path], tmp_path: Path) -> None:
    path = program(COUNT)
    run(path)
    folder = path.parent / ".headrace" / "sums"
    checkpoint = next(file for file in folder.iterdir() if "checkpoint" in file.name and file.suffix == ".json")
    more = program(COUNT.replace("range(10)", "range(12)"), "more.py")
    result = run("--from", checkpoint, "--state-dir", tmp_path / "other", more)
    assert (result.exit_code, result.stdout.split()) == (0, ["30", "36"])


def test_an_asynchronous_job_keeps_its_checkpoints_too(program: Callable[[str], Path]) -> None:
    path = program(COUNT.replace('execute("sums")', 'execute_async("sums").get_job_execution_result().result()'))
    assert run(path).exit_code == 0
    assert (path.parent / ".headrace" / "sums").is_dir()


def test_settings_of_the_command_line_go_over_the_programs(program: Callable[[str], Path]) -> None:
    path = program(HEAD + "env.set_parallelism(1)\nprint(env.get_parallelism(), env.get_checkpoint_interval())")
    assert run("-D", "execution.checkpointing.interval=3 s", "--parallelism", 4, path).output == "4 3000\n"
    # Nothing of it is left for the next program.
    assert (launch_configuration.get(), launch_engine.get()) == (None, None)
    assert run(path).output == "1 -1\n"


@pytest.mark.parametrize(("option", "value"), [("--assume-committed", "committed"), ("--assume-aborted", "aborted")])
def test_what_the_user_assumes_is_a_setting(option: str, value: str, program: Callable[[str], Path]) -> None:
    path = program(
        "from headrace.common.configuration import launch_configuration\nprint(launch_configuration.get().to_dict())"
    )
    assert run(option, path).output == f"{{'headrace.assume': '{value}'}}\n"


def test_both_assumptions_together_are_refused(program: Callable[[str], Path]) -> None:
    result = run("--assume-committed", "--assume-aborted", program("print('ran')"))
    assert result.exit_code == 2
    assert "contradict each other" in result.stderr
    assert "ran" not in result.output


@pytest.mark.parametrize("setting", ["no-equals", "=x", " =x"])
def test_a_setting_that_is_no_setting_is_refused(setting: str, program: Callable[[str], Path]) -> None:
    result = run("-D", setting, program("print('ran')"))
    assert result.exit_code == 2
    assert "is not KEY=VALUE" in result.stderr
    assert "ran" not in result.output


def test_a_setting_may_hold_an_equals_sign(program: Callable[[str], Path]) -> None:
    path = program(
        "from headrace.common.configuration import launch_configuration\nprint(launch_configuration.get().to_dict())"
    )
    assert run("-D", "a=b=c", "-D", "a=d=e", path).output == "{'a': 'd=e'}\n"


def test_what_a_function_raises_is_shown_first_and_without_the_engine(program: Callable[[str], Path]) -> None:
    path = program(
        HEAD + "def halve(n):\n    return 1 // n\nenv.from_collection([1, 0]).map(halve).print()\nenv.execute()"
    )
    result = run(path)
    assert result.exit_code == 1
    lines = result.stderr.splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[1] == f'  File "{path}", line 7, in halve'
    assert [line for line in lines if "File" in line] == [lines[1]]
    assert lines[-2] == "ZeroDivisionError: integer division or modulo by zero"
    assert lines[-1].startswith("error: `Map` failed with ZeroDivisionError")
    assert "element 1 of the collection: 0" in lines[-1]


def test_what_a_function_raises_in_a_lane_is_shown_first_too(
    program: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path, str(Path(__file__).parents[3])])
    path = program(
        HEAD
        + """
from headrace.common import WatermarkStrategy
from tests.unit.runtime.endless import Numbers

def divide(n):
    return 1 / (n - 3)

env.from_source(Numbers(("a", "b"), limit=9), WatermarkStrategy.no_watermarks(), "numbers").map(divide).print()
env.execute()
"""
    )
    result = run("--parallelism", "2", path)
    assert result.exit_code == 1
    assert "in divide\n    return 1 / (n - 3)" in result.stderr
    assert result.stderr.index("ZeroDivisionError: division by zero\n") < result.stderr.index("error: lane ")


def test_a_traceback_ends_where_the_users_code_calls_ours(program: Callable[[str], Path]) -> None:
    path = program(
        HEAD
        + "from headrace.common import SimpleStringSchema\n"
        + "def write(n):\n    return SimpleStringSchema().serialize(n)\n"
        + "env.from_collection([1]).map(write).print()\nenv.execute()"
    )
    lines = run(path).stderr.splitlines()
    assert [line for line in lines if "File" in line] == [f'  File "{path}", line 8, in write']
    assert lines[-1].startswith("error: `Map` failed with DataError: SimpleStringSchema writes str, got int")


def test_a_wrong_setting_names_the_line_of_the_program_and_exits_with_2(program: Callable[[str], Path]) -> None:
    path = program(HEAD + "env.set_parallelism(0)")
    result = run(path)
    assert result.exit_code == 2
    assert result.stderr.splitlines() == [
        "where:",
        f'  File "{path}", line 6, in <module>',
        "error: `parallelism.default` is '0'; it must be at least 1",
    ]


def test_an_error_that_is_nobodys_line_is_one_message(program: Callable[[str], Path], tmp_path: Path) -> None:
    result = run("--from", tmp_path / "nowhere", program(COUNT))
    assert result.exit_code == 1
    assert result.stderr.startswith(f"error: there is no snapshot at {tmp_path / 'nowhere'}")
    assert len(result.stderr.splitlines()) == 1


def test_a_programs_own_error_looks_as_in_python(program: Callable[[str], Path]) -> None:
    path = program("def fail():\n    raise KeyError('x')\n\nfail()\n")
    result = run(path)
    python = subprocess.run([sys.executable, str(path)], capture_output=True, text=True, check=False)
    assert result.exit_code == python.returncode == 1
    assert result.stderr == python.stderr


def test_a_program_that_is_no_python_looks_as_in_python(program: Callable[[str], Path]) -> None:
    path = program("def (:")
    result = run(path)
    python = subprocess.run([sys.executable, str(path)], capture_output=True, text=True, check=False)
    assert (result.exit_code, result.stderr) == (python.returncode, python.stderr)


def test_a_defect_of_ours_keeps_its_traceback(program: Callable[[str], Path]) -> None:
    path = program("from headrace.crash_points import crash_point\ncrash_point('nowhere')")
    result = run(path)
    assert result.exit_code == 1
    assert "crash_points.py" in result.stderr
    assert result.stderr.startswith("Traceback")


def test_a_program_that_exits_decides_its_status(program: Callable[[str], Path]) -> None:
    assert run(program("import sys; sys.exit(7)")).exit_code == 7


def test_a_program_that_is_not_there_is_a_wrong_command_line(tmp_path: Path) -> None:
    result = run(tmp_path / "nowhere.py")
    assert result.exit_code == 2
    assert "does not exist" in result.stderr


ENDLESS = (
    HEAD
    + """
import time
def slowly(n):
    # In one piece: two jobs may print.
    print(f"{n}\\n", end="", flush=True)
    time.sleep(0.001)
    return n
env.enable_checkpointing(1000)
env.from_collection(range(1_000_000)).uid("numbers").map(slowly)
env.execute("endless")
"""
)


def start(path: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "headrace", "run", str(path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=dict(os.environ),
    )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_with_a_last_checkpoint_and_the_next_run_goes_on_behind_it(
    number: signal.Signals, program: Callable[[str], Path]
) -> None:
    path = program(ENDLESS)
    with start(path) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == "0\n"
        first.send_signal(number)
        shown, said = first.communicate(timeout=30)
    assert first.returncode == 0, said
    assert "job `endless` starts from the beginning" in said
    assert "stopping with a last checkpoint" in said
    last = int(shown.split()[-1]) if shown else 0
    with start(path) as second:
        assert second.stdout is not None
        assert second.stdout.readline() == f"{last + 1}\n"
        second.kill()


ASYNCHRONOUS = {
    "execute_async": ENDLESS.replace(
        'execute("endless")', 'execute_async("endless").get_job_execution_result().result()'
    ),
    "execute_and_collect": ENDLESS.replace(
        'env.from_collection(range(1_000_000)).uid("numbers").map(slowly)\nenv.execute("endless")',
        'numbers = env.from_collection(range(1_000_000)).uid("numbers").map(slowly)\n'
        'list(numbers.execute_and_collect("endless"))',
    ),
    "beside execute": ENDLESS.replace(
        'env.execute("endless")',
        'job = env.execute_async("endless")\n'
        "env.from_collection(range(-1, -1_000_000, -1)).map(slowly)\n"
        'env.execute("another")\njob.get_job_execution_result().result()',
    ),
}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("how", ASYNCHRONOUS)
def test_a_signal_stops_jobs_that_run_beside_the_program_too(
    how: str, number: signal.Signals, program: Callable[[str], Path]
) -> None:
    path = program(ASYNCHRONOUS[how] + '\nprint("behind", file=sys.stderr)\n')
    with start(path) as process:
        assert process.stdout is not None
        awaited = {"0\n", "-1\n"} if how == "beside execute" else {"0\n"}
        while awaited:
            line = process.stdout.readline()
            assert line
            awaited.discard(line)
        process.send_signal(number)
        try:
            _, said = process.communicate(timeout=30)
        finally:
            process.kill()
    assert process.returncode == 0, said
    assert said.count("stopping with a last checkpoint; signal again to end at once") == 1
    assert said.endswith("behind\n")
    folder = path.parent / ".headrace" / "endless"
    assert [file for file in folder.iterdir() if "checkpoint" in file.name and file.suffix == ".json"]


def test_a_second_signal_ends_a_program_whose_job_does_not_stop(program: Callable[[str], Path]) -> None:
    # A function that does not come back: the second signal ends it.
    path = program(ASYNCHRONOUS["execute_async"].replace("time.sleep(0.001)", "time.sleep(1_000)"))
    with start(path) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == "0\n"
        process.send_signal(signal.SIGTERM)
        assert any("signal again" in line for line in process.stderr)
        process.send_signal(signal.SIGINT)
        try:
            _, said = process.communicate(timeout=30)
        finally:
            process.kill()
    assert process.returncode == 128 + signal.SIGINT
    assert "ended at once by a second signal" in said


def test_without_logging_of_its_own_a_program_shows_headraces_log_and_with_it_does_not(
    program: Callable[[str], Path],
) -> None:
    def said(text: str) -> list[str]:
        command = [sys.executable, "-m", "headrace", "run", "--fresh", str(program(text))]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return [line for line in done.stderr.splitlines() if "starts from the beginning" in line]

    assert len(said(COUNT)) == 1
    assert said("import logging; logging.basicConfig(level=logging.INFO)\n" + COUNT)[0].startswith("INFO:headrace:")
    asynchronous = COUNT.replace('execute("sums")', 'execute_async("sums").get_job_execution_result().result()')
    assert len(said(asynchronous)) == 1


ONCE = ("--fresh", "-D", "restart-strategy.type=none")
LEFT_BEHIND = COUNT.replace('execute("sums")', 'execute_async("sums")')


def test_a_job_that_the_program_leaves_behind_is_waited_for(program: Callable[[str], Path]) -> None:
    for end in ("", "\nsys.exit(0)"):
        result = run("--fresh", program(LEFT_BEHIND + end))
        assert (result.exit_code, result.stdout.split()[-2:]) == (0, ["20", "25"])


def test_what_a_job_left_behind_fails_with_is_what_the_program_fails_with(program: Callable[[str], Path]) -> None:
    failing = LEFT_BEHIND.replace("lambda a, b: a + b", "lambda a, b: 1 // 0")
    result = run(*ONCE, program(failing))
    assert result.exit_code == 1
    assert result.stderr.count("ZeroDivisionError") == 2
    assert "error: `Reduce` failed with ZeroDivisionError" in result.stderr

    heard = failing + "\ntry:\n    env_job.get_job_execution_result().result()\nexcept Exception:\n    print('heard')"
    result = run(*ONCE, program(heard.replace("env.execute_async", "env_job = env.execute_async")))
    assert (result.exit_code, result.stdout.splitlines()[-1]) == (0, "heard")


def test_a_program_that_fails_has_its_jobs_stopped(program: Callable[[str], Path]) -> None:
    path = program(ENDLESS.replace('execute("endless")', 'execute_async("endless")') + "\nraise KeyError('x')")
    with start(path) as process:
        _, said = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "KeyError: 'x'" in said
    assert (path.parent / ".headrace" / "endless").is_dir()


def test_under_plain_python_a_job_that_is_left_behind_is_told_of(program: Callable[[str], Path]) -> None:
    path = program(ENDLESS.replace('execute("endless")', 'execute_async("endless")'))
    ended = subprocess.run([sys.executable, str(path)], capture_output=True, text=True, timeout=60, check=True)
    assert "job `endless` ends with its program, without a last checkpoint" in ended.stderr


def test_ctrl_c_before_a_job_runs_has_the_status_of_ctrl_c(program: Callable[[str], Path]) -> None:
    path = program("import time\nprint('begun', flush=True)\ntime.sleep(60)")
    with start(path) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "no job was running" in said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("call", "text"),
    [
        ('numbers.map("upper")', "MapFunction or a callable"),
        ("numbers.map(Double)", "give one of its instances: `Double()`"),
        ("numbers.uid('')", "`uid` takes a name"),
        ("numbers.name(5)", "`name` takes a name"),
        ("numbers.sink_to('t')", "a Sink is required"),
        ("numbers.key_by('k')", "key_selector"),
        ("env.execute(5)", "a job's name is a text"),
        ("env.from_source('t', None, 't')", "a Source is required"),
    ],
)
def test_what_is_given_wrongly_is_told_in_one_message_with_its_line(
    call: str, text: str, program: Callable[[str], Path]
) -> None:
    path = program(
        HEAD
        + "from headrace.datastream import MapFunction\n"
        + "class Double(MapFunction):\n    def map(self, n):\n        return 2 * n\n"
        + f"numbers = env.from_collection([1])\n{call}\n"
    )
    result = run(path)
    assert result.exit_code == 2
    assert "Traceback" not in result.stderr
    assert f'File "{path}", line 11' in result.stderr
    assert text in result.stderr


def test_a_key_that_cannot_be_one_ends_the_job_with_what_to_give(program: Callable[[str], Path]) -> None:
    path = program(COUNT.replace("lambda n: n % 2", "lambda n: [n % 2]"))
    result = run(path)
    assert result.exit_code == 2
    assert "the key that `key_by` gives for `Reduce` cannot be one (unhashable type: 'list')" in result.stderr


def test_a_program_for_pyflink_is_told_what_to_change(program: Callable[[str], Path]) -> None:
    result = run(program("from pyflink.datastream import StreamExecutionEnvironment"))
    assert result.exit_code == 1
    assert "once `pyflink` in its imports is `headrace`" in result.stderr


def test_a_port_for_metrics_that_is_in_use_is_a_wrong_setting(program: Callable[[str], Path]) -> None:
    with socket.create_server(("localhost", 0)) as taken:
        port = taken.getsockname()[1]
        result = run("--metrics-port", port, program(COUNT))
    assert result.exit_code == 2
    assert f"`metrics.reporter.prom.port` (`--metrics-port`) is {port}, which is in use" in result.output
    assert run("--metrics-port", "0", program(COUNT)).exit_code == 0
