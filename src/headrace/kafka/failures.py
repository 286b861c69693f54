"""What a client's failures mean: the one place that turns them into Headrace's errors, with the setting and the cure.

A call that cannot connect says only that it timed out; what went wrong is in the failure's `cause`. One text of the
client covers several TLS faults: the message names the one that a second look has found, or all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import assert_never

from headrace.connector import TransactionLost
from headrace.errors import ConfigError, ExternalError, FencedError, HeadraceError
from headrace.kafka.client.protocol import Failure, TlsFault, TopicDescription

_FENCED = frozenset({"_FENCED", "PRODUCER_FENCED", "INVALID_PRODUCER_EPOCH"})
_CONNECTION = frozenset({"_TRANSPORT", "_ALL_BROKERS_DOWN", "_TIMED_OUT", "_MSG_TIMED_OUT", "_RESOLVE"})
_UNSETTLED = frozenset({"_TIMED_OUT", "_TRANSPORT", "_ALL_BROKERS_DOWN", "_PREV_IN_PROGRESS"})
_UNKNOWN_TOPIC = frozenset({"UNKNOWN_TOPIC_OR_PART", "_UNKNOWN_TOPIC", "_UNKNOWN_PARTITION", "UNKNOWN_TOPIC_ID"})


def is_unsettled(failure: Failure) -> bool:
    """Whether a transactional call that failed so has an unknown outcome and is to be called again."""
    return not failure.is_fatal and not failure.requires_abort and (failure.is_retriable or failure.name in _UNSETTLED)


def is_fenced(failure: Failure) -> bool:
    """Whether another producer has the transactional id now."""
    return failure.name in _FENCED


def is_unknown_topic(failure: Failure) -> bool:
    """Whether the brokers have no such topic, as far as this principal may know."""
    return failure.name in _UNKNOWN_TOPIC


def error_of(what: str, failure: Failure, servers: str) -> HeadraceError:
    """The error for `what` failed (lower case, `"topic t could not be read"`); `servers` are the bootstrap servers."""
    if (trouble := connection_trouble(failure, servers)) is not None:
        # What a call waited for as long as the program lets it; a delivery has a time of its own.
        waited = ""
        if failure.name == "_TIMED_OUT" and trouble.of == "connection":
            waited = f" ({failure.text}; `default.api.timeout.ms` says how long to wait)"
        return ExternalError(f"{what}: {trouble.problem}; {trouble.cure}{waited}")
    return _rights_error(what, _told(failure)) or _other_error(what, failure)


def missing_right(what: str, right: str, resource: str) -> ExternalError:
    """The error for `what` failed, as this principal has no `right` (`"Read"`) on a resource (`"topic 't'"`)."""
    return ExternalError(
        f"{what}: this principal needs {right} on {resource}, and has not got it; grant it (an ACL of the cluster), or "
        "log in as somebody who has it",
        retriable=False,
    )


def may_not(found: object, operation: str) -> bool:
    """Whether this answer says that the principal may not do this (`READ`): a refusal, a topic's description or a
    group's operations. False if it does not say."""
    match found:
        case Failure(name):
            return name.endswith("AUTHORIZATION_FAILED")
        case TopicDescription(operations=operations):
            return operations is not None and operation not in operations
        case frozenset():
            return operation not in found
        case _:
            return False


def undelivered(failures: Sequence[Failure]) -> str:
    """What failed, for `error_of`, when these deliveries did."""
    more = f" (and {len(failures) - 1} more)" if len(failures) > 1 else ""
    return f"a record for topic {failures[0].topic!r}{more} was not delivered"


def transaction_error_of(what: str, failure: Failure, servers: str) -> HeadraceError:
    """Like `error_of`, for a call of a transactional producer: what is lost is produced again after a restart."""
    if is_fenced(failure):
        return FencedError(
            f"{what}: another producer took the transactional id over, a newer copy of this job or, after a timeout, "
            "the broker"
        )
    error = error_of(what, failure, servers)
    if isinstance(error, ConfigError) or (isinstance(error, ExternalError) and not error.retriable):
        return error
    return TransactionLost(f"{error}; nothing of it was visible, and the last checkpoint produces it again")


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why brokers could not be asked, and what to do; `setting` is where to look first, if it is one of the client's.

    `of` is `tls`, `authentication` or `connection`.
    """

    of: str
    problem: str
    cure: str
    setting: str | None


def connection_trouble(failure: Failure, servers: str) -> Trouble | None:
    """What a failure says about the connection to `servers`; None if it is about something else."""
    failure = _told(failure)
    text = failure.text
    if failure.fault is not None:
        cure, setting = _cure(failure.fault)
        return Trouble("tls", f"TLS to {servers} failed: {failure.fault.value} ({text})", cure, setting)
    match failure.name:
        case "_AUTHENTICATION":
            cure, setting = "check `sasl.username` and `sasl.password` (or `sasl.jaas.config`)", "sasl.password"
            # First, as its text names the mechanisms that are supported there: none.
            if "Request not valid in current SASL state" in text:
                cure = "these brokers expect no SASL on this port: set `security.protocol` to SSL"
                setting = "security.protocol"
            elif "mechanism" in text and "upported" in text:
                cure, setting = "set `sasl.mechanism` to one that the brokers have", "sasl.mechanism"
            elif "OAUTHBEARER token" in text:
                # Of the issuer, which may answer with a whole page.
                text = " ".join(text.split())
                cure = (
                    "check the client's id and secret (in `sasl.jaas.config` or `sasl.oauthbearer.*`), and "
                    "`sasl.oauthbearer.token.endpoint.url`"
                )
                setting = "sasl.jaas.config"
            return Trouble("authentication", f"{servers} refused the login: {text}", cure, setting)
        case "_SSL":
            cure = (
                "check that `ssl.ca.location` holds the CA that signed the brokers' certificate, that the certificate "
                "has not expired, and that it names the host in `bootstrap.servers`"
            )
            return Trouble("tls", f"TLS to {servers} failed: {text}", cure, "ssl.ca.location")
        case "_RESOLVE":
            problem, setting = f"a host in {servers} is unknown: {text}", "bootstrap.servers"
            return Trouble("connection", problem, f"check `{setting}`", setting)
        case name if name in _CONNECTION:
            cure, setting = "check `bootstrap.servers` and that the brokers run", "bootstrap.servers"
            if "PLAINTEXT" in text:
                cure = (
                    "the broker went away meanwhile, or this port speaks no TLS: set `security.protocol` to PLAINTEXT "
                    "(or SASL_PLAINTEXT)"
                )
                setting = "security.protocol"
            elif "alert number" in text:
                cure = "the brokers want a client certificate: set `ssl.certificate.location` and `ssl.key.location`"
                setting = "ssl.certificate.location"
            elif name == "_ALL_BROKERS_DOWN":
                cure = f"set `security.protocol` to SASL_SSL or SSL if this port wants it; {cure}"
                setting = "security.protocol"
            return Trouble("connection", f"{servers} cannot be reached: {text}", cure, setting)
        case _:
            return None


def _told(failure: Failure) -> Failure:
    """The failure that tells most."""
    return failure.cause if failure.cause is not None and failure.name in _CONNECTION else failure


def _cure(fault: TlsFault) -> tuple[str, str | None]:
    """What to do, and where to look."""
    match fault:
        case TlsFault.AUTHORITY:
            setting = "ssl.ca.location"
            return (
                f"set `{setting}` to the CA that signed it (in Java's words `ssl.truststore.location`, as PEM)",
                setting,
            )
        case TlsFault.EXPIRED:
            return "renew it at the brokers, or set this machine's clock", None
        case TlsFault.NAME:
            return (
                "name the brokers in `bootstrap.servers` as their certificate does (or, if anybody may pose as them, "
                "set `ssl.endpoint.identification.algorithm` to none)"
            ), "bootstrap.servers"
        case TlsFault.NO_CERTIFICATE:
            setting = "ssl.certificate.location"
            return f"set `{setting}` and `ssl.key.location` (in Java's words `ssl.keystore.*`)", setting
        case TlsFault.CERTIFICATE:
            setting = "ssl.certificate.location"
            return (
                f"check that the one in `{setting}` (or `ssl.keystore.*`) has not expired, and that the brokers trust "
                "the CA that signed it"
            ), setting
        case _:
            assert_never(fault)


def _rights_error(what: str, failure: Failure) -> HeadraceError | None:
    rights = {
        "TOPIC_AUTHORIZATION_FAILED": "Read (to read it) or Write (to write it) on the topic",
        "GROUP_AUTHORIZATION_FAILED": "Read on the group",
        "TRANSACTIONAL_ID_AUTHORIZATION_FAILED": "Write on the transactional id",
        "CLUSTER_AUTHORIZATION_FAILED": "IdempotentWrite on the cluster (or set `enable.idempotence` to false)",
    }
    if failure.name not in rights:
        return None
    return ExternalError(f"{what}: {failure}; this principal needs {rights[failure.name]}", retriable=False)


def _other_error(what: str, failure: Failure) -> HeadraceError:
    if is_unknown_topic(failure):
        if failure.name == "_UNKNOWN_PARTITION":
            cure = "it has no such partition: see what the serializer or the partitioner chooses"
        else:
            cure = "create the topic, or correct its name"
        return ExternalError(f"{what}: {failure}; {cure}", retriable=False)
    if failure.name in ("MSG_SIZE_TOO_LARGE", "RECORD_LIST_TOO_LARGE"):
        size = "" if failure.size_bytes is None else f" of {failure.size_bytes} bytes"
        topic = "" if failure.topic is None else f" for topic {failure.topic}"
        return ExternalError(
            f"{what}: a record{size}{topic} is too large ({failure.name}), or the batch "
            "that it is in; raise `max.request.size` (librdkafka: `message.max.bytes`) and the topic's "
            "`max.message.bytes`, or write less (for batches, lower `batch.size`)",
            retriable=False,
        )
    if failure.name == "_INVALID_ARG":
        return ConfigError(f"{what}: {failure.text}")
    return ExternalError(f"{what}: {failure}", retriable=not failure.is_fatal or failure.is_retriable)
