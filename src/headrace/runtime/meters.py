"""The metrics of a worker's operators, under Flink's names, made of what is counted anyway.

Theory of operation. Nothing here is done for each record. A pipeline knows what it has read and what it has written; in
between, an operator gives one element for each that it takes, or (a filter, a flat_map, a process function, a schema
that gives many) the loop tallies what comes out of it, and only if there is a reporter. Once a second a worker is asked
for `samples`.

`docs/metrics.md` has the names. What a record that the job goes on without counts as, `_of_failures` says.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from headrace.connector import SinkWriter, Stage
from headrace.metrics.metricbase import MetricGroup
from headrace.metrics.registry import Rate, Registry, Row, Sample, Scope
from headrace.plan.graph import Filter, FlatMap, Node, Process, ReadSource, WriteSink
from headrace.runtime.failures import Failures
from headrace.runtime.pipeline import Pipeline
from headrace.runtime.watermarks import MAX_WATERMARK, NO_TIMESTAMP, Progress, combine

SCOPE = "taskmanager_job_task_operator"

_WITH_RATE = frozenset({"numRecordsIn", "numRecordsOut", "numBytesIn", "numBytesOut"})


class Meters:
    """The metrics of all operators of a worker; it looks at the worker's own parts."""

    def __init__(
        self,
        nodes: Sequence[Node],
        ids: Mapping[int, str],
        lane: int,
        clock: Callable[[], float],
        *,
        pipelines: Mapping[int, Pipeline],
        writers: Mapping[int, SinkWriter],
        progress: Mapping[int, Progress],
        failures: Failures,
        is_reported: bool,
    ) -> None:
        self.is_reported = is_reported
        self._nodes = nodes
        self._scopes = {node.id: _scope(node, ids[node.id], lane) for node in nodes}
        self._clock = clock
        self._pipelines = pipelines
        self._writers = writers
        self._progress = progress
        self._failures = failures
        self._registry = Registry(clock)
        self._tallies: dict[int, list[int]] = {}
        self._rates: dict[tuple[int, str], Rate] = {}

    def group(self, n: int) -> MetricGroup:
        """Where an operator's functions have metrics of their own."""
        return self._registry.group(self._scopes[n])

    def tally(self, n: int) -> list[int] | None:
        """Where the loop counts the elements that come out of an operator which does not give one for each."""
        return self._tallies.setdefault(n, [0]) if self.is_reported else None

    def samples(self) -> tuple[Sample, ...]:
        """What everything is now."""
        read = {n: pipeline.records_in for n, pipeline in self._pipelines.items()}
        written = Counter[int]()
        for pipeline in self._pipelines.values():
            written.update(pipeline.written)
        failed = {node.id: self._failures.total(node.id) for node in self._nodes}
        tallies = {n: tally[0] for n, tally in self._tallies.items()}
        came, went = elements(self._nodes, read, written, tallies, failed)
        samples = []
        now = self._clock()
        for node in self._nodes:
            n, scope = node.id, self._scopes[node.id]
            for name, value, groups in self._rows(node, came[n], went[n], failed[n], written[n]):
                samples.append(Sample(scope.below(groups), name, value))
                if name in _WITH_RATE and not groups:
                    rate = self._rates.setdefault((n, name), Rate())
                    samples.append(Sample(scope, f"{name}PerSecond", rate.at(now, value)))
        # Behind ours: of two with one name the first is shown.
        return (*samples, *self._registry.samples())

    def _rows(self, node: Node, came: int, went: int, failed: int, written: int) -> Iterator[Row]:
        yield Row("numRecordsIn", came)
        if isinstance(node.operator, ReadSource):
            yield from self._of_source(self._pipelines[node.id])
        else:
            before = combine(self._progress.get(i, Progress()) for i in node.inputs).watermark
            yield Row("currentInputWatermark", NO_TIMESTAMP if before is None else before)
        if isinstance(node.operator, WriteSink):
            writer = self._writers[node.id]
            yield Row("numRecordsOut", written - writer.dropped)
            yield Row("numRecordsSend", written - writer.dropped)
            yield from writer.metrics()
        else:
            yield Row("numRecordsOut", went)
            after = self._progress.get(node.id, Progress()).watermark
            yield Row("currentOutputWatermark", NO_TIMESTAMP if after is None else after)
        yield from self._of_failures(node, failed)

    def _of_source(self, pipeline: Pipeline) -> Iterator[Row]:
        idle_ms = 0.0 if pipeline.idle_since is None else (self._clock() - pipeline.idle_since) * 1000
        emitted_ms = time.time() * 1000 - idle_ms
        yield Row("sourceIdleTime", int(idle_ms))
        if (timestamp := pipeline.last_timestamp) is not None:
            yield Row("currentEmitEventTimeLag", int(emitted_ms - timestamp))
        watermark = self._progress.get(pipeline.node.id, Progress()).watermark
        if watermark is not None and watermark != MAX_WATERMARK:
            yield Row("watermarkLag", int(emitted_ms - watermark))
        if (lag := pipeline.reader.lag()) is not None:
            yield Row("pendingRecords", lag)
        yield from pipeline.reader.metrics()

    def _of_failures(self, node: Node, failed: int) -> Iterable[Row]:
        """Records that the operator failed on and that the job goes on without."""
        if isinstance(node.operator, ReadSource):
            yield Row("numRecordsInErrors", self._failures.counts[node.id, Stage.DESERIALIZATION])
        if node.tolerates:
            yield Row("numRecordsDropped" if node.dead_letters is None else "numDeadLetters", failed)


def gives_any_number(node: Node) -> bool:
    """Whether an operator below a source gives other than one element for each."""
    return isinstance(node.operator, Filter | FlatMap | Process)


def elements(
    nodes: Iterable[Node],
    read: Mapping[int, int],
    written: Mapping[int, int],
    tallies: Mapping[int, int],
    failed: Mapping[int, int],
) -> tuple[dict[int, int], dict[int, int]]:
    """How many elements came into each operator, and went out of it. All arguments are by node id.

    A record that is withdrawn behind an operator has come out of it. A sink without inputs is one for dead letters.
    """
    came: dict[int, int] = {}
    went: dict[int, int] = {}
    for node in nodes:
        n = node.id
        if isinstance(node.operator, ReadSource):
            came[n] = read.get(n, 0)
        else:
            came[n] = sum(went[i] for i in node.inputs) if node.inputs else written.get(n, 0)
        went[n] = tallies[n] if n in tallies else came[n] - failed.get(n, 0)
    return came, went


def _scope(node: Node, operator_id: str, lane: int) -> Scope:
    return Scope(
        SCOPE,
        (
            ("task_name", node.name),
            ("operator_id", operator_id),
            ("operator_name", node.name),
            ("subtask_index", str(lane)),
        ),
    )
