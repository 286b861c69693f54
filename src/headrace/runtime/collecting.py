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
from headrace.plan.graph import Plan, WriteSink
from headrace.plan.identity import regions
from headrace.runtime.messages import Acknowledged, CheckpointComplete, Deploy, ToCoordinator, ToWorker


class Collecting:
    """Elements on their way from the lanes of a job to its program; nothing, if the plan has no `CollectSink`."""

    def __init__(self, plan: Plan) -> None:
        found = [n for n in plan if isinstance(n.operator, WriteSink) and isinstance(n.operator.sink, CollectSink)]
        self._node = found[0] if found else None
        self._held: dict[int, list[tuple[float, Sequence[Any]]]] = {}
        self._plan = plan

    @property
    def _sink(self) -> CollectSink:
        assert self._node is not None
        assert isinstance(self._node.operator, WriteSink)
        assert isinstance(self._node.operator.sink, CollectSink)
        return self._node.operator.sink

    def take(self, lane: int, elements: Sequence[Any]) -> None:
        """A lane has these."""
        if self._sink.on_checkpoint:
            self._held.setdefault(lane, []).append((math.inf, elements))
        else:
            self._sink.collected.put(elements)

    def on_said(self, said: ToCoordinator, lane: int) -> None:
        """A lane's worker says this."""
        if self._node is not None and isinstance(said, Acknowledged):
            held = self._held.get(lane, [])
            self._held[lane] = [(min(at, said.number), elements) for at, elements in held]

    def on_sent(self, message: ToWorker, lane: int) -> None:
        """The coordinator says this to a lane."""
        if self._node is None:
            return
        match message:
            case Deploy(sources):
                # What is behind the snapshot that the lane starts from is produced again.
                own = [sources[region.id] for region in regions(self._plan, lane) if self._node.id in region.nodes]
                self._held[lane] = self._in_front(lane, own[0]) if own else []
            case CheckpointComplete(number):
                for _, elements in self._in_front(lane, number):
                    self._sink.collected.put(elements)
                self._held[lane] = [(at, elements) for at, elements in self._held.get(lane, []) if at > number]
            case _:
                pass

    def _in_front(self, lane: int, number: int) -> list[tuple[float, Sequence[Any]]]:
        return [(at, elements) for at, elements in self._held.get(lane, []) if at <= number]


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
        replace(node, operator=WriteSink(replace(node.operator.sink, collected=collected)))
        if isinstance(node.operator, WriteSink) and isinstance(node.operator.sink, CollectSink)
        else node
        for node in plan
    ]
    return replace(plan, nodes=tuple(nodes))
