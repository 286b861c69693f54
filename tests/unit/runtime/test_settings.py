"""What the engine makes of a configuration, and which plans it refuses before anything runs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from headrace.checkpoint.decision import Assume
from headrace.common import Configuration, WatermarkStrategy
from headrace.connector import Boundedness, DeliveryGuarantee, ErrorPolicy, Sink, Source
from headrace.connector.builtin import CollectionSource, PrintSink
from headrace.errors import ConfigError
from headrace.plan.graph import Map, Node, Plan, PlanBuilder, ReadSource, Reduce, WriteSink
from headrace.runtime.restart import ExponentialDelay, FailureRate, FixedDelay, NoRestart, RestartStrategy
from headrace.runtime.settings import Reporter, Settings, check_plan, read_settings


@dataclass(frozen=True)
class Endless(Source):
    parallel: bool = True

    @property
    def boundedness(self) -> Boundedness:
        return Boundedness.CONTINUOUS_UNBOUNDED

    @property
    def is_parallel(self) -> bool:
        return self.parallel

    def create_enumerator(self, context: Any) -> Any:
        raise AssertionError("only looked at")

    create_reader = encode_split = decode_split = create_enumerator


@dataclass(frozen=True)
class ExactlyOnce(Sink):
    delivery_guarantee: DeliveryGuarantee = DeliveryGuarantee.EXACTLY_ONCE

    def create_writer(self, *_: Any) -> Any:
        raise AssertionError("only looked at")


def configuration(settings: Mapping[str, str]) -> Configuration:
    made = Configuration()
    for key, value in settings.items():
        made.set_string(key, value)
    return made


def settings(**given: str) -> Settings:
    return read_settings(configuration({key.replace("__", "-").replace("_", "."): v for key, v in given.items()}))


def plan(source: Source, sink: Sink) -> Plan:
    read = Node(0, ReadSource(source, WatermarkStrategy.no_watermarks()), "news")
    return Plan("job", (read, Node(1, Map(str), "map", (0,)), Node(2, WriteSink(sink), "counts", (1,))))


def check(given: Plan, options: Mapping[str, str]) -> list[str]:
    made = configuration(options)
    return check_plan(given, read_settings(made))


def test_without_settings_flinks_defaults_hold() -> None:
    assert read_settings(Configuration()) == Settings(
        checkpoint_interval_ms=None,
        checkpoint_timeout_ms=600_000,
        min_pause_ms=0,
        tolerable_failures=0,
        commit_retries=10,
        num_retained=1,
        checkpoint_dir=None,
        savepoint_dir=None,
        recovery_path=None,
        ignore_unclaimed_state=False,
        fresh=False,
        assume=None,
        watermark_interval_ms=200,
        max_parallelism=128,
        restart_strategy=NoRestart(),
        fails_by_region=True,
        heartbeat_interval_ms=10_000,
        heartbeat_timeout_ms=50_000,
        job_parameters={},
    )


def test_every_setting_is_read() -> None:
    read = read_settings(
        configuration(
            {
                "execution.checkpointing.interval": "1 s",
                "execution.checkpointing.timeout": "2 s",
                "execution.checkpointing.min-pause": "3 s",
                "execution.checkpointing.tolerable-failed-checkpoints": "4",
                "sink.committer.retries": "11",
                "execution.checkpointing.num-retained": "5",
                "execution.checkpointing.dir": "file:///state",
                "execution.checkpointing.savepoint-dir": "saved",
                "execution.state-recovery.path": "saved/one",
                "execution.state-recovery.ignore-unclaimed-state": "true",
                "headrace.assume": "aborted",
                "pipeline.auto-watermark-interval": "6 ms",
                "pipeline.max-parallelism": "7",
                "jobmanager.execution.failover-strategy": "full",
                "heartbeat.interval": "8 ms",
                "heartbeat.timeout": "9 ms",
                "pipeline.global-job-parameters": "a:b",
                "restart-strategy.type": "none",
                "metrics.reporters": "prom",
                "metrics.reporter.prom.port": "9250-9252",
                "metrics.reporter.prom.host": "0.0.0.0",
            }
        )
    )
    assert read == Settings(
        checkpoint_interval_ms=1_000,
        checkpoint_timeout_ms=2_000,
        min_pause_ms=3_000,
        tolerable_failures=4,
        commit_retries=11,
        num_retained=5,
        checkpoint_dir=Path("/state"),
        savepoint_dir=Path("saved"),
        recovery_path=Path("saved/one"),
        ignore_unclaimed_state=True,
        fresh=False,
        assume=Assume.ABORTED,
        watermark_interval_ms=6,
        max_parallelism=7,
        restart_strategy=NoRestart(),
        fails_by_region=False,
        heartbeat_interval_ms=8,
        heartbeat_timeout_ms=9,
        job_parameters={"a": "b"},
        reporter=Reporter("0.0.0.0", (9250, 9251, 9252)),
    )


@pytest.mark.parametrize(
    ("given", "reporter"),
    [
        ({"metrics.reporters": "prom"}, Reporter("localhost", (9249,))),
        ({"metrics.reporter.prom.port": "0"}, Reporter("localhost", (0,))),
        (
            {"metrics.reporter.prom.factory.class": "org.apache.flink.metrics.prometheus.PrometheusReporterFactory"},
            Reporter("localhost", (9249,)),
        ),
        ({"metrics.reporters": "", "metrics.reporter.prom.port": "9250"}, None),
        ({"metrics.latency.interval": "0"}, None),
    ],
)
def test_metrics_are_shown_if_the_reporter_is_named_or_set_up(
    given: Mapping[str, str], reporter: Reporter | None
) -> None:
    assert read_settings(configuration(given)).reporter == reporter


def test_a_folder_in_the_home_folder_is_found() -> None:
    found = settings(execution_checkpointing_dir="~/state").checkpoint_dir
    assert found == Path.home() / "state"


@pytest.mark.parametrize("text", ["/tmp/state", "file:/tmp/state", "file:///tmp/state"])
def test_a_local_folder_is_named_as_flink_takes_it(text: str) -> None:
    assert settings(execution_checkpointing_dir=text).checkpoint_dir == Path("/tmp/state")


@pytest.mark.parametrize("text", ["state", "a:b/state", "C:/state"])
def test_a_path_that_only_looks_like_an_address_is_a_path(text: str) -> None:
    assert settings(execution_checkpointing_dir=text).checkpoint_dir == Path(text)


@pytest.mark.parametrize(
    "key", ["execution.checkpointing.dir", "execution.checkpointing.savepoint-dir", "execution.state-recovery.path"]
)
def test_a_folder_that_is_not_local_is_refused_by_its_setting(key: str) -> None:
    for text in ("s3://bucket/state", "hdfs:/state", "file:state", "file://host/state"):
        with pytest.raises(ConfigError, match=rf"`{key}` is '{text}'; only local folders"):
            read_settings(configuration({key: text}))


def test_starting_over_and_starting_from_somewhere_contradict_each_other() -> None:
    with pytest.raises(ConfigError, match=r"`headrace.fresh` .* `execution.state-recovery.path` .* give one of them"):
        read_settings(configuration({"headrace.fresh": "true", "execution.state-recovery.path": "there"}))


def test_a_value_that_cannot_be_read_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"`execution\.checkpointing\.interval` is 'often'"):
        settings(execution_checkpointing_interval="often")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, NoRestart()),
        ({"execution.checkpointing.interval": "1 s"}, ExponentialDelay(1_000, 60_000, 1.5, 3_600_000, 0.1, None)),
        ({"execution.checkpointing.interval": "1 s", "restart-strategy.type": "off"}, NoRestart()),
        (
            {
                "restart-strategy.type": "fixed-delay",
                "restart-strategy.fixed-delay.attempts": "3",
                "restart-strategy.fixed-delay.delay": "2 s",
            },
            FixedDelay(3, 2_000),
        ),
        ({"restart-strategy.type": "fixed-delay"}, FixedDelay(1, 1_000)),
        (
            {
                "restart-strategy.type": "failure-rate",
                "restart-strategy.failure-rate.max-failures-per-interval": "2",
                "restart-strategy.failure-rate.failure-rate-interval": "3 s",
                "restart-strategy.failure-rate.delay": "4 s",
            },
            FailureRate(2, 3_000, 4_000),
        ),
        (
            {
                "restart-strategy.type": "exponential-delay",
                "restart-strategy.exponential-delay.initial-backoff": "2 s",
                "restart-strategy.exponential-delay.max-backoff": "3 s",
                "restart-strategy.exponential-delay.backoff-multiplier": "4",
                "restart-strategy.exponential-delay.reset-backoff-threshold": "5 s",
                "restart-strategy.exponential-delay.jitter-factor": "0.5",
                "restart-strategy.exponential-delay.attempts-before-reset-backoff": "6",
            },
            ExponentialDelay(2_000, 3_000, 4.0, 5_000, 0.5, 6),
        ),
    ],
)
def test_the_restart_strategy_is_the_one_that_is_set(options: Mapping[str, str], expected: RestartStrategy) -> None:
    assert read_settings(configuration(options)).restart_strategy == expected


def test_a_plan_without_operators_is_refused() -> None:
    with pytest.raises(ConfigError, match="no operators are defined"):
        check(Plan("job", ()), {})


def test_exactly_once_on_an_endless_source_needs_checkpoints() -> None:
    folder = {"execution.checkpointing.dir": "/state"}
    with pytest.raises(ConfigError, match="`counts` delivers exactly once, but checkpoints are off and `news` never"):
        check(plan(Endless(), ExactlyOnce()), folder)
    assert check(plan(Endless(), ExactlyOnce()), folder | {"execution.checkpointing.interval": "1 s"}) == []
    assert check(plan(CollectionSource(()), ExactlyOnce()), folder) == []
    assert check(plan(Endless(), PrintSink()), {}) == []


def test_exactly_once_without_a_folder_is_worth_a_warning() -> None:
    [warning] = check(plan(CollectionSource(()), ExactlyOnce()), {})
    assert warning.startswith(
        "`counts` delivers exactly once within this run only, as `execution.checkpointing.dir` is"
    )


def test_dead_letters_that_may_repeat_beside_results_that_do_not_are_worth_a_warning() -> None:
    def checked(dead_letters: Sink, results: Sink) -> list[str]:
        builder = PlanBuilder()
        builder.add(ReadSource(CollectionSource(()), WatermarkStrategy.no_watermarks()), "news")
        builder.add(WriteSink(results), "counts", (0,))
        return check(builder.build("job", ErrorPolicy.dead_letter(dead_letters)), {"execution.checkpointing.dir": "/s"})

    [warning] = checked(PrintSink(), ExactlyOnce())
    assert warning.startswith("`Dead letters` takes dead letters of a job that delivers its results exactly once")
    assert checked(ExactlyOnce(), ExactlyOnce()) == []
    assert checked(PrintSink(), PrintSink()) == []


def test_operators_that_only_their_order_tells_apart_are_worth_a_warning_where_checkpoints_outlive_the_run() -> None:
    sources = [Node(n, ReadSource(Endless(), WatermarkStrategy.no_watermarks()), "Kafka Source") for n in range(2)]
    reductions = [Node(n, Reduce(max), "Reduce", (0,), key_selector=str) for n in (2, 3)]
    given = Plan("job", (*sources, *reductions))
    assert check(given, {"execution.checkpointing.interval": "1 s"}) == []
    for option in ("execution.checkpointing.dir", "execution.checkpointing.savepoint-dir"):
        of_sources, of_reductions = check(given, {option: "/state"})
        assert re.search(
            r"^2 sources can only be told apart by their order in the program: `Kafka Source` \('\w+-1of2'\), "
            r"`Kafka Source` \('\w+-2of2'\)\. If .* exchanged, each reads on at another's positions.*`\.uid\(",
            of_sources,
        )
        assert re.search(r"^2 keyed operators .*: `Reduce` .* each goes on with another's state", of_reductions)
    named = tuple(replace(node, uid=f"its own {node.id}") for node in given)
    assert check(replace(given, nodes=named), {"execution.checkpointing.dir": "/state"}) == []
