"""Running a job: attempts one after the other, signals, and what the program that started it can ask.

Theory of operation. An *attempt* is one coordinator with its workers, from the start path to the end. What it fails
with decides what follows:

| failure | then |
|---|---|
| a setting, a snapshot that must not be restored, a defect of Headrace | end with the error |
| what trying again cannot mend: a right, a topic that is not there, a record too large | end with the error |
| anything behind the end of the job | end with the error |
| anything before the job has run for the first time | end with the error: nobody wants to wait for a typo |
| the epoch taken or fenced, before the own claim: another copy is starting | back off for a random while, start over |
| the same later, and a newer copy holds the claim | end with the error: two copies would fence each other for ever |
| behind the request to stop, anything but one lane's first failure | end with the error |
| anything else, a transaction that timed out included | as the restart strategy says |

At parallelism 1 coordinator and worker take turns in the thread that called `execute`; above, workers are processes of
their own, and a failure of one that can be mended alone starts that one again (see `headrace.runtime.coordinator`).
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import random
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from headrace.checkpoint.decision import BackOff, OtherCopy, TimedOut
from headrace.checkpoint.storage import CheckpointFolder, EpochTaken, open_snapshot
from headrace.common import options
from headrace.common.completable_future import CompletableFuture
from headrace.common.configuration import Configuration
from headrace.common.job_client import JobClient
from headrace.common.job_execution_result import JobExecutionResult
from headrace.common.job_id import JobID
from headrace.common.job_status import JobStatus
from headrace.common.refusal import not_supported
from headrace.errors import (
    ConfigError,
    DataError,
    ExternalError,
    FencedError,
    HeadraceError,
    InternalError,
    StateError,
    UserCodeError,
)
from headrace.metrics.registry import Sample
from headrace.plan.graph import Plan
from headrace.plan.parallelism import idle_default, lanes, with_parallelism
from headrace.runtime.collecting import Collecting, LaneCollected, with_collected
from headrace.runtime.coordinator import Coordinator, LaneCannotRejoin
from headrace.runtime.job_meters import CheckpointCounts, job_samples
from headrace.runtime.link import LaneFailed, Link, LocalLink
from headrace.runtime.process import alone_in_this_process, log_to_stderr
from headrace.runtime.restart import delay_before_restart
from headrace.runtime.settings import Reporter, check_plan, read_settings
from headrace.runtime.signals import stopped_by_signals
from headrace.runtime.temporary import temporary_root
from headrace.runtime.worker import Worker

log = logging.getLogger("headrace")

PROGRESS_S = 1.0
"""How often a job says where it is."""

STEP_WAIT_S = 0.05
"""How long a step may wait for a record: what a signal or a barrier waits for at most when nothing comes."""

Watch: TypeAlias = "Callable[[Job], contextlib.AbstractContextManager[object]]"
"""What goes on around a job's run: the command line's status, and its answers to other commands."""


class JobCancelled(HeadraceError):
    """The job was cancelled with `JobClient.cancel`."""


def run_job(plan: Plan, configuration: Configuration, watch: Watch = contextlib.nullcontext) -> JobExecutionResult:
    """Run a job in this thread, until it ends, within `watch(job)`.

    SIGTERM and SIGINT stop it with a last checkpoint, a second one at once.
    """
    job = Job(plan, configuration)
    with log_to_stderr(), stopped_by_signals(lambda: [job]), watch(job):
        try:
            return job.run()
        except InternalError:
            raise
        except HeadraceError as error:
            # The message says it all; the user's own traceback, if there is one, is its cause.
            raise error.with_traceback(None) from error.__cause__


def start_job(plan: Plan, configuration: Configuration, watch: Watch = contextlib.nullcontext) -> Job:
    """Run a job in a thread of its own, within `watch(job)`.

    A program that ends before it is told so, as the job ends with it; and of a failure that nobody asked for.
    """
    job = Job(plan, configuration)
    job.start(watch)
    atexit.register(_tell_of_left_job, job)
    return job


def _tell_of_left_job(job: Job) -> None:
    if not job.has_ended:
        log.warning(
            "job `%s` ends with its program, without a last checkpoint. To wait for it, call "
            "`get_job_execution_result().result()` of what `execute_async` gives, or use `headrace run`",
            job.name,
        )
    elif (error := job.take_unheard_failure()) is not None:
        log.error("job `%s` failed: %s", job.name, error)


@dataclass(frozen=True, slots=True)
class _SavepointRequest:
    """A savepoint that was asked for. `result` is running once a coordinator knows of it."""

    directory: Path
    is_last: bool
    result: Future[str] = field(default_factory=Future)


@dataclass(frozen=True, slots=True)
class JobProgress:
    """Where a running job was at `at_s` (monotonic). Counts are those of the present attempt.

    `lag` is None if no source knows; `checkpoint` is the last complete one's number, `checkpoint_ms` how long it took.
    """

    at_s: float
    records_in: int
    records_out: int
    lag: int | None
    checkpoint: int | None
    checkpoint_ms: float
    restarts: int


class Job(JobClient):
    """One run of a job, and its handle."""

    def __init__(self, plan: Plan, configuration: Configuration) -> None:
        self._settings = read_settings(configuration)
        self._warnings = check_plan(plan, self._settings)
        parallelism = options.PARALLELISM.read(configuration)
        self._plan = with_parallelism(plan, parallelism)
        if (warning := idle_default(self._plan, parallelism)) is not None:
            self._warnings.append(warning)
        self._collecting = Collecting(self._plan)
        self._id = JobID(secrets.token_hex(16))
        self._status = JobStatus.CREATED
        self._result: Future[JobExecutionResult] = Future()
        self._result.set_running_or_notify_cancel()  # so that nobody else cancels it
        self._is_heard = False
        self._coordinator: Coordinator | None = None
        self._stop_requested = False
        self._lost_while_stopping: set[int] = set()
        self._cancel_requested = False
        self._savepoint: _SavepointRequest | None = None
        self.has_begun = False
        """Whether there is anything that a last checkpoint could hold."""
        self._attempts = 0
        self._failures: list[float] = []
        self._checkpoints = CheckpointCounts()
        self._samples: tuple[Sample, ...] = ()
        self._since = time.monotonic()
        self._failed_record: str | None = None
        self._record_failures = 0
        self.progress: JobProgress | None = None
        """Made anew every second while the job runs; None before."""

    @property
    def name(self) -> str:
        return self._plan.job_name

    # --- what the program asks ---------------------------------------------------------------------------------------

    def get_job_id(self) -> JobID:
        """The id of this run."""
        return self._id

    def get_job_status(self) -> CompletableFuture[JobStatus]:
        """Where the job is in its life."""
        return CompletableFuture.completed(self._status)

    def cancel(self) -> CompletableFuture[None]:
        """End the job without a last checkpoint."""
        self._cancel_requested = True
        done: Future[None] = Future()
        self._result.add_done_callback(lambda _: done.set_result(None))
        return CompletableFuture(done)

    def stop(self) -> None:
        """*Extension.* End the job with a last checkpoint, as SIGTERM does."""
        # A flag and no lock: this is also called by a handler of signals, in the middle of anything.
        self._stop_requested = True

    def stop_with_savepoint(
        self, advance_to_end_of_event_time: bool, savepoint_directory: str | None = None
    ) -> CompletableFuture[str]:
        """End the job with a savepoint; its path is the result."""
        if advance_to_end_of_event_time:
            raise not_supported(
                "stop_with_savepoint(advance_to_end_of_event_time=True)",
                "pass False: windows and timers then go on later",
            )
        return self._request_savepoint(savepoint_directory, is_last=True)

    def trigger_savepoint(self, savepoint_directory: str | None = None) -> CompletableFuture[str]:
        """Take a savepoint; its path is the result, or what the job failed with before it was taken."""
        return self._request_savepoint(savepoint_directory, is_last=False)

    def _request_savepoint(self, savepoint_directory: str | None, *, is_last: bool) -> CompletableFuture[str]:
        directory = Path(savepoint_directory) if savepoint_directory else self._settings.savepoint_dir
        if directory is None:
            raise ConfigError("a savepoint needs a folder: pass one, or set `execution.checkpointing.savepoint-dir`")
        if self._savepoint is not None:
            raise StateError("a savepoint is already under way; wait for its result")
        request = _SavepointRequest(directory, is_last)
        self._savepoint = request
        if self._result.done():
            self._settle_savepoint(None, StateError(f"job {self._plan.job_name!r} has ended; there is no savepoint"))
        return CompletableFuture(request.result)

    @property
    def folder(self) -> Path | None:
        """Where the job keeps its checkpoints; None: nowhere that outlives it."""
        root = self._settings.checkpoint_dir
        return None if root is None else CheckpointFolder(root, self._plan.job_name).path

    def get_accumulators(self) -> CompletableFuture[dict[str, Any]]:
        """None are kept: an empty dict."""
        return CompletableFuture.completed({})

    def get_job_execution_result(self) -> CompletableFuture[JobExecutionResult]:
        """Done when the job has ended."""
        self._is_heard = True
        return CompletableFuture(self._result)

    # --- what the command line asks ----------------------------------------------------------------------------------

    @property
    def is_stopping(self) -> bool:
        """Whether it has been asked to end."""
        return self._stop_requested or self._cancel_requested

    @property
    def has_ended(self) -> bool:
        return self._result.done()

    def when_ended(self, callback: Callable[[], object]) -> None:
        """Call back once it has ended, from whichever thread that happens in."""
        self._result.add_done_callback(lambda _: callback())

    def wait(self) -> None:
        """Wait for its end, however that comes."""
        futures.wait([self._result])

    def take_unheard_failure(self) -> BaseException | None:
        """What it has failed with, if nobody has ever asked how it ends."""
        error = self._result.exception() if self.has_ended and not self._is_heard else None
        self._is_heard = True
        return None if isinstance(error, JobCancelled) else error

    # --- run ---------------------------------------------------------------------------------------------------------

    def start(self, watch: Watch = contextlib.nullcontext) -> None:
        """Run in a thread of its own."""

        def target() -> None:
            with contextlib.suppress(Exception), watch(self):  # told by the future
                self.run()

        threading.Thread(target=target, name=f"headrace-{self._plan.job_name}", daemon=True).start()

    def run(self) -> JobExecutionResult:
        """Run to the end, in this thread."""
        started_at = time.monotonic()
        try:
            for warning in self._warnings:
                log.warning("%s", warning)
            with contextlib.ExitStack() as stack:
                if self._settings.reporter is not None:
                    stack.enter_context(self._shown(self._settings.reporter))
                root = self._settings.checkpoint_dir
                if root is None:
                    root = stack.enter_context(temporary_root())
                folder = CheckpointFolder(root, self._plan.job_name)
                folder.lock()
                stack.callback(folder.release)
                stack.enter_context(alone_in_this_process(self._plan, folder))
                self._run_attempts(folder)
        except BaseException as error:
            self._status = JobStatus.CANCELED if isinstance(error, JobCancelled) else JobStatus.FAILED
            self._result.set_exception(error)
            self._settle_savepoint(None, error)
            raise
        self._status = JobStatus.FINISHED
        result = JobExecutionResult(self._id, int((time.monotonic() - started_at) * 1000))
        self._result.set_result(result)
        self._settle_savepoint(None, StateError(f"job {self._plan.job_name!r} has ended; there is no savepoint"))
        return result

    def _run_attempts(self, folder: CheckpointFolder) -> None:
        chosen = None if self._settings.recovery_path is None else open_snapshot(self._settings.recovery_path)
        # A folder that does not outlive the run is no lost folder, whatever markers earlier runs left.
        fresh = self._settings.fresh or (self._settings.checkpoint_dir is None and chosen is None)
        assume = self._settings.assume
        self._failures.clear()
        while True:
            link = self._connect(folder)
            coordinator = Coordinator(
                self._plan,
                self._settings,
                folder,
                link,
                chosen=chosen,
                fresh=fresh,
                assume=assume,
                counts=self._checkpoints,
            )
            self._coordinator = coordinator
            try:
                self._run_attempt(link, coordinator)
                self._shut_down(link, coordinator, raises=True)
                if self._stop_requested and self._settings.checkpoint_dir and coordinator.completed is not None:
                    log.info("job `%s` has stopped with checkpoint %s", self.name, coordinator.completed.id)
                return
            except Exception as raised:  # noqa: BLE001 - whatever it is, it decides what follows
                error = raised.error if isinstance(raised, LaneFailed) else raised
                self._keep_last_samples(link)
                pause_s = self._pause_after(error, coordinator)
                if self._savepoint is not None and self._savepoint.result.running():
                    self._settle_savepoint(None, StateError(f"the savepoint failed with the job: {error}"))
            finally:
                if coordinator.has_baseline:
                    # What was asked for is durable now: a restart goes on from there.
                    chosen, fresh, assume = None, False, None
                self._shut_down(link, coordinator)
            if pause_s:
                self._pause(pause_s)
            self._attempts += 1

    def _connect(self, folder: CheckpointFolder) -> Link:
        """Workers for one attempt."""
        if lanes(self._plan) > 1:
            # Not before it is needed: a job without processes of its own starts quicker without it.
            from headrace.runtime.team import Team

            return Team(self._plan, self._settings, folder.path.parent, self._collecting, self._attempts)
        plan = with_collected(self._plan, LaneCollected(self._collecting, 0))
        worker = Worker(plan, self._settings, folder, attempt_number=self._attempts)
        return LocalLink(worker, self._collecting)

    def _pause_after(self, error: BaseException, coordinator: Coordinator, lane: int | None = None) -> float:
        """How many seconds to wait before the next attempt (of one lane or of all), after this one failed; raises if
        there is to be none."""
        if isinstance(error, FencedError | EpochTaken) or coordinator.is_overtaken():
            match self._explain_fencing(coordinator):
                case OtherCopy(at, continues):
                    what = (
                        "Nothing is lost or repeated: the other copy went on from what this one had committed"
                        if continues
                        else "The other copy works with another checkpoint folder, or none, and did not go on from "
                        "what this one had committed: it may repeat or skip records"
                    )
                    raise StateError(
                        f"another copy of job {self._plan.job_name!r} took over with snapshot {at}; this one stops and "
                        f"does not come back. {what}"
                    ) from error
                case BackOff():
                    log.info("another copy of job `%s` is starting: %s", self._plan.job_name, error)
                    return random.uniform(0.1, 2.0)
                case TimedOut() if isinstance(error, FencedError):
                    log.warning(
                        "a transaction timed out, or another copy began and gave up; nothing is lost, its records are "
                        "produced again"
                    )
                case TimedOut():
                    log.warning(
                        "another copy of job `%s` began an epoch, and did not come to its claim", self._plan.job_name
                    )
        if isinstance(error, LaneCannotRejoin):
            # What comes of a failure that has been counted, and waited for.
            log.warning("all lanes of job `%s` start again: %s", self._plan.job_name, error)
            return 0.0
        self._failures.append(time.monotonic() * 1000)
        delay_ms = delay_before_restart(self._settings.restart_strategy, self._failures, random.random())
        is_final = isinstance(error, ConfigError | StateError | JobCancelled | InternalError)
        is_final = is_final or (isinstance(error, ExternalError) and not error.retriable)
        # What fails behind the end fails for good: there is nothing to go on with.
        is_final = is_final or coordinator.is_done
        is_final = is_final or (self._stop_requested and not self._may_come_back_to_stop(lane))
        if is_final or not self.has_begun or delay_ms is None:
            raise error
        if lane is None:
            self._status = JobStatus.RESTARTING
            self._since = time.monotonic()
        # With the user's own traceback, if it was a function of the program's; what nobody foresaw with its own.
        users = error.__cause__ if isinstance(error, UserCodeError | DataError) else None
        shown = users if isinstance(error, HeadraceError) else error
        log.error(
            "%s failed, restarting in %.1f s: %s%s",
            f"job `{self._plan.job_name}`" if lane is None else f"lane {lane} of job `{self._plan.job_name}`",
            delay_ms / 1000,
            error,
            self._again(error),
            exc_info=shown,
        )
        return delay_ms / 1000

    def _may_come_back_to_stop(self, lane: int | None) -> bool:
        """Whether a failure behind the request to stop leaves time for the last checkpoint: a lane's first does."""
        if lane is None or lane in self._lost_while_stopping:
            return False
        self._lost_while_stopping.add(lane)
        return True

    def _again(self, error: BaseException) -> str:
        """What to add to a failure on the record that the attempt before had failed on too."""
        record = error.record if isinstance(error, UserCodeError | DataError) else None
        is_same = record is not None and record == self._failed_record
        self._failed_record, self._record_failures = record, self._record_failures + 1 if is_same else 1
        if not is_same:
            return ""
        return (
            f"; the same record failed {self._record_failures} times in a row: a restart may not help, `on_error` may"
        )

    def _explain_fencing(self, coordinator: Coordinator) -> OtherCopy | TimedOut | BackOff:
        try:
            return coordinator.explain_fencing(self._pause)
        except ExternalError as error:
            # The next start asks again, and decides.
            log.warning("who took over cannot be told: %s", error)
            return TimedOut()

    def _run_attempt(self, link: Link, coordinator: Coordinator) -> None:
        link.start()
        coordinator.start()
        if coordinator.finished_before is not None:
            manifest = coordinator.finished_before.manifest
            when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(manifest.created_at_ms / 1000))
            log.warning(
                "job `%s` has finished before (%s, checkpoint %s): nothing to do. `--fresh` runs it from the start",
                self._plan.job_name,
                when,
                manifest.id,
            )
            return
        self.has_begun = True
        self._status = JobStatus.RUNNING
        self._since = time.monotonic()
        while not coordinator.is_done:
            if self._cancel_requested:
                raise JobCancelled(f"job {self._plan.job_name!r} was cancelled")
            request = self._savepoint
            if request is not None and not request.result.running():
                if not request.result.set_running_or_notify_cancel():
                    self._savepoint = None
                    continue
                coordinator.request_savepoint(request.directory, is_last=request.is_last)
                # Not before: the checkpoint it is written with has to be the last one.
                self._stop_requested = self._stop_requested or request.is_last
            if self._stop_requested:
                coordinator.stop()
            try:
                self._turn(link, coordinator)
            except LaneFailed as failed:
                if not self._goes_on_without(failed, link):
                    raise
                coordinator.lose(failed.lane, self._pause_after(failed.error, coordinator, failed.lane))
                self._attempts += 1
            match coordinator.take_savepoint():
                case Path() as path:
                    self._settle_savepoint(path, None)
                case error:
                    self._settle_savepoint(None, error)
            self._publish(link, coordinator)

    def _turn(self, link: Link, coordinator: Coordinator) -> None:
        """Some work, what the workers say of it, and what is due."""
        link.work(min(STEP_WAIT_S, coordinator.seconds_until_due()))
        self._take_in(link, coordinator)
        coordinator.tick()
        self._take_in(link, coordinator)

    def _take_in(self, link: Link, coordinator: Coordinator) -> None:
        while (said := link.receive()) is not None:
            coordinator.handle(*said)

    def _goes_on_without(self, failed: LaneFailed, link: Link) -> bool:
        """Whether only one lane has to start again. To be fenced concerns all: somebody took over."""
        return link.lanes > 1 and self._settings.fails_by_region and not isinstance(failed.error, FencedError)

    def _publish(self, link: Link, coordinator: Coordinator) -> None:
        now = time.monotonic()
        if self.progress is None or now >= self.progress.at_s + PROGRESS_S:
            done = coordinator.completed
            number = None if done is None else done.id.number
            done_by_all = link.progress()
            self.progress = JobProgress(
                now,
                done_by_all.records_in,
                done_by_all.records_out,
                done_by_all.lag,
                number,
                self._checkpoints.last_ms,
                self._attempts,
            )
            self._keep_samples(link)

    def _keep_samples(self, link: Link) -> None:
        if self._settings.reporter is not None:
            self._samples = link.samples()

    def _keep_last_samples(self, link: Link) -> None:
        """What an attempt failed with is counted, and shown until the next has something to show."""
        try:
            self._keep_samples(link)
        except Exception as error:  # noqa: BLE001 - what the attempt has failed with matters more
            log.debug("the last metrics of an attempt are not known: %s", error)

    @contextlib.contextmanager
    def _shown(self, reporter: Reporter) -> Iterator[None]:
        """Have metrics be read while the job is there, through all its attempts."""
        # Not before it is needed: it loads a server.
        from headrace.metrics.prometheus import Endpoint

        of_all = {"host": socket.gethostname(), "job_id": str(self._id), "job_name": self.name}
        endpoint = Endpoint(reporter.host, reporter.ports, self.samples, of_all)
        log.info("metrics of job `%s`: %s", self.name, endpoint.url)
        try:
            yield
        finally:
            endpoint.close()

    def samples(self) -> tuple[Sample, ...]:
        """The metrics of the job and of its operators, as they were a second ago at most. From any thread."""
        passed_ms = int((time.monotonic() - self._since) * 1000)
        return (*job_samples(self._checkpoints, self._status, passed_ms, self._attempts), *self._samples)

    def _settle_savepoint(self, path: Path | None, error: BaseException | None) -> None:
        request = self._savepoint
        if request is None or (path is None and error is None):
            return
        self._savepoint = None
        if not request.result.running() and not request.result.set_running_or_notify_cancel():
            return  # nobody waits for it any more
        if error is not None:
            request.result.set_exception(error)
        else:
            request.result.set_result(str(path))

    def _shut_down(self, link: Link, coordinator: Coordinator, *, raises: bool = False) -> None:
        for error in link.close():
            if raises:
                raise error
            log.warning("failed besides, while it ended: %s", error)
        coordinator.close()

    def _pause(self, seconds: float) -> None:
        """Wait, unless the job is to end."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0 and not (self._cancel_requested or self._stop_requested):
            time.sleep(min(left, STEP_WAIT_S))
        if self._cancel_requested or self._stop_requested:
            raise JobCancelled(
                f"job {self._plan.job_name!r} was stopped while it waited to start again; the next run goes on from "
                "its last checkpoint"
            )
