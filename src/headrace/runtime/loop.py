"""The fused chain: everything between a source and its sinks as one generated loop.

Theory of operation. At parallelism 1 all operators below a source run in one thread, so the tree of operators below
it is written out as the body of a single `for` loop over a batch: maps become nested calls, a filter an `if`, a
flat_map an inner `for`, a keyed reduction a dict lookup, two consumers two statements, a union nothing at all (its
consumers stand in the loop of each input). The deserializer is the innermost call and a sink's serializer the
outermost, so that no list of elements ever exists between two operators. For `source → map → filter → sink`:

    for v in records:
        x2 = f1(  # 1
    d0(  # -1
    v))
        if f2(x2):  # 2
            a3(f3(  # 3
    x2))

Every line that calls user code ends with the node's id, so the line number in a traceback names the operator, and
`it.__length_hint__()` of the list iterator names the record, at no cost while all goes well. The deserializer's ends
with `DESERIALIZER`, as what it is given is at fault there, and not the source's timestamp assigner. (`map()` would be
quicker by a few percent, but takes a StopIteration of the user's for its own end.)

Timestamps. A sink that stands below nothing but maps gets the batch's own list of timestamps; only below a filter, a
flat_map, a process function or new timestamps are they carried through the loop beside the elements. What an assigner
gives is made sure to be an int where it comes in, as only there is it known whose fault it is.

A loop with a flat_map or process function in it is a generator that yields whenever a sink's list is long, so that
output is written, and memory bounded, in the middle of an element that gives a million others.

Where a record may fail (`Node.tolerates`), it has to be withdrawn whole: each turn begins with a mark of how long every
sink's list is (`m7 = len(o7)`), no list is written in the middle of a record, and timestamps are always carried.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from operator import index
from typing import Any, assert_never

from headrace.errors import InternalError
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
from headrace.state.key_groups import check_key

OUTPUT_LIMIT = 5_000
"""Elements in a sink's list before a loop that may multiply is interrupted to write them."""

DESERIALIZER = -1
"""What `Loop.node_at_line` has in place of a node's id for the line of the source's deserializer."""

MISSING = object()


@dataclass(frozen=True, slots=True)
class Calls:
    """What the loop calls for one node, already opened and bound.

    `call` is the user's function (or a source's deserializer, a sink's serializer; None where there is none), `key` the
    key selector, `keyed` the operator's current-key holder, `table` a reduction's dict, `context` a process function's
    context. `generator` keeps the highest timestamp for `AssignTimestamps` (a source has one per split: here it only
    says that the loop has to keep it), and, with `is_shown`, is shown every element; `extract` is a timestamp assigner.
    A deserializer that `gives_many` returns an iterable, or None; if it `skips`, None for a value is no element. A
    serializer that `takes_time` is given the element's timestamp too. `tally` is there where the number of elements
    that come out has to be counted one by one.
    """

    call: Callable[..., Any] | None = None
    extract: Callable[[Any, int], int] | None = None
    key: Callable[[Any], Any] | None = None
    keyed: Any = None
    table: dict[Any, Any] | None = None
    context: Any = None
    generator: Any = None
    gives_many: bool = False
    skips: bool = False
    takes_time: bool = False
    is_shown: bool = False
    tally: list[int] | None = None


@dataclass(frozen=True, slots=True)
class Loop:
    """A compiled loop.

    `run(records, timestamps, generator, outputs)`: `outputs` maps each of `sinks` to a pair of lists, elements and
    timestamps; for the sinks in `aligned` the timestamps are the batch's own. With `is_generator` the call gives an
    iterator that wants the outputs written at each step. A loop that `passes_through` need not be run: its outputs are
    its records. With `withdraws` the locals of its frame hold a mark for each sink, `m` and its id. `source` is the
    loop's text.
    """

    run: Callable[..., Any]
    sinks: tuple[int, ...]
    aligned: frozenset[int]
    is_generator: bool
    passes_through: bool
    withdraws: bool
    source: str
    node_at_line: dict[int, int]


def as_timestamp(given: Any) -> int:
    """What a timestamp assigner gave, as an int; TypeError for what is no whole number, ValueError beyond 64 bits.

    >>> as_timestamp(True), as_timestamp(2**40)
    (1, 1099511627776)
    """
    try:
        timestamp = int(index(given))
    except TypeError:
        raise TypeError(
            "the timestamp assigner has to return an int, milliseconds since the epoch, and returned "
            f"{given!r:.200} ({type(given).__name__})"
        ) from None
    if not -1 << 63 <= timestamp < 1 << 63:
        raise ValueError(f"the timestamp assigner gave {timestamp:.3e} ms, which no timestamp can be")
    return timestamp


def compile_loop(plan: Plan, source_id: int, calls: dict[int, Calls]) -> Loop:
    """The loop for everything below the source `source_id`."""
    own = calls[source_id]
    withdraws = _may_tolerate(plan, source_id)
    aligns = own.generator is None and not own.gives_many and not own.skips and not withdraws
    arrivals = list(_arrivals(plan, source_id, aligned=aligns))
    sinks = tuple(dict.fromkeys(sink for sink, _ in arrivals))
    aligned = frozenset(s for s in sinks if [is_aligned for sink, is_aligned in arrivals if sink == s] == [True])
    writer = _Writer(plan, calls, aligned, withdraws)
    if withdraws:
        writer.lines += [f"        m{n} = len(o{n})" for n in sinks]
    writer.write_source(source_id)
    if withdraws and writer.yields:
        writer.lines += _yield_when_long(sinks, 2)
    is_timed = len(aligned) < len(sinks) or writer.reads_time
    head = []
    for n in sinks:
        head.append(f"    o{n}, p{n} = outputs[{n}]")
        head.append(f"    a{n}, b{n} = o{n}.append, p{n}.append")
    loop = "    for v, t in zip(records, timestamps):" if is_timed else "    for v in records:"
    defaults = "".join(f", {name}={name}" for name in writer.bindings)
    body = writer.lines or ["        pass"]
    lines = [f"def run(records, timestamps, w, outputs{defaults}):", *head, loop, *body]
    if writer.yields:
        lines.append("    yield")
    code = "\n".join(lines) + "\n"
    namespace = dict(writer.bindings)
    exec(compile(code, f"<loop of {plan.node(source_id).name}>", "exec"), namespace)
    matches = {number: re.search(r"# (-?\d+)$", line) for number, line in enumerate(lines, 1)}
    return Loop(
        run=namespace["run"],
        sinks=sinks,
        aligned=aligned,
        is_generator=writer.yields,
        passes_through=not writer.bindings and aligned == set(sinks),
        withdraws=withdraws,
        source=code,
        node_at_line={number: int(match[1]) for number, match in matches.items() if match},
    )


def _arrivals(plan: Plan, node_id: int, *, aligned: bool) -> Iterator[tuple[int, bool]]:
    """Each way from a node to a sink: the sink, and whether elements arrive one for one with the batch's records."""
    for node in plan.consumers(node_id):
        if isinstance(node.operator, WriteSink):
            yield node.id, aligned
        still = aligned and not isinstance(node.operator, Filter | FlatMap | Process | AssignTimestamps)
        yield from _arrivals(plan, node.id, aligned=still)


def _may_tolerate(plan: Plan, node_id: int) -> bool:
    """Whether the job goes on when this node, or one below it, fails on a record."""
    return plan.node(node_id).tolerates or any(_may_tolerate(plan, node.id) for node in plan.consumers(node_id))


def _yield_when_long(sinks: Iterable[int], depth: int) -> list[str]:
    indent = "    " * depth
    return [f"{indent}if {' or '.join(f'len(o{s}) >= {OUTPUT_LIMIT}' for s in sinks)}:", f"{indent}    yield"]


@dataclass(slots=True)
class _Writer:
    """Writes the loop's body: `expression` is the text that gives the element, `time` the variable of its timestamp."""

    plan: Plan
    calls: dict[int, Calls]
    aligned: frozenset[int]
    withdraws: bool
    lines: list[str] = field(default_factory=list)
    bindings: dict[str, Any] = field(default_factory=dict)
    yields: bool = False
    reads_time: bool = False

    def write_source(self, n: int) -> None:
        own, expression = self.calls[n], "v"
        if own.call is not None:
            expression = f"{self._bind(f'd{n}', own.call)}(  # {DESERIALIZER}\nv)"
        if own.gives_many:
            self._many(n, expression, DESERIALIZER, lambda element, depth: self._read(n, element, depth), 2)
        elif own.skips:
            element = self._named(n, expression, 2)
            self._put(2, f"if {element} is not None or v is None:")
            self._body(element, lambda element, depth: self._read(n, element, depth), 3)
        else:
            self._read(n, expression, 2)

    def _read(self, n: int, expression: str, depth: int) -> None:
        """What becomes of an element of the source."""
        own, time = self.calls[n], "t"
        self._tally(n, depth)
        if own.generator is not None:
            expression = self._named(n, expression, depth)
            time = self._assign_time(n, own, expression, "t", "w", depth)
        self._consumers(n, expression, time, depth)

    def _put(self, depth: int, text: str) -> None:
        self.lines.extend(("    " * depth + text).split("\n"))

    def _bind(self, name: str, value: Any) -> str:
        self.bindings[name] = value
        return name

    def _tally(self, n: int, depth: int) -> None:
        """Count an element that comes out of a node, if it has to be: 20 ns."""
        if (tally := self.calls[n].tally) is not None:
            self._put(depth, f"{self._bind(f'n{n}', tally)}[0] += 1")

    def _named(self, n: int, expression: str, depth: int) -> str:
        """The element as a variable, so that it can be used twice."""
        if expression.isidentifier():
            return expression
        self._put(depth, f"x{n} = {expression}")
        return f"x{n}"

    def _assign_time(self, n: int, own: Calls, element: str, time: str, generator: str, depth: int) -> str:
        self.reads_time = True
        if own.extract is not None:
            self._put(depth, f"t{n} = {self._bind(f'e{n}', own.extract)}({element}, {time})  # {n}")
            time = f"t{n}"
            self._put(depth, f"if type({time}) is not int or not {-1 << 63} <= {time} < {1 << 63}:")
            self._put(depth + 1, f"{time} = {self._bind('as_timestamp', as_timestamp)}({time})  # {n}")
        if own.is_shown:
            self._put(depth, f"{generator}.on_event({element}, {time})  # {n}")
        else:
            self._put(depth, f"if {time} > {generator}.max_timestamp:")
            self._put(depth + 1, f"{generator}.max_timestamp = {time}")
        return time

    def _body(self, expression: str, write: Callable[[str, int], None], depth: int) -> None:
        """What `write` makes of the element, as an indented block, which must not be empty."""
        before = len(self.lines)
        write(expression, depth)
        if len(self.lines) == before:
            self._put(depth, "pass")

    def _consumers(self, n: int, expression: str, time: str, depth: int) -> None:
        consumers = self.plan.consumers(n)
        if len(consumers) > 1:
            expression = self._named(n, expression, depth)
        elif not consumers and not expression.isidentifier():
            self._put(depth, expression)
        for node in consumers:
            self._operator(node, expression, time, depth)

    def _operator(self, node: Node, expression: str, time: str, depth: int) -> None:
        n, own = node.id, self.calls[node.id]
        if own.key is not None:
            expression = self._named(n, expression, depth)
            self._put(depth, f"k{n} = {self._bind(f'g{n}', own.key)}({expression})  # {n}")
            if own.keyed is not None:
                self._put(depth, f"{self._bind(f'c{n}', own.keyed)}.key = k{n}")
        function = "" if own.call is None else self._bind(f"f{n}", own.call)

        def hand_on(element: str, depth: int) -> None:
            self._tally(n, depth)
            self._consumers(n, element, time, depth)

        match node.operator:
            case Map():
                self._consumers(n, f"{function}(  # {n}\n{expression})", time, depth)
            case Filter():
                element = self._named(n, expression, depth)
                self._put(depth, f"if {function}({element}):  # {n}")
                self._body(element, hand_on, depth + 1)
            case FlatMap():
                self._many(n, f"{function}(  # {n}\n{expression})", n, hand_on, depth)
            case Process():
                self.reads_time = True
                context = self._bind(f"q{n}", own.context)
                element = self._named(n, expression, depth)
                self._put(depth, f"{context}.element_timestamp = {time}")
                self._many(n, f"{function}({element}, {context})  # {n}", n, hand_on, depth)
            case Reduce():
                table, missing = self._bind(f"s{n}", own.table), self._bind("missing", MISSING)
                self._put(depth, f"z{n} = {table}.get(k{n}, {missing})  # {n}")
                self._put(depth, f"if z{n} is {missing}:")
                self._put(depth + 1, f"{self._bind('check_key', check_key)}(k{n})  # {n}")
                self._put(depth + 1, f"z{n} = {expression}")
                self._put(depth, "else:")
                self._put(depth + 1, f"z{n} = {function}(z{n}, {expression})  # {n}")
                self._put(depth, f"{table}[k{n}] = z{n}")
                self._consumers(n, f"z{n}", time, depth)
            case AssignTimestamps():
                element = self._named(n, expression, depth)
                time = self._assign_time(n, own, element, time, self._bind(f"w{n}", own.generator), depth)
                self._consumers(n, element, time, depth)
            case Union():
                self._consumers(n, expression, time, depth)
            case WriteSink():
                if own.takes_time:
                    self.reads_time = True
                    expression = f"{expression}, {time}"
                self._put(depth, f"a{n}({function}(  # {n}\n{expression}))" if function else f"a{n}({expression})")
                if n not in self.aligned:
                    self._put(depth, f"b{n}({time})")
            case ReadSource():
                raise InternalError("a source has no input")
            case _:
                assert_never(node.operator)

    def _many(self, n: int, call: str, label: int, write: Callable[[str, int], None], depth: int) -> None:
        """Any number of elements: an inner loop, interrupted when a sink's list has grown long."""
        self.yields = True
        self._put(depth, f"r{n} = {call}")
        self._put(depth, f"if r{n} is not None:")
        self._put(depth + 1, f"for y{n} in r{n}:  # {label}")
        self._body(f"y{n}", write, depth + 2)
        sinks = dict.fromkeys(sink for sink, _ in _arrivals(self.plan, n, aligned=False))
        if sinks and not self.withdraws:
            self.lines += _yield_when_long(sinks, depth + 2)
