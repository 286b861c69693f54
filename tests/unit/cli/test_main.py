"""The command line as a user meets it, without a broker."""

from __future__ import annotations

import subprocess
import sys

import click
import pytest
from click.testing import CliRunner

from headrace.cli import main as cli
from headrace.errors import ConfigError, ExternalError, HeadraceError


def test_help_lists_the_commands_without_importing_one() -> None:
    code = (
        "import sys; from headrace.cli.main import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "print([m for m in sys.modules if m in ('headrace.broker', 'headrace.runtime', 'confluent_kafka')])"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "Run Apache Kafka on this machine, for development." in output
    assert output.splitlines()[-1] == "[]"


def test_an_unknown_command_is_a_wrong_command_line() -> None:
    result = CliRunner().invoke(cli.main, ["brokr"])
    assert result.exit_code == cli.WRONG_SETTINGS
    assert "No such command 'brokr'" in result.output


@pytest.mark.parametrize(
    ("error", "status"), [(ConfigError("no topic"), cli.WRONG_SETTINGS), (ExternalError("no broker"), cli.FAILED)]
)
def test_our_errors_are_one_line_and_a_status(
    error: HeadraceError, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    @click.command()
    def fails() -> None:
        raise error

    monkeypatch.setattr(type(cli.main), "get_command", lambda *_: fails)
    result = CliRunner().invoke(cli.main, ["broker"])
    assert result.exit_code == status
    assert result.stderr == f"error: {error}\n"


@pytest.mark.parametrize("topic", [":4", "a:", "a:0", "a:x", "a:b:4", ""])
def test_a_topic_that_is_not_name_and_partitions_is_refused_before_anything_starts(topic: str) -> None:
    result = CliRunner().invoke(cli.main, ["broker", "--topic", topic])
    assert result.exit_code == cli.WRONG_SETTINGS
    assert f"{topic!r} is not NAME:PARTITIONS, for example rss.events:4" in result.output


def test_broker_help_has_examples() -> None:
    result = CliRunner().invoke(cli.main, ["broker", "--help"])
    assert "headrace broker --topic rss.events:4" in result.output


@pytest.mark.parametrize("arguments", [["explain", "--options"], ["explain", "--properties"]])
def test_an_output_that_cannot_be_written_is_one_line_and_a_status(
    arguments: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def echo(message: str, err: bool = False) -> None:
        if not err:
            raise OSError(28, "No space left on device")
        print(message, file=sys.stderr)

    monkeypatch.setattr(click, "echo", echo)
    with pytest.raises(SystemExit) as ended:
        cli.main.main(arguments)
    assert ended.value.code == cli.FAILED
    assert capsys.readouterr().err == "error: [Errno 28] No space left on device\n"
