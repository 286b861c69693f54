"""A job while a program describes it: settings, the plan so far, and the job's name once it is taken."""

from __future__ import annotations

import logging
import sys
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from headrace.common import Configuration, JobClient, JobExecutionResult, options
from headrace.common.settings import Settings
from headrace.connector import ErrorPolicy
from headrace.errors import ConfigError
from headrace.plan.graph import Node, Operator, Plan, PlanBuilder

logger = logging.getLogger(__name__)

unnamed_jobs: ContextVar[int] = ContextVar("unnamed_jobs", default=0)
"""How many jobs without a name of their own the program has executed: in all its environments, as they would share a
name, and with it their checkpoints."""


class Engine(Protocol):
    """What takes a job that has been described: `headrace.runtime`, or what the command line puts before it."""

    def run_job(self, plan: Plan, configuration: Configuration) -> JobExecutionResult: ...

    def start_job(self, plan: Plan, configuration: Configuration) -> JobClient: ...


launch_engine: ContextVar[Engine | None] = ContextVar("launch_engine", default=None)
"""What the command line has jobs taken by. None: `headrace.runtime` runs them."""


def engine() -> Engine:
    """What takes this program's jobs."""
    chosen = launch_engine.get()
    if chosen is not None:
        return chosen
    # The engine is loaded when a job starts, not when a program is imported.
    from headrace import runtime

    return runtime


@dataclass(frozen=True, slots=True, eq=False)
class Place:
    """An operator, in the plan that it was described in. Outlives that plan: see `JobDescription`."""

    builder: PlanBuilder = field(repr=False)
    node_id: int


class JobDescription:
    """What a program has described so far.

    A stream of an earlier job may be used again, as in Flink: its operators are then part of the next job too.
    """

    error_policy: ErrorPolicy | None = None
    """What holds for operators that have no policy of their own."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._start_over()

    def _start_over(self) -> None:
        self._builder = PlanBuilder()
        # By the identity of the earlier plan, which is kept with them so that the identity stays its own.
        self._carried: dict[int, tuple[PlanBuilder, dict[int, int]]] = {}

    def add(self, operator: Operator, name: str, inputs: tuple[Place, ...] = (), key_selector: Any = None) -> Place:
        """A new operator behind `inputs`."""
        node_ids = tuple(self._node_id(place) for place in inputs)
        return Place(self._builder, self._builder.add(operator, name, node_ids, key_selector).id)

    def change(self, place: Place, **changes: Any) -> None:
        """Change an operator's `name`, `uid`, `parallelism` or `error_policy`."""
        self._builder.change(self._node_id(place), **changes)

    def node(self, place: Place) -> Node:
        """The operator as it is now."""
        return self._builder.node(self._node_id(place))

    def _node_id(self, place: Place) -> int:
        if place.builder is self._builder:
            return place.node_id
        _, node_ids = self._carried.setdefault(id(place.builder), (place.builder, {}))
        if place.node_id not in node_ids:
            node = place.builder.node(place.node_id)
            inputs = tuple(Place(place.builder, node_id) for node_id in node.inputs)
            copy = self.add(node.operator, node.name, inputs, node.key_selector)
            changes = {"uid": node.uid, "parallelism": node.parallelism, "error_policy": node.error_policy}
            self._builder.change(copy.node_id, **changes)
            node_ids[place.node_id] = copy.node_id
        return node_ids[place.node_id]

    def plan(self, job_name: str | None) -> Plan:
        """The plan so far, under the name it would get."""
        return self._builder.build(self._job_name(job_name), self.error_policy)

    def take(self, job_name: str | None) -> tuple[Plan, Configuration]:
        """The plan and its settings, to be run; what is described from now on belongs to the next job.

        Raises `ConfigError` for a setting that is wrong, and warns of those that look misspelt.
        """
        configuration = self.settings.effective()
        options.check_values(configuration)
        for warning in options.check_keys(configuration):
            logger.warning(warning)
        plan = self.plan(job_name)
        if not self._is_named(job_name):
            unnamed_jobs.set(unnamed_jobs.get() + 1)
        self._start_over()
        return plan, configuration

    def _is_named(self, job_name: str | None) -> bool:
        return bool(job_name or self.settings.read(options.JOB_NAME))

    def _job_name(self, job_name: str | None) -> str:
        if job_name is not None and not isinstance(job_name, str):
            raise ConfigError(f"a job's name is a text, got {job_name!r}")
        name = job_name or self.settings.read(options.JOB_NAME)
        if name:
            return name
        before = unnamed_jobs.get()
        return program_name() if before == 0 else f"{program_name()}-{before + 1}"


def checked_name(what: str, name: object) -> str:
    """A name that a program gives. Raises `ConfigError` for what is none."""
    if not isinstance(name, str) or not name:
        raise ConfigError(f"`{what}` takes a name, got {name!r}")
    return name


def checked_policy(policy: object) -> ErrorPolicy:
    """An error policy that a program gives. Raises `ConfigError` for what is none."""
    if not isinstance(policy, ErrorPolicy):
        raise ConfigError(f"`on_error` takes an ErrorPolicy, as `ErrorPolicy.drop()`, got {policy!r:.200}")
    return policy


def program_name() -> str:
    """The program file's stem, or the module's where it runs as `python -m`; `job` where there is no file."""
    path = Path(getattr(sys.modules.get("__main__"), "__file__", None) or "job")
    return path.parent.name if path.stem == "__main__" else path.stem
