"""Every setting that Headrace knows: Flink's keys with Flink's defaults, and its own under `headrace.`.

One table: the engine, the API and the command line all read settings through it. Durations are in ms.
"""

from __future__ import annotations

import difflib
import re
from typing import Any

from headrace.common.config_options import (
    BOOLEAN,
    DURATION,
    FLOAT,
    INTEGER,
    STRING,
    ConfigOption,
    OptionType,
    one_of,
    parse_duration_ms,
)
from headrace.common.configuration import Configuration

UNLIMITED = 2_147_483_647


def _parse_interval(text: str) -> int | None:
    interval_ms = parse_duration_ms(text)
    if 0 < interval_ms < 10:
        raise ValueError(text)
    return interval_ms or None


def _parse_attempts(text: str) -> int:
    attempts = UNLIMITED if text.strip().lower() in ("inf", "infinite") else int(text)
    if attempts < 1:
        raise ValueError(text)
    return attempts


def _parse_share(text: str) -> float:
    share = float(text)
    if not 0 <= share <= 1:
        raise ValueError(text)
    return share


def _parse_names(text: str) -> tuple[str, ...]:
    return tuple(name for name in re.split(r"[,;\s]+", text) if name)


def _parse_ports(text: str) -> tuple[int, ...]:
    match = re.fullmatch(r"\s*(\d+)\s*(?:-\s*(\d+)\s*)?", text)
    if match is None:
        raise ValueError(text)
    first, last = int(match[1]), int(match[2] or match[1])
    if not first <= last < 65_536:
        raise ValueError(text)
    return tuple(range(first, last + 1))


def parse_map(text: str) -> dict[str, str]:
    """A map setting, `key:value,key:value`; a part that holds one of `,:'` stands in single quotes, doubled inside.

    >>> parse_map("table:news,at:'10:30'")
    {'table': 'news', 'at': '10:30'}
    """
    part = r"('(?:[^']|'')*'|[^,:']*)"
    if not re.fullmatch(rf"(?:{part}:{part}(?:,(?=.)|$))*", text, re.DOTALL):
        raise ValueError(text)
    pairs = re.findall(rf"{part}:{part}(?:,|$)", text)
    return {_unquoted(key): _unquoted(value) for key, value in pairs}


def format_map(entries: dict[str, str]) -> str:
    """The inverse of `parse_map`."""
    return ",".join(f"{_quoted(key)}:{_quoted(value)}" for key, value in entries.items())


def _quoted(part: str) -> str:
    return "'" + part.replace("'", "''") + "'" if re.search("[,:']", part) else part


def _unquoted(part: str) -> str:
    return part[1:-1].replace("''", "'") if part.startswith("'") else part


# Checkpoints

CHECKPOINT_INTERVAL: ConfigOption[int | None] = ConfigOption(
    "execution.checkpointing.interval",
    OptionType(_parse_interval, "a duration such as `10 s`, of at least 10 ms (or 0 for no checkpoints)"),
    None,
    "How often a checkpoint starts; not set or 0: never.",
)
CHECKPOINT_MODE: ConfigOption[str] = ConfigOption(
    "execution.checkpointing.mode",
    one_of("EXACTLY_ONCE", "AT_LEAST_ONCE"),
    "EXACTLY_ONCE",
    "What state is guaranteed. Headrace always keeps EXACTLY_ONCE, which costs nothing here.",
)
CHECKPOINT_TIMEOUT: ConfigOption[int] = ConfigOption(
    "execution.checkpointing.timeout", DURATION, 600_000, "How long a checkpoint may take.", minimum=10
)
CHECKPOINT_MIN_PAUSE: ConfigOption[int] = ConfigOption(
    "execution.checkpointing.min-pause",
    DURATION,
    0,
    "The least time from one checkpoint's end to the next one's start.",
)
MAX_CONCURRENT_CHECKPOINTS: ConfigOption[int] = ConfigOption(
    "execution.checkpointing.max-concurrent-checkpoints",
    INTEGER,
    1,
    "How many checkpoints may be under way.",
    minimum=1,
    supports=lambda value: value == 1,
    instead="leave it at 1: checkpoints follow each other",
)
TOLERABLE_FAILED_CHECKPOINTS: ConfigOption[int] = ConfigOption(
    "execution.checkpointing.tolerable-failed-checkpoints",
    INTEGER,
    0,
    "How many checkpoints may fail in a row before the job does.",
    minimum=0,
)
COMMITTER_RETRIES: ConfigOption[int] = ConfigOption(
    "sink.committer.retries",
    INTEGER,
    10,
    "How often a commit whose outcome is not known is asked for again, each time for the sink's "
    "`default.api.timeout.ms`, before the job starts again and reads what became of it.",
    minimum=0,
)
CHECKPOINT_RETENTION: ConfigOption[str] = ConfigOption(
    "execution.checkpointing.externalized-checkpoint-retention",
    one_of("DELETE_ON_CANCELLATION", "RETAIN_ON_CANCELLATION", "NO_EXTERNALIZED_CHECKPOINTS"),
    "NO_EXTERNALIZED_CHECKPOINTS",
    "Accepted without effect: checkpoints in `execution.checkpointing.dir` stay, as the next run resumes from them.",
)
CHECKPOINT_DIR: ConfigOption[str | None] = ConfigOption(
    "execution.checkpointing.dir",
    STRING,
    None,
    "The folder for checkpoints. Set: the job resumes from the newest one under its name. Not set: restarts only.",
    fallback_keys=("state.checkpoints.dir",),
)
SAVEPOINT_DIR: ConfigOption[str | None] = ConfigOption(
    "execution.checkpointing.savepoint-dir",
    STRING,
    None,
    "The folder for savepoints.",
    fallback_keys=("state.savepoints.dir",),
)
RETAINED_CHECKPOINTS: ConfigOption[int] = ConfigOption(
    "execution.checkpointing.num-retained",
    INTEGER,
    1,
    "How many completed checkpoints to keep.",
    minimum=1,
    fallback_keys=("state.checkpoints.num-retained",),
)
CHECKPOINT_STORAGE: ConfigOption[str | None] = ConfigOption(
    "execution.checkpointing.storage",
    one_of("jobmanager", "filesystem"),
    None,
    "Where checkpoints are; `execution.checkpointing.dir` alone decides.",
    fallback_keys=("state.checkpoint-storage",),
)
UNALIGNED_CHECKPOINTS: ConfigOption[bool] = ConfigOption(
    "execution.checkpointing.unaligned.enabled",
    BOOLEAN,
    False,
    "Whether barriers overtake records.",
    supports=lambda value: not value,
    instead="leave it at false: queues are short here, and aligned checkpoints quick",
    fallback_keys=("execution.checkpointing.unaligned",),
)
FORCE_UNALIGNED_CHECKPOINTS: ConfigOption[bool] = ConfigOption(
    "execution.checkpointing.unaligned.forced",
    BOOLEAN,
    False,
    "Whether barriers overtake records at all costs.",
    supports=lambda value: not value,
    instead="leave it at false: checkpoints are aligned",
)
ALIGNED_CHECKPOINT_TIMEOUT: ConfigOption[int] = ConfigOption(
    "execution.checkpointing.aligned-checkpoint-timeout",
    DURATION,
    0,
    "When an aligned checkpoint becomes unaligned; 0: never.",
    supports=lambda value: value == 0,
    instead="leave it at 0: checkpoints are aligned",
)

# What a start resumes from

RECOVERY_PATH: ConfigOption[str | None] = ConfigOption(
    "execution.state-recovery.path",
    STRING,
    None,
    "The checkpoint or savepoint to start from.",
    fallback_keys=("execution.savepoint.path",),
)
IGNORE_UNCLAIMED_STATE: ConfigOption[bool] = ConfigOption(
    "execution.state-recovery.ignore-unclaimed-state",
    BOOLEAN,
    False,
    "Whether state that no operator of the program claims may be left behind.",
    fallback_keys=("execution.savepoint.ignore-unclaimed-state",),
)
CLAIM_MODE: ConfigOption[str] = ConfigOption(
    "execution.state-recovery.claim-mode",
    one_of("NO_CLAIM", "CLAIM"),
    "NO_CLAIM",
    "Whether a checkpoint that was started from belongs to the job, which then removes it in time.",
    supports=lambda value: value == "NO_CLAIM",
    instead="leave it at NO_CLAIM: a snapshot that was started from is never removed",
    fallback_keys=("execution.savepoint-restore-mode",),
)
FRESH: ConfigOption[bool] = ConfigOption(
    "headrace.fresh", BOOLEAN, False, "*Extension*. Start over: whatever the checkpoint folder holds is not used."
)
ASSUME: ConfigOption[str] = ConfigOption(
    "headrace.assume",
    one_of("none", "committed", "aborted"),
    "none",
    "*Extension*. What became of a prepared checkpoint whose marker is gone from Kafka. `committed` may lose its "
    "records, `aborted` may repeat them; `none` asks.",
)
# Restarts

RESTART_STRATEGY: ConfigOption[str | None] = ConfigOption(
    "restart-strategy.type",
    one_of(
        "none",
        "fixed-delay",
        "exponential-delay",
        "failure-rate",
        off="none",
        disable="none",
    ),
    None,
    "What follows a failure. Not set: exponential-delay with checkpoints, none without.",
    fallback_keys=("restart-strategy",),
)
FAILOVER_STRATEGY: ConfigOption[str] = ConfigOption(
    "jobmanager.execution.failover-strategy",
    one_of("region", "full"),
    "region",
    "With parallelism above 1, what starts again when a worker fails: what is connected with it, or the whole job.",
)
HEARTBEAT_INTERVAL: ConfigOption[int] = ConfigOption(
    "heartbeat.interval", DURATION, 10_000, "How often a worker's process gives a sign of life.", minimum=1
)
HEARTBEAT_TIMEOUT: ConfigOption[int] = ConfigOption(
    "heartbeat.timeout",
    DURATION,
    50_000,
    "A worker's process that gives no sign of life for so long is killed, and has failed.",
    minimum=1,
)
FIXED_DELAY_ATTEMPTS: ConfigOption[int] = ConfigOption(
    "restart-strategy.fixed-delay.attempts", INTEGER, 1, "Restarts before the job fails.", minimum=0
)
FIXED_DELAY_DELAY: ConfigOption[int] = ConfigOption(
    "restart-strategy.fixed-delay.delay", DURATION, 1_000, "The pause before a restart."
)
EXPONENTIAL_DELAY_INITIAL_BACKOFF: ConfigOption[int] = ConfigOption(
    "restart-strategy.exponential-delay.initial-backoff", DURATION, 1_000, "The first pause.", minimum=1
)
EXPONENTIAL_DELAY_MAX_BACKOFF: ConfigOption[int] = ConfigOption(
    "restart-strategy.exponential-delay.max-backoff", DURATION, 60_000, "The longest pause.", minimum=1
)
EXPONENTIAL_DELAY_MULTIPLIER: ConfigOption[float] = ConfigOption(
    "restart-strategy.exponential-delay.backoff-multiplier", FLOAT, 1.5, "How much longer each pause is.", minimum=1
)
EXPONENTIAL_DELAY_RESET_THRESHOLD: ConfigOption[int] = ConfigOption(
    "restart-strategy.exponential-delay.reset-backoff-threshold",
    DURATION,
    3_600_000,
    "After how long without a failure the pause is short again.",
)
EXPONENTIAL_DELAY_JITTER: ConfigOption[float] = ConfigOption(
    "restart-strategy.exponential-delay.jitter-factor",
    OptionType(_parse_share, "a number from 0 to 1"),
    0.1,
    "How far a pause may be off, as a share of it.",
)
EXPONENTIAL_DELAY_ATTEMPTS: ConfigOption[int] = ConfigOption(
    "restart-strategy.exponential-delay.attempts-before-reset-backoff",
    OptionType(_parse_attempts, "a whole number of at least 1, or `inf`"),
    UNLIMITED,
    "Restarts, until the pause is short again, before the job fails.",
)
FAILURE_RATE_DELAY: ConfigOption[int] = ConfigOption(
    "restart-strategy.failure-rate.delay", DURATION, 1_000, "The pause before a restart."
)
FAILURE_RATE_INTERVAL: ConfigOption[int] = ConfigOption(
    "restart-strategy.failure-rate.failure-rate-interval", DURATION, 60_000, "The time over which failures count."
)
FAILURE_RATE_MAX_FAILURES: ConfigOption[int] = ConfigOption(
    "restart-strategy.failure-rate.max-failures-per-interval",
    INTEGER,
    1,
    "Failures within that time before the job fails.",
    minimum=1,
)

# Metrics

METRICS_REPORTERS: ConfigOption[tuple[str, ...] | None] = ConfigOption(
    "metrics.reporters",
    OptionType(_parse_names, "names, such as `prom`"),
    None,
    "Who shows metrics: `prom` or nobody. Not set: `prom`, if one of its settings is.",
    supports=lambda names: set(names or ()) <= {"prom"},
    instead="there is one reporter, `prom`, which Prometheus reads",
)
PROMETHEUS_FACTORY: ConfigOption[str | None] = ConfigOption(
    "metrics.reporter.prom.factory.class",
    STRING,
    None,
    "Accepted for Flink's `PrometheusReporterFactory`.",
    supports=lambda name: (name or "").endswith(".PrometheusReporterFactory"),
    instead="set `org.apache.flink.metrics.prometheus.PrometheusReporterFactory`, or leave it out",
)
PROMETHEUS_PORT: ConfigOption[tuple[int, ...]] = ConfigOption(
    "metrics.reporter.prom.port",
    OptionType(_parse_ports, "a port, a range such as `9250-9260` of which the first that is free is taken, or 0"),
    (9249,),
    "The port that metrics are read at, or a range (`9250-9260`) for several jobs; 0: any that is free.",
)
PROMETHEUS_HOST: ConfigOption[str] = ConfigOption(
    "metrics.reporter.prom.host",
    STRING,
    "localhost",
    "*Extension*. The address to listen at. Metrics are shown to whoever can reach it.",
)

# The job

RUNTIME_MODE: ConfigOption[str] = ConfigOption(
    "execution.runtime-mode",
    one_of("STREAMING", "BATCH", "AUTOMATIC"),
    "STREAMING",
    "Headrace streams; a job on bounded sources ends by itself.",
    supports=lambda value: value == "STREAMING",
    instead="use STREAMING: a job whose sources are all bounded ends by itself",
)
PARALLELISM: ConfigOption[int] = ConfigOption(
    "parallelism.default", INTEGER, 1, "How many subtasks an operator has if it does not say itself.", minimum=1
)
MAX_PARALLELISM: ConfigOption[int] = ConfigOption(
    "pipeline.max-parallelism",
    INTEGER,
    -1,
    "The number of key groups, which bounds parallelism for the life of the state; -1: 128.",
    minimum=-1,
    supports=lambda value: value != 0,
    instead="give it at least 1, or -1 for 128",
)
JOB_NAME: ConfigOption[str | None] = ConfigOption("pipeline.name", STRING, None, "The job's name.")
GLOBAL_JOB_PARAMETERS: ConfigOption[dict[str, str]] = ConfigOption(
    "pipeline.global-job-parameters",
    OptionType(parse_map, "a map such as `key:value,key:value`"),
    {},
    "What `RuntimeContext.get_job_parameter` answers.",
)
AUTO_WATERMARK_INTERVAL: ConfigOption[int] = ConfigOption(
    "pipeline.auto-watermark-interval", DURATION, 200, "How often watermarks are emitted; 0: never."
)
OPERATOR_CHAINING: ConfigOption[bool] = ConfigOption(
    "pipeline.operator-chaining.enabled",
    BOOLEAN,
    True,
    "Whether operators that need no exchange run as one task. Headrace always does so; results are the same.",
    fallback_keys=("pipeline.operator-chaining",),
)
OBJECT_REUSE: ConfigOption[bool] = ConfigOption(
    "pipeline.object-reuse",
    BOOLEAN,
    False,
    "Accepted without effect: elements are handed on as they are within a chain.",
)
JARS: ConfigOption[str | None] = ConfigOption("pipeline.jars", STRING, None, "Accepted without effect: no Java.")
CLASSPATHS: ConfigOption[str | None] = ConfigOption(
    "pipeline.classpaths", STRING, None, "Accepted without effect: no Java."
)
BUFFER_TIMEOUT: ConfigOption[int] = ConfigOption(
    "execution.buffer-timeout.interval",
    DURATION,
    100,
    "Accepted without effect: no record waits for a buffer to fill.",
    fallback_keys=("execution.buffer-timeout",),
)
STATE_BACKEND: ConfigOption[str] = ConfigOption(
    "state.backend.type",
    one_of("hashmap", "rocksdb", "forst"),
    "hashmap",
    "Where keyed state is while the job runs.",
    supports=lambda value: value == "hashmap",
    instead="use hashmap: keyed state is kept in memory",
    fallback_keys=("state.backend",),
)
CHANGELOG: ConfigOption[bool] = ConfigOption(
    "state.changelog.enabled",
    BOOLEAN,
    False,
    "Whether changes of state are written all the time.",
    supports=lambda value: not value,
    instead="leave it at false",
    fallback_keys=("state.backend.changelog.enabled",),
)

OPTIONS: tuple[ConfigOption[Any], ...] = tuple(
    value for value in list(globals().values()) if isinstance(value, ConfigOption)
)


def check_values(configuration: Configuration) -> None:
    """Raise `ConfigError` for the first setting that cannot be read, `NotSupportedError` for one that is refused."""
    for option in OPTIONS:
        option.read(configuration)


def check_keys(configuration: Configuration) -> list[str]:
    """A warning for each key that nothing reads and that looks like a misspelt one.

    >>> check_keys(Configuration().set_string("execution.checkpoint.interval", "1 s"))  # doctest: +ELLIPSIS
    ['`execution.checkpoint.interval` is not a known setting ...; did you mean `execution.checkpointing.interval`?']

    Keys of Flink's that mean nothing here (`taskmanager.…`, say) are passed over in silence.
    """
    known = [key for option in OPTIONS for key in option.all_keys]
    warnings = []
    for key in sorted(configuration.key_set().difference(known)):
        close = difflib.get_close_matches(key, known, n=1, cutoff=0.85)
        if close:
            warnings.append(f"`{key}` is not a known setting and has no effect; did you mean `{close[0]}`?")
        elif key.startswith("headrace."):
            warnings.append(f"`{key}` is not a known setting and has no effect")
    return warnings
