"""A program's first job, without running it: the program runs up to the point where it would start that job."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Never

from headrace.cli.program import run_program
from headrace.cli.run import with_state_folder
from headrace.common.configuration import Configuration
from headrace.plan.graph import Plan

_NOTHING = contextlib.nullcontext()


@dataclass(frozen=True, slots=True)
class FirstJob:
    """A job as the program would start it; `configuration` says where its checkpoints are, as with `headrace run`."""

    plan: Plan
    configuration: Configuration


def first_job(
    program: Path,
    arguments: Sequence[str],
    settings: Configuration,
    around: AbstractContextManager[object] = _NOTHING,
) -> FirstJob | None:
    """The job; None if the program comes to its end without one. `settings` go over the program's own, which runs
    within `around`.

    What the program raises is shown, and ends in `SystemExit`.
    """
    try:
        run_program(program, arguments, settings, _Taker(), around)
    except _Taken as taken:
        return FirstJob(taken.plan, with_state_folder(taken.configuration, program))
    return None


class _Taken(BaseException):
    """Ends the program at its first job, with the job. No `Exception`, as programs catch those."""

    def __init__(self, plan: Plan, configuration: Configuration) -> None:
        super().__init__()
        self.plan = plan
        self.configuration = configuration


class _Taker:
    """Takes a job and ends the program."""

    def run_job(self, plan: Plan, configuration: Configuration) -> Never:
        raise _Taken(plan, configuration)

    start_job = run_job
