"""The `headrace` command: which subcommands there are, and what an error looks like.

Subcommands are loaded by name when they are asked for, so that `headrace --help` imports none of them.

Exit status: 0 done; 1 something failed; 2 the command line or a setting is wrong, and nothing has run; 130
Ctrl-C.
"""

from __future__ import annotations

import errno
import importlib
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import click

import headrace
from headrace.errors import ConfigError, HeadraceError

FAILED = 1
WRONG_SETTINGS = 2
INTERRUPTED = 130


@dataclass(frozen=True, slots=True)
class _Subcommand:
    """A subcommand before it is loaded: its module in this package (the command has its name), and its one line."""

    module: str
    summary: str


_SUBCOMMANDS = {
    "run": _Subcommand("run", "Run a job."),
    "explain": _Subcommand("explain", "Print a job's plan."),
    "check": _Subcommand("check", "Say what would go wrong with a job, before it runs."),
    "checkpoints": _Subcommand("checkpoints", "List and show a job's checkpoints."),
    "savepoint": _Subcommand("checkpoints", "Have a running job write a savepoint."),
    "kafka": _Subcommand("kafka", "Look at topics, records, offsets and open transactions of a cluster."),
    "dlq": _Subcommand("dlq", "List, show and replay dead letters."),
    "broker": _Subcommand("broker", "Run Apache Kafka on this machine, for development."),
    "demo": _Subcommand("demo", "Show exactly once: a job that is killed, and an independent count."),
}


class _Commands(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return [name for name, command in _SUBCOMMANDS.items() if find_spec(f"headrace.cli.{command.module}")]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.list_commands(ctx):
            return None
        command = getattr(importlib.import_module(f"headrace.cli.{_SUBCOMMANDS[cmd_name].module}"), cmd_name)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, _SUBCOMMANDS[name].summary) for name in self.list_commands(ctx)])

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except HeadraceError as error:
            click.echo(f"error: {error}", err=True)
            ctx.exit(WRONG_SETTINGS if isinstance(error, ConfigError) else FAILED)
        except OSError as error:
            if error.errno == errno.EPIPE:
                raise
            click.echo(f"error: {error}", err=True)
            ctx.exit(FAILED)
        except KeyboardInterrupt:
            ctx.exit(INTERRUPTED)


@click.command(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(headrace.__version__, prog_name="headrace")
def main() -> None:
    """Flink's Kafka connector and the DataStream API, native in Python."""
