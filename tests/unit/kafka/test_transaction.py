"""What a transaction decides before it contacts anybody."""

from __future__ import annotations

import logging
from collections.abc import Mapping

import pytest

from headrace.connector import TransactionContext
from headrace.errors import ConfigError
from headrace.kafka import DeliveryGuarantee, KafkaSink
from headrace.kafka.client.protocol import OnStatistics, TokenSource
from headrace.kafka.serialization import BuiltSchema
from headrace.kafka.transaction import (
    KafkaTransaction,
    MarkerPlace,
    TransactionTimeout,
    choose_delivery_timeout,
    choose_timeout,
    merge_properties,
    shared_prefix,
)


@pytest.mark.parametrize(
    ("given_ms", "limit_ms", "chosen_ms"),
    [(None, 900_000, 900_000), (None, 7_200_000, 3_600_000), (None, None, 3_600_000), (700_000, 900_000, 700_000)],
)
def test_the_transaction_timeout_is_flinks_hour_or_what_the_broker_allows(
    given_ms: int | None, limit_ms: int | None, chosen_ms: int
) -> None:
    assert choose_timeout(given_ms, limit_ms, 1_000, 600_000).timeout_ms == chosen_ms


def test_a_timeout_over_the_brokers_limit_is_refused_with_both_numbers() -> None:
    with pytest.raises(ConfigError, match=r"900001, .*at most 900000 \(`transaction.max.timeout.ms`\)"):
        choose_timeout(900_001, 900_000, 1_000, 1_000)


def test_a_timeout_under_the_interval_is_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"`transaction.timeout.ms` is 60000, below `execution.checkpointing.interval`, 60001 ms"
    ):
        choose_timeout(60_000, 900_000, 60_001, 0)
    with pytest.raises(ConfigError, match=r"`transaction.timeout.ms` is 900000, below"):
        choose_timeout(None, 900_000, 1_000_000, 0)


def test_a_timeout_that_a_slow_checkpoint_may_exceed_is_warned_of() -> None:
    chosen = choose_timeout(300_000, 900_000, 60_000, 600_000)
    assert chosen.timeout_ms == 300_000
    assert chosen.warning is not None
    assert (
        "300000, and a transaction may last 60000 ms (`execution.checkpointing.interval`) and 600000" in chosen.warning
    )
    assert choose_timeout(660_000, 900_000, 60_000, 600_000).warning is None
    assert choose_timeout(60_000, 900_000, None, 600_000) == TransactionTimeout(60_000, True)


def transaction_with_flinks_timeout(interval_ms: int, **settings: str) -> KafkaTransaction:
    """One that could not ask the brokers for their limit."""
    schema = BuiltSchema(bytes, topic="t")
    sink = KafkaSink((("bootstrap.servers", "host:1"),), schema, DeliveryGuarantee.EXACTLY_ONCE, "p")
    context = TransactionContext("job", "region", interval_ms, 600_000)
    settings = {"delivery.timeout.ms": "120000", **settings}
    return KafkaTransaction(
        "p-job-region", MarkerPlace("g", "t"), "c", settings, TransactionTimeout(3_600_000, False), sink, context, {}
    )


class Clients:
    """Makes producers whose transactions begin, and keeps what they were made with."""

    def __init__(self) -> None:
        self.settings: list[Mapping[str, str]] = []

    def producer(
        self, settings: Mapping[str, str], token: TokenSource | None, on_statistics: OnStatistics | None
    ) -> Clients:
        self.settings.append(settings)
        return self

    def init_transactions(self, timeout_s: float) -> None:
        pass


@pytest.mark.parametrize(("given", "used"), [({}, "p-job-region"), ({"client.id": "mine"}, "mine")])
def test_the_client_id_is_the_programs_or_else_the_transactional_id(
    given: Mapping[str, str], used: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    clients = Clients()
    monkeypatch.setattr("headrace.kafka.transaction.default_client", lambda: clients)

    transaction_with_flinks_timeout(1_000, **given).fence()

    (settings,) = clients.settings
    assert (settings["client.id"], settings["transactional.id"]) == (used, "p-job-region")


def test_sinks_with_prefixes_of_their_own_share_the_first_and_it_is_said(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "headrace"):
        assert shared_prefix([("a", "x"), ("b", "x")]) == "x"
        assert caplog.messages == []
        assert shared_prefix([("a", "y"), ("b", "x"), ("c", "x")]) == "x"
    assert caplog.messages == [
        "sinks 'b' and 'a' share a transaction; its id begins with 'x', and prefix 'y' is not used"
    ]


def test_a_timeout_that_the_brokers_refused_is_checked_again_when_it_is_lowered(
    caplog: pytest.LogCaptureFixture,
) -> None:
    transaction_with_flinks_timeout(1_000)._lower_timeout()
    assert len(caplog.messages) == 1
    transaction_with_flinks_timeout(400_000)._lower_timeout()
    assert "900000, and a transaction may last 400000 ms" in caplog.text
    with pytest.raises(ConfigError, match=r"`transaction.timeout.ms` is 900000, below .*, 1000000 ms"):
        transaction_with_flinks_timeout(1_000_000)._lower_timeout()
    with pytest.raises(ConfigError, match=r"`delivery.timeout.ms` is 1000000, above `transaction.timeout.ms` 900000"):
        transaction_with_flinks_timeout(1_000, **{"delivery.timeout.ms": "1000000"})._lower_timeout()


def test_delivery_ends_before_the_transaction_does() -> None:
    assert choose_delivery_timeout(None, 120_000, 60_000) == 60_000
    assert choose_delivery_timeout(None, 120_000, 900_000) == 120_000
    assert choose_delivery_timeout(50_000, 120_000, 60_000) == 50_000
    with pytest.raises(ConfigError, match=r"`delivery.timeout.ms` is 70000"):
        choose_delivery_timeout(70_000, 120_000, 60_000)


def test_sinks_that_share_a_producer_must_not_contradict_each_other() -> None:
    assert merge_properties([("a", {"acks": "all"}), ("b", {"linger.ms": "9"})]) == {"acks": "all", "linger.ms": "9"}
    assert merge_properties([("a", {"bootstrap.servers": "x"}), ("b", {"bootstrap.servers": "y"})]) == {
        "bootstrap.servers": "x"
    }
    with pytest.raises(ConfigError, match=r"'a' and 'b' share .*`sasl.password` is not the same") as raised:
        merge_properties([("a", {"sasl.password": "opensesame"}), ("b", {"sasl.password": "other"})])
    assert "opensesame" not in str(raised.value)
