"""What the calls of the API add to the plan."""

from __future__ import annotations

import json
from typing import Any

import pytest

from headrace.common import Duration, Row, Types, WatermarkStrategy
from headrace.connector.builtin import PrintSink
from headrace.datastream import (
    DataStream,
    FilterFunction,
    FlatMapFunction,
    KeyedProcessFunction,
    KeySelector,
    MapFunction,
    ProcessFunction,
    ReduceFunction,
    StreamExecutionEnvironment,
)
from headrace.errors import ConfigError, DataError, NotSupportedError
from headrace.plan.graph import AssignTimestamps, Filter, FlatMap, Map, Process, ReadSource, Reduce, Union, WriteSink


@pytest.fixture
def env() -> StreamExecutionEnvironment:
    return StreamExecutionEnvironment.get_execution_environment()


class Everything(MapFunction, FilterFunction, FlatMapFunction, ReduceFunction, KeySelector):
    def map(self, value: Any) -> Any: ...

    def filter(self, value: Any) -> Any: ...

    def flat_map(self, value: Any) -> Any: ...

    def reduce(self, value1: Any, value2: Any) -> Any: ...

    def get_key(self, value: Any) -> Any: ...


class Plain(ProcessFunction):
    def process_element(self, value: Any, ctx: Any) -> Any: ...


class Keyed(KeyedProcessFunction):
    def process_element(self, value: Any, ctx: Any) -> Any: ...


@pytest.mark.parametrize("function", [Everything(), len])
def test_each_operator_is_added_behind_its_input_with_its_function(
    env: StreamExecutionEnvironment, function: Any
) -> None:
    stream = env.from_collection([1]).map(function).filter(function).flat_map(function).process(Plain())
    stream.key_by(function).reduce(function).sink_to(PrintSink("x"))
    nodes = env.job.plan("job").nodes
    assert [type(node.operator) for node in nodes] == [ReadSource, Map, Filter, FlatMap, Process, Reduce, WriteSink]
    assert [node.inputs for node in nodes] == [(), (0,), (1,), (2,), (3,), (4,), (5,)]
    assert [node.name for node in nodes][1:] == ["Map", "Filter", "FlatMap", "PROCESS", "Reduce", "Sink"]
    assert [node.key_selector for node in nodes] == [None, None, None, None, None, function, None]
    for node in nodes[1:4]:
        operator: Any = node.operator
        assert operator.function is function


def test_every_operator_behind_key_by_knows_the_key(env: StreamExecutionEnvironment) -> None:
    keyed = env.from_collection(["a"]).key_by(len)
    streams = [keyed.map(str), keyed.flat_map(str), keyed.filter(str), keyed.process(Keyed()), keyed.reduce(max)]
    assert {env.job.node(stream._place).key_selector for stream in streams} == {len}
    assert {env.job.node(stream._place).inputs for stream in streams} == {(0,)}


def test_a_later_key_takes_the_place_of_an_earlier_one(env: StreamExecutionEnvironment) -> None:
    stream = env.from_collection(["a"]).key_by(len).key_by(str).map(str)
    assert env.job.node(stream._place).key_selector is str


def test_union_takes_all_inputs_and_a_keyed_stream_by_its_values(env: StreamExecutionEnvironment) -> None:
    first, second = env.from_collection([1]), env.from_collection([2])
    united = first.union(second, first, second.key_by(str))
    node = env.job.node(united._place)
    assert (node.operator, node.inputs) == (Union(), (0, 1, 0, 2))
    assert env.job.plan("job").node(2).inputs == (1,)


def test_streams_of_two_environments_cannot_be_united(env: StreamExecutionEnvironment) -> None:
    other = StreamExecutionEnvironment.get_execution_environment()
    with pytest.raises(ConfigError, match="two environments"):
        env.from_collection([1]).union(other.from_collection([2]))


def test_timestamps_are_assigned_by_one_operator(env: StreamExecutionEnvironment) -> None:
    strategy = WatermarkStrategy.for_bounded_out_of_orderness(Duration.of_seconds(1)).with_idleness(Duration.of_days(1))
    stream = env.from_collection([1]).assign_timestamps_and_watermarks(strategy)
    assert env.job.node(stream._place).operator == AssignTimestamps(strategy)


def test_names_uids_and_parallelism_are_the_operators_of_the_call_before(env: StreamExecutionEnvironment) -> None:
    stream = env.from_collection([1]).map(str).name("texts").uid("texts-1").set_parallelism(1)
    sink = stream.print("p").name("out").uid("out-1").set_parallelism(2)
    plan = env.job.plan("job")
    assert [(node.name, node.uid, node.parallelism) for node in plan][1:] == [
        ("texts", "texts-1", 1),
        ("out", "out-1", 2),
    ]
    assert stream.get_name() == "texts"
    assert sink.set_description("d").disable_chaining().slot_sharing_group("g") is sink


def test_what_has_no_meaning_on_one_machine_is_accepted_and_changes_nothing(env: StreamExecutionEnvironment) -> None:
    stream = env.from_collection([1])
    before = env.job.plan("job")
    same = stream.set_description("d").start_new_chain().disable_chaining().slot_sharing_group("g")
    assert same.set_buffer_timeout(5).force_non_parallel() is stream
    env.add_jars("file:///a.jar")
    env.add_classpaths("file:///a.jar")
    env.add_python_file("a.py")
    env.add_python_archive("a.zip")
    env.set_python_requirements("requirements.txt")
    env.set_python_executable("python3")
    env.close()
    assert env.job.plan("job") == before


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda stream: stream.map(1), "The input must be a MapFunction or a callable function"),
        (lambda stream: stream.flat_map(1), "The input must be a FlatMapFunction or a callable function"),
        (lambda stream: stream.filter(1), "The input must be a FilterFunction or a callable function"),
        (lambda stream: stream.key_by(len).reduce(1), "The input must be a ReduceFunction or a callable function"),
        (lambda stream: stream.key_by(1), "Parameter key_selector should be type of KeySelector or a callable"),
        (lambda stream: stream.process(Keyed()), "ProcessFunction is required .* call key_by before it"),
        (lambda stream: stream.key_by(len).process(Plain()), "KeyedProcessFunction is required for KeyedStream"),
        (lambda stream: stream.sink_to("topic"), "a Sink is required, got str"),
        (lambda stream: stream.union("other"), "a DataStream is required for union, got str"),
        (lambda stream: stream.assign_timestamps_and_watermarks(None), "a WatermarkStrategy is required"),
        (
            lambda stream: stream.get_execution_environment().from_source("s", WatermarkStrategy.no_watermarks(), "n"),
            "a Source is required, got str",
        ),
    ],
)
def test_an_argument_of_another_type_is_a_type_error(env: StreamExecutionEnvironment, call: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        call(env.from_collection([1]))


@pytest.mark.parametrize("method", ["name", "uid", "set_parallelism", "window", "sum", "rebalance", "connect", "cache"])
def test_what_a_keyed_stream_has_not_is_refused_by_name(env: StreamExecutionEnvironment, method: str) -> None:
    keyed: Any = env.from_collection([1]).key_by(str)
    with pytest.raises(NotSupportedError, match=rf"Stream\.{method}` is not supported"):
        getattr(keyed, method)("x")


def test_importing_a_refused_name_says_so_and_what_to_do() -> None:
    with pytest.raises(NotSupportedError, match=r"`headrace.datastream.window.TumblingEventTimeWindows`.*key_by"):
        from headrace.datastream.window import TumblingEventTimeWindows  # noqa: F401
    with pytest.raises(ImportError, match="NoSuchThing"):
        from headrace.datastream.window import NoSuchThing  # noqa: F401


def test_types_are_noted_where_they_are_declared(env: StreamExecutionEnvironment) -> None:
    stream = env.from_collection([1], Types.INT())
    assert stream.get_type() == stream.filter(bool).get_type() == stream.union(stream).get_type() == Types.INT()
    assert stream.map(str).get_type() == Types.PICKLED_BYTE_ARRAY()
    assert stream.map(str, Types.STRING()).get_type() == Types.STRING()
    keyed = stream.key_by(str, Types.STRING())
    assert keyed.get_type() == Types.ROW([Types.STRING(), Types.INT()])
    assert keyed.reduce(max).get_type() == Types.INT()


def collected(stream: DataStream) -> tuple[Any, ...]:
    operator: Any = stream.get_execution_environment().job.node(stream._place).operator
    values: tuple[Any, ...] = operator.source.values
    return values


def test_a_collection_is_taken_as_it_is_when_it_is_given(env: StreamExecutionEnvironment) -> None:
    elements = [[1], [2]]
    stream = env.from_collection(elements)
    elements[0].append(9)
    elements.append([3])
    assert collected(stream) == ([1], [2])


def test_elements_of_a_declared_type_become_what_it_makes_of_them(env: StreamExecutionEnvironment) -> None:
    stream = env.from_collection([(40_000, "a")], Types.ROW([Types.SHORT(), Types.STRING()]))
    assert collected(stream) == (Row(-25_536, "a"),)
    with pytest.raises(DataError, match="'b' is str, not of the declared type Integer"):
        env.from_collection([1, "b"], Types.INT())


def test_a_stream_of_an_earlier_job_takes_its_operators_into_the_next(env: StreamExecutionEnvironment) -> None:
    source = env.from_collection([1]).uid("source")
    doubled, kept = source.map(str).name("doubled"), source.filter(bool)
    doubled.print()
    first, _ = env.job.take("first")
    doubled.union(kept).print()
    second, _ = env.job.take("second")
    assert len(first.nodes) == 4
    assert [(node.name, node.inputs) for node in second] == [
        ("Collection Source", ()),
        ("doubled", (0,)),
        ("Filter", (0,)),
        ("Union", (1, 2)),
        ("Print to Std. Out", (3,)),
    ]
    assert second.node(0).uid == "source"


def test_the_plan_as_json_has_flinks_form(env: StreamExecutionEnvironment) -> None:
    env.from_collection([1]).key_by(str).map(str).uid("m").print()
    source, operator, sink = json.loads(env.get_execution_plan())["nodes"]
    assert (source["type"], source["pact"], "predecessors" in source) == (
        "Source: Collection Source",
        "Data Source",
        False,
    )
    assert operator["predecessors"] == [{"id": 1, "ship_strategy": "HASH", "side": "second"}]
    assert (operator["uid"], sink["type"], sink["pact"]) == ("m", "Sink: Print to Std. Out", "Data Sink")
