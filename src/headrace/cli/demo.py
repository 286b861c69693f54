"""`headrace demo`: exactly once, shown."""

from __future__ import annotations

import time

import click

from headrace.broker import KAFKA_VERSIONS
from headrace.cli.main import FAILED
from headrace.demo.demonstration import FULL_SIZE, Outcome, demonstrate


@click.command()
@click.option(
    "--records",
    type=click.IntRange(min=200_000),
    default=FULL_SIZE,
    show_default=True,
    help="News items to write. A kill that finds the job finished fails the demonstration.",
)
@click.option(
    "--kafka-version", type=click.Choice(KAFKA_VERSIONS), default=KAFKA_VERSIONS[0], show_default=True, help="Kafka."
)
def demo(records: int, kafka_version: str) -> None:
    """Kill a job three times, let it resume, and count its results independently.

    Starts a broker of its own, fills a topic with news items and another with prices, and runs a job that counts items
    per source, exactly once. The first time, Kafka is downloaded (46 MB).

    \b
    Exit status:
      0  nothing lost, nothing repeated, every count right
      1  otherwise, or if the demonstration could not be run
    """
    started_at = time.monotonic()

    def say(line: str) -> None:
        click.echo(f"{time.monotonic() - started_at:6.1f} s  {line}")

    outcome = demonstrate(records, kafka_version, say)
    click.echo(report(outcome))
    if not outcome.verdict.holds:
        raise SystemExit(FAILED)


def report(outcome: Outcome) -> str:
    """The figures, and what they mean."""
    verdict = outcome.verdict
    recoveries = ", ".join(f"{seconds:.1f} s" for seconds in outcome.recoveries_s)
    rows = [
        ("records in", f"{outcome.records:,}"),
        ("results out", f"{verdict.results:,}"),
        ("lost", f"{verdict.lost:,}"),
        ("repeated", f"{verdict.repeated:,}"),
        ("sources with wrong counts", f"{len(verdict.broken):,}"),
        ("between kills", f"{outcome.results_per_s:,.0f} results/s"),
        ("from each restart to a new result", recoveries),
    ]
    lines = ["", *(f"  {name:<35}{value}" for name, value in rows), ""]
    if verdict.holds:
        lines.append("exactly once: every item is counted, and no count is there twice")
    else:
        wrong = f" Sources with wrong counts: {', '.join(verdict.broken)}." if verdict.broken else ""
        lines.append(f"NOT exactly once.{wrong} This is a defect of Headrace: please report it with this output.")
    return "\n".join(lines)
