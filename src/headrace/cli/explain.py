"""`headrace explain`: a program's plan, without running it; and every setting there is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from headrace.cli.plan import first_job
from headrace.cli.run import settings_of
from headrace.common import options
from headrace.common.config_options import DURATION, ConfigOption
from headrace.common.configuration import Configuration
from headrace.errors import NotSupportedError
from headrace.kafka.properties_page import properties_table
from headrace.plan.explain import explain as explain_plan
from headrace.plan.parallelism import with_parallelism
from headrace.runtime.settings import check_plan, read_settings


@click.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.argument(
    "program", metavar="[JOB.py]", required=False, type=click.Path(exists=True, dir_okay=False, path_type=Path)
)
@click.argument("arguments", metavar="[ARGS]...", nargs=-1, type=click.UNPROCESSED)
@click.option(
    "--parallelism", type=click.IntRange(min=1), help="Subtasks of operators without their own `set_parallelism`."
)
@click.option("-D", "settings", metavar="KEY=VALUE", multiple=True, callback=settings_of, help="A setting. Repeatable.")
@click.option("--options", "only_options", is_flag=True, help="Print every setting instead, as a table.")
@click.option("--properties", "only_properties", is_flag=True, help="Print every property of Kafka, as a table.")
def explain(
    program: Path | None,
    arguments: tuple[str, ...],
    parallelism: int | None,
    settings: Configuration,
    only_options: bool,
    only_properties: bool,
) -> None:
    """Print the plan of a program's first job: operators, ids, what commits together, what is guaranteed.

    The program runs up to the point where it would start that job. No broker is asked.

    \b
    Examples:
      headrace explain market_lag.py
      headrace explain --parallelism 4 market_lag.py
      headrace explain --options
      headrace explain --properties
    """
    if only_options:
        click.echo(options_table())
        return
    if only_properties:
        click.echo(properties_table())
        return
    if program is None:
        raise click.UsageError("name a program, or give --options or --properties")
    if parallelism is not None:
        settings = Configuration(settings).set_string(options.PARALLELISM.key, str(parallelism))
    job = first_job(program, arguments, settings)
    if job is None:
        click.echo(f"{program} starts no job", err=True)
        return
    # A plan that would be refused is shown all the same, and then what is wrong with it.
    plan, refusal = job.plan, None
    try:
        plan = with_parallelism(plan, options.PARALLELISM.read(job.configuration))
    except NotSupportedError as error:
        refusal = error
    click.echo(explain_plan(plan))
    for warning in check_plan(plan, read_settings(job.configuration)):
        click.echo(f"warning: {warning}", err=True)
    if refusal is not None:
        raise refusal from None


def options_table() -> str:
    """Every setting as a table in Markdown."""
    lines = ["| Setting | Takes | Default | What it does |", "|---|---|---|---|"]
    for option in options.OPTIONS:
        also = "".join(f"<br>also `{key}`" for key in option.fallback_keys)
        takes = option.type.accepted.partition(" such as")[0].replace("|", "\\|")
        lines.append(f"| `{option.key}`{also} | {takes} | {_default(option)} | {option.description} |")
    return "\n".join(lines)


def _default(option: ConfigOption[Any]) -> str:
    match option.default:
        case None:
            return "not set"
        case bool():
            return f"`{str(option.default).lower()}`"
        case dict():
            return "empty"
        case tuple():
            return f"`{', '.join(map(str, option.default))}`"
        case options.UNLIMITED:
            return "`inf`"
        case int() if option.type is DURATION:
            return f"`{option.default // 1000} s`" if option.default % 1000 == 0 else f"`{option.default} ms`"
        case _:
            return f"`{option.default}`"
