"""Topics that a sink writes: they exist, or are created by being asked for, before the first record.

A producer that meets a missing topic says so after half a minute, and after the first records: here it is noticed when
the sink starts. Brokers with `auto.create.topics.enable` create a topic when a producer asks for it, as with any client
of Kafka; the others leave that to people.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection

from headrace.errors import ExternalError
from headrace.kafka.client.protocol import Admin, ClientError, Failure
from headrace.kafka.failures import error_of, is_unknown_topic, may_not, missing_right

_LOG = logging.getLogger("headrace.kafka")

_AUTO_CREATE = "auto.create.topics.enable"
_SETTING_UNREAD_S = 3.0
"""How long a topic is waited for if nobody may know whether the brokers create it."""

_POLL_S = 0.02


class TopicPartitions:
    """The partitions of topics, for partitioners: `ask` is called when they are wanted, and again after `max_age_s`."""

    def __init__(
        self,
        ask: Callable[[str], tuple[int, ...]],
        max_age_s: float,
        servers: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ask = ask
        self._max_age_s = max_age_s
        self._servers = servers
        self._clock = clock
        self._known: dict[str, tuple[float, tuple[int, ...]]] = {}

    def of(self, topic: str) -> tuple[int, ...]:
        """Raises `ExternalError` for a topic that does not exist, or brokers that do not answer the first time."""
        at, partitions = self._known.get(topic, (0.0, ()))
        if partitions and self._clock() < at + self._max_age_s:
            return partitions
        try:
            partitions = self._ask(topic)
        except ClientError as error:
            if not partitions:
                what = f"the partitions of topic {topic!r} could not be looked up"
                raise error_of(what, error.failure, self._servers) from None
            _LOG.warning("the partitions of topic %r could not be looked up again: %s", topic, error)
        self._known[topic] = self._clock(), partitions
        return partitions


def require_topics(admin: Admin, names: Collection[str], servers: str, *, may_create: bool, timeout_s: float) -> None:
    """Returns when these topics exist. Raises `ExternalError` for one that does not, or that may not be written.

    `may_create` is the producer's `allow.auto.create.topics`. Costs one request if all of them exist.
    """
    try:
        for name, found in admin.describe_topics(names).items():
            if may_not(found, "WRITE"):
                raise missing_right(f"topic {name!r} cannot be written", "Write", f"topic {name!r}")
            if not isinstance(found, Failure):
                continue
            if not is_unknown_topic(found):
                raise error_of(f"topic {name!r} cannot be written", found, servers)
            if not may_create or not _is_created(admin, name, timeout_s):
                raise ExternalError(
                    f"topic {name!r} does not exist on {servers}; create it, correct its name, or have the brokers "
                    f"create what is asked for (`{_AUTO_CREATE}`)",
                    retriable=False,
                )
    except ClientError as error:
        raise error_of(f"topics {sorted(names)} could not be looked for", error.failure, servers) from None


def _is_created(admin: Admin, name: str, timeout_s: float) -> bool:
    """Ask until the topic is there, for as long as there is hope."""
    enabled = admin.broker_setting(_AUTO_CREATE)
    if enabled == "false":
        return False
    deadline = time.monotonic() + (min(timeout_s, _SETTING_UNREAD_S) if enabled is None else timeout_s)
    while not admin.ask_for_topic(name):
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL_S)
    _LOG.warning("topic %r did not exist; the brokers created it with their defaults", name)
    return True
