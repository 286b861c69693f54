"""`headrace run`: a program with its jobs, on this machine."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import click

from headrace import runtime
from headrace.cli.program import run_program
from headrace.cli.watch import watched
from headrace.common import options
from headrace.common.config_options import ConfigOption
from headrace.common.configuration import Configuration
from headrace.common.job_client import JobClient
from headrace.common.job_execution_result import JobExecutionResult
from headrace.errors import ConfigError
from headrace.plan.graph import Plan
from headrace.runtime import Job
from headrace.runtime.signals import stopped_by_signals

log = logging.getLogger("headrace")

STATE_FOLDER = ".headrace"
"""Beside the program, where nothing else says where checkpoints are kept."""


class KeepingEngine:
    """The embedded engine, with a checkpoint folder for jobs that name none, and a watch over each.

    `running` are the jobs that have not ended, whatever thread they run in.
    """

    def __init__(self, program: Path) -> None:
        self._program = program
        self._started: list[Job] = []
        self.running: list[Job] = []

    def run_job(self, plan: Plan, configuration: Configuration) -> JobExecutionResult:
        configuration = with_state_folder(configuration, self._program)
        return runtime.run_job(plan, configuration, self._watched)

    def start_job(self, plan: Plan, configuration: Configuration) -> JobClient:
        configuration = with_state_folder(configuration, self._program)
        job = runtime.start_job(plan, configuration, self._watched)
        self._started.append(job)
        return job

    @contextlib.contextmanager
    def outlived(self) -> Iterator[None]:
        """At a program's end, wait for the jobs that it has left behind; if it has failed, stop them first.

        Raises what one of them failed with if nobody has heard of it, and the program has not failed itself.
        """
        try:
            yield
        except BaseException as error:
            if not isinstance(error, SystemExit) or error.code:
                for job in list(self.running):
                    log.info("the program has failed; its job `%s` stops with a last checkpoint", job.name)
                    job.stop()
            for failure in self._wait_for_jobs():
                log.error("a job of the program failed as well: %s", failure)
            raise
        for failure in self._wait_for_jobs():
            raise failure

    def _wait_for_jobs(self) -> list[BaseException]:
        for job in self._started:
            if not job.has_ended and not job.is_stopping:
                log.info("the program has come to its end; its job `%s` goes on", job.name)
            job.wait()
        return [failure for job in self._started if (failure := job.take_unheard_failure()) is not None]

    def _watched(self, job: Job) -> AbstractContextManager[None]:
        self.running.append(job)
        job.when_ended(lambda: self.running.remove(job))
        return watched(job, job.folder)


def with_state_folder(configuration: Configuration, program: Path) -> Configuration:
    """The settings, with a checkpoint folder beside the program unless they name one."""
    if options.CHECKPOINT_DIR.is_set(configuration):
        return configuration
    folder = program.resolve().parent / STATE_FOLDER
    return Configuration(configuration).set_string(options.CHECKPOINT_DIR.key, str(folder))


def settings_of(context: click.Context, option: click.Parameter, values: Sequence[str]) -> Configuration:
    """`KEY=VALUE` settings, the last of one key being the one that counts."""
    configuration = Configuration()
    for value in values:
        key, equals, text = value.partition("=")
        if not equals or not key.strip():
            raise click.BadParameter(f"{value!r} is not KEY=VALUE, for example execution.checkpointing.interval=1s")
        configuration.set_string(key.strip(), text)
    return configuration


@click.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.argument("program", metavar="JOB.py", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("arguments", metavar="[ARGS]...", nargs=-1, type=click.UNPROCESSED)
@click.option(
    "--state-dir",
    type=click.Path(file_okay=False, path_type=Path),
    help="Keep checkpoints here, and resume from them.  [default: .headrace beside the program]",
)
@click.option("--fresh", is_flag=True, help="Start over: what the state folder holds is not used.")
@click.option("--from", "start", metavar="PATH", help="Start from this checkpoint's file or this savepoint's folder.")
@click.option(
    "--assume-committed",
    is_flag=True,
    help="If nobody knows whether the last checkpoint was committed: it was. Loses its records if not.",
)
@click.option(
    "--assume-aborted",
    is_flag=True,
    help="If nobody knows whether the last checkpoint was committed: it was not. Repeats its records if it was.",
)
@click.option(
    "--parallelism", type=click.IntRange(min=1), help="Subtasks of operators without their own `set_parallelism`."
)
@click.option(
    "--metrics-port",
    metavar="PORT",
    help="Show metrics to Prometheus at this port of localhost, or at the first free one of a range (9250-9260); 0: "
    "any that is free, which is printed.",
)
@click.option(
    "-D",
    "settings",
    metavar="KEY=VALUE",
    multiple=True,
    callback=settings_of,
    help="A setting, over the program's own. Repeatable.",
)
def run(
    program: Path,
    arguments: tuple[str, ...],
    state_dir: Path | None,
    fresh: bool,
    start: str | None,
    assume_committed: bool,
    assume_aborted: bool,
    parallelism: int | None,
    metrics_port: str | None,
    settings: Configuration,
) -> None:
    """Run a program, unchanged, and its jobs on this machine.

    Options come before JOB.py; everything behind it is the program's own. A job resumes from its newest checkpoint in
    the state folder; on a terminal the last line says how it does. Ctrl-C or SIGTERM stops every job that is running
    with a last checkpoint, and the program goes on; a second one ends it at once. Jobs that the program has started
    with `execute_async` and left running are waited for; if it fails, they are stopped first.

    \b
    Exit status:
      0      every job has finished, or was stopped with a last checkpoint
      1      something failed
      2      a setting or the command line is wrong
      130, 143  ended at once by a second Ctrl-C or SIGTERM
    A program that calls sys.exit decides itself.

    \b
    Examples:
      headrace run market_lag.py
      headrace run -D execution.checkpointing.interval=1s market_lag.py --topic rss.events
      headrace run --from savepoints/savepoint-market_lag-3-18-5a70b5c1d2e3 market_lag.py
    """
    if assume_committed and assume_aborted:
        raise ConfigError("--assume-committed and --assume-aborted contradict each other; give one of them")
    configuration = Configuration(settings)
    given: list[tuple[ConfigOption[Any], object]] = [
        (options.CHECKPOINT_DIR, None if state_dir is None else state_dir.absolute()),
        (options.FRESH, "true" if fresh else None),
        (options.RECOVERY_PATH, start),
        (options.ASSUME, "committed" if assume_committed else "aborted" if assume_aborted else None),
        (options.PARALLELISM, parallelism),
        (options.METRICS_REPORTERS, None if metrics_port is None else "prom"),
        (options.PROMETHEUS_PORT, metrics_port),
    ]
    for option, value in given:
        if value is not None:
            configuration.set_string(option.key, str(value))
    engine = KeepingEngine(program)
    with stopped_by_signals(lambda: list(engine.running)):
        run_program(program, arguments, configuration, engine, engine.outlived())
