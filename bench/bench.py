"""Headrace's benchmark: ratios, measured in one run, contestants in turn, equal settings printed with the result.

    make bench                              against the hand-written loop
    make bench PEERS=all                    against PyFlink and Flink in Java as well (needs a JDK; longer)
    python bench/bench.py --quick           a look, not a result: few records, one round
    python bench/bench.py --memory          resident memory over 10,000,000 records
    python bench/bench.py --only map-eos keyed --rounds 3 --json result.json

Every round runs every contestant of every row once, each round in another order. A run that loses or repeats a record
ends the benchmark with an error. `measure` says what is measured, `contestants` how each is started, `report` what
is compared with which goal.
"""

from __future__ import annotations

import argparse
import os
import platform
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path

import confluent_kafka
from headrace.broker.dev_broker import KAFKA_VERSIONS, DevBroker
from headrace.errors import HeadraceError

import report
from contestants import JAVA_SINK, JAVA_SOURCE, JOBS, LANES, METRICS, OURS, Name, title
from measure import Bench, Throughput
from peers import FLINK_VERSION, Peers, prepare
from records import Encoding

ROWS = (*JOBS, "first", "latency")
LATENCY_RATE = 100
FIRST_RESULT_RECORDS = 1_000
HEAVY = 5
"""A row of slow functions has so many times fewer records."""
DISTURBED = 0.02
"""The share of the machine that its host may give to others in a run that is not disturbed."""
MEMORY_ROWS = ("map-alo", "keyed")
BROKER = {"log.segment.delete.delay.ms": "100"}
"""A run's output is deleted, and its memory is used again by the next one. With the default of a minute each run's page
cache would be of memory that was never touched, for which a virtual machine waits for its host, page by page: bytes at
1,100,000 records/s where a run that found used memory had 1,800,000, minutes of one and minutes of the other."""
_START = time.monotonic()


def say(what: str) -> None:
    """Progress, on stderr."""
    elapsed_s = int(time.monotonic() - _START)
    print(f"{elapsed_s // 60:3}:{elapsed_s % 60:02}  {what}", file=sys.stderr, flush=True)


def contestants(row: str, peers: Peers | None) -> list[Name]:
    """Who takes part in a row: lanes against each other, and so with and without metrics; Flink where a goal names it,
    and where it is told what it takes to start and answer."""
    if row in ("lanes", "heavy"):
        return list(LANES)
    if row == "metrics":
        return list(METRICS)
    with_flink = peers is not None and row in ("map-eos", "keyed", "first", "latency")
    return [*OURS, "loop", "flink", "pyflink"] if with_flink else [*OURS, "loop"]


def in_turn(names: Sequence[Name], number: int) -> list[Name]:
    """The contestants in round `number`'s order, which begins with another one each round.

    >>> in_turn(["native", "loop"], 1)
    ['loop', 'native']
    """
    shift = number % len(names)
    return [*names[shift:], *names[:shift]]


def measure(bench: Bench, options: argparse.Namespace, peers: Peers | None, results: report.Results) -> None:
    """Fills `results`, round by round."""
    chosen: dict[str, list[Name]] = {
        row: [name for name in contestants(row, peers) if not options.contestants or name in options.contestants]
        for row in options.only
    }
    source, few, heavy, dressed = "", "", "", ""
    others: dict[Encoding, str] = {}
    if not options.quick:
        say("warming the broker up")
        bench.topics.warm_up()
    if any(row in JOBS and not JOBS[row].dressed and JOBS[row].encoding == "json" for row in chosen):
        source = bench.topics.create("bench.items", append_time=False)
        say(f"writing {options.records:,} records")
        bench.topics.fill(source, options.records, say)
        # The broker's transactions are warm then, too.
        bench.throughput("map-eos", "loop", source, options.records)
    if any(row in JOBS and JOBS[row].dressed for row in chosen):
        dressed = bench.topics.create("bench.dressed", append_time=False)
        say(f"writing {options.records:,} records with keys and headers")
        bench.topics.fill(dressed, options.records, say, dressed=True)
    for encoding in dict.fromkeys(JOBS[row].encoding for row in chosen if row in JOBS):
        if encoding != "json":
            others[encoding] = bench.topics.create(f"bench.{encoding}", append_time=False)
            say(f"writing {options.records:,} records in {encoding}")
            bench.topics.fill(others[encoding], options.records, say, encoding=encoding)
    if "heavy" in chosen:
        heavy = bench.topics.create("bench.heavy", append_time=False)
        bench.topics.fill(heavy, options.records // HEAVY, say)
        # Both cores are wanted there, so the broker has to have compiled what it does when it is given little of them.
        bench.throughput("heavy", "two", heavy, options.records // HEAVY)
    if "first" in chosen:
        few = bench.topics.create("bench.few", append_time=False)
        bench.topics.fill(few, FIRST_RESULT_RECORDS, say)
    for number in range(options.rounds):
        for row, names in chosen.items():
            for name in in_turn(names, number):
                at = f"round {number + 1} of {options.rounds}  {row:<11} {title(name, 'at-least-once'):<21}"
                if row == "first":
                    seconds = bench.first_result(name, few)
                    results.first_result_s.setdefault(name, []).append(seconds)
                    say(f"{at}{seconds:9.2f} s")
                elif row == "latency":
                    latency = bench.latency(name, options.latency_seconds, LATENCY_RATE)
                    results.latency.setdefault(name, []).append(latency)
                    say(f"{at}{latency.p50_ms:9.0f} ms p50, {latency.p99_ms:.0f} ms p99")
                else:
                    topic, records = (heavy, options.records // HEAVY) if row == "heavy" else (source, options.records)
                    topic = dressed if JOBS[row].dressed else others.get(JOBS[row].encoding, topic)
                    run = least_disturbed(partial(bench.throughput, row, name, topic, records), options.attempts, at)
                    results.throughput.setdefault(row, {}).setdefault(name, []).append(run)
    # In the order of the lists, not of the last round.
    order: tuple[Name, ...] = (*OURS, "loop", "flink", "pyflink", *LANES, *METRICS)
    for row in results.throughput:
        results.throughput[row] = {n: results.throughput[row][n] for n in order if n in results.throughput[row]}


def least_disturbed(measured: Callable[[], Throughput], attempts: int, at: str) -> Throughput:
    """A run that is not disturbed; of `attempts` that all were, the one of which the host took least."""
    runs: list[Throughput] = []
    while not runs or (runs[-1].stolen > DISTURBED and len(runs) < attempts):
        runs.append(run := measured())
        taken = f", {run.stolen:.0%} of the machine away" if run.stolen > DISTURBED else ""
        say(f"{at}{run.records_s:9,.0f} records/s, {run.cpu_us:.2f} µs CPU each{taken}")
    return min(runs, key=lambda run: run.stolen)


def measure_memory(bench: Bench, options: argparse.Namespace, results: report.Results) -> None:
    """Headrace over many records: is its memory flat?"""
    source = bench.topics.create("bench.many", append_time=False)
    say(f"writing {options.memory_records:,} records")
    bench.topics.fill(source, options.memory_records, say)
    for row in MEMORY_ROWS:
        for name in OURS:
            if options.contestants and name not in options.contestants:
                continue
            run = bench.throughput(row, name, source, options.memory_records)
            results.memory[f"{row}, {name}"] = run
            grown = f"{run.rss_first_mb:.0f} → {run.rss_second_mb:.0f} MB"
            say(f"memory   {row:<8} {name:<6} {grown} at {run.records_s:,.0f} records/s")


def settings(options: argparse.Namespace, peers: Peers | None) -> dict[str, object]:
    """What the figures depend on."""
    shown: dict[str, object] = {
        "machine": f"{os.cpu_count()} cores, {platform.system()} {platform.machine()}; the broker is on the same cores",
        "Kafka": f"{options.kafka_version}, one broker, JVM at full speed, no compression, topics of 4 partitions, "
        "deleted when they were read",
        "clients": f"confluent-kafka {version('confluent-kafka')}, librdkafka {confluent_kafka.libversion()[0]}",
        "Python": ", ".join(
            [platform.python_version(), *(f"{n} {version(n)}" for n in ("orjson", "msgspec", "fastavro", "protobuf"))]
        ),
        "records": f"{options.records:,} of 170 bytes; {options.rounds} rounds, contestants in turn",
        "checkpoints, commits": "each second",
        "records/s": "from the broker's append of the first output to that of the last; median (least–most)",
        "attempts": f"{options.attempts} of a run while the host takes over {DISTURBED:.0%} of the machine; "
        "the least disturbed counts",
        "CPU": "of the program and its children in that time, without the broker",
        "ratios": "round by round; median (least–most)",
        "2nd half": "the same over the second half of the records: a JVM has warmed up by then",
        "goals": "of each client its own; against Flink, of the 2nd half",
    }
    if options.quick:
        shown["a quick look"] = "too short to judge by, above all where a JVM takes part"
    if peers is not None:
        shown["Flink"] = f"{FLINK_VERSION}, {peers.connector.stem}, parallelism 1, object reuse, in one JVM"
        shown["Java"] = peers.java_version
        shown["Flink's clients"] = ", ".join((*JAVA_SOURCE, *JAVA_SINK)) if peers.tuned_clients else "their defaults"
    return shown


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--records", type=int, help="in each run (default 1,000,000; 2,000,000 with peers)")
    parser.add_argument("--rounds", type=int, help="default 5; 3 with peers")
    parser.add_argument(
        "--attempts",
        type=int,
        default=1,
        metavar="N",
        help="so many at a run, while the host of this virtual machine takes more than"
        f" {DISTURBED:.0%} of it for others; the least disturbed counts (default 1)".replace("%", "%%"),
    )
    parser.add_argument("--only", nargs="+", choices=ROWS, default=list(ROWS), metavar="ROW", help=", ".join(ROWS))
    names = (*OURS, "loop", "flink", "pyflink", *LANES, *METRICS)
    parser.add_argument("--contestants", nargs="+", choices=names, metavar="NAME")
    parser.add_argument("--latency-seconds", type=float, help="of load at 100 records/s, each run (default 10)")
    parser.add_argument("--quick", action="store_true", help="100,000 records, one round")
    parser.add_argument("--memory", action="store_true", help="only Headrace's memory, over a long run")
    parser.add_argument("--memory-records", type=int, default=10_000_000)
    parser.add_argument("--peers", choices=("none", "all"), default=os.environ.get("PEERS") or "none")
    parser.add_argument("--peer-clients", choices=("tuned", "default"), default="tuned", help="Flink's Kafka clients")
    parser.add_argument("--kafka-version", choices=KAFKA_VERSIONS, default=KAFKA_VERSIONS[0])
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure to FILE")
    parser.add_argument("--strict", action="store_true", help="exit code 1 if a goal is missed")
    options = parser.parse_args()
    # A JVM needs its time to warm up: longer runs, and fewer of them, where one takes part.
    with_peers = options.peers == "all"
    options.records = options.records or (100_000 if options.quick else 2_000_000 if with_peers else 1_000_000)
    options.rounds = options.rounds or (1 if options.quick else 3 if with_peers else 5)
    options.latency_seconds = options.latency_seconds or (3.0 if options.quick else 10.0)
    return options


def main() -> int:
    options = arguments()
    peers = (
        prepare(say, tuned_clients=options.peer_clients == "tuned")
        if options.peers == "all" and not options.memory
        else None
    )
    results = report.Results(settings(options, peers))
    with (
        tempfile.TemporaryDirectory(prefix="headrace-bench-") as folder,
        DevBroker(options.kafka_version, fast_start=False, properties=BROKER) as broker,
    ):
        bench = Bench(broker.bootstrap_servers, Path(folder), peers)
        if options.memory:
            measure_memory(bench, options, results)
        else:
            measure(bench, options, peers, results)
    print(report.text(results))
    if options.json is not None:
        results.write(options.json)
    return 1 if options.strict and report.missed(results) else 0


def _ended(number: int, _frame: object) -> None:
    # By way of an exception, so that the broker and the program under measurement are ended too.
    raise SystemExit(128 + number)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _ended)
    try:
        sys.exit(main())
    except (RuntimeError, HeadraceError) as error:
        sys.exit(f"bench: {error}")
