"""`headrace explain`: a plan is shown, and nothing runs."""

from __future__ import annotations

from pathlib import Path

from click.testing import CliRunner, Result

from headrace.cli.main import main
from headrace.common.options import OPTIONS

PROGRAM = """
import sys
from headrace.datastream import StreamExecutionEnvironment
env = StreamExecutionEnvironment.get_execution_environment()
env.from_collection([1]).map(lambda n: print("it has run", n)).print()
try:
    {execute}
except Exception:
    print("caught")
print("went on")
"""


def explain(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["explain", *map(str, arguments)])


def write(folder: Path, execute: str) -> Path:
    path = folder / "job.py"
    path.write_text(PROGRAM.format(execute=execute))
    return path


def test_the_plan_is_shown_and_the_program_ends_at_its_job(tmp_path: Path) -> None:
    for execute in ("env.execute(sys.argv[1])", "env.execute_async(sys.argv[1])"):
        result = explain(write(tmp_path, execute), "named")
        assert result.exit_code == 0
        assert result.stdout.startswith("job `named`: 3 operators in 1 region")
        assert "it has run" not in result.output
        assert "caught" not in result.output
        assert "went on" not in result.output
        assert not (tmp_path / ".headrace").exists()


def test_a_plan_that_would_be_refused_is_shown_and_then_refused(tmp_path: Path) -> None:
    source = "env.from_collection([1]).map(str).set_parallelism(2); env.execute()"
    result = explain(write(tmp_path, source))
    assert result.exit_code == 2
    assert result.stdout.startswith("job `job`: 5 operators")
    assert "parallelism 2 of `Map` is not supported" in result.stderr


def test_the_plan_is_that_of_the_parallelism_asked_for(tmp_path: Path) -> None:
    path = write(tmp_path, "env.execute('named')")
    path.write_text(
        "from headrace.common import WatermarkStrategy\nfrom tests.unit.runtime.endless import Numbers\n"
        + path.read_text().replace(
            "env.from_collection([1])", "env.from_source(Numbers(), WatermarkStrategy.no_watermarks(), 'numbers')"
        )
    )
    assert "lanes" not in explain(path).stdout
    assert "in each of 3 lanes" in explain("--parallelism", 3, path).stdout


def test_a_program_without_a_job_is_told_so(tmp_path: Path) -> None:
    result = explain(write(tmp_path, "pass"))
    assert result.exit_code == 0
    assert result.stdout == "went on\n"
    assert "starts no job" in result.stderr


def test_without_a_program_a_program_is_asked_for() -> None:
    result = explain()
    assert result.exit_code == 2
    assert "name a program, or give --options" in result.stderr


def test_every_setting_is_a_row_with_its_default() -> None:
    result = explain("--options")
    rows = result.stdout.splitlines()[2:]
    assert [row.split("`")[1] for row in rows] == [option.key for option in OPTIONS]
    assert all(row.replace("\\|", "").count("|") == 5 for row in rows)
    shown = {row.split("`")[1]: [cell.strip() for cell in row.split("|")[1:-1]] for row in rows}
    assert shown["execution.checkpointing.interval"][1:3] == ["a duration", "not set"]
    assert shown["execution.checkpointing.timeout"][2] == "`600 s`"
    assert shown["pipeline.auto-watermark-interval"][2] == "`200 ms`"
    assert shown["headrace.fresh"][2] == "`false`"
    assert shown["pipeline.global-job-parameters"][2] == "empty"
    assert shown["restart-strategy.exponential-delay.attempts-before-reset-backoff"][2] == "`inf`"
    assert "also `state.checkpoints.dir`" in shown["execution.checkpointing.dir"][0]
