"""What a program sees of its job: futures, states, results, times."""

from __future__ import annotations

from concurrent.futures import Future

from headrace.common import CompletableFuture, Duration, Instant, JobExecutionResult, JobID, JobStatus, Time


def test_a_future_gives_its_result_and_calls_back() -> None:
    inner: Future[int] = Future()
    future, calls = CompletableFuture(inner), []
    future.when_done(lambda: calls.append(1))
    assert (future.done(), future.exception(), calls) == (False, None, [])
    inner.set_result(3)
    assert (future.done(), future.result(), future.exception(), calls) == (True, 3, None, [1])


def test_a_future_that_failed_shows_what_went_wrong() -> None:
    inner: Future[int] = Future()
    inner.set_exception(ValueError("no"))
    assert str(CompletableFuture(inner).exception()) == "no"


def test_a_future_can_be_cancelled_until_it_is_done() -> None:
    future = CompletableFuture(Future[int]())
    assert future.cancel()
    assert future.cancelled()
    assert future.exception() is None
    assert not CompletableFuture.completed(1).cancel()


def test_terminal_states_are_those_after_which_nothing_follows() -> None:
    terminal = [status.name for status in JobStatus if status.is_globally_terminal_state()]
    assert terminal == ["FAILED", "CANCELED", "FINISHED"]
    assert [status.name for status in JobStatus if status.is_terminal_state()] == [*terminal, "SUSPENDED"]


def test_a_result_has_id_time_and_accumulators() -> None:
    result = JobExecutionResult(JobID("ab"), 12, {"n": 3})
    assert (str(result.get_job_id()), result.get_net_runtime()) == ("ab", 12)
    assert (result.get_accumulator_result("n"), result.get_accumulator_result("m")) == (3, None)
    assert result.get_all_accumulator_results() == {"n": 3}


def test_lengths_of_time_add_up() -> None:
    assert Duration.of_days(1) == Duration.of_hours(24) == Duration.of_minutes(1440) == Duration.of_seconds(86400)
    assert Time.days(1) == Time.hours(24) == Time.milliseconds(86_400_000)
    assert (str(Time.seconds(2)), Time.minutes(1).to_milliseconds()) == ("2000 ms", 60_000)


def test_instants_before_1970_keep_their_milliseconds() -> None:
    for millis in (-1, -999, -1000, -1001, 0, 1, 1_700_000_000_123):
        assert Instant.of_epoch_milli(millis).to_epoch_milli() == millis
