"""The metrics of operators, of checkpoints and of a job, without Kafka."""

from __future__ import annotations

import re
import time
import urllib.request
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.runtime.endless import Ledger, LedgerSink, Numbers
from tests.unit.runtime.test_job import failing_once, job_of, with_folder
from tests.unit.runtime.test_loop import calls_of, interpret, plans, run_loop

from headrace.common import WatermarkStrategy
from headrace.connector import ErrorPolicy
from headrace.connector.builtin import PrintSink
from headrace.plan.graph import Filter, Map, Plan, WriteSink
from headrace.runtime.job import Job, run_job
from headrace.runtime.link import LocalLink
from headrace.runtime.loop import compile_loop
from headrace.runtime.meters import elements, gives_any_number

OPERATOR = "taskmanager_job_task_operator_"
SHOWN: dict[str, Any] = {"metrics_reporters": "prom", "metrics_reporter_prom_port": "0"}


@given(plans(), st.lists(st.integers(-20, 20), max_size=12))
def test_operators_take_and_give_as_many_elements_as_they_do_one_by_one(plan: Plan, records: list[int]) -> None:
    times = [1_000 + 10 * i for i in range(len(records))]
    calls = calls_of(plan)
    own = {n for n, call in calls.items() if call.gives_many or call.skips}
    tallies = {node.id: [0] for node in plan if gives_any_number(node) or node.id in own}
    loop = compile_loop(plan, 0, {n: replace(call, tally=tallies.get(n)) for n, call in calls.items()})
    run_loop(loop, records, times)
    came, _ = elements(plan, {0: len(records)}, {}, {n: tally[0] for n, tally in tallies.items()}, {})
    written = {n: len(out) for n, out in interpret(plan, 0, records, times).items()}
    assert {n.id: came[n.id] for n in plan if isinstance(n.operator, WriteSink) and came[n.id]} == written


def values(page: str, name: str, **labels: str) -> list[float]:
    wanted = [f'{key}="{value}"' for key, value in labels.items()]
    lines = re.findall(rf"^flink_{name}{{(.*)}} (\S+)$", page, re.M)
    return [float(value) for have, value in lines if all(each in have for each in wanted)]


def running(
    plan: Plan, folder: Path, caplog: pytest.LogCaptureFixture, **options: Any
) -> tuple[Job, Callable[..., str]]:
    """A job that is running, and a function that waits until its page is as wanted."""
    caplog.set_level("INFO", logger="headrace")
    job = Job(plan, with_folder(folder, **SHOWN | options))
    job.start()
    deadline = time.monotonic() + 60

    def until(wanted: Callable[[str], object]) -> str:
        while True:
            assert time.monotonic() < deadline
            assert not job.has_ended, job.take_unheard_failure()
            if (url := re.search(r"metrics of job `job`: (\S+)", caplog.text)) is not None:
                with urllib.request.urlopen(url[1], timeout=10) as answer:
                    page = str(answer.read().decode())
                if wanted(page):
                    return page

    return job, until


def test_a_job_shows_its_metrics_from_its_start_to_its_end_and_through_a_restart(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sink = LedgerSink(Ledger())
    plan = job_of(Numbers(), Map(failing_once(tmp_path, 100)), Filter(lambda x: x % 2 == 0), sink=sink)
    restart = {"restart__strategy_type": "fixed-delay", "restart__strategy_fixed__delay_delay": "50 ms"}
    job, until = running(plan, tmp_path, caplog, **restart)
    until(lambda page: values(page, "jobmanager_job_numRestarts") == [1])
    page = until(lambda page: sum(values(page, f"{OPERATOR}numRecordsIn", operator_name="sink")) > 100)

    (came,) = values(page, f"{OPERATOR}numRecordsIn", operator_name="filter")
    (went,) = values(page, f"{OPERATOR}numRecordsOut", operator_name="filter")
    assert went == pytest.approx(came / 2, abs=1)
    assert values(page, f"{OPERATOR}numRecordsIn", operator_name="sink") == [went]
    assert values(page, f"{OPERATOR}numRecordsSend", operator_name="sink") == [went]
    assert values(page, f"{OPERATOR}currentOutputWatermark", operator_name="numbers") == [-(2.0**63)]
    assert values(page, f"{OPERATOR}watermarkLag") == values(page, f"{OPERATOR}currentEmitEventTimeLag") == []
    until(lambda page: values(page, "jobmanager_job_numberOfCompletedCheckpoints")[0] > 2)
    assert "restarting in" in caplog.text
    assert caplog.text.count("metrics of job") == 1
    url = caplog.text.split("metrics of job `job`: ")[1].split()[0]
    job.cancel().result()
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(url, timeout=10)


def test_what_an_attempt_failed_with_is_shown_until_the_next_has_something_to_show(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    plan = job_of(Numbers(), Map(failing_once(tmp_path, 100)), sink=LedgerSink(Ledger()))
    restart = {"restart__strategy_type": "fixed-delay", "restart__strategy_fixed__delay_delay": "1 min"}
    job, until = running(plan, tmp_path, caplog, **restart)
    page = until(lambda page: sum(values(page, "jobmanager_job_downtime")))
    assert values(page, f"{OPERATOR}numRecordsIn", operator_name="numbers") != []
    assert values(page, "jobmanager_job_uptime") == [0]
    assert values(page, "jobmanager_job_numberOfInProgressCheckpoints") == [0]
    job.cancel().result()


def test_lanes_are_told_apart_by_their_subtask_and_one_that_starts_again_counts_anew(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    nothing = Filter(lambda x: False)
    plan = job_of(Numbers(splits=("a", "b", "c", "d")), Map(failing_once(tmp_path, 2_000)), nothing, sink=PrintSink())
    restart = {"restart__strategy_type": "fixed-delay", "restart__strategy_fixed__delay_delay": "1 ms"}
    job, until = running(plan, tmp_path, caplog, parallelism_default=2, **restart)

    def read(page: str) -> list[float]:
        return [sum(values(page, f"{OPERATOR}numRecordsIn", operator_name="map", subtask_index=i)) for i in "01"]

    page = until(lambda page: values(page, "jobmanager_job_numRestarts") == [1] and min(read(page)) > 2_000)
    assert values(page, f"{OPERATOR}numRecordsOut", operator_name="map") == read(page)
    assert values(page, f"{OPERATOR}numRecordsOut", operator_name="filter") == [0, 0]
    job.cancel().result()


def test_lags_in_event_time_are_those_of_the_last_record_and_of_the_watermark(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    # Records of 1970, and a bound that keeps the watermark behind them.
    strategy = WatermarkStrategy.for_monotonous_timestamps()
    plan = job_of(Numbers(timestamps=True), sink=LedgerSink(Ledger()), strategy=strategy)
    job, until = running(plan, tmp_path, caplog)
    page = until(lambda page: values(page, f"{OPERATOR}watermarkLag"))
    (since_1970,), (behind,) = (
        values(page, f"{OPERATOR}currentEmitEventTimeLag"),
        values(page, f"{OPERATOR}watermarkLag"),
    )
    assert 1.6e12 < since_1970 <= behind
    (watermark,) = values(page, f"{OPERATOR}currentInputWatermark", operator_name="sink")
    assert behind + watermark == pytest.approx(since_1970 + watermark, abs=60_000)
    assert values(page, f"{OPERATOR}currentOutputWatermark", operator_name="numbers") == [watermark]
    job.cancel().result()


def test_records_that_the_job_goes_on_without_are_counted_where_they_failed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    plan = job_of(Numbers(), Map(lambda x: 1 // (x % 10)), sink=LedgerSink(Ledger()))
    nodes = tuple(replace(node, error_policy=ErrorPolicy.drop()) if node.name == "map" else node for node in plan)
    job, until = running(replace(plan, nodes=nodes), tmp_path, caplog)
    page = until(lambda page: sum(values(page, f"{OPERATOR}numRecordsDropped")) > 10)
    (came,), (dropped,) = (
        values(page, f"{OPERATOR}numRecordsIn", operator_name="map"),
        values(page, f"{OPERATOR}numRecordsDropped"),
    )
    assert dropped == pytest.approx(came / 10, abs=1)
    assert values(page, f"{OPERATOR}numRecordsIn", operator_name="sink") == [came - dropped]
    job.cancel().result()


def test_without_a_reporter_nothing_is_counted_one_by_one_and_nobody_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="headrace")
    loops = []
    monkeypatch.setattr(
        "headrace.runtime.worker.compile_loop",
        lambda *arguments: loops.append(compile_loop(*arguments)) or loops[-1],
    )
    monkeypatch.setattr(LocalLink, "samples", lambda self: pytest.fail("nobody wants to know"))
    run_job(job_of(Numbers(limit=10), Filter(bool), sink=LedgerSink(Ledger())), with_folder(tmp_path))
    assert "+= 1" not in loops[0].source
    assert "metrics" not in caplog.text
