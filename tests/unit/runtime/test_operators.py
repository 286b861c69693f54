"""Operators of a plan made ready, and what of a snapshot they take over."""

from __future__ import annotations

import ipaddress
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.unit.runtime.endless import Ledger, LedgerSink, Numbers
from tests.unit.runtime.test_job import (
    NO_WATERMARKS,
    RESTART_ONCE,
    Count,
    failing_once,
    job_of,
    run_until,
    settings,
    with_folder,
)

from headrace.checkpoint.manifest import FileRef, KeyedFile, OperatorSnapshot
from headrace.checkpoint.storage import CheckpointFolder
from headrace.common import Types, WatermarkStrategy
from headrace.common.watermark_strategy import TimestampAssigner
from headrace.connector.builtin import PrintSink
from headrace.datastream import StreamExecutionEnvironment
from headrace.datastream.functions import MapFunction, RuntimeContext
from headrace.datastream.state import ValueStateDescriptor
from headrace.errors import ConfigError, InternalError, NotSupportedError, StateError
from headrace.plan.graph import (
    AssignTimestamps,
    Map,
    Operator,
    Plan,
    PlanBuilder,
    Process,
    ReadSource,
    Reduce,
    Union,
    WriteSink,
)
from headrace.plan.identity import holds, operator_ids
from headrace.runtime.job import run_job
from headrace.runtime.messages import Deploy, Deployed, Failed
from headrace.runtime.operators import CurrentKey, HeapValueState, OpenOperator, Place
from headrace.runtime.settings import read_settings
from headrace.runtime.worker import Worker

KEYED = OperatorSnapshot(keyed=(KeyedFile(FileRef("f", 1, ""), 0, 127),))
SPLITS = OperatorSnapshot({"a": {"id": "a", "position": 7}})


class Last(MapFunction):
    """Remembers the last one of each key, where there are keys."""

    def open(self, runtime_context: RuntimeContext) -> None:
        try:
            self.last = runtime_context.get_state(ValueStateDescriptor("last", Types.INT()))
        except ConfigError:
            self.last = None

    def map(self, value: Any) -> Any:
        if self.last is not None:
            self.last.update(value)
        return value


def counting(ledger: Ledger, limit: int | None = None, **uids: str) -> Plan:
    """numbers → counts, keyed → text → sink; with these uids."""
    builder = PlanBuilder()
    builder.add(ReadSource(Numbers(limit=limit), NO_WATERMARKS), "numbers")
    builder.add(Process(Count()), "counts", (0,), key_selector=lambda x: 0)
    builder.add(Map(lambda x: x), "text", (1,))
    builder.add(WriteSink(LedgerSink(ledger)), "sink", (2,))
    for node in builder.build("job"):
        builder.change(node.id, uid=uids.get(node.name))
    return builder.build("job")


@pytest.mark.parametrize(
    ("moved", "expected"),
    [
        ({"text": "C"}, r"keyed operator `counts` \('C'; now the uid of `text`, which keeps no state\), which no op"),
        ({"sink": "C"}, r"keyed operator `counts` \('C'; now the uid of `sink`, which keeps no state\), which no op"),
        ({"numbers": "C"}, r"keyed operator `counts` \('C'; now the uid of `numbers`, a source\), "),
        ({"counts": "C", "text": "N", "numbers": "T"}, r"source `numbers` \('N'; now the uid of `text`, which keeps"),
        ({"counts": "N", "numbers": "C"}, r"`counts` \('C'; now .* `numbers`, a source\), source `numbers` \('N'; now"),
    ],
    ids=str,
)
def test_state_whose_uid_has_another_operator_is_refused_unless_it_may_be_left_behind(
    tmp_path: Path, moved: dict[str, str], expected: str
) -> None:
    ledger = Ledger()
    run_until(counting(ledger, numbers="N", counts="C"), with_folder(tmp_path), ledger, 100)
    before = list(ledger.values)
    with pytest.raises(StateError, match=expected):
        run_job(counting(ledger, 1, **{"numbers": "N"} | moved), with_folder(tmp_path))
    assert ledger.values == before


def test_state_whose_uid_has_another_operator_is_dropped_where_that_is_allowed(tmp_path: Path) -> None:
    ledger = Ledger()
    run_until(counting(ledger, numbers="N", counts="C"), with_folder(tmp_path), ledger, 100)
    allowed = with_folder(tmp_path)
    allowed.set_string("execution.state-recovery.ignore-unclaimed-state", "true")
    before = len(ledger.values)
    run_until(counting(ledger, numbers="N", text="C"), allowed, ledger, before + 1)
    assert ledger.values[before] == (0, 1)


def test_keyed_state_whose_operator_lost_its_key_is_refused(tmp_path: Path) -> None:
    ledger = Ledger()

    def program(key: Callable[[Any], Any] | None, limit: int | None = None) -> Plan:
        builder = PlanBuilder()
        builder.add(ReadSource(Numbers(limit=limit), NO_WATERMARKS), "numbers")
        builder.add(Map(Last()), "last", (0,), key_selector=key)
        builder.add(WriteSink(LedgerSink(ledger)), "sink", (1,))
        builder.change(1, uid="last one")
        return builder.build("job")

    run_until(program(lambda x: 0), with_folder(tmp_path), ledger, 100)
    with pytest.raises(StateError, match=r"`last` \('last one'; now the uid of `last`, which keeps no state\)"):
        run_job(program(None, limit=1), with_folder(tmp_path))


def by_parity_and_in_all(ledger: Ledger, *branches: str, limit: int | None = None, named: bool = False) -> Plan:
    """Counts of the same numbers, by another key in each branch."""
    keys: dict[str, Callable[[int], str]] = {
        "parity": lambda x: f"parity {x % 2}",
        "all": lambda x: "all",
        "other": lambda x: "other",
    }
    builder = PlanBuilder()
    source = builder.add(ReadSource(Numbers(limit=limit), NO_WATERMARKS), "numbers").id
    nodes = []
    for branch in branches:
        name = branch if named else "KEYED PROCESS"
        nodes.append(builder.add(Process(Count()), name, (source,), key_selector=keys[branch]).id)
    builder.add(WriteSink(LedgerSink(ledger)), "sink", (builder.add(Union(), "union", tuple(nodes)).id,))
    return builder.build("job")


def test_like_operators_that_are_named_go_on_with_their_own_state_in_whatever_order(tmp_path: Path) -> None:
    ledger = Ledger()
    run_until(by_parity_and_in_all(ledger, "parity", "all", named=True), with_folder(tmp_path), ledger, 1_000)
    swapped = by_parity_and_in_all(ledger, "all", "parity", named=True)
    run_until(swapped, with_folder(tmp_path), ledger, len(ledger.values) + 1_000)
    counts = [count for key, count in ledger.values if key == "all"]
    assert counts == list(range(1, len(ledger.values) // 2 + 1))


@pytest.mark.parametrize("before", [("all",), ("parity", "all")], ids=len)
def test_one_more_like_operator_goes_on_with_no_state_of_another(tmp_path: Path, before: tuple[str, ...]) -> None:
    ledger = Ledger()
    run_until(by_parity_and_in_all(ledger, *before), with_folder(tmp_path), ledger, 1_000)
    with pytest.raises(StateError, match=r"state of keyed operator `KEYED PROCESS` \(.*Give the operator that"):
        run_job(by_parity_and_in_all(ledger, "other", *before, limit=1), with_folder(tmp_path))


def test_operators_that_only_their_order_tells_apart_are_warned_of_and_run(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ledger = Ledger()
    run_until(by_parity_and_in_all(ledger, "parity", "all"), with_folder(tmp_path), ledger, 100)
    assert "2 keyed operators can only be told apart by their order" in caplog.text
    run_until(by_parity_and_in_all(ledger, "parity", "all"), with_folder(tmp_path), ledger, len(ledger.values) + 100)
    counts = [count for key, count in ledger.values if key == "all"]
    assert counts == list(range(1, len(ledger.values) // 2 + 1))


@pytest.mark.parametrize("snapshot", [SPLITS, KEYED], ids=["splits", "keyed state"])
@pytest.mark.parametrize(
    ("operator", "key"),
    [
        (Map(str), None),
        (Map(Last()), None),
        (Union(), None),
        (AssignTimestamps(WatermarkStrategy.no_watermarks()), None),
        (Process(Count()), str),
    ],
    ids=lambda given: type(given).__name__,
)
def test_a_worker_takes_no_state_for_an_operator_that_cannot_hold_it(
    tmp_path: Path, operator: Operator, key: Any, snapshot: OperatorSnapshot
) -> None:
    builder = PlanBuilder()
    builder.add(ReadSource(Numbers(limit=1), NO_WATERMARKS), "numbers")
    builder.add(operator, "other", (0,), key_selector=key)
    builder.add(WriteSink(PrintSink()), "sink", (1,))
    plan = builder.build("job")
    worker = Worker(plan, read_settings(with_folder(tmp_path)), CheckpointFolder(tmp_path, "job"))
    worker.handle(Deploy({}, {operator_ids(plan)[1]: snapshot}))
    [said] = worker.outbox
    if key is not None and snapshot is KEYED:
        # It may take it: that there is no such file is another matter.
        assert isinstance(said, Failed)
        assert not isinstance(said.error, InternalError)
    else:
        assert isinstance(said, Failed)
        assert isinstance(said.error, InternalError)
        assert "`other`" in str(said.error)
        assert "is handed state that it cannot hold" in str(said.error)
    worker = Worker(plan, read_settings(with_folder(tmp_path)), CheckpointFolder(tmp_path, "job"))
    worker.handle(Deploy({}, {operator_ids(plan)[1]: OperatorSnapshot()}))
    assert worker.outbox == [Deployed()]


def test_an_operator_without_state_takes_none() -> None:
    builder = PlanBuilder()
    operator = OpenOperator(builder.add(Map(str), "text"), Place(0, 1, 128, 0, {}))
    operator.restore((), lambda _: b"")
    with pytest.raises(InternalError, match="`text` is handed keyed state, and keeps none"):
        operator.restore(KEYED.keyed, lambda _: b"")


# --- keys ------------------------------------------------------------------------------------------------------------

UNFIT: list[Callable[[int], Any]] = [
    lambda x: Path(str(x)),
    lambda x: ipaddress.ip_address(x),
    lambda x: (x, float("nan")),
    lambda x: x if x != 3 else float("nan"),
]


@pytest.mark.parametrize("key", UNFIT, ids=["path", "address", "nan in a tuple", "nan"])
@pytest.mark.parametrize("operator", [Reduce(max), Process(Count()), Map(Last())], ids=["reduce", "process", "map"])
def test_the_first_record_with_a_key_that_cannot_be_one_ends_the_job_naming_operator_and_record(
    tmp_path: Path, operator: Operator, key: Callable[[int], Any]
) -> None:
    plan = job_of(Numbers(limit=10_000), (operator, key))
    name, number = type(operator).__name__.lower(), 3 if key is UNFIT[-1] else 0
    with pytest.raises(
        NotSupportedError, match=rf"^`{name}` failed on the record at number {number} of split a: .* cannot be a key"
    ):
        run_job(plan, with_folder(tmp_path, **RESTART_ONCE))


def test_a_key_that_cannot_be_one_is_not_kept_whatever_the_function_makes_of_it() -> None:
    current = CurrentKey(Path("a"))
    table: dict[Any, Any] = {}
    state = HeapValueState(table, current)
    with pytest.raises(NotSupportedError):
        state.update(1)
    state.update(None)
    assert table == {}


def test_state_that_cannot_be_pickled_ends_the_job_naming_the_operator(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Functions(MapFunction):
        def open(self, runtime_context: RuntimeContext) -> None:
            self.state = runtime_context.get_state(ValueStateDescriptor("functions", Types.PICKLED_BYTE_ARRAY()))

        def map(self, value: int) -> int:
            self.state.update(lambda: value)
            return value

    plan = job_of(Numbers(), (Map(Functions()), lambda x: 0), sink=LedgerSink(Ledger()))
    with pytest.raises(ConfigError, match=r"state 'functions' of operator 'map' holds a function .* be pickled"):
        run_job(plan, with_folder(tmp_path, restart__strategy_fixed__delay_attempts=3, **RESTART_ONCE))
    assert "restarting" not in caplog.text


# --- what runs -------------------------------------------------------------------------------------------------------


class Numbering(TimestampAssigner):
    """Leaves a file that says how many it had seen before, when it sees the first one of an attempt."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.seen = 0

    def extract_timestamp(self, value: Any, record_timestamp: int) -> int:
        if value == 0:
            (self.folder / f"seen-{len(list(self.folder.glob('seen-*')))}-{self.seen}").touch()
        self.seen += 1
        return int(value)


@pytest.mark.parametrize("of_source", [True, False])
def test_timestamp_assigners_are_fresh_after_a_restart(tmp_path: Path, of_source: bool) -> None:
    strategy = WatermarkStrategy.for_monotonous_timestamps().with_timestamp_assigner(Numbering(tmp_path))
    fail = Map(failing_once(tmp_path, 100))
    # Without an interval, the second attempt begins at 0 too.
    options = settings(execution_checkpointing_dir=tmp_path / "c", **RESTART_ONCE)
    if of_source:
        run_job(job_of(Numbers(limit=200), fail, strategy=strategy), options)
    else:
        run_job(job_of(Numbers(limit=200), AssignTimestamps(strategy), fail), options)
    assert sorted(path.name for path in tmp_path.glob("seen-*")) == ["seen-0-0", "seen-1-0"]


@pytest.mark.parametrize("of_source", [True, False])
def test_a_timestamp_assigner_that_cannot_be_copied_is_refused_with_the_cure(of_source: bool) -> None:
    lock = threading.Lock()
    strategy = WatermarkStrategy.for_monotonous_timestamps().with_timestamp_assigner(lambda value, _: lock and value)
    name, plan = "numbers", job_of(Numbers(limit=3), strategy=strategy)
    if not of_source:
        name, plan = "assigntimestamps", job_of(Numbers(limit=3), AssignTimestamps(strategy))
    with pytest.raises(ConfigError, match=rf"the timestamp assigner of `{name}` cannot be copied.*when it is called"):
        run_job(plan, settings())


def test_an_operator_of_a_new_kind_is_passed_over_nowhere(tmp_path: Path) -> None:
    plan = job_of(Numbers(limit=1), Map(str))
    worker = Worker(plan, read_settings(with_folder(tmp_path)), CheckpointFolder(tmp_path, "job"))
    worker.handle(Deploy({}, {}))
    new = replace(plan.node(1), operator=object(), key_selector=str)  # type: ignore[arg-type]
    opened = OpenOperator(plan.node(1), Place(0, 1, 128, 0, {}))
    opened.node = new
    worker._nodes = [plan.node(0), new, plan.node(2)]
    for ask in (
        lambda: holds(new),
        opened.open,
        lambda: worker._open(new, None),
        lambda: worker._advance_watermarks(0),
    ):
        with pytest.raises(AssertionError, match="Expected code to be unreachable"):
            ask()


def test_a_copied_function_makes_elements_of_the_programs_own_classes() -> None:
    @dataclass
    class Item:
        cents: int

    class Price(msgspec.Struct):
        cents: int

    for kind in (Item, Price):
        # It keeps what it knows of a dataclass in the class, where nothing can copy it.
        msgspec.json.decode(b'{"cents": 1}', type=kind)
        stream = StreamExecutionEnvironment.get_execution_environment().from_collection([1, 2])
        made = stream.map(lambda cents, kind=kind: kind(cents)).execute_and_collect(limit=2)
        assert made == [kind(1), kind(2)]
        assert type(made[0]) is kind
