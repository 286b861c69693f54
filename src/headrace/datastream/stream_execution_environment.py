"""`StreamExecutionEnvironment`: where a program begins and ends its jobs."""

from __future__ import annotations

import copy
import json
import warnings
from collections.abc import Iterable
from typing import Any

from headrace.common import (
    Configuration,
    ExecutionConfig,
    JobClient,
    JobExecutionResult,
    TypeInformation,
    Types,
    WatermarkStrategy,
    options,
)
from headrace.common.configuration import launch_configuration
from headrace.common.refusal import not_supported, refuses
from headrace.common.settings import Settings
from headrace.connector import ErrorPolicy, Source
from headrace.connector.builtin import CollectionSource
from headrace.connector.legacy import SourceFunction
from headrace.datastream.checkpoint_config import CheckpointConfig
from headrace.datastream.checkpointing_mode import CheckpointingMode
from headrace.datastream.data_stream import DataStream
from headrace.datastream.execution_mode import RuntimeExecutionMode
from headrace.datastream.job import JobDescription, checked_name, checked_policy, engine
from headrace.plan.graph import Node, Plan, ReadSource, WriteSink

_UNNAMED = "Flink Streaming Job"


@refuses(
    {
        "create_input": "input formats are Java objects; use `from_source`",
        "get_default_local_parallelism": "use `get_parallelism`",
        "register_cached_file": "open the file where it is: the job runs on this machine",
        "register_slot_sharing_group": "leave it out: one machine has one slot",
        "set_default_local_parallelism": "use `set_parallelism`",
    }
)
class StreamExecutionEnvironment:
    """Where a program begins and ends its jobs.

    >>> env = StreamExecutionEnvironment.get_execution_environment()
    >>> env.enable_checkpointing(10_000).get_checkpoint_interval()
    10000

    *Differences from PyFlink*: what ships a program to a cluster (`add_jars`, `add_python_file`, …) is accepted and
    does nothing: the program runs where it is, with what it can import. `execute` without a name names the job after
    the program's file.
    """

    def __init__(self, configuration: Configuration | None = None) -> None:
        self.job = JobDescription(Settings(Configuration(configuration), launch_configuration.get()))

    @staticmethod
    def get_execution_environment(configuration: Configuration | None = None) -> StreamExecutionEnvironment:
        """A new environment with these settings, under those of the command line (see `launch_configuration`)."""
        return StreamExecutionEnvironment(configuration)

    # Settings

    def get_config(self) -> ExecutionConfig:
        return ExecutionConfig(self.job.settings)

    def configure(self, configuration: Configuration) -> None:
        """Take over these settings."""
        self.job.settings.program.add_all(configuration)

    def get_parallelism(self) -> int:
        return self.get_config().get_parallelism()

    def set_parallelism(self, parallelism: int) -> StreamExecutionEnvironment:
        """The number of subtasks of each operator that does not say itself."""
        self.get_config().set_parallelism(parallelism)
        return self

    def on_error(self, policy: ErrorPolicy) -> StreamExecutionEnvironment:
        """What becomes of a record that an operator fails on, for each operator that does not say itself. *Extension*.

        >>> from headrace.datastream import ErrorPolicy
        >>> env = StreamExecutionEnvironment.get_execution_environment().on_error(ErrorPolicy.drop())
        >>> env.from_collection(["1", "two", "3"]).map(int).execute_and_collect(limit=2)
        [1, 3]
        """
        self.job.error_policy = checked_policy(policy)
        return self

    def get_max_parallelism(self) -> int:
        return self.get_config().get_max_parallelism()

    def set_max_parallelism(self, max_parallelism: int) -> StreamExecutionEnvironment:
        """The number of key groups."""
        self.get_config().set_max_parallelism(max_parallelism)
        return self

    def set_runtime_mode(self, execution_mode: RuntimeExecutionMode) -> StreamExecutionEnvironment:
        """STREAMING; the others are refused."""
        self.job.settings.set(options.RUNTIME_MODE, execution_mode.name)
        return self

    def get_buffer_timeout(self) -> int:
        return self.job.settings.read(options.BUFFER_TIMEOUT)

    def set_buffer_timeout(self, timeout_millis: int) -> StreamExecutionEnvironment:
        """No effect: no record waits for a buffer to fill."""
        if timeout_millis >= 0:
            self.job.settings.set(options.BUFFER_TIMEOUT, f"{timeout_millis} ms")
        return self

    def disable_operator_chaining(self) -> StreamExecutionEnvironment:
        """No effect: results are the same, however operators are chained."""
        self.job.settings.set(options.OPERATOR_CHAINING, "false")
        return self

    def is_chaining_enabled(self) -> bool:
        return self.job.settings.read(options.OPERATOR_CHAINING)

    def is_chaining_of_operators_with_different_max_parallelism_enabled(self) -> bool:
        return True

    # Checkpoints

    def get_checkpoint_config(self) -> CheckpointConfig:
        return CheckpointConfig(self.job.settings)

    def enable_checkpointing(self, interval: int, mode: CheckpointingMode | None = None) -> StreamExecutionEnvironment:
        """Take a checkpoint every so many milliseconds, at least 10."""
        config = self.get_checkpoint_config().set_checkpoint_interval(interval)
        if mode is not None:
            config.set_checkpointing_mode(mode)
        return self

    def get_checkpoint_interval(self) -> int:
        """In ms; -1 where checkpoints are off."""
        return self.get_checkpoint_config().get_checkpoint_interval()

    def get_checkpointing_mode(self) -> CheckpointingMode:
        return self.get_checkpoint_config().get_checkpointing_mode()

    def get_checkpointing_consistency_mode(self) -> CheckpointingMode:
        return self.get_checkpointing_mode()

    def is_unaligned_checkpoints_enabled(self) -> bool:
        return self.get_checkpoint_config().is_unaligned_checkpoints_enabled()

    def is_force_unaligned_checkpoints(self) -> bool:
        return self.get_checkpoint_config().is_force_unaligned_checkpoints()

    def enable_changelog_state_backend(self, enabled: bool) -> StreamExecutionEnvironment:
        """Refused, except to disable it."""
        self.job.settings.set(options.CHANGELOG, str(enabled))
        return self

    def is_changelog_state_backend_enabled(self) -> bool:
        return self.job.settings.read(options.CHANGELOG)

    def set_default_savepoint_directory(self, directory: str) -> StreamExecutionEnvironment:
        self.job.settings.set(options.SAVEPOINT_DIR, directory)
        return self

    def get_default_savepoint_directory(self) -> str | None:
        return self.job.settings.read(options.SAVEPOINT_DIR)

    # Accepted, without effect

    def add_python_file(self, file_path: str) -> None:
        """No effect: what the program imports has to be importable here."""

    def set_python_requirements(self, requirements_file_path: str, requirements_cache_dir: str | None = None) -> None:
        """No effect: what the program imports has to be importable here."""

    def add_python_archive(self, archive_path: str, target_dir: str | None = None) -> None:
        """No effect: what the program imports has to be importable here."""

    def set_python_executable(self, python_exec: str) -> None:
        """No effect: the job runs on the program's own Python."""

    def add_jars(self, *jars_path: str) -> None:
        """No effect: no Java."""

    def add_classpaths(self, *classpaths: str) -> None:
        """No effect: no Java."""

    def close(self) -> None:
        """No effect: an environment holds nothing open."""

    # Sources

    def from_source(
        self,
        source: Source,
        watermark_strategy: WatermarkStrategy,
        source_name: str,
        type_info: TypeInformation | None = None,
    ) -> DataStream:
        """The records of a source, with watermarks made for each of its splits."""
        if not isinstance(source, Source):
            raise TypeError(f"a Source is required, got {type(source).__name__}; build it first if it is a builder")
        if not isinstance(watermark_strategy, WatermarkStrategy):
            raise TypeError(f"a WatermarkStrategy is required, got {type(watermark_strategy).__name__}")
        place = self.job.add(ReadSource(source, watermark_strategy), checked_name("source_name", source_name))
        return DataStream(self, place, type_info or Types.PICKLED_BYTE_ARRAY())

    def add_source(
        self, source_func: SourceFunction, source_name: str = "Custom Source", type_info: TypeInformation | None = None
    ) -> DataStream:
        """The records of a source of Flink's old API: a `FlinkKafkaConsumer`. Warns, with the new spelling.

        Raises `NotSupportedError` for any other source; those of the new API are for `from_source`.
        """
        if not isinstance(source_func, SourceFunction):
            kind = type(source_func).__name__
            if isinstance(source_func, Source):
                raise TypeError(f"`add_source` takes a FlinkKafkaConsumer; {kind} is for `from_source`")
            raise not_supported(
                f"add_source({kind})", "of the old sources there is `FlinkKafkaConsumer`; use `from_source`"
            )
        source = source_func.to_source()
        warnings.warn(source_func.new_spelling(source_name), DeprecationWarning, stacklevel=2)
        return self.from_source(
            source, WatermarkStrategy.no_watermarks(), source_name, type_info or source_func.get_produced_type()
        )

    def from_collection(self, collection: Iterable[Any], type_info: TypeInformation | None = None) -> DataStream:
        """The elements of a collection, as they are at this moment.

        Elements of a declared type become what the type makes of them; `DataError` for one that it cannot take.
        """
        declared = type_info or Types.PICKLED_BYTE_ARRAY()
        values = tuple(declared.to_internal_type(copy.deepcopy(element)) for element in collection)
        stream = self.from_source(
            CollectionSource(values), WatermarkStrategy.no_watermarks(), "Collection Source", declared
        )
        return stream.force_non_parallel()

    # Jobs

    def execute(self, job_name: str | None = None) -> JobExecutionResult:
        """Run what has been described, to its end.

        The name is this one, else `pipeline.name`, else that of the program's file; it is what the job resumes by.
        Raises `ConfigError` before anything runs, and otherwise what the job fails with.
        """
        return engine().run_job(*self.job.take(job_name))

    def execute_async(self, job_name: str | None = _UNNAMED) -> JobClient:
        """Start what has been described, and go on. The default name counts as no name: see `execute`.

        `headrace run` waits for the job at the program's end, and stops it with a last checkpoint when SIGTERM or
        Ctrl-C comes. Under plain `python` nothing does, and the job ends with the program: have that wait for
        `get_job_execution_result().result()`, or call `stop` of the `JobClient`.
        """
        return engine().start_job(*self.job.take(None if job_name == _UNNAMED else job_name))

    def get_execution_plan(self) -> str:
        """What has been described so far, as JSON in the form of Flink's."""
        return _as_json(self.job.plan(None), self.get_parallelism())


def _as_json(plan: Plan, parallelism: int) -> str:
    def entry(node: Node) -> dict[str, Any]:
        match node.operator:
            case ReadSource():
                name, pact = f"Source: {node.name}", "Data Source"
            case WriteSink():
                name, pact = f"Sink: {node.name}", "Data Sink"
            case _:
                name, pact = node.name, "Operator"
        strategy = "FORWARD" if node.key_selector is None else "HASH"
        row = {"id": node.id + 1, "type": name, "pact": pact, "contents": name}
        row["parallelism"] = node.parallelism or parallelism
        if node.uid is not None:
            row["uid"] = node.uid
        inputs = node.inputs or [other.id for other in plan if other.dead_letters == node.id]
        if inputs:
            row["predecessors"] = [{"id": i + 1, "ship_strategy": strategy, "side": "second"} for i in inputs]
        return row

    return json.dumps({"nodes": [entry(node) for node in plan]}, indent=2)
