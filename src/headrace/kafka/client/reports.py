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

_HOPELESS = frozenset({"_AUTHENTICATION", "_SSL", "_RESOLVE"})
_HOPELESS_TEXTS = ("PLAINTEXT broker listener", "SSL alert number")

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
    """What a client reported. Separate from the client, so that the two make no reference cycle."""

    def __init__(self) -> None:
        self.failures: list[Failure] = []
        self.events: list[Event] = []
        self.cause: Failure | None = None

    def hear(self, failure: Failure) -> None:
        """The client as a whole failed."""
        if failure.name != "_ALL_BROKERS_DOWN" or self.cause is None:
            self.cause = failure
        self.events.append(ClientFailed(failure))

    def take_failures(self) -> list[Failure]:
        """Deliveries that failed since the last call, and failures of the client that trying again does not mend."""
        failures = [with_cause(failure, self) for failure in self.failures]
        self.failures.clear()
        failures += [e.failure for e in self.events if isinstance(e, ClientFailed) and is_hopeless(e.failure)]
        self.events.clear()
        return failures


def is_hopeless(failure: Failure) -> bool:
    """Whether a connection failed in a way that trying again does not mend."""
    return failure.name in _HOPELESS or any(text in failure.text for text in _HOPELESS_TEXTS)


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
