"""Settings of an environment, and the names of its jobs."""

from __future__ import annotations

import contextvars
import logging
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

from headrace.common import Configuration, Duration, options
from headrace.common.configuration import launch_configuration
from headrace.datastream import (
    CheckpointingMode,
    ExternalizedCheckpointRetention,
    RuntimeExecutionMode,
    StreamExecutionEnvironment,
)
from headrace.errors import ConfigError, NotSupportedError


@pytest.fixture
def env() -> StreamExecutionEnvironment:
    return StreamExecutionEnvironment.get_execution_environment()


def test_checkpoint_settings_have_flinks_defaults(env: StreamExecutionEnvironment) -> None:
    config = env.get_checkpoint_config()
    assert not config.is_checkpointing_enabled()
    assert (config.get_checkpoint_interval(), config.get_checkpoint_timeout()) == (-1, 600_000)
    assert config.get_checkpointing_mode() is CheckpointingMode.EXACTLY_ONCE
    assert (config.get_min_pause_between_checkpoints(), config.get_max_concurrent_checkpoints()) == (0, 1)
    assert config.is_fail_on_checkpointing_errors()
    assert not config.is_externalized_checkpoints_enabled()
    assert config.get_aligned_checkpoint_timeout() == Duration.of_millis(0)


def test_what_is_set_on_the_checkpoint_config_is_set_on_the_environment(env: StreamExecutionEnvironment) -> None:
    env.enable_checkpointing(500, CheckpointingMode.AT_LEAST_ONCE)
    config = env.get_checkpoint_config()
    config.set_checkpoint_timeout(20_000).set_min_pause_between_checkpoints(100).set_max_concurrent_checkpoints(1)
    config.set_fail_on_checkpointing_errors(False).disable_unaligned_checkpoints()
    config.set_externalized_checkpoint_retention(ExternalizedCheckpointRetention.RETAIN_ON_CANCELLATION)
    assert env.get_checkpoint_interval() == 500
    assert env.get_checkpointing_mode() is CheckpointingMode.AT_LEAST_ONCE
    assert config.get_tolerable_checkpoint_failure_number() == options.UNLIMITED
    assert config.is_externalized_checkpoints_enabled()
    assert env.job.settings.effective().to_dict()["execution.checkpointing.timeout"] == "20000 ms"


@pytest.mark.parametrize(
    "call",
    [
        lambda env: env.set_runtime_mode(RuntimeExecutionMode.BATCH),
        lambda env: env.get_checkpoint_config().enable_unaligned_checkpoints(),
        lambda env: env.get_checkpoint_config().set_max_concurrent_checkpoints(2),
        lambda env: env.get_checkpoint_config().set_aligned_checkpoint_timeout(Duration.of_seconds(1)),
        lambda env: env.enable_changelog_state_backend(True),
        lambda env: env.add_source(None),
        lambda env: env.get_config().enable_force_kryo(),
    ],
)
def test_what_cannot_be_honoured_is_refused_where_it_is_set(env: StreamExecutionEnvironment, call: Any) -> None:
    with pytest.raises(NotSupportedError, match="is not supported by Headrace; "):
        call(env)


@pytest.mark.parametrize(
    "call",
    [
        lambda env: env.enable_checkpointing(5),
        lambda env: env.set_parallelism(0),
        lambda env: env.from_collection([1]).set_parallelism(0),
        lambda env: env.get_config().set_auto_watermark_interval(-1),
    ],
)
def test_a_number_that_makes_no_sense_is_refused_where_it_is_set(env: StreamExecutionEnvironment, call: Any) -> None:
    with pytest.raises(ConfigError):
        call(env)


def test_execution_settings_are_the_environments(env: StreamExecutionEnvironment) -> None:
    env.set_parallelism(1).set_max_parallelism(64).set_buffer_timeout(-1).disable_operator_chaining()
    config = env.from_collection([1]).get_execution_config()
    config.set_auto_watermark_interval(50).set_global_job_parameters({"a": "1,2", "b:c": "x"}).enable_object_reuse()
    assert (env.get_max_parallelism(), env.get_config().get_auto_watermark_interval()) == (64, 50)
    assert env.get_config().get_global_job_parameters() == {"a": "1,2", "b:c": "x"}
    assert not env.is_chaining_enabled()


def test_the_configuration_given_at_first_is_copied_and_later_ones_go_over_it() -> None:
    given = Configuration().set_integer("parallelism.default", 3)
    env = StreamExecutionEnvironment.get_execution_environment(given)
    given.set_integer("parallelism.default", 4)
    assert env.get_parallelism() == 3
    env.configure(Configuration().set_integer("parallelism.default", 5))
    assert env.get_parallelism() == 5


def test_the_command_line_goes_over_the_program() -> None:
    def program() -> dict[str, str]:
        launch_configuration.set(Configuration().set_string("execution.checkpointing.interval", "1 s"))
        env = StreamExecutionEnvironment.get_execution_environment()
        env.enable_checkpointing(99)
        return env.job.settings.effective().to_dict()

    assert contextvars.copy_context().run(program) == {"execution.checkpointing.interval": "1 s"}


def in_program(monkeypatch: pytest.MonkeyPatch, file: str, program: Callable[[], list[str]]) -> list[str]:
    """Run as if it were the program in `file`."""
    main = ModuleType("__main__")
    main.__file__ = file
    monkeypatch.setitem(sys.modules, "__main__", main)
    return contextvars.copy_context().run(program)


def test_a_job_is_named_by_execute_else_by_the_setting_else_by_the_programs_file(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def program() -> list[str]:
        env = StreamExecutionEnvironment.get_execution_environment()
        names = [env.job.take("explicit")[0].job_name, env.job.take(None)[0].job_name]
        env.configure(Configuration().set_string("pipeline.name", "configured"))
        return [*names, env.job.take(None)[0].job_name, env.job.take("explicit")[0].job_name]

    assert in_program(monkeypatch, "/jobs/my_job.py", program) == ["explicit", "my_job", "configured", "explicit"]


def test_a_second_job_without_a_name_gets_a_number_also_in_another_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def program() -> list[str]:
        return [
            StreamExecutionEnvironment.get_execution_environment().job.take(name)[0].job_name
            for name in (None, "named", None, None)
        ]

    assert in_program(monkeypatch, "/jobs/p.py", program) == ["p", "named", "p-2", "p-3"]


def test_a_program_that_is_a_package_is_named_after_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def program() -> list[str]:
        return [StreamExecutionEnvironment.get_execution_environment().job.plan(None).job_name]

    assert in_program(monkeypatch, "/jobs/pipeline/__main__.py", program) == ["pipeline"]


def test_a_wrong_setting_stops_the_job_and_a_misspelt_one_is_warned_of(
    env: StreamExecutionEnvironment, caplog: pytest.LogCaptureFixture
) -> None:
    env.configure(Configuration().set_string("execution.checkpointing.intervall", "1 s"))
    with caplog.at_level(logging.WARNING):
        env.job.take("job")
    assert "did you mean `execution.checkpointing.interval`?" in caplog.text
    env.configure(Configuration().set_string("restart-strategy.type", "never"))
    with pytest.raises(ConfigError, match=r"`restart-strategy.type` is 'never'"):
        env.job.take("job")
