"""`headrace check`: what would go wrong with a job, said before it runs."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from headrace.checkpoint.decision import AlreadyFinished, Refuse, decide
from headrace.checkpoint.folder import FolderContents, Status
from headrace.checkpoint.manifest import Manifest
from headrace.checkpoint.marker import Marker
from headrace.checkpoint.storage import CheckpointFolder, open_snapshot
from headrace.cli.main import FAILED
from headrace.cli.plan import first_job
from headrace.cli.run import settings_of
from headrace.common import options
from headrace.common.configuration import Configuration
from headrace.errors import ConfigError, HeadraceError, StateError
from headrace.kafka.client.protocol import Failure
from headrace.kafka.facts import Checkpointing
from headrace.kafka.findings import Area, Finding, Severity, split_cure
from headrace.kafka.survey import Survey, ask_all, surveys_of
from headrace.plan.graph import Plan
from headrace.plan.identity import operator_ids
from headrace.plan.parallelism import idle_default, with_parallelism
from headrace.runtime.settings import Settings, check_plan, read_settings

_STYLES: Final = {Severity.ERROR: "bold red", Severity.WARNING: "yellow", Severity.NOTE: "dim"}
_PIPE_WIDTH: Final = 120
_SUBJECT_WIDTH: Final = 36


@click.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.argument("program", metavar="JOB.py", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("arguments", metavar="[ARGS]...", nargs=-1, type=click.UNPROCESSED)
@click.option(
    "--parallelism", type=click.IntRange(min=1), help="Subtasks of operators without their own `set_parallelism`."
)
@click.option(
    "--state-dir",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where the job keeps checkpoints.  [default: .headrace beside the program]",
)
@click.option("-D", "settings", metavar="KEY=VALUE", multiple=True, callback=settings_of, help="A setting. Repeatable.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
@click.option("--strict", is_flag=True, help="Exit with 1 for a warning, too.")
def check(
    program: Path,
    arguments: tuple[str, ...],
    parallelism: int | None,
    state_dir: Path | None,
    settings: Configuration,
    as_json: bool,
    strict: bool,
) -> None:
    """Say what would go wrong with a program's first job, before it runs.

    The program runs up to the point where it would start that job. Then each cluster that the job reads or writes is
    asked: credentials, TLS, topics, rights, timeouts, groups, replication, sizes, retention, positions. Nothing is
    written there, and a copy of the job that runs meanwhile notices nothing.

    \b
    Exit status:
      0  nothing would keep it from running: at most warnings and notes
      1  there is an error (with --strict: or a warning), or nothing could be checked
      2  a setting or the command line is wrong
    A program that fails before it has a job ends as with `headrace run`.

    \b
    Examples:
      headrace check market_lag.py
      headrace check --json --strict -D execution.checkpointing.interval=1s market_lag.py
    """
    if parallelism is not None:
        settings = Configuration(settings).set_string(options.PARALLELISM.key, str(parallelism))
    if state_dir is not None:
        settings = Configuration(settings).set_string(options.CHECKPOINT_DIR.key, str(state_dir.absolute()))
    # What the program prints is not part of the answer.
    job = first_job(program, arguments, settings, contextlib.redirect_stdout(sys.stderr))
    if job is None:
        click.echo(f"error: {program} starts no job, so nothing was checked", err=True)
        sys.exit(FAILED)
    plan = job.plan
    found, surveys = _check(plan, job.configuration)
    found.sort(key=lambda finding: list(Severity).index(finding.severity))
    if as_json:
        click.echo(json.dumps(_as_json(plan.job_name, found, surveys), indent=1))
    else:
        _print(plan.job_name, found, surveys)
    failing = {Severity.ERROR, Severity.WARNING} if strict else {Severity.ERROR}
    sys.exit(FAILED if any(finding.severity in failing for finding in found) else 0)


def _check(plan: Plan, configuration: Configuration) -> tuple[list[Finding], list[Survey]]:
    settings = read_settings(configuration)
    found: list[Finding] = []
    parallelism = options.PARALLELISM.read(configuration)
    try:
        plan = with_parallelism(plan, parallelism)
        operator_ids(plan)
    except ConfigError as error:
        return [_of_plan(plan, Severity.ERROR, str(error))], []
    if (warning := idle_default(plan, parallelism)) is not None:
        found.append(_of_plan(plan, Severity.WARNING, warning))
    try:
        found += [_of_plan(plan, Severity.WARNING, text) for text in check_plan(plan, settings)]
    except ConfigError as error:
        found.append(_of_plan(plan, Severity.ERROR, str(error)))

    assert settings.checkpoint_dir is not None
    folder = CheckpointFolder(settings.checkpoint_dir, plan.job_name)
    state = State(str(folder.path), folder.running(), folder.is_writable())
    try:
        state = read_state(folder, settings, state)
    except HeadraceError as error:
        found.append(_of_folder(state, Severity.ERROR, str(error)))
    checkpointing = Checkpointing(settings.checkpoint_interval_ms, settings.checkpoint_timeout_ms)
    newest = state.contents.newest
    try:
        surveys = surveys_of(plan, checkpointing, newest, restored=state.restored)
    except StateError as error:
        # It holds what is none of Kafka's.
        found.append(_of_folder(state, Severity.ERROR, str(error)))
        surveys = surveys_of(plan, checkpointing, newest, restored=None)
    try:
        ask_all(surveys, lambda line: click.echo(f"{line} …", err=True))
        for survey in surveys:
            found += survey.findings(checkpointing)
    finally:
        for survey in surveys:
            survey.close()
    found += of_state(state, settings, surveys)
    return list(dict.fromkeys(found)), surveys


def _of_plan(plan: Plan, severity: Severity, text: str) -> Finding:
    return Finding(severity, Area.PLAN, f"job `{plan.job_name}`", *split_cure(text))


@dataclass(frozen=True, slots=True)
class State:
    """A job's checkpoint folder: who works there, whether it can be written, what it holds, and what is restored."""

    path: str
    running: str | None
    is_writable: bool
    contents: FolderContents = field(default_factory=FolderContents)
    restored: Manifest | None = None


def read_state(folder: CheckpointFolder, settings: Settings, state: State) -> State:
    """The folder's contents, and the snapshot that a start may go on from."""
    contents = folder.read()
    restored = contents.newest
    if settings.fresh:
        restored = None
    elif settings.recovery_path is not None:
        restored = open_snapshot(settings.recovery_path).manifest
    elif restored is not None and contents.status(restored) is Status.PREPARED:
        # Its transaction may have been aborted: nothing of the one before must be missing.
        restored = contents.find(restored.predecessor) or restored
    return replace(state, contents=contents, restored=restored)


def of_state(state: State, settings: Settings, surveys: Sequence[Survey]) -> Iterator[Finding]:
    """What a start would say of the folder and the markers in the clusters."""
    if not state.is_writable:
        text = "it cannot be written; give the job's user the right to, or set another `execution.checkpointing.dir`"
        yield _of_folder(state, Severity.ERROR, text, "execution.checkpointing.dir")
    if state.running is not None:
        text = f"the job is running: {state.running} holds its lock; a start is refused until it has ended"
        yield _of_folder(state, Severity.WARNING, text)
        # Markers that move cannot be compared with a folder that was read before.
        return
    if settings.fresh or settings.recovery_path is not None:
        return
    clusters = {survey.cluster_id for survey in surveys}
    newest = state.contents.newest
    locations = (
        {} if newest is None else {r: at for r, own in newest.regions.items() if (at := own.location) is not None}
    )
    for location in locations.values():
        if None not in clusters and location["cluster_id"] not in clusters:
            text = (
                f"its last transactions are on cluster {location['cluster_id']} ({location['bootstrap_servers']}), "
                "which the job does not write to any more, so their outcome cannot be read; start over with `--fresh`, "
                "or point the sink there"
            )
            yield _of_folder(state, Severity.ERROR, text)
            return
    said: dict[str, str | Failure | None] = {}
    for survey in surveys:
        said |= survey.facts.markers
    own = {t.context.region: t.transactional_id for survey in surveys for t in survey.transacts}
    recorded = {region: str(location["transactional_id"]) for region, location in locations.items()}
    wanted = [*own.values(), *recorded.values()]
    if any(one is None or one not in said or isinstance(said[one], Failure) for one in wanted):
        # Why has been said.
        return
    try:
        markers = {name: Marker.decode(text, f"transactional id {name!r}") for name, text in _texts(said).items()}
    except StateError as error:
        yield _of_folder(state, Severity.ERROR, str(error))
        return
    decision = decide(
        state.contents,
        {region: markers.get(name) for region, name in recorded.items()},
        {region: markers.get(name) for region, name in own.items() if name is not None},
        assume=settings.assume,
    )
    match decision:
        case Refuse(reason):
            yield Finding(Severity.ERROR, Area.CHECKPOINT, f"folder {state.path}", reason)
        case AlreadyFinished():
            text = "the job has reached its end before, and a start would do nothing; start over with `--fresh`"
            yield _of_folder(state, Severity.WARNING, text)
        case _:
            pass


def _texts(said: Mapping[str, str | Failure | None]) -> dict[str, str]:
    return {name: text for name, text in said.items() if isinstance(text, str)}


def _of_folder(state: State, severity: Severity, text: str, setting: str | None = None) -> Finding:
    return Finding(severity, Area.CHECKPOINT, f"folder {state.path}", *split_cure(text), setting)


def _summary(found: Sequence[Finding]) -> str:
    counts = {severity: sum(f.severity is severity for f in found) for severity in Severity}
    listed = ", ".join(f"{count} {severity.value}{'' if count == 1 else 's'}" for severity, count in counts.items())
    return listed if counts[Severity.ERROR] or counts[Severity.WARNING] else f"nothing would go wrong ({listed})"


def _asked(survey: Survey) -> str:
    who = ", ".join(f"`{operator}`" for operator in survey.operators)
    where = "not reached" if survey.cluster_id is None else f"cluster {survey.cluster_id}"
    return f"{survey.facts.servers} ({where}) for {who}"


def _print(job: str, found: Sequence[Finding], surveys: Sequence[Survey]) -> None:
    console = Console()
    if not console.is_terminal:
        console = Console(width=_PIPE_WIDTH)
    if found:
        table = Table(box=None, pad_edge=False, padding=(0, 2, 1, 0))
        table.add_column("", no_wrap=True)
        table.add_column("what", max_width=_SUBJECT_WIDTH, overflow="fold")
        table.add_column("would go wrong, and what to do", overflow="fold")
        for one in found:
            told = Text(one.problem)
            if one.cure:
                told.append(f"\n→ {one.cure}", "green")
            table.add_row(Text(one.severity.value, _STYLES[one.severity]), Text(one.subject), told)
        console.print(table)
        console.print()
    asked = "; ".join(map(_asked, surveys)) or "no Kafka is read or written"
    console.print(Text(f"job `{job}`: {asked}"), soft_wrap=True)
    console.print(Text(_summary(found)), soft_wrap=True)


def _as_json(job: str, found: Sequence[Finding], surveys: Sequence[Survey]) -> dict[str, object]:
    return {
        "job": job,
        "clusters": [
            {
                "bootstrap_servers": survey.facts.servers,
                "cluster_id": survey.cluster_id,
                "operators": survey.operators,
            }
            for survey in surveys
        ],
        "counts": {severity.value: sum(f.severity is severity for f in found) for severity in Severity},
        "findings": [
            {
                "severity": one.severity.value,
                "area": one.area.value,
                "subject": one.subject,
                "problem": one.problem,
                "cure": one.cure,
                "setting": one.setting,
            }
            for one in found
        ],
    }
