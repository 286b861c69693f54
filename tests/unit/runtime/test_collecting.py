"""When what a job collects is handed to its program: what is in front of a complete checkpoint, and once."""

from __future__ import annotations

from tests.unit.runtime.endless import Numbers
from tests.unit.runtime.test_job import job_of

from headrace.connector.builtin import Collected, CollectSink
from headrace.plan.graph import Plan
from headrace.plan.identity import regions
from headrace.runtime.collecting import Collecting
from headrace.runtime.messages import Acknowledged, CheckpointComplete, Deploy


class Driven:
    """Lane 0 of a job that collects, driven by hand."""

    def __init__(self, *, on_checkpoint: bool = True) -> None:
        self.collected = Collected()
        self.plan: Plan = job_of(Numbers(), sink=CollectSink(self.collected, on_checkpoint))
        self.collecting = Collecting(self.plan)

    def take(self, *elements: int) -> None:
        self.collecting.take(0, elements)

    def acknowledge(self, number: int) -> None:
        self.collecting.on_said(Acknowledged(number, {}), 0)

    def complete(self, number: int) -> None:
        self.collecting.on_sent(CheckpointComplete(number), 0)

    def start_from(self, number: int) -> None:
        self.collecting.on_sent(Deploy({regions(self.plan)[0].id: number}, {}), 0)

    def seen(self) -> list[int]:
        """What the program can take now."""
        self.collecting.take(0, [])
        self.collected.end()
        seen: list[int] = []
        while (elements := self.collected.take()) is not None:
            seen += elements
        return seen


def test_without_checkpoints_elements_are_handed_over_at_once() -> None:
    job = Driven(on_checkpoint=False)
    job.take(1, 2)
    assert job.seen() == [1, 2]


def test_elements_are_handed_over_when_the_checkpoint_behind_them_is_complete() -> None:
    job = Driven()
    job.take(1, 2)
    job.acknowledge(7)
    job.take(3)
    job.complete(7)
    assert job.seen() == [1, 2]


def test_elements_of_a_checkpoint_that_failed_come_with_the_next() -> None:
    job = Driven()
    job.take(1)
    job.acknowledge(7)
    job.take(2)
    job.acknowledge(8)
    job.complete(8)
    assert job.seen() == [1, 2]


def test_what_is_produced_again_is_shown_once() -> None:
    job = Driven()
    job.take(1)
    job.acknowledge(7)
    job.complete(7)
    job.take(2)
    job.acknowledge(8)
    job.take(3)
    job.start_from(7)
    job.take(2, 3)
    job.acknowledge(10)
    job.complete(10)
    assert job.seen() == [1, 2, 3]


def test_what_is_in_front_of_the_snapshot_that_a_restart_begins_from_is_not_forgotten() -> None:
    job = Driven()
    job.take(1)
    job.acknowledge(7)
    job.start_from(7)
    job.take(2)
    job.acknowledge(9)
    job.complete(9)
    assert job.seen() == [1, 2]
