"""The worker of one lane: one subtask of every operator, the clients of its sources and sinks, and one loop.

Theory of operation. A worker does what it is told, in order: `handle` takes one message, `step` works for about 50
ms; what it has to say it puts into its outbox. Barriers fall between steps, so a snapshot is a consistent cut without
any operator knowing of it: positions and keyed state are those after the last step, and everything written has been
flushed.

Who calls this. At parallelism 1 the job's loop, in the same thread as the user's program, so that a debugger works;
otherwise `headrace.runtime.lane`, in a process for each lane.
"""

from __future__ import annotations

import gc
import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol, assert_never

from headrace.checkpoint.manifest import FileRef, KeyedFile, OperatorSnapshot, RegionSnapshot
from headrace.checkpoint.marker import SnapshotId
from headrace.checkpoint.redistribution import takes
from headrace.checkpoint.storage import SnapshotFiles
from headrace.common.watermark_strategy import Alignment
from headrace.connector import (
    Boundedness,
    SinkWriter,
    SourceContext,
    SourceReader,
    Transaction,
    TransactionContext,
    WriterContext,
)
from headrace.crash_points import crash_point
from headrace.errors import ExternalError, InternalError, StateError
from headrace.metrics.registry import Sample
from headrace.plan.graph import (
    AssignTimestamps,
    Filter,
    FlatMap,
    Map,
    Node,
    Plan,
    Process,
    ReadSource,
    Reduce,
    Union,
    WriteSink,
)
from headrace.plan.identity import Region, holds, operator_ids, regions
from headrace.runtime.failures import Failures
from headrace.runtime.loop import Calls, compile_loop
from headrace.runtime.messages import (
    Acknowledged,
    AddSplits,
    AlignWatermarks,
    CheckpointAborted,
    CheckpointComplete,
    Close,
    Commit,
    Committed,
    Declined,
    Deploy,
    Deployed,
    Failed,
    Fence,
    Fenced,
    FenceRecorded,
    InputEnded,
    MarkersRead,
    ReadMarkers,
    Run,
    ToCoordinator,
    ToWorker,
    TriggerCheckpoint,
    WatermarksReached,
)
from headrace.runtime.meters import Meters, gives_any_number
from headrace.runtime.operators import OpenOperator, Place, generator_supplier, timestamp_extractor
from headrace.runtime.pipeline import Pipeline, never
from headrace.runtime.settings import Settings
from headrace.runtime.watermarks import (
    MAX_WATERMARK,
    NO_TIMESTAMP,
    Progress,
    Watermarks,
    advance,
    combine,
    watermarks_of,
)

log = logging.getLogger("headrace")

GC_THRESHOLD = 50_000
"""While a job runs: worth 5–10 % over the interpreter's default of 700."""


class StateFiles(Protocol):
    """Where a worker keeps state files: `CheckpointFolder`'s part that workers use."""

    @property
    def files(self) -> SnapshotFiles: ...

    def write_state(self, at: SnapshotId, label: str, chunks: Iterable[bytes]) -> FileRef: ...


class Worker:
    """The worker of a lane, whose number is that of its subtasks."""

    def __init__(
        self,
        plan: Plan,
        settings: Settings,
        files: StateFiles,
        *,
        lane: int = 0,
        attempt_number: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.outbox: list[ToCoordinator] = []
        self._plan = plan
        self._settings = settings
        self._files = files
        self._lane = lane
        self._attempt_number = attempt_number
        self._clock = clock
        self._ids = operator_ids(plan)
        self._regions = regions(plan, lane)
        self._nodes = [plan.node(n) for n in sorted(n for region in self._regions for n in region.nodes)]
        self._transactions: dict[str, Transaction] = {}
        self._operators: dict[int, OpenOperator] = {}
        self._pipelines: dict[int, Pipeline] = {}
        self._readers: dict[int, SourceReader] = {}
        self._writers: dict[int, SinkWriter] = {}
        self._failures = Failures(plan.job_name, attempt_number, clock)
        self._generators: dict[int, Watermarks] = {}
        self._aligned: list[tuple[Alignment, Pipeline]] = []
        self._progress: dict[int, Progress] = {}
        self._meters = Meters(
            self._nodes,
            self._ids,
            lane,
            clock,
            pipelines=self._pipelines,
            writers=self._writers,
            progress=self._progress,
            failures=self._failures,
            is_reported=settings.reporter is not None,
        )
        self._positions: dict[tuple[int, int], list[Any]] = {}
        self._next_watermarks = 0.0
        self._next_alignment = 0.0
        self._turn = 0
        self._is_open = False
        self._is_running = False
        self._has_ended = False
        self._additions = 0
        self._awaits_commit = False
        self._gc_threshold = gc.get_threshold()

    @property
    def records_in(self) -> int:
        """Records read and processed since the start."""
        return sum(pipeline.records_in for pipeline in self._pipelines.values())

    @property
    def records_out(self) -> int:
        """Records handed to writers since the start."""
        return sum(pipeline.records_out for pipeline in self._pipelines.values())

    @property
    def lag(self) -> int | None:
        """Records that are known to be there and were not read yet, over all sources that know."""
        known = [lag for pipeline in self._pipelines.values() if (lag := pipeline.reader.lag()) is not None]
        return sum(known) if known else None

    def samples(self) -> tuple[Sample, ...]:
        """The metrics of all operators; none before they are open."""
        return self._meters.samples() if self._is_open else ()

    @property
    def is_running(self) -> bool:
        """Whether there is something to read, and no snapshot waits for its commit."""
        return self._is_running and not self._has_ended and not self._awaits_commit

    def handle(self, message: ToWorker) -> None:
        """Do what the coordinator says. Errors become a `Failed` in the outbox."""
        try:
            self._handle(message)
        except Exception as error:  # noqa: BLE001 - it travels as a message
            self.fail(error)

    def fail(self, error: Exception) -> None:
        """Nothing more is read, or it would go on where nobody asks any more."""
        self._is_running = False
        self.outbox.append(Failed(error))

    def step(self, timeout_s: float, is_called: Callable[[], bool] = never) -> None:
        """Read, process and write for about `STEP_S`, or until `is_called`; waits at most `timeout_s` for the first
        record."""
        try:
            self._step(timeout_s, is_called)
        except Exception as error:  # noqa: BLE001 - it travels as a message
            self.fail(error)

    def _handle(self, message: ToWorker) -> None:
        match message:
            case Fence():
                self._fence()
            case FenceRecorded(recorded, is_fresh):
                self._fence_recorded(recorded, is_fresh=is_fresh)
            case ReadMarkers(recorded, is_fresh):
                self._read_markers(recorded, is_fresh=is_fresh)
            case Deploy(sources, operators):
                self._failures.checkpoint = max(sources.values(), default=None)
                self._deploy(operators)
            case Commit(number, marker):
                self._commit(number, marker)
            case Run():
                gc.set_threshold(GC_THRESHOLD, *self._gc_threshold[1:])
                self._is_running = True
            case AddSplits(operator_id, splits):
                self._add_splits(operator_id, splits)
            case AlignWatermarks(behind):
                for alignment, pipeline in self._aligned:
                    if alignment.group in behind:
                        pipeline.align(behind[alignment.group], alignment.max_drift_ms)
            case TriggerCheckpoint(snapshot_id, is_final):
                self._checkpoint(snapshot_id, is_final=is_final)
            case CheckpointAborted():
                self._awaits_commit = False
            case CheckpointComplete(number):
                self._complete(number)
            case Close():
                self._close()
            case _:
                assert_never(message)

    # --- start -------------------------------------------------------------------------------------------------------

    def _fence(self) -> None:
        for region in self._regions:
            if region.exactly_once_sinks and region.id not in self._transactions:
                self._transactions[region.id] = self._create_transaction(region)
        for transaction in self._transactions.values():
            transaction.fence()
            crash_point("start.fencing")
        self._say_fenced()

    def _fence_recorded(self, recorded: Sequence[Any], *, is_fresh: bool) -> None:
        for location in recorded:
            self._reach(location, lambda transaction, at: transaction.fence(at), is_fresh=is_fresh)
            crash_point("start.fencing")
        self._say_fenced()

    def _say_fenced(self) -> None:
        self.outbox.append(Fenced({region.id: self._location(region) for region in self._regions}))

    def _read_markers(self, recorded: Sequence[Any], *, is_fresh: bool) -> None:
        markers: dict[str, str | None] = {}

        def read(transaction: Transaction, at: Any) -> None:
            markers[str(at["transactional_id"])] = transaction.read_marker(at)

        for location in recorded:
            self._reach(location, read, is_fresh=is_fresh)
        for transaction in self._transactions.values():
            transactional_id = str(transaction.location["transactional_id"])
            if transactional_id not in markers:
                markers[transactional_id] = transaction.read_marker()
        self.outbox.append(MarkersRead(markers))

    def _create_transaction(self, region: Region) -> Transaction:
        sinks = [op.sink for n in region.exactly_once_sinks if isinstance(op := self._plan.node(n).operator, WriteSink)]
        sources = [op.source for n in region.sources if isinstance(op := self._plan.node(n).operator, ReadSource)]
        context = TransactionContext(
            job_name=self._plan.job_name,
            region=region.id,
            checkpoint_interval_ms=self._settings.checkpoint_interval_ms,
            checkpoint_timeout_ms=self._settings.checkpoint_timeout_ms,
            commit_retries=self._settings.commit_retries,
            is_reported=self._meters.is_reported,
        )
        return sinks[0].create_transaction(sinks, sources, context)

    def _reach(self, location: Any, call: Callable[[Transaction, Any], None], *, is_fresh: bool) -> None:
        """Do something at a recorded location, through that region's own transaction if it is still there, else
        through the first that can: they may be on several clusters."""
        transactional_id = location["transactional_id"]
        at_hand = list(self._transactions.values())
        named = [transaction for transaction in at_hand if transaction.location["transactional_id"] == transactional_id]
        problem = StateError("the program has no exactly-once sink any more")
        for transaction in named or at_hand:
            try:
                call(transaction, location)
            except StateError as error:
                problem = error
            else:
                return
        if at_hand and not is_fresh:
            raise problem
        log.warning(
            "transaction `%s` of an earlier run cannot be reached, what it left open ends with its timeout: %s",
            transactional_id,
            problem,
        )

    def _location(self, region: Region) -> Any:
        transaction = self._transactions.get(region.id)
        return None if transaction is None else dict(transaction.location)

    def _deploy(self, operators: Any) -> None:
        plan, calls = self._plan, dict[int, Calls]()
        for region in self._regions:
            for n in region.nodes:
                node = plan.node(n)
                if isinstance(node.operator, WriteSink):
                    context = WriterContext(
                        plan.job_name,
                        node.name,
                        self._lane,
                        node.parallelism or 1,
                        checks_each=node.tolerates,
                        metrics=self._meters.group(n),
                        is_reported=self._meters.is_reported,
                    )
                    transaction = self._transactions.get(region.id) if n in region.exactly_once_sinks else None
                    self._writers[n] = writer = node.operator.sink.create_writer(context, transaction)
                    calls[n] = Calls(call=writer.serialize, takes_time=writer.serializes_timestamp)
                elif isinstance(node.operator, ReadSource):
                    self._readers[n] = reader = node.operator.source.create_reader(self._source_context(node))
                    strategy = node.operator.watermark_strategy
                    extract = timestamp_extractor(strategy, node.name)
                    is_shown = strategy.generator_supplier is not None
                    calls[n] = Calls(
                        call=reader.deserialize,
                        gives_many=reader.gives_many,
                        skips=reader.skips,
                        extract=extract,
                        generator=extract or is_shown or None,
                        is_shown=is_shown,
                        tally=self._meters.tally(n) if reader.gives_many or reader.skips else None,
                    )
                else:
                    calls[n] = self._open(node, operators.get(self._ids[n]))
        for n, reader in self._readers.items():
            loop = compile_loop(plan, n, calls)
            self._pipelines[n] = pipeline = Pipeline(
                plan, plan.node(n), reader, loop, self._writers, self._clock, self._failures
            )
            if (snapshot := operators.get(self._ids[n])) is not None:
                pipeline.add_splits(self._decode_splits(n, snapshot.splits.values()))
            if (alignment := pipeline.alignment) is not None:
                self._aligned.append((alignment, pipeline))
        self._is_open = True
        self.outbox.append(Deployed())

    def _open(self, node: Node, snapshot: OperatorSnapshot | None) -> Calls:
        n = node.id
        if snapshot is not None and not takes(holds(node), snapshot):
            raise InternalError(f"`{node.name}` ({self._ids[n]!r}) is handed state that it cannot hold")
        match node.operator:
            case Map() | FlatMap() | Filter() | Process() | Reduce():
                operator = self._operators[n] = OpenOperator(node, self._place_of(node), self._meters.group(n))
                if snapshot is not None:
                    operator.restore(snapshot.keyed, self._files.files.read_state)
                calls = operator.open()
                return replace(calls, tally=self._meters.tally(n)) if gives_any_number(node) else calls
            case AssignTimestamps(strategy):
                supplier = generator_supplier(strategy, node.name)
                self._generators[n] = generator = watermarks_of(strategy, supplier, node.name)
                extract = timestamp_extractor(strategy, node.name)
                return Calls(extract=extract, generator=generator, is_shown=supplier is not None)
            case Union():
                return Calls()
            case ReadSource() | WriteSink():
                raise InternalError(f"`{node.name}` has no function to open")
            case _:
                assert_never(node.operator)

    def _place_of(self, node: Node) -> Place:
        settings = self._settings
        return Place(
            self._lane, node.parallelism or 1, settings.max_parallelism, self._attempt_number, settings.job_parameters
        )

    def _source_context(self, node: Node) -> SourceContext:
        commits = self._settings.checkpoint_interval_ms is not None
        return SourceContext(
            self._plan.job_name,
            node.name,
            self._lane,
            node.parallelism or 1,
            commits,
            metrics=self._meters.group(node.id),
            is_reported=self._meters.is_reported,
        )

    def _decode_splits(self, n: int, splits: Iterable[Any]) -> list[Any]:
        operator = self._plan.node(n).operator
        assert isinstance(operator, ReadSource)
        return [operator.source.decode_split(split) for split in splits]

    # --- run ---------------------------------------------------------------------------------------------------------

    def _step(self, timeout_s: float, is_called: Callable[[], bool]) -> None:
        pipelines = [pipeline for pipeline in self._pipelines.values() if not pipeline.is_finished]
        came = [pipeline.step(0, is_called) for pipeline in pipelines]
        if pipelines and not any(came):
            self._turn += 1
            wait_s = min(timeout_s, 0.005) if len(pipelines) > 1 else timeout_s
            pipelines[self._turn % len(pipelines)].step(wait_s, is_called)
        for writer in self._writers.values():
            writer.poll()
        now = self._clock()
        if self._settings.watermark_interval_ms and now >= self._next_watermarks:
            self._next_watermarks = now + self._settings.watermark_interval_ms / 1000
            self._advance_watermarks(now * 1000)
        if self._aligned and now >= self._next_alignment:
            self._report_alignment(now)
        if all(pipeline.is_finished for pipeline in self._pipelines.values()):
            self._end_input()

    def _advance_watermarks(self, now_ms: float, *, is_end: bool = False) -> None:
        for node in self._nodes:
            match node.operator:
                case ReadSource():
                    reached = self._pipelines[node.id].progress(now_ms)
                    # One that may be given more splits is not over before the job is.
                    is_over = is_end or node.operator.source.boundedness is Boundedness.BOUNDED
                    if is_over and self._pipelines[node.id].is_finished:
                        reached = Progress(MAX_WATERMARK)
                case AssignTimestamps():
                    # Watermarks from above end here, all but the last, also where the strategy makes none.
                    generator = self._generators[node.id]
                    came = generator.max_timestamp != generator.last_seen
                    generator.last_seen = generator.max_timestamp
                    reached = generator.progress(now_ms, records_came=came, is_caught_up=not came)
                    if all(self._progress[i].watermark == MAX_WATERMARK for i in node.inputs):
                        reached = Progress(MAX_WATERMARK)
                case Map() | FlatMap() | Filter() | Process() | Reduce() | Union() | WriteSink():
                    reached = combine(self._progress[i] for i in node.inputs)
                case _:
                    assert_never(node.operator)
            self._progress[node.id] = advance(self._progress.get(node.id, Progress()), reached)
            if node.id in self._operators:
                self._operators[node.id].time.progress = self._progress[node.id]

    def _report_alignment(self, now: float) -> None:
        """Say how far each alignment group has come here."""
        inputs: dict[str, list[Progress]] = {}
        for alignment, pipeline in self._aligned:
            inputs.setdefault(alignment.group, []).append(pipeline.reached)
        self._next_alignment = now + min(alignment.update_interval_ms for alignment, _ in self._aligned) / 1000
        groups: dict[str, int | None] = {}
        for group, reached in inputs.items():
            at = combine(reached)
            # A split without a watermark is as far behind as can be, as in Flink.
            groups[group] = None if at.idle else NO_TIMESTAMP if at.watermark is None else at.watermark
        self.outbox.append(WatermarksReached(groups))

    def _end_input(self) -> None:
        self._has_ended = True
        if self._aligned:
            self.outbox.append(WatermarksReached({alignment.group: None for alignment, _ in self._aligned}))
        self._advance_watermarks(self._clock() * 1000)
        self.outbox.append(InputEnded(self._additions))

    def _add_splits(self, operator_id: str, splits: Mapping[str, Any]) -> None:
        self._additions += 1
        self._has_ended = False
        for n, pipeline in self._pipelines.items():
            if self._ids[n] == operator_id:
                pipeline.add_splits(self._decode_splits(n, splits.values()))

    # --- checkpoint --------------------------------------------------------------------------------------------------

    def _checkpoint(self, snapshot_id: SnapshotId, *, is_final: bool) -> None:
        self._failures.checkpoint = snapshot_id.number
        if is_final:
            self._is_running = False
            if self._has_ended:
                self._advance_watermarks(self._clock() * 1000, is_end=True)
        for writer in self._writers.values():
            if is_final:
                writer.finish()
            else:
                writer.flush()
        crash_point("checkpoint.flushed")
        self._positions.clear()
        try:
            snapshots = {region.id: self._snapshot(region, snapshot_id) for region in self._regions}
        except ExternalError as error:
            self.outbox.append(Declined(snapshot_id.number, str(error)))
            return
        # What is written from here on would be committed with this snapshot, and is behind it.
        self._awaits_commit = bool(self._transactions)
        self.outbox.append(Acknowledged(snapshot_id.number, snapshots))

    def _snapshot(self, region: Region, snapshot_id: SnapshotId) -> RegionSnapshot:
        operators: dict[str, OperatorSnapshot] = {}
        for n in region.nodes:
            node = self._plan.node(n)
            if isinstance(node.operator, ReadSource):
                splits = self._pipelines[n].reader.snapshot()
                self._positions[snapshot_id.number, n] = splits
                encoded = {split.split_id: node.operator.source.encode_split(split) for split in splits}
                operators[self._ids[n]] = OperatorSnapshot(encoded, name=node.name)
            elif (
                n in self._operators and (keyed := self._operators[n].keyed) is not None and not keyed.backend.is_empty
            ):
                chunks = keyed.backend.snapshot(self._settings.max_parallelism)
                file = self._files.write_state(snapshot_id, f"{self._ids[n]}-{self._lane}", chunks)
                operators[self._ids[n]] = OperatorSnapshot(
                    keyed=(KeyedFile(file, 0, self._settings.max_parallelism - 1),), name=node.name
                )
        return RegionSnapshot(operators, self._location(region))

    def _commit(self, number: int, marker: str) -> None:
        for region in self._regions:
            crash_point("commit.region")
            if region.id in self._transactions:
                self._transactions[region.id].commit(marker)
            self.outbox.append(Committed(region.id, number))
        self._awaits_commit = False

    def _complete(self, number: int) -> None:
        for writer in self._writers.values():
            writer.notify_checkpoint_complete()
        for n, pipeline in self._pipelines.items():
            # A lane that came back during the commit took no part in the snapshot.
            if (splits := self._positions.pop((number, n), None)) is not None:
                pipeline.reader.notify_checkpoint_complete(splits)

    def _close(self) -> None:
        self._is_running = False
        self._failures.say_all(self._nodes)
        gc.set_threshold(*self._gc_threshold)
        parts: list[Any] = [*self._operators.values(), *self._readers.values()]
        parts += [*self._writers.values(), *self._transactions.values()]
        for part in parts:
            try:
                part.close()
            except Exception as error:  # noqa: BLE001 - the rest has to be closed too
                self.outbox.append(Failed(error))
