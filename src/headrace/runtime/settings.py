"""The configuration as the engine uses it: read once, checked, frozen."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from headrace.checkpoint.decision import Assume
from headrace.common import options
from headrace.common.configuration import Configuration
from headrace.errors import ConfigError
from headrace.plan.explain import order_warnings
from headrace.plan.graph import Plan, ReadSource
from headrace.plan.identity import connected, is_exactly_once
from headrace.runtime.restart import ExponentialDelay, FailureRate, FixedDelay, NoRestart, RestartStrategy


@dataclass(frozen=True, slots=True)
class Reporter:
    """Where metrics are shown; the first of these ports that is free, 0: any."""

    host: str
    ports: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Settings:
    """What a run is to do. `checkpoint_dir` None: checkpoints serve restarts within the run only."""

    checkpoint_interval_ms: int | None
    checkpoint_timeout_ms: int
    min_pause_ms: int
    tolerable_failures: int
    commit_retries: int
    num_retained: int
    checkpoint_dir: Path | None
    savepoint_dir: Path | None
    recovery_path: Path | None
    ignore_unclaimed_state: bool
    fresh: bool
    assume: Assume | None
    watermark_interval_ms: int
    max_parallelism: int
    restart_strategy: RestartStrategy
    fails_by_region: bool
    heartbeat_interval_ms: int
    heartbeat_timeout_ms: int
    job_parameters: Mapping[str, str]
    reporter: Reporter | None = None


def read_settings(configuration: Configuration) -> Settings:
    """The settings in a configuration. Raises `ConfigError` for a value that cannot be read, or two that conflict."""
    options.check_values(configuration)
    interval = options.CHECKPOINT_INTERVAL.read(configuration)
    fresh, recovery_path = options.FRESH.read(configuration), options.RECOVERY_PATH.read(configuration)
    if fresh and recovery_path is not None:
        raise ConfigError(
            "`headrace.fresh` (`--fresh`) starts over and `execution.state-recovery.path` (`--from`) starts from "
            f"{recovery_path!r}; give one of them"
        )
    max_parallelism = options.MAX_PARALLELISM.read(configuration)
    return Settings(
        checkpoint_interval_ms=interval,
        checkpoint_timeout_ms=options.CHECKPOINT_TIMEOUT.read(configuration),
        min_pause_ms=options.CHECKPOINT_MIN_PAUSE.read(configuration),
        tolerable_failures=options.TOLERABLE_FAILED_CHECKPOINTS.read(configuration),
        commit_retries=options.COMMITTER_RETRIES.read(configuration),
        num_retained=options.RETAINED_CHECKPOINTS.read(configuration),
        checkpoint_dir=_path(options.CHECKPOINT_DIR.read(configuration), options.CHECKPOINT_DIR.key),
        savepoint_dir=_path(options.SAVEPOINT_DIR.read(configuration), options.SAVEPOINT_DIR.key),
        recovery_path=_path(recovery_path, options.RECOVERY_PATH.key),
        ignore_unclaimed_state=options.IGNORE_UNCLAIMED_STATE.read(configuration),
        fresh=fresh,
        assume=None if (word := options.ASSUME.read(configuration)) == "none" else Assume(word),
        watermark_interval_ms=options.AUTO_WATERMARK_INTERVAL.read(configuration),
        max_parallelism=128 if max_parallelism == -1 else max_parallelism,
        restart_strategy=_restart_strategy(configuration, has_checkpoints=interval is not None),
        fails_by_region=options.FAILOVER_STRATEGY.read(configuration) == "region",
        heartbeat_interval_ms=options.HEARTBEAT_INTERVAL.read(configuration),
        heartbeat_timeout_ms=options.HEARTBEAT_TIMEOUT.read(configuration),
        job_parameters=options.GLOBAL_JOB_PARAMETERS.read(configuration),
        reporter=_reporter(configuration),
    )


def check_plan(plan: Plan, settings: Settings) -> list[str]:
    """Warnings about a plan; raises `ConfigError` for one that cannot run as it is."""
    if not plan.nodes:
        raise ConfigError("no operators are defined: a job needs at least a source, and a sink to be of use")
    exactly_once = [node.name for node in plan if is_exactly_once(node)]
    unbounded = [n.name for n in plan if isinstance(n.operator, ReadSource) and not n.operator.source.ends]
    if exactly_once and unbounded and settings.checkpoint_interval_ms is None:
        raise ConfigError(
            f"`{exactly_once[0]}` delivers exactly once, but checkpoints are off and `{unbounded[0]}` never ends: "
            "nothing would ever be committed; call `env.enable_checkpointing(1000)` or set "
            "`execution.checkpointing.interval`"
        )
    warnings = []
    if exactly_once and settings.checkpoint_dir is None:
        warnings.append(
            f"`{exactly_once[0]}` delivers exactly once within this run only, as `execution.checkpointing.dir` is not "
            "set: it begins at the program's starting offsets, whatever earlier runs wrote. If `headrace run` keeps "
            "checkpoints of this job, its next run will ask what to believe"
        )
    for part in connected(plan):
        if any(is_exactly_once(plan.node(n)) for n in part):
            takers = {n for node in plan if (n := node.dead_letters) is not None and n in part}
            warnings += [
                f"`{plan.node(n).name}` takes dead letters of a job that delivers its results exactly once, and may "
                "repeat them after a failure; give that sink DeliveryGuarantee.EXACTLY_ONCE too"
                for n in sorted(takers)
                if not is_exactly_once(plan.node(n))
            ]
    if settings.checkpoint_dir is not None or settings.savepoint_dir is not None:
        warnings += order_warnings(plan)
    return warnings


def _reporter(configuration: Configuration) -> Reporter | None:
    names = options.METRICS_REPORTERS.read(configuration)
    own = (options.PROMETHEUS_FACTORY, options.PROMETHEUS_PORT, options.PROMETHEUS_HOST)
    if "prom" not in names if names is not None else not any(option.is_set(configuration) for option in own):
        return None
    return Reporter(options.PROMETHEUS_HOST.read(configuration), options.PROMETHEUS_PORT.read(configuration))


def _path(text: str | None, key: str) -> Path | None:
    if text is None:
        return None
    path = text
    if text.startswith("file:"):
        # `file:/path`, or `file:///path`: what stands behind two slashes, up to the third, is a host.
        path = text.removeprefix("file:").removeprefix("//")
        is_local = path.startswith("/")
    else:
        is_local = re.match("[A-Za-z][A-Za-z0-9+.-]+:/", text) is None
    if not is_local:
        raise ConfigError(f"`{key}` is {text!r}; only local folders are supported, as a path or as file:///path")
    return Path(path).expanduser()


def _restart_strategy(configuration: Configuration, *, has_checkpoints: bool) -> RestartStrategy:
    name = options.RESTART_STRATEGY.read(configuration)
    match name or ("exponential-delay" if has_checkpoints else "none"):
        case "none":
            return NoRestart()
        case "fixed-delay":
            return FixedDelay(
                options.FIXED_DELAY_ATTEMPTS.read(configuration), options.FIXED_DELAY_DELAY.read(configuration)
            )
        case "failure-rate":
            return FailureRate(
                options.FAILURE_RATE_MAX_FAILURES.read(configuration),
                options.FAILURE_RATE_INTERVAL.read(configuration),
                options.FAILURE_RATE_DELAY.read(configuration),
            )
        case "exponential-delay":
            attempts = options.EXPONENTIAL_DELAY_ATTEMPTS.read(configuration)
            return ExponentialDelay(
                options.EXPONENTIAL_DELAY_INITIAL_BACKOFF.read(configuration),
                options.EXPONENTIAL_DELAY_MAX_BACKOFF.read(configuration),
                options.EXPONENTIAL_DELAY_MULTIPLIER.read(configuration),
                options.EXPONENTIAL_DELAY_RESET_THRESHOLD.read(configuration),
                options.EXPONENTIAL_DELAY_JITTER.read(configuration),
                None if attempts == options.UNLIMITED else attempts,
            )
        case other:
            raise ConfigError(f"`restart-strategy.type` is {other!r}")
