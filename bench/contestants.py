"""Who takes part in what, and how each is started."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from peers import Peers
from records import Encoding

HERE = Path(__file__).parent

Guarantee = Literal["at-least-once", "exactly-once"]
Name = Literal["native", "pure", "loop", "flink", "pyflink", "one", "two", "silent", "scraped"]
"""`native` and `pure` are Headrace, on each of its Kafka clients; `one` and `two` are it with so many lanes; `silent`
and `scraped` without metrics, and with metrics that are read each second."""

OURS: tuple[Name, Name] = ("native", "pure")
LANES: dict[Name, int] = {"one": 1, "two": 2}
METRICS: tuple[Name, Name] = ("silent", "scraped")

# What helps Flink's Kafka clients most here: half as much again for the map. librdkafka has the like by default.
JAVA_SOURCE = ("max.partition.fetch.bytes=4194304", "max.poll.records=5000")
JAVA_SINK = ("linger.ms=5", "batch.size=1000000", "buffer.memory=134217728")


@dataclass(frozen=True, slots=True)
class Job:
    """The same work in each contestant's words."""

    title: str
    guarantee: Guarantee
    program: str
    loop: str
    java_class: str | None = None
    work_us: int = 0
    """CPU time that the user's function takes beside."""
    dressed: bool = False
    """Whether the input has keys and headers; `extra` are arguments of our program alone."""
    extra: tuple[str, ...] = ()
    encoding: Encoding = "json"
    """What input and output are written in."""


JOBS = {
    "map-alo": Job("JSON map, at-least-once", "at-least-once", "json_map.py", "map", "JsonMap"),
    "map-eos": Job("JSON map, exactly-once, each second", "exactly-once", "json_map.py", "map", "JsonMap"),
    "bytes": Job("bytes passed through, at-least-once", "at-least-once", "bytes_through.py", "bytes"),
    "lanes": Job("JSON map in lanes, at-least-once", "at-least-once", "json_map.py", "map"),
    "heavy": Job("the same with a function of 100 µs", "at-least-once", "json_map.py", "map", work_us=100),
    "whole": Job("whole records, JSON map, at-least-once", "at-least-once", "whole_map.py", "whole", dressed=True),
    "headers": Job(
        "the same, with key and headers passed on",
        "at-least-once",
        "whole_map.py",
        "headers",
        dressed=True,
        extra=("--headers",),
    ),
    "json-schema": Job(
        "JSON row schema, against dicts by orjson", "at-least-once", "schema_map.py", "map", extra=("--schema", "json")
    ),
    "avro": Job(
        "Avro as dicts",
        "at-least-once",
        "schema_map.py",
        "avro",
        extra=("--schema", "avro"),
        encoding="avro",
    ),
    "protobuf": Job(
        "Protobuf messages",
        "at-least-once",
        "schema_map.py",
        "protobuf",
        extra=("--schema", "protobuf"),
        encoding="protobuf",
    ),
    "struct": Job("JSON as msgspec Structs", "at-least-once", "schema_map.py", "struct", extra=("--schema", "struct")),
    "tolerant": Job("JSON map whose records may fail", "at-least-once", "json_map.py", "map", extra=("--tolerant",)),
    "metrics": Job("JSON map whose metrics are read each second", "at-least-once", "json_map.py", "map"),
    "keyed": Job("count over 5,000 keys, exactly-once", "exactly-once", "keyed_count.py", "count", "KeyedCount"),
}


@dataclass(frozen=True, slots=True)
class Run:
    """One run of one contestant: where it reads and writes, and its own name and folder."""

    bootstrap: str
    input: str
    output: str
    run_id: str
    folder: Path
    unbounded: bool = False


def title(name: Name, guarantee: Guarantee) -> str:
    match name:
        case "native" | "pure":
            return f"Headrace, {name} client"
        case "one" | "two":
            return f"Headrace, {name} lane" + ("s" if name == "two" else "")
        case "silent" | "scraped":
            return f"Headrace, {name}"
        case "loop":
            return "hand-written loop" + (", transactions" if guarantee == "exactly-once" else "")
        case "flink":
            return "Flink in Java"
        case "pyflink":
            return "PyFlink, thread mode"


def command(name: Name, job: Job, run: Run, peers: Peers | None) -> list[str]:
    """The command line of a run."""
    common = ["--bootstrap", run.bootstrap, "--input", run.input, "--output", run.output, "--run-id", run.run_id]
    common += ["--guarantee", job.guarantee, *(["--unbounded"] if run.unbounded else [])]
    checkpoints = ["--checkpoints", (run.folder / "checkpoints").as_uri()]
    match name:
        case "native" | "pure" | "one" | "two" | "silent" | "scraped":
            own = ["--metrics"] if name == "scraped" else []
            own += ["--lanes", str(LANES.get(name, 1)), "--work-us", str(job.work_us), *job.extra]
            return [sys.executable, str(HERE / "jobs" / job.program), *common, *checkpoints, *own]
        case "loop":
            return [sys.executable, str(HERE / "loops.py"), job.loop, *common]
        case "flink":
            assert peers is not None
            assert job.java_class is not None
            return [*peers.java_command(job.java_class), *common, *checkpoints, *_java_settings(peers)]
        case "pyflink":
            assert peers is not None
            return [*peers.pyflink_command(job.program), *common, *checkpoints, *_java_settings(peers)]


def environ(name: Name, peers: Peers | None) -> dict[str, str]:
    """What a contestant's environment has beside ours."""
    if name in OURS:
        return {"HEADRACE_CLIENT": name}
    if name != "pyflink" or peers is None:
        return {}
    # The interpreter inside the JVM does not find a virtual environment's packages by itself.
    return {"JAVA_HOME": str(peers.java_home), "PYTHONPATH": str(peers.site_packages)}


def _java_settings(peers: Peers) -> list[str]:
    if not peers.tuned_clients:
        return []
    source = [word for each in JAVA_SOURCE for word in ("--source-property", each)]
    return source + [word for each in JAVA_SINK for word in ("--sink-property", each)]
