"""What a transaction decides before it contacts anybody."""

from __future__ import annotations

import pytest

from headrace.errors import ConfigError
from headrace.kafka.transaction import choose_delivery_timeout, choose_timeout, merge_properties


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


def test_a_timeout_under_interval_and_checkpoint_timeout_is_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"`transaction.timeout.ms` is 60000.*`execution.checkpointing.interval` 1000"
    ):
        choose_timeout(60_000, 900_000, 1_000, 600_000)
    assert choose_timeout(60_000, 900_000, None, 600_000).timeout_ms == 60_000


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
