"""How many subtasks each operator has, and so how many lanes the job runs in.

Lane *i* is the worker with subtask *i* of every operator that has one. Elements never leave their lane, as nothing
hands them from one to another yet: operators that are connected have to have the same parallelism, and what would send
elements to another lane, a key above all, is refused by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from headrace.errors import NotSupportedError
from headrace.plan.graph import Node, Plan, ReadSource
from headrace.plan.identity import connected


def with_parallelism(plan: Plan, default: int) -> Plan:
    """The plan with `parallelism` set in every node. Raises `NotSupportedError` for what would need an exchange.

    A source that only one subtask can read (a collection) has one; if all that feeds an operator is such, it runs in
    one lane whatever the default.

    >>> from headrace.common import WatermarkStrategy
    >>> from headrace.connector.builtin import CollectionSource, PrintSink
    >>> from headrace.plan.graph import PlanBuilder, WriteSink
    >>> builder = PlanBuilder()
    >>> _ = builder.add(ReadSource(CollectionSource((1, 2)), WatermarkStrategy.no_watermarks()), "numbers")
    >>> _ = builder.add(WriteSink(PrintSink()), "Print", (0,))
    >>> [node.parallelism for node in with_parallelism(builder.build("job"), 4)]
    [1, 1]
    """
    chosen: dict[int, int] = {}
    for part in connected(plan):
        nodes = [plan.node(n) for n in part]
        sources = [node for node in nodes if isinstance(node.operator, ReadSource)]
        is_alone = all(_reads_alone(source) for source in sources)
        for node in nodes:
            chosen[node.id] = 1 if _reads_alone(node) else node.parallelism or (1 if is_alone else default)
            _check(plan, node, chosen, is_alone=is_alone)
        # Dead letters come from wherever the others are.
        sinks = {node.dead_letters for node in nodes if node.dead_letters is not None}
        chosen.update(dict.fromkeys(sinks, max(chosen[n] for n in part if n not in sinks)) if sinks else {})
    return replace(plan, nodes=tuple(replace(node, parallelism=chosen[node.id]) for node in plan))


def idle_default(plan: Plan, default: int) -> str | None:
    """A warning if the default parallelism has no effect at all on a plan that has been through `with_parallelism`."""
    alone = [node.name for node in plan if _reads_alone(node)]
    if default == 1 or not alone or lanes(plan) > 1:
        return None
    return (
        f"`parallelism.default` {default} has no effect: `{alone[0]}` is read by one subtask, and what it feeds runs "
        "there too"
    )


def lanes(plan: Plan) -> int:
    """In how many lanes a plan runs that has been through `with_parallelism`."""
    return max((node.parallelism or 1 for node in plan), default=1)


def _reads_alone(node: Node) -> bool:
    return isinstance(node.operator, ReadSource) and not node.operator.source.is_parallel


def _check(plan: Plan, node: Node, chosen: Mapping[int, int], *, is_alone: bool) -> None:
    """Raises `NotSupportedError` where elements would have to go from one lane to another."""
    asked = max(chosen[node.id], node.parallelism or 1)
    what = f"parallelism {asked} of `{node.name}`"
    if asked > 1 and is_alone:
        raise _refusal(what, "what feeds it is read by one subtask; leave it at 1")
    if asked > 1 and node.key_selector is not None:
        raise _refusal(
            f"{what}, which is keyed,",
            "elements of one key would have to come together from all subtasks. Leave it and what it is connected with "
            "at 1 (`set_parallelism`, `parallelism.default`, `--parallelism`)",
        )
    for i in node.inputs:
        if chosen[i] != asked and not _reads_alone(plan.node(i)):
            raise _refusal(
                f"{what} behind parallelism {chosen[i]} of `{plan.node(i).name}`",
                "elements would have to change their subtask; give both the same `set_parallelism`",
            )


def _refusal(what: str, instead: str) -> NotSupportedError:
    return NotSupportedError(f"{what} is not supported by Headrace yet: {instead}")
