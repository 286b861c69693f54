"""What a client's failures mean, as observed on a secured broker."""

from __future__ import annotations

import pytest

from headrace.connector import TransactionLost
from headrace.errors import ConfigError, ExternalError, FencedError
from headrace.kafka.client.protocol import Failure, TlsFault
from headrace.kafka.failures import connection_trouble, error_of, is_unsettled, transaction_error_of

TIMED_OUT = "timed out"


def caused(name: str, text: str) -> Failure:
    return Failure("_TIMED_OUT", TIMED_OUT, cause=Failure(name, text))


@pytest.mark.parametrize(
    ("failure", "cure", "retriable"),
    [
        (caused("_AUTHENTICATION", "Authentication failed: Invalid username or password"), "`sasl.password`", True),
        (
            caused("_AUTHENTICATION", "Unsupported SASL mechanism: broker's supported mechanisms: X"),
            "`sasl.mechanism`",
            True,
        ),
        (
            caused("_AUTHENTICATION", "Request not valid in current SASL state: broker's supported mechanisms: "),
            "`security.protocol` to SSL",
            True,
        ),
        (caused("_SSL", "certificate verify failed"), "`ssl.ca.location`", True),
        (caused("_TRANSPORT", "alert bad certificate: SSL alert number 42"), "`ssl.certificate.location`", True),
        (caused("_TRANSPORT", "connecting to a PLAINTEXT broker listener?"), "`security.protocol` to PLAINTEXT", True),
        (caused("_TRANSPORT", "Connection refused"), "`bootstrap.servers`", True),
        (caused("_ALL_BROKERS_DOWN", "1/1 brokers are down"), "`security.protocol` to SASL_SSL or SSL", True),
        (caused("_RESOLVE", "Failed to resolve"), "`bootstrap.servers`", True),
        (caused("_TRANSPORT", "refused"), r"refused; .*\(timed out; `default.api.timeout.ms` says", True),
        (Failure("TOPIC_AUTHORIZATION_FAILED", "no"), "Read .* on the topic", False),
        (Failure("GROUP_AUTHORIZATION_FAILED", "no"), "Read on the group", False),
        (Failure("TRANSACTIONAL_ID_AUTHORIZATION_FAILED", "no", is_fatal=True), "Write on the transactional id", False),
        (Failure("UNKNOWN_TOPIC_OR_PART", "unknown"), "create the topic", False),
        (
            Failure("MSG_SIZE_TOO_LARGE", "big", topic="t", size_bytes=77),
            "77 bytes for topic t .*`max.request.size`",
            False,
        ),
    ],
)
def test_an_error_names_the_setting_and_the_cure(failure: Failure, cure: str, retriable: bool) -> None:
    error = error_of("it failed", failure, "host:1")
    assert isinstance(error, ExternalError)
    assert error.retriable is retriable
    with pytest.raises(ExternalError, match=rf"^it failed: .*{cure}"):
        raise error


@pytest.mark.parametrize("fault", TlsFault)
def test_what_a_second_look_has_found_is_said_alone(fault: TlsFault) -> None:
    failure = Failure("_TRANSPORT", TIMED_OUT, cause=Failure("_SSL", "certificate verify failed", fault=fault))
    told = str(error_of("it failed", failure, "host:1"))
    assert fault.value in told
    assert not any(other.value in told for other in TlsFault if other is not fault)


def test_a_setting_that_the_client_refuses_is_the_programs() -> None:
    assert isinstance(error_of("x", Failure("_INVALID_ARG", "Invalid value"), "h"), ConfigError)


@pytest.mark.parametrize("name", ["_FENCED", "PRODUCER_FENCED", "INVALID_PRODUCER_EPOCH"])
def test_a_fenced_producer_is_told_from_a_lost_transaction(name: str) -> None:
    assert isinstance(transaction_error_of("x", Failure(name, "fenced", is_fatal=True), "h"), FencedError)
    assert isinstance(
        transaction_error_of("x", Failure("_INCONSISTENT", "x", requires_abort=True), "h"), TransactionLost
    )


def test_what_no_restart_can_mend_is_no_lost_transaction() -> None:
    error = transaction_error_of("x", Failure("TOPIC_AUTHORIZATION_FAILED", "no", requires_abort=True), "h")
    assert isinstance(error, ExternalError)
    assert not isinstance(error, TransactionLost)
    assert not error.retriable


def test_only_an_open_outcome_is_asked_for_again() -> None:
    assert is_unsettled(Failure("_TIMED_OUT", "x", is_retriable=True))
    assert is_unsettled(Failure("_TIMED_OUT", "x"))
    assert not is_unsettled(Failure("_FENCED", "x", is_fatal=True))
    assert not is_unsettled(Failure("X", "x", is_retriable=True, requires_abort=True))


def test_trouble_with_a_connection_is_told_from_other_failures_with_its_setting() -> None:
    login = connection_trouble(caused("_AUTHENTICATION", "Authentication failed"), "host:1")
    assert login is not None
    assert (login.of, login.setting) == ("authentication", "sasl.password")
    expired = connection_trouble(Failure("_SSL", "failed", fault=TlsFault.EXPIRED), "host:1")
    assert expired is not None
    assert (expired.of, expired.setting) == ("tls", None)
    assert connection_trouble(Failure("TOPIC_AUTHORIZATION_FAILED", "no"), "host:1") is None
