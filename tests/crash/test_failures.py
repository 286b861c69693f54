"""What Kafka does to a transaction: it runs out of time, a delivery fails, a commit's outcome stays unknown."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import pytest
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource
from tests.crash.harness import DEADLINE_S, Job

from headrace.broker import KAFKA_VERSIONS, DevBroker

SHORT_TRANSACTIONS = (
    "--sink-property",
    "transaction.timeout.ms=3000",
    "--sink-property",
    "delivery.timeout.ms=2500",
)
RESTARTS = ("-D", "restart-strategy.type=fixed-delay", "-D", "restart-strategy.fixed-delay.attempts=20")


@pytest.mark.parametrize(
    "halted_at",
    [
        "commit.before@5",
        pytest.param("checkpoint.flushed@5", marks=pytest.mark.full),
        pytest.param("transaction.offsets_sent@6", marks=pytest.mark.full),
    ],
)
def test_transaction_that_ran_out_of_time_costs_nothing(
    make_job: Callable[..., Job], mortal_kafka: DevBroker, halted_at: str
) -> None:
    job = make_job("--delay-ms", "0.5", *SHORT_TRANSACTIONS, *RESTARTS, broker=mortal_kafka, per_partition=400)
    run = job.halt_at(halted_at)
    assert job.output.open_partitions()

    # The broker aborts it while the job sleeps.
    job.output.wait_until_closed()
    run.wake()
    job.catch_up(run)
    run.stop()

    assert "a transaction timed out, or another copy began and gave up; nothing is lost" in run.log()
    job.check()


def test_record_that_the_broker_refuses_fails_the_job_by_name_and_nothing_is_lost(make_job: Callable[..., Job]) -> None:
    limit = {"max.message.bytes": "20000"}
    job = make_job("--delay-ms", "0.5", "-D", "restart-strategy.type=none", per_partition=200, **limit)
    job.input.produce(1, partitions=[3], pad=100_000)
    job.input.produce(50)

    failed = job.start()
    failed.wait(1)

    assert job.output.topic in failed.log()
    assert "large" in failed.log()
    admin = AdminClient({"bootstrap.servers": job.bootstrap, "log_level": 2})
    entry = ConfigEntry("max.message.bytes", "1000000", incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ConfigResource.Type.TOPIC, job.output.topic, incremental_configs=[entry])
    for altered in admin.incremental_alter_configs([resource]).values():
        altered.result(DEADLINE_S)
    job.finish()
    job.check()


@pytest.fixture
def patient_kafka() -> Iterator[DevBroker]:
    """A broker whose cluster does not give it up while it is stopped.

    One that is given up tells its clients of a cluster without brokers, and librdkafka (2.16), which then drops the
    only connection it has, asks nobody again: the client is dead until its records time out after two minutes.
    """
    with DevBroker(
        os.environ.get("HEADRACE_TEST_KAFKA_VERSION", KAFKA_VERSIONS[0]),
        properties={"broker.session.timeout.ms": "600000"},
    ) as broker:
        yield broker


def test_commit_of_unknown_outcome_on_a_stalled_broker_is_asked_for_until_it_settles(
    make_job: Callable[..., Job], patient_kafka: DevBroker
) -> None:
    job = make_job("--delay-ms", "0.5", broker=patient_kafka, per_partition=300)
    run = job.halt_at("transaction.offsets_sent@6")

    patient_kafka.pause()
    try:
        run.wake()
        run.wait_for_log("could not be committed yet")
    finally:
        patient_kafka.resume()
    job.catch_up(run)
    run.stop()

    job.check()


def test_function_that_takes_50_ms_a_record_does_not_hold_checkpoints_back(make_job: Callable[..., Job]) -> None:
    job = make_job("--delay-ms", "50", "--sink-property", "transaction.timeout.ms=60000", per_partition=15)
    run = job.start()

    job.output.wait_for(1, run)
    first = job.output.visible()
    run.stop()

    # A batch as a quick function's would have held everything back for three seconds, and the signal as long.
    assert first < 20
    assert len(job.output.read()) < 40
    job.finish()
    job.check()


@pytest.mark.full
def test_slow_function_outlives_many_transaction_timeouts(
    make_job: Callable[..., Job], mortal_kafka: DevBroker
) -> None:
    job = make_job("--delay-ms", "50", *SHORT_TRANSACTIONS, *RESTARTS, broker=mortal_kafka, per_partition=100)

    run = job.finish()

    assert "timed out" not in run.log()
    assert "restarting" not in run.log()
    job.check()


def test_function_that_raises_restarts_the_job_from_its_last_checkpoint(make_job: Callable[..., Job]) -> None:
    job = make_job("--delay-ms", "0.5", *RESTARTS, "-D", "restart-strategy.fixed-delay.delay=50 ms", per_partition=300)
    trouble = job.folder / "trouble"
    run = job.start("--fail-once", str(trouble))
    for _ in range(3):
        trouble.touch()
        run.wait_for(lambda: not trouble.exists(), "the function raises")
    job.catch_up(run)
    run.stop()

    assert run.log().count("restarting in") >= 3
    job.check()
