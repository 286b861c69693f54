"""`headrace explain`: a program's plan, without running it; and every setting there is."""

from __future__ import annotations

from pathlib import Path
from typing import Never

import click

from headrace.cli.program import run_program
from headrace.cli.run import settings_of, with_state_folder
from headrace.common import options
from headrace.common.configuration import Configuration
from headrace.plan.explain import explain as explain_plan
from headrace.plan.graph import Plan
from headrace.runtime.settings import check_plan, read_settings


class _Explained(BaseException):
    """Ends the program at its first job. No `Exception`, as programs catch those."""


class _Explainer:
    """Takes a job to print it."""

    def __init__(self, program: Path) -> None:
        self._program = program

    def run_job(self, plan: Plan, configuration: Configuration) -> Never:
        click.echo(explain_plan(plan))
        # A plan that would be refused is shown all the same, and then what is wrong with it.
        configuration = with_state_folder(configuration, self._program)
        for warning in check_plan(plan, read_settings(configuration), configuration):
            click.echo(f"warning: {warning}", err=True)
        raise _Explained

    start_job = run_job


@click.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.argument(
    "program", metavar="[JOB.py]", required=False, type=click.Path(exists=True, dir_okay=False, path_type=Path)
)
@click.argument("arguments", metavar="[ARGS]...", nargs=-1, type=click.UNPROCESSED)
@click.option("-D", "settings", metavar="KEY=VALUE", multiple=True, callback=settings_of, help="A setting. Repeatable.")
@click.option("--options", "only_options", is_flag=True, help="Print every setting instead, as a table.")
def explain(program: Path | None, arguments: tuple[str, ...], settings: Configuration, only_options: bool) -> None:
    """Print the plan of a program's first job: operators, ids, what commits together, what is guaranteed.

    The program runs up to the point where it would start that job. No broker is asked.

    \b
    Examples:
      headrace explain market_lag.py
      headrace explain --options
    """
    if only_options:
        click.echo(options_table())
        return
    if program is None:
        raise click.UsageError("name a program, or give --options")
    try:
        run_program(program, arguments, settings, _Explainer(program))
    except _Explained:
        return
    click.echo(f"{program} starts no job", err=True)


def options_table() -> str:
    """Every setting as a table in Markdown."""
    lines = ["| Setting | Default | What it does |", "|---|---|---|"]
    for option in options.OPTIONS:
        also = "".join(f"<br>also `{key}`" for key in option.fallback_keys)
        what = " ".join(part for part in (option.description, f"Takes {option.type.accepted}.") if part)
        lines.append(f"| `{option.key}`{also} | {_shown(option.default)} | {what.replace('|', chr(92) + '|')} |")
    return "\n".join(lines)


def _shown(default: object) -> str:
    match default:
        case None:
            return "not set"
        case bool():
            return f"`{str(default).lower()}`"
        case dict():
            return "empty"
        case options.UNLIMITED:
            return "`inf`"
        case _:
            return f"`{default}`"
