"""Transactions of a whole cluster (KIP-664), on `kafka-python`: the main client has no such requests.

The one place that knows kafka-python, which is loaded when the first of these is made. Settings are the main client's,
under librdkafka's names, and are translated here. Whoever makes one has spoken to the cluster through an `Admin`
before, so what is wrong with a password or a certificate was named there.

Invariants. No call waits longer than `timeout_s` for each request that it makes. Failures are the protocol's, with
librdkafka's names.
"""

from __future__ import annotations

import contextlib
import os
import ssl
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from headrace.errors import ConfigError
from headrace.kafka.client.protocol import ClientError, Failure, KafkaTopicPartition, Settings, TokenSource
from headrace.kafka.client.pure.probe import trust

_T = TypeVar("_T")

_AGAIN_S: Final = 0.1
_IS_OPEN: Final = frozenset({"Ongoing", "PrepareCommit", "PrepareAbort", "PrepareEpochFence"})


@dataclass(frozen=True, slots=True)
class Transaction:
    """An open transaction, as its coordinator (a broker's id) describes it. `started_at_ms` None: it does not say."""

    transactional_id: str
    state: str
    producer_id: int
    producer_epoch: int
    coordinator: int
    timeout_ms: int
    started_at_ms: int | None
    partitions: tuple[KafkaTopicPartition, ...]


@dataclass(frozen=True, slots=True)
class OpenProducer:
    """A producer with an open transaction, as a partition's leader knows it: where it begins there, and when it wrote
    last (its own clock's time)."""

    producer_id: int
    producer_epoch: int
    coordinator_epoch: int
    start_offset: int
    last_written_ms: int


class TransactionAdmin:
    """Asks the coordinators of a cluster for transactions, and partitions' leaders for producers."""

    def __init__(self, settings: Settings, timeout_s: float, *, token: TokenSource | None = None) -> None:
        try:
            # Versions before 3 have no such thing.
            from kafka.admin import AbortTransactionSpec, KafkaAdminClient
        except ImportError:
            raise ConfigError(
                "to list open transactions takes kafka-python 3 or newer: pip install 'headrace[transactions]'"
            ) from None
        self._spec = AbortTransactionSpec
        self._timeout_s = timeout_s
        timeout_ms = int(timeout_s * 1000)
        with _failing_as_client_error():
            self._client = KafkaAdminClient(
                **client_options(settings, token),
                request_timeout_ms=timeout_ms,
                bootstrap_timeout_ms=timeout_ms,
                reconnect_backoff_max_ms=1000,
            )

    def transactional_ids(self) -> dict[str, int]:
        """Every transactional id that this principal may describe, with its producer id, whatever its state."""
        return {one.transactional_id: one.producer_id for one in self._listed()}

    def open_transactions(self) -> list[Transaction]:
        """Those that are neither committed nor aborted yet."""
        ids = sorted(one.transactional_id for one in self._listed() if one.state.value in _IS_OPEN)
        found = []
        # One by one: an answer for several is refused as a whole if one of them is over, and forgotten, meanwhile.
        for transactional_id in ids:
            try:
                described = self._ask(self._client.describe_transactions, [transactional_id])
            except ClientError as error:
                if error.failure.name == "TRANSACTIONAL_ID_NOT_FOUND":
                    continue
                raise
            one = described[transactional_id]
            if one.state.value in _IS_OPEN:
                started_at_ms = one.transaction_start_time_ms
                found.append(
                    Transaction(
                        transactional_id,
                        one.state.value,
                        one.producer_id,
                        one.producer_epoch,
                        one.coordinator_id,
                        one.transaction_timeout_ms,
                        started_at_ms if started_at_ms >= 0 else None,
                        tuple(sorted(KafkaTopicPartition(p.topic, p.partition) for p in one.topic_partitions)),
                    )
                )
        return found

    def open_producers(
        self, partitions: Iterable[KafkaTopicPartition]
    ) -> dict[KafkaTopicPartition, tuple[OpenProducer, ...] | Failure]:
        """The producers with an open transaction in each partition, the one that began first being the first."""
        from kafka.structs import TopicPartition

        found: dict[KafkaTopicPartition, tuple[OpenProducer, ...] | Failure] = {}
        for partition in partitions:
            at = TopicPartition(partition.topic, partition.partition)
            try:
                producers = self._ask(self._client.describe_producers, [at])[at].active_producers
            except ClientError as error:
                if error.failure.name.startswith("_"):
                    raise
                found[partition] = error.failure
                continue
            opened = [
                OpenProducer(
                    one.producer_id,
                    one.producer_epoch,
                    one.coordinator_epoch,
                    one.current_transaction_start_offset,
                    one.last_timestamp,
                )
                for one in producers
                if one.current_transaction_start_offset >= 0
            ]
            found[partition] = tuple(sorted(opened, key=lambda one: one.start_offset))
        return found

    def abort(self, partition: KafkaTopicPartition, producer: OpenProducer) -> None:
        """End this producer's transaction in one partition, without its coordinator: for one that knows nothing of it
        any more. Needs ClusterAction on the cluster."""
        from kafka.structs import TopicPartition

        spec = self._spec(
            TopicPartition(partition.topic, partition.partition),
            producer.producer_id,
            producer.producer_epoch,
            producer.coordinator_epoch,
        )
        self._ask(self._client.abort_transaction, spec)

    def close(self) -> None:
        self._client.close()

    def _listed(self) -> list[Any]:
        by_broker = self._ask(self._client.list_transactions)
        return [one for listed in by_broker.values() for one in listed]

    def _ask(self, call: Callable[..., _T], *arguments: Any) -> _T:
        """Again, for as long as brokers say that it may help: a coordinator moves, a connection was idle."""
        deadline = time.monotonic() + self._timeout_s
        while True:
            try:
                with _failing_as_client_error():
                    return call(*arguments)
            except ClientError as error:
                if not error.failure.is_retriable or time.monotonic() > deadline:
                    raise
                time.sleep(_AGAIN_S)


@contextlib.contextmanager
def _failing_as_client_error() -> Iterator[None]:
    from kafka.errors import KafkaError

    try:
        yield
    except (KafkaError, OSError) as error:
        raise ClientError(_failure_of(error)) from None


def _failure_of(error: Exception) -> Failure:
    from kafka.errors import BrokerResponseError, KafkaTimeoutError, RequestTimedOutError, RetriableError

    is_retriable = isinstance(error, RetriableError)
    match error:
        case RequestTimedOutError() | KafkaTimeoutError():
            return Failure("_TIMED_OUT", str(error))
        case BrokerResponseError():
            return Failure(str(error.message), str(error.description), is_retriable=is_retriable)
        case _:
            return Failure("_TRANSPORT", str(error), is_retriable=is_retriable)


class _Secret(str):
    """Does not print itself: kafka-python writes all of its options to its log."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'***'"


def client_options(settings: Settings, token: TokenSource | None = None) -> dict[str, Any]:
    """librdkafka's settings as kafka-python's options. Raises `ConfigError` for what it does not have.

    >>> client_options({"bootstrap.servers": "a:9092,b:9092", "sasl.username": "bob"})
    {'bootstrap_servers': ['a:9092', 'b:9092'], 'security_protocol': 'PLAINTEXT', 'client_id': 'headrace'}
    """
    protocol = settings.get("security.protocol", "plaintext").upper()
    options: dict[str, Any] = {
        "bootstrap_servers": [each.strip() for each in settings["bootstrap.servers"].split(",") if each.strip()],
        "security_protocol": protocol,
        "client_id": settings.get("client.id", "headrace"),
    }
    if protocol.endswith("SSL"):
        options["ssl_context"] = _ssl_context(settings)
    if protocol.startswith("SASL"):
        options |= _login(settings, token)
    return options


def _login(settings: Settings, token: TokenSource | None) -> dict[str, Any]:
    mechanism = settings.get("sasl.mechanism", "").upper()
    match mechanism:
        case "PLAIN" | "SCRAM-SHA-256" | "SCRAM-SHA-512":
            return {
                "sasl_mechanism": mechanism,
                "sasl_plain_username": settings.get("sasl.username", ""),
                "sasl_plain_password": _Secret(settings.get("sasl.password", "")),
            }
        case "OAUTHBEARER" if token is not None:
            return {
                "sasl_mechanism": mechanism,
                "sasl_oauth_token_provider": _token_provider(token, settings.get("sasl.oauthbearer.config", "")),
            }
        case "OAUTHBEARER":
            raise ConfigError(
                "transactions are asked for with kafka-python, which fetches no OAUTHBEARER tokens by itself: name a "
                "function that gives them with `headrace.token.source`, or log in with PLAIN, SCRAM or a certificate"
            )
        case _:
            raise ConfigError(
                f"transactions are asked for with kafka-python, which cannot log in with `sasl.mechanism` {mechanism}; "
                "use PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 or OAUTHBEARER"
            )


def _token_provider(source: TokenSource, config: str) -> Any:
    from kafka.net.sasl.oauth import AbstractTokenProvider

    class Provider(AbstractTokenProvider):  # type: ignore[misc]
        def token(self) -> str:
            return source(config)[0]

    return Provider()


_NO_PKCS12: Final = (
    "transactions are asked for with kafka-python, which reads PEM only: convert `ssl.keystore.location` with "
    "`openssl pkcs12 -in STORE.p12 -out STORE.pem`, and set `ssl.keystore.type` to PEM"
)


def _ssl_context(settings: Settings) -> ssl.SSLContext:
    context = trust(settings)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if settings.get("enable.ssl.certificate.verification", "true").lower() == "false":
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if ciphers := settings.get("ssl.cipher.suites"):
        context.set_ciphers(ciphers)
    if revoked := settings.get("ssl.crl.location"):
        context.load_verify_locations(revoked)
        context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF
    if settings.get("ssl.keystore.location"):
        raise ConfigError(_NO_PKCS12)
    password = settings.get("ssl.key.password")
    if pem := settings.get("ssl.certificate.pem"):
        with _file(pem) as certificate, _file(settings.get("ssl.key.pem", "")) as key:
            context.load_cert_chain(certificate, key, password)
    elif location := settings.get("ssl.certificate.location"):
        context.load_cert_chain(location, settings.get("ssl.key.location"), password)
    return context


@contextlib.contextmanager
def _file(text: str) -> Iterator[str]:
    """A file that only this user can read, while Python's TLS reads it: it takes certificates from files alone."""
    descriptor, path = tempfile.mkstemp(suffix=".pem")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        yield path
    finally:
        os.unlink(path)
