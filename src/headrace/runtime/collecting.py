"""What `execute_and_collect` hands to the program, and when.

Theory of operation. Without checkpoints an element is handed over at once. With checkpoints it is held until the one
behind it is complete: a worker that starts again from a checkpoint produces what came after it anew, and what came
before is shown once. So what is held outlives workers and attempts; each part carries the number of the snapshot that
it is in front of, or infinity while there is none.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from headrace.connector.builtin import CollectSink
from headrace.plan.graph import Node, Plan, WriteSink
from headrace.plan.identity import regions
from headrace.plan.parallelism import lanes
from headrace.runtime.messages import Acknowledged, CheckpointComplete, Deploy, ToCoordinator, ToWorker


class Collecting:
    """Elements on their way from the lanes of a job to its program; nothing, if the plan has no `CollectSink`."""

    def __init__(self, plan: Plan) -> None:
        self._sink = next((sink for node in plan if (sink := _collect_sink(node)) is not None), None)
        # In each lane, the region that collects.
        self._regions = {
            region.id
            for lane in range(lanes(plan))
            for region in regions(plan, lane)
            if any(_collect_sink(plan.node(n)) is not None for n in region.nodes)
        }
        self._held: dict[int, list[tuple[float, Sequence[Any]]]] = {}

    def take(self, lane: int, elements: Sequence[Any]) -> None:
        """A lane has these."""
        assert self._sink is not None
        if self._sink.on_checkpoint:
            self._held.setdefault(lane, []).append((math.inf, elements))
        else:
            self._sink.collected.put(elements)

    def on_said(self, said: ToCoordinator, lane: int) -> None:
        """A lane's worker says this."""
        if isinstance(said, Acknowledged) and lane in self._held:
            self._held[lane] = [(min(at, said.number), elements) for at, elements in self._held[lane]]

    def on_sent(self, message: ToWorker, lane: int) -> None:
        """The coordinator says this to a lane."""
        if lane not in self._held:
            return
        match message:
            case Deploy(sources):
                # What is behind the snapshot that the lane starts from is produced again.
                number = next((at for region, at in sources.items() if region in self._regions), -1)
                self._held[lane] = self._in_front(lane, number)
            case CheckpointComplete(number):
                assert self._sink is not None
                for _, elements in self._in_front(lane, number):
                    self._sink.collected.put(elements)
                self._held[lane] = [(at, elements) for at, elements in self._held[lane] if at > number]
            case _:
                pass

    def _in_front(self, lane: int, number: int) -> list[tuple[float, Sequence[Any]]]:
        return [(at, elements) for at, elements in self._held[lane] if at <= number]


def _collect_sink(node: Node) -> CollectSink | None:
    match node.operator:
        case WriteSink(CollectSink() as sink):
            return sink
        case _:
            return None


@dataclass(frozen=True, slots=True)
class LaneCollected:
    """What stands in for the program's `Collected` where a lane's worker is in the program's own process."""

    collecting: Collecting
    lane: int

    def put(self, elements: Sequence[Any]) -> None:
        """Take a copy: the list is the engine's."""
        self.collecting.take(self.lane, list(elements))


def with_collected(plan: Plan, collected: Any) -> Plan:
    """The plan with something else in the place of the program's `Collected`."""
    nodes = [
        node
        if (sink := _collect_sink(node)) is None
        else replace(node, operator=WriteSink(replace(sink, collected=collected)))
        for node in plan
    ]
    return replace(plan, nodes=tuple(nodes))
