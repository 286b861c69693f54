"""What a client reports beside its calls, whatever implementation it is, and what that says of a call that failed."""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import Future, wait
from dataclasses import replace
from threading import Thread

from headrace.kafka.client.protocol import ClientError, ClientFailed, Event, Failure, Settings

_LOG = logging.getLogger("headrace.kafka.client")

WAIT_SLICE_S = 0.1
"""Every longer wait is made of slices, so that signals are served and causes are heard of."""

_NO_CONNECTION = frozenset({"_AUTHENTICATION", "_SSL", "_RESOLVE"})
_NO_CONNECTION_TEXTS = ("PLAINTEXT broker listener", "SSL alert number")

_ANY_CLIENT = (
    "bootstrap.servers",
    "security.",
    "sasl.",
    "ssl.",
    "broker.",
    "client.",
    "socket.",
    "https.",
    "enable.ssl.",
)


def shared_settings(settings: Settings) -> dict[str, str]:
    """The settings that a client of any kind takes."""
    return {name: value for name, value in settings.items() if name.startswith(_ANY_CLIENT)}


def log_line(level: int, text: str) -> None:
    """Takes a line of the client's own log: for debugging, as they repeat ten times a second while a broker is away."""
    _LOG.debug("%s", text)


def log_statistics(text: str) -> None:
    """Takes the client's statistics, a JSON text each `statistics.interval.ms`."""
    _LOG.debug("statistics %s", text)


def log_no_token(error: Exception) -> None:
    """A `TokenSource` failed; the client asks it again in a while, and connects to nobody before."""
    _LOG.warning("no token for OAUTHBEARER could be had, and none of the brokers will answer: %s", error)


class Reports:
    """What a client reported. Separate from the client, so that the two make no reference cycle.

    A producer counts in `handed_over`, and sets `has_succeeded` when it knows: deliveries are heard of if they fail.
    """

    def __init__(self) -> None:
        self.failures: list[Failure] = []
        self.events: list[Event] = []
        self.cause: Failure | None = None
        self.handed_over = 0
        self.has_succeeded = False
        self._failed = 0
        self._told_of: set[str] = set()

    def hear(self, failure: Failure) -> None:
        """The client as a whole failed."""
        if failure.name != "_ALL_BROKERS_DOWN" or self.cause is None:
            self.cause = failure
        self.events.append(ClientFailed(failure))

    def take_failures(self) -> list[Failure]:
        """Deliveries that failed since the last call."""
        failures = [with_cause(failure, self) for failure in self.failures]
        self._failed += len(failures)
        self.failures.clear()
        return failures

    def raise_hopeless(self, waiting: Callable[[], int]) -> None:
        """Raises `ClientError` for a failure of a producer as a whole that trying again does not mend; what may be
        mended is logged, once. `waiting` says how many records are neither delivered nor known to have failed."""
        heard = [event.failure for event in self.events if isinstance(event, ClientFailed)]
        self.events.clear()
        for failure in filter(is_hopeless, heard):
            if not self.has_succeeded:
                self.has_succeeded = self.handed_over > self._failed + len(self.failures) + waiting()
            if is_hopeless(failure, has_succeeded=self.has_succeeded):
                raise ClientError(failure)
            if failure.name not in self._told_of:
                self._told_of.add(failure.name)
                _LOG.warning("trouble with the brokers, going on trying for `delivery.timeout.ms`: %s", failure)


def is_hopeless(failure: Failure, *, has_succeeded: bool = False) -> bool:
    """Whether trying again does not mend this: rights that are missing; and credentials, TLS or a host, unless anything
    `has_succeeded` for this client.

    Once it has, they are right, and what fails is a broker that comes or goes: one that ends a connection in its TLS
    handshake looks like a port without TLS, and its name may be unknown while it is away.
    """
    told = [failure] if failure.cause is None else [failure, failure.cause]
    if any(one.name.endswith("AUTHORIZATION_FAILED") for one in told):
        return True
    return not has_succeeded and any(
        one.name in _NO_CONNECTION or any(text in one.text for text in _NO_CONNECTION_TEXTS) for one in told
    )


def with_cause(failure: Failure, reports: Reports | None) -> Failure:
    """A call that cannot connect says only that it timed out: the cause is what was reported besides."""
    if reports is None or reports.cause is None or failure.name not in ("_TIMED_OUT", "_TRANSPORT", "_MSG_TIMED_OUT"):
        return failure
    return replace(failure, cause=reports.cause)


def call_unless_stuck(call: Callable[[], None], is_stuck: Callable[[], bool]) -> None:
    """Call in a thread; raises `ClientError` once `is_stuck`, and the thread stays behind with the client.

    A thread, as Python serves no signal before a call of the main thread returns.
    """
    done: Future[None] = Future()

    def run() -> None:
        try:
            call()
            done.set_result(None)
        except BaseException as error:  # noqa: BLE001 - raised where it was called
            done.set_exception(error)

    Thread(target=run, name="headrace-transaction", daemon=True).start()
    while not wait([done], WAIT_SLICE_S).done:
        if is_stuck():
            raise ClientError(Failure(STUCK, "the client does not come back from a call, though its time is over"))
    done.result()


STUCK = "_STUCK"
"""The name of the failure of a call that does not come back; the client cannot be used any more."""
