"""Running a user's program as `python` would, with settings and an engine of the command line's, and showing errors.

What a program's failure looks like: the user's own traceback first where there is one, without the frames of Headrace,
then one message. Only an error of ours that is a defect of Headrace keeps its whole traceback.
"""

from __future__ import annotations

import contextlib
import contextvars
import logging
import runpy
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import TextIO

import click

import headrace
from headrace.cli.main import FAILED, INTERRUPTED, WRONG_SETTINGS
from headrace.common.configuration import Configuration, launch_configuration
from headrace.datastream.job import Engine, launch_engine
from headrace.errors import ConfigError, DataError, HeadraceError, InternalError, RemoteTraceback, UserCodeError
from headrace.runtime.process import log_through

_NOTHING = contextlib.nullcontext()
_OWN_CODE = str(Path(headrace.__file__).parent)


def run_program(
    path: Path,
    arguments: Sequence[str],
    configuration: Configuration,
    engine: Engine,
    around: AbstractContextManager[object] = _NOTHING,
) -> None:
    """Run the program to its end, within `around`; `configuration` goes over its settings, `engine` takes its jobs.

    What it raises is shown, and ends in `SystemExit`: 2 for a wrong setting, 130 for Ctrl-C, 1 otherwise.
    """

    def run() -> None:
        launch_configuration.set(configuration)
        launch_engine.set(engine)
        with _as_python(path, arguments), log_through(_UnlessSetUp()), around:
            runpy.run_path(str(path), run_name="__main__")

    try:
        # In a context of its own, so that nothing is left behind.
        contextvars.copy_context().run(run)
    except KeyboardInterrupt:
        click.echo("headrace: ended by Ctrl-C; no job was running", err=True)
        sys.exit(INTERRUPTED)
    except Exception as raised:  # noqa: BLE001 - whatever the program raises is shown
        error = raised
        if _is_refusal(raised):
            error = ConfigError(str(raised)).with_traceback(raised.__traceback__)
        click.echo(describe(error, str(path)), err=True)
        if isinstance(error, ModuleNotFoundError) and error.name == "pyflink":
            click.echo("error: a PyFlink program runs here once `pyflink` in its imports is `headrace`", err=True)
        sys.exit(WRONG_SETTINGS if isinstance(error, ConfigError) else FAILED)


def _is_refusal(error: Exception) -> bool:
    """Whether this is a TypeError or ValueError that Headrace raises for what the program gives it, as PyFlink does."""
    if isinstance(error, HeadraceError):
        return False
    frames = traceback.extract_tb(error.__traceback__)
    is_raised = bool(frames) and (frames[-1].line or "").startswith("raise ")
    return isinstance(error, TypeError | ValueError) and is_raised and frames[-1].filename.startswith(_OWN_CODE)


def describe(error: Exception, program: str) -> str:
    """What a program raised, as text for its user; `program` is its file name as it was run."""
    if not isinstance(error, HeadraceError) or isinstance(error, InternalError):
        error.__traceback__ = _from_program(error.__traceback__, program)
        return "".join(traceback.format_exception(error)).rstrip()
    lines: list[str] = []
    is_users = isinstance(error, UserCodeError | DataError | ConfigError)
    if is_users and error.__cause__ is not None and isinstance(error.__cause__.__cause__, RemoteTraceback):
        lines.append(f"{str(error.__cause__.__cause__).rstrip()}\n")
    elif is_users and error.__cause__ is not None and _user_frames(error.__cause__.__traceback__):
        error.__cause__.__traceback__ = _without_ends(error.__cause__.__traceback__)
        lines += traceback.format_exception(error.__cause__)
    elif isinstance(error, ConfigError):
        where = _user_frames(_from_program(error.__traceback__, program))
        # Not the lines themselves: they may hold a secret.
        places = [f'  File "{at.filename}", line {at.lineno}, in {at.name}\n' for at in where]
        lines += ["where:\n", *places] if where else []
    return "".join([*lines, f"error: {error}"])


def _from_program(trace: TracebackType | None, program: str) -> TracebackType | None:
    """The traceback from the program's first frame on; all of it if the program is not in it."""
    at = trace
    while at is not None:
        if at.tb_frame.f_code.co_filename == program:
            return at
        at = at.tb_next
    # A program that cannot even be compiled has no frame: show the error alone.
    return None


def _user_frames(trace: TracebackType | None) -> list[traceback.FrameSummary]:
    return [frame for frame in traceback.extract_tb(trace) if not frame.filename.startswith(_OWN_CODE)]


def _without_ends(trace: TracebackType | None) -> TracebackType | None:
    """A copy of the traceback without the frames of Headrace that it begins and ends with."""
    while trace is not None and trace.tb_frame.f_code.co_filename.startswith(_OWN_CODE):
        trace = trace.tb_next
    return _without_end(trace)


def _without_end(trace: TracebackType | None) -> TracebackType | None:
    if trace is None:
        return None
    rest = _without_end(trace.tb_next)
    if rest is None and trace.tb_frame.f_code.co_filename.startswith(_OWN_CODE):
        return None
    return TracebackType(rest, trace.tb_frame, trace.tb_lasti, trace.tb_lineno)


@contextlib.contextmanager
def _as_python(path: Path, arguments: Sequence[str]) -> Iterator[None]:
    """`sys.argv` and `sys.path` as `python PATH ARGUMENTS` sets them."""
    argv, search = sys.argv, list(sys.path)
    sys.argv = [str(path), *arguments]
    if not sys.flags.safe_path:
        sys.path[0] = str(path.resolve().parent)
    try:
        yield
    finally:
        sys.argv, sys.path[:] = argv, search


class _UnlessSetUp(logging.StreamHandler):  # type: ignore[type-arg]  # generic for type checkers only
    """Writes to what standard error is at the moment, as long as the program has set up no logging of its own."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> TextIO:
        return sys.stderr

    def emit(self, record: logging.LogRecord) -> None:
        if not logging.getLogger().handlers:
            super().emit(record)
