from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.common import ConfigOptions, Configuration, options
from headrace.common.config_options import ConfigOption, parse_duration_ms
from headrace.common.settings import Settings
from headrace.errors import ConfigError, NotSupportedError


def settings_of(**values: str) -> Configuration:
    configuration = Configuration()
    for key, value in values.items():
        configuration.set_string(key, value)
    return configuration


FLINKS_DEFAULTS: dict[str, Any] = {
    "execution.checkpointing.interval": None,
    "execution.checkpointing.mode": "EXACTLY_ONCE",
    "execution.checkpointing.timeout": 600_000,
    "execution.checkpointing.min-pause": 0,
    "execution.checkpointing.max-concurrent-checkpoints": 1,
    "execution.checkpointing.tolerable-failed-checkpoints": 0,
    "execution.checkpointing.externalized-checkpoint-retention": "NO_EXTERNALIZED_CHECKPOINTS",
    "execution.checkpointing.dir": None,
    "execution.checkpointing.savepoint-dir": None,
    "execution.checkpointing.num-retained": 1,
    "execution.checkpointing.unaligned.enabled": False,
    "execution.state-recovery.path": None,
    "execution.state-recovery.ignore-unclaimed-state": False,
    "execution.state-recovery.claim-mode": "NO_CLAIM",
    "execution.runtime-mode": "STREAMING",
    "restart-strategy.type": None,
    "restart-strategy.fixed-delay.attempts": 1,
    "restart-strategy.fixed-delay.delay": 1_000,
    "restart-strategy.exponential-delay.initial-backoff": 1_000,
    "restart-strategy.exponential-delay.max-backoff": 60_000,
    "restart-strategy.exponential-delay.backoff-multiplier": 1.5,
    "restart-strategy.exponential-delay.reset-backoff-threshold": 3_600_000,
    "restart-strategy.exponential-delay.jitter-factor": 0.1,
    "restart-strategy.exponential-delay.attempts-before-reset-backoff": 2_147_483_647,
    "restart-strategy.failure-rate.delay": 1_000,
    "restart-strategy.failure-rate.failure-rate-interval": 60_000,
    "restart-strategy.failure-rate.max-failures-per-interval": 1,
    "parallelism.default": 1,
    "pipeline.max-parallelism": -1,
    "pipeline.auto-watermark-interval": 200,
    "pipeline.operator-chaining.enabled": True,
    "pipeline.object-reuse": False,
}


def test_defaults_are_flinks() -> None:
    found = {option.key: option.read(Configuration()) for option in options.OPTIONS}
    assert found | FLINKS_DEFAULTS == found


@pytest.mark.parametrize("option", options.OPTIONS, ids=lambda option: str(option.key))
def test_every_option_says_what_it_is_for_and_every_key_is_one_options(option: ConfigOption[Any]) -> None:
    assert option.description
    others = [key for other in options.OPTIONS if other is not option for key in other.all_keys]
    assert not set(option.all_keys).intersection(others)


@pytest.mark.parametrize(
    ("text", "millis"),
    [
        ("10 s", 10_000),
        ("500ms", 500),
        ("1 min", 60_000),
        ("1 MINUTE", 60_000),
        ("3 m", 180_000),
        ("250", 250),
        ("2 h", 7_200_000),
        ("1d", 86_400_000),
        ("3 days", 259_200_000),
        ("1500 µs", 1),
        ("7 ns", 0),
        (" 5 seconds ", 5_000),
    ],
)
def test_durations_are_read_as_flink_reads_them(text: str, millis: int) -> None:
    assert parse_duration_ms(text) == millis


@pytest.mark.parametrize("text", ["", "s", "-1 s", "1.5 s", "1 fortnight", "ten s"])
def test_a_duration_that_is_none_names_key_value_and_form(text: str) -> None:
    with pytest.raises(ConfigError, match=rf"`execution.checkpointing.timeout` is '{text}'; set it to a duration such"):
        options.CHECKPOINT_TIMEOUT.read(settings_of(**{"execution.checkpointing.timeout": text}))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("execution.checkpointing.interval", "9 ms"),
        ("execution.checkpointing.timeout", "1 ms"),
        ("execution.checkpointing.mode", "TWICE"),
        ("execution.checkpointing.num-retained", "0"),
        ("execution.checkpointing.num-retained", "many"),
        ("parallelism.default", "0"),
        ("restart-strategy.type", "sometimes"),
        ("restart-strategy.exponential-delay.attempts-before-reset-backoff", "0"),
        ("restart-strategy.exponential-delay.backoff-multiplier", "0.5"),
        ("restart-strategy.exponential-delay.jitter-factor", "5"),
        ("restart-strategy.exponential-delay.jitter-factor", "-0.1"),
        ("restart-strategy.exponential-delay.jitter-factor", "nan"),
        ("execution.state-recovery.ignore-unclaimed-state", "maybe"),
        ("headrace.assume", "lost"),
        ("metrics.reporter.prom.port", "9260-9250"),
        ("metrics.reporter.prom.port", "65536"),
        ("metrics.reporter.prom.port", "http"),
    ],
)
def test_a_wrong_value_is_an_error_that_names_it(key: str, value: str) -> None:
    with pytest.raises(ConfigError, match=f"`{key}` is '{value}'"):
        options.check_values(settings_of(**{key: value}))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("metrics.reporters", "prom,jmx"),
        ("metrics.reporter.prom.factory.class", "org.apache.flink.metrics.jmx.JMXReporterFactory"),
        ("execution.runtime-mode", "BATCH"),
        ("execution.runtime-mode", "automatic"),
        ("execution.checkpointing.unaligned.enabled", "true"),
        ("execution.checkpointing.unaligned", "true"),
        ("execution.checkpointing.unaligned.forced", "true"),
        ("execution.checkpointing.aligned-checkpoint-timeout", "1 s"),
        ("execution.checkpointing.max-concurrent-checkpoints", "2"),
        ("state.changelog.enabled", "true"),
        ("state.backend.type", "rocksdb"),
        ("state.backend", "rocksdb"),
    ],
)
def test_a_value_that_cannot_be_honoured_is_refused_by_name(key: str, value: str) -> None:
    with pytest.raises(NotSupportedError, match=f"`{key}: {value}` is not supported"):
        options.check_values(settings_of(**{key: value}))


@pytest.mark.parametrize(
    ("text", "strategy"),
    [
        ("off", "none"),
        ("none", "none"),
        ("disable", "none"),
        ("fixeddelay", "fixed-delay"),
        ("fixed-delay", "fixed-delay"),
        ("exponentialdelay", "exponential-delay"),
        ("Failure-Rate", "failure-rate"),
        ("failurerate", "failure-rate"),
    ],
)
def test_restart_strategies_have_all_of_flinks_names(text: str, strategy: str) -> None:
    assert options.RESTART_STRATEGY.read(settings_of(**{"restart-strategy.type": text})) == strategy
    assert options.RESTART_STRATEGY.read(settings_of(**{"restart-strategy": text})) == strategy


def test_an_interval_of_zero_means_no_checkpoints() -> None:
    assert options.CHECKPOINT_INTERVAL.read(settings_of(**{"execution.checkpointing.interval": "0"})) is None


def test_a_misspelt_key_is_warned_of_and_a_foreign_one_is_not() -> None:
    warnings = options.check_keys(
        settings_of(
            **{
                "execution.checkpointing.intervall": "1 s",
                "taskmanager.numberOfTaskSlots": "4",
                "headrace.colour": "blue",
                "execution.checkpointing.interval": "1 s",
            }
        )
    )
    assert len(warnings) == 2
    assert "did you mean `execution.checkpointing.interval`?" in warnings[0]
    assert "`headrace.colour`" in warnings[1]


@given(st.dictionaries(st.text(min_size=1), st.text()))
def test_a_map_is_read_as_it_was_written(entries: dict[str, str]) -> None:
    assert options.parse_map(options.format_map(entries)) == entries


@pytest.mark.parametrize("text", ["a", "a:b,", "a:b:c", "a:'b"])
def test_a_map_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=text):
        options.parse_map(text)


def test_an_option_of_the_programs_own_is_read_like_any_other() -> None:
    option = ConfigOptions.key("my.limit").int_type().default_value(5)
    assert option.read(Configuration()) == 5
    assert option.read(Configuration().set_integer("my.limit", 6)) == 6
    assert ConfigOptions.key("my.name").string_type().no_default_value().read(Configuration()) is None
    assert ConfigOptions.key("my.flag").boolean_type().default_value(False).read(settings_of(**{"my.flag": "TRUE"}))


def test_the_command_line_wins_over_the_program_whenever_the_program_sets_it() -> None:
    settings = Settings(Configuration(), settings_of(**{"parallelism.default": "1", "restart-strategy": "none"}))
    settings.program.set_string("restart-strategy.type", "fixed-delay")
    settings.set(options.PARALLELISM, "2")
    assert settings.read(options.PARALLELISM) == 1
    assert settings.read(options.RESTART_STRATEGY) == "none"


def test_what_the_program_sets_last_wins_over_what_it_set_under_another_key() -> None:
    settings = Settings(settings_of(**{"restart-strategy": "none"}), None)
    settings.set(options.RESTART_STRATEGY, "fixed-delay")
    assert settings.effective().to_dict() == {"restart-strategy.type": "fixed-delay"}


def test_a_wrong_value_is_refused_when_it_is_set_and_changes_nothing() -> None:
    settings = Settings(Configuration(), None)
    with pytest.raises(ConfigError):
        settings.set(options.PARALLELISM, "0")
    assert settings.effective() == Configuration()


def test_watermarks_are_made_each_200_ms_unless_said_otherwise() -> None:
    assert options.AUTO_WATERMARK_INTERVAL.read(Configuration()) == 200
