"""What was measured, as tables of ratios with their spread and their goals, and as JSON."""

from __future__ import annotations

import dataclasses
import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from contestants import JOBS, OURS, Name, title
from measure import Latency, Throughput

FIRST_RESULT_GOAL_S = 0.6
P99_GOAL_MS = 20.0
MEMORY_GOAL = 1.05
"""The most in the second half of the run against the most in its first."""

RATIO_GOALS: Mapping[tuple[str, Name], Mapping[Name, float]] = {
    ("map-alo", "loop"): {"native": 1.25, "pure": 0.85},
    ("map-eos", "loop"): {"native": 1.25, "pure": 0.85},
    ("bytes", "loop"): {"native": 1.7, "pure": 0.6},
    ("json-schema", "loop"): {"native": 1.0, "pure": 0.8},
    ("avro", "loop"): {"native": 1.0, "pure": 0.8},
    ("protobuf", "loop"): {"native": 1.0, "pure": 0.8},
    ("struct", "loop"): {"native": 1.0, "pure": 0.8},
    ("map-eos", "flink"): {"native": 1.8, "pure": 1.2},
    ("keyed", "flink"): {"native": 3.0, "pure": 2.0},
    ("map-eos", "pyflink"): {"native": 5.0, "pure": 3.0},
    ("keyed", "pyflink"): {"native": 5.0, "pure": 3.0},
    ("lanes", "one"): {"two": 0.9},
    ("heavy", "one"): {"two": 1.8},
    ("metrics", "silent"): {"scraped": 0.97},
}
"""Headrace's records/s divided by another's, with each of its clients. Against Flink the second half of the run is
judged: over the whole, a JVM that is still compiling would flatter us."""

_NAME_WIDTH = 34
_RATIO_WIDTH = 44


@dataclass(slots=True)
class Results:
    """Everything measured, in the order of the rounds."""

    settings: dict[str, object]
    throughput: dict[str, dict[Name, list[Throughput]]] = field(default_factory=dict)
    first_result_s: dict[Name, list[float]] = field(default_factory=dict)
    latency: dict[Name, list[Latency]] = field(default_factory=dict)
    memory: dict[str, Throughput] = field(default_factory=dict)

    def write(self, file: Path) -> None:
        file.write_text(json.dumps(dataclasses.asdict(self), indent=1) + "\n", encoding="utf-8")


@dataclass(frozen=True, slots=True)
class Spread:
    """Median, least and most of some figures."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, figures: Iterable[float]) -> Spread:
        """
        >>> Spread.of([3.0, 1.0, 2.0])
        Spread(median=2.0, least=1.0, most=3.0)
        """
        values = list(figures)
        return cls(statistics.median(values), min(values), max(values))

    def show(self, form: str) -> str:
        return f"{self.median:{form}} ({self.least:{form}}–{self.most:{form}})"


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> Spread:
    """Ours divided by theirs, round by round: what disturbed the machine in a round disturbed both.

    >>> ratios([90.0, 110.0], [100.0, 100.0]).median
    1.0
    """
    return Spread.of(a / b for a, b in zip(ours, theirs, strict=True))


def text(results: Results) -> str:
    """The whole report."""
    parts = [_settings(results.settings)]
    parts += [_throughput_table(row, figures) for row, figures in results.throughput.items()]
    if results.first_result_s:
        parts.append(_first_result_table(results.first_result_s))
    if results.latency:
        parts.append(_latency_table(results.latency))
    if results.memory:
        parts.append(_memory_table(results.memory))
    return "\n\n".join(parts)


def missed(results: Results) -> int:
    """How many goals the report shows as missed."""
    return text(results).count(" miss")


def _settings(settings: Mapping[str, object]) -> str:
    return "\n".join(["Settings", *(f"  {name:<22}{value}" for name, value in settings.items())])


def _verdict(reached: bool) -> str:
    return "ok" if reached else "miss"


def _throughput_table(row: str, figures: Mapping[Name, Sequence[Throughput]]) -> str:
    job = JOBS[row]
    lines = [job.title, f"  {'':<{_NAME_WIDTH}}{'records/s':<30}{'2nd half':>9}  CPU µs/record"]
    for name, runs in figures.items():
        rate = Spread.of(run.records_s for run in runs)
        half = statistics.median(run.second_half_s for run in runs)
        cpu = Spread.of(run.cpu_us for run in runs)
        line = f"  {title(name, job.guarantee):<{_NAME_WIDTH}}{rate.show(',.0f'):<30}{half:>9,.0f}  {cpu.show('.2f')}"
        lines.append(line.rstrip())
    for name, theirs in figures.items():
        for own in (*OURS, "two", "scraped"):
            if name not in (*OURS, "two", "scraped") and (ours := figures.get(own)) is not None:
                lines.append(_ratio(row, own, name, ours, theirs))
    return "\n".join(lines)


def _ratio(row: str, own: Name, name: Name, ours: Sequence[Throughput], theirs: Sequence[Throughput]) -> str:
    ratio = ratios([run.records_s for run in ours], [run.records_s for run in theirs])
    later = ratios([run.second_half_s for run in ours], [run.second_half_s for run in theirs])
    line = f"  {own + ' : ' + title(name, JOBS[row].guarantee):<{_RATIO_WIDTH}}{ratio.show('.2f'):<20}"
    line += f"2nd half {later.show('.2f'):<20}"
    if (goal := RATIO_GOALS.get((row, name), {}).get(own)) is not None:
        judged = later if name in ("flink", "pyflink") else ratio
        line += f"≥ {goal:<5}{_verdict(judged.median >= goal)}"
    return line.rstrip()


def _first_result_table(figures: Mapping[Name, Sequence[float]]) -> str:
    lines = ["start to first result, at-least-once, seconds"]
    for name, seconds in figures.items():
        spread = Spread.of(seconds)
        line = f"  {title(name, 'at-least-once'):<{_NAME_WIDTH}}{spread.show('.2f'):<30}"
        if name in OURS:
            line += f"≤ {FIRST_RESULT_GOAL_S} {_verdict(spread.median <= FIRST_RESULT_GOAL_S)}"
        lines.append(line.rstrip())
    return "\n".join(lines)


def _latency_table(figures: Mapping[Name, Sequence[Latency]]) -> str:
    lines = ["input append to output append at a low rate, at-least-once, milliseconds (resolution 1 ms)"]
    for name, runs in figures.items():
        p50, p99 = Spread.of(run.p50_ms for run in runs), Spread.of(run.p99_ms for run in runs)
        worst = max(run.max_ms for run in runs)
        line = f"  {title(name, 'at-least-once'):<{_NAME_WIDTH}}p50 {p50.show('.0f'):<16}p99 {p99.show('.0f'):<16}"
        line += f"max {worst:<8.0f}"
        if name in OURS:
            line += f"p99 ≤ {P99_GOAL_MS:.0f} {_verdict(p99.median <= P99_GOAL_MS)}"
        lines.append(line.rstrip())
    return "\n".join(lines)


def _memory_table(figures: Mapping[str, Throughput]) -> str:
    lines = ["resident memory of Headrace over the long run, the most in each half, MB"]
    for row, run in figures.items():
        growth = run.rss_second_mb / run.rss_first_mb
        lines.append(
            f"  {row:<{_NAME_WIDTH}}first {run.rss_first_mb:.0f}, second {run.rss_second_mb:.0f}; "
            f"second : first {growth:.2f}  ≤ {MEMORY_GOAL} {_verdict(growth <= MEMORY_GOAL)}"
        )
    return "\n".join(lines)
