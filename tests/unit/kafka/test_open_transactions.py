"""What coordinators and leaders say of open transactions, put together; and who may be asked with which settings."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.kafka.certificates import Authority

from headrace.errors import ConfigError
from headrace.kafka.client.protocol import (
    ClientError,
    Failure,
    KafkaTopicPartition,
    PartitionReplicas,
    Position,
    TopicDescription,
)
from headrace.kafka.client.transactions import OpenProducer, Transaction, client_options
from headrace.kafka.open_transactions import Blocked, abort_hanging, assemble, find_open, unknown_to_coordinators

A, B, C = (KafkaTopicPartition("t", number) for number in range(3))
KNOWN = Transaction("news-job-0a1b2c3d-0", "Ongoing", 7, 1, 2, 60_000, 5_000, (A, B))


def producer(number: int, start: int) -> OpenProducer:
    return OpenProducer(number, 1, 0, start, 4_000)


def test_a_transaction_holds_back_a_partition_only_where_it_begins_first() -> None:
    other = Transaction("other", "Ongoing", 8, 0, 1, 60_000, 6_000, (A,))
    producers = {A: (producer(8, 10), producer(7, 12)), B: (producer(7, 3),)}

    first, second = assemble([other, KNOWN], producers, [], {A: (10, 20), B: (3, 5)}, {})

    assert (first.transactional_id, second.transactional_id) == (KNOWN.transactional_id, "other")
    assert first.blocks == (Blocked(A, 12, 0), Blocked(B, 3, 2))
    assert second.blocks == (Blocked(A, 10, 10),)


def test_a_partition_whose_leader_may_not_be_asked_is_shown_all_the_same() -> None:
    [one] = assemble([KNOWN], {A: Failure("TOPIC_AUTHORIZATION_FAILED", "no"), B: ()}, [], {}, {})
    assert one.blocks == (Blocked(A, None, 0), Blocked(B, None, 0))


NO = Failure("TOPIC_AUTHORIZATION_FAILED", "no")


class Cluster:
    """Three partitions, two with something behind; the second's leader does not say what, the third has none."""

    def __init__(self) -> None:
        self.aborted: list[tuple[KafkaTopicPartition, OpenProducer]] = []
        self.hangs = producer(9, 4)
        self.refusals: list[Failure] = []

    def topic_names(self) -> list[str]:
        return ["t"]

    def describe_topics(self, names: Iterable[str]) -> dict[str, Any]:
        replicas = dict.fromkeys((0, 1), PartitionReplicas(0, (0,), (0,))) | {2: PartitionReplicas(None, (0,), ())}
        there = TopicDescription("t", None, (0, 1, 2), replicas=replicas)
        return {name: there if name == "t" else Failure("UNKNOWN_TOPIC_OR_PART", "no") for name in names}

    def list_offsets(self, partitions: Iterable[KafkaTopicPartition], position: Position) -> dict[Any, int]:
        return dict.fromkeys(partitions, 4 if position is Position.STABLE else 9)

    def open_producers(self, partitions: Iterable[KafkaTopicPartition]) -> dict[Any, Any]:
        refusal = self.refusals.pop() if self.refusals else None
        return {p: NO if p == B else refusal or (self.hangs,) for p in partitions}

    def open_transactions(self) -> list[Transaction]:
        return []

    def transactional_ids(self) -> dict[str, int]:
        return {"mine": 9}

    def abort(self, partition: KafkaTopicPartition, own: OpenProducer) -> None:
        self.aborted.append((partition, own))


def test_partitions_whose_leaders_do_not_say_what_is_open_are_named_and_topics_that_are_not_there_too() -> None:
    cluster: Any = Cluster()
    found = find_open(cluster, cluster)
    assert [one.transactional_id for one in found.transactions] == ["mine"]
    assert found.untold == {B: NO, C: Failure("LEADER_NOT_AVAILABLE", "it has no leader")}
    # One that is told late, only the first time: nothing is known to hang there.
    cluster.refusals = [NO]
    found = find_open(cluster, cluster)
    assert (found.transactions, found.untold[A]) == ((), NO)
    # One that was deleted meanwhile.
    cluster.refusals = [Failure("UNKNOWN_TOPIC_OR_PART", "no")] * 2
    assert A not in find_open(cluster, cluster).untold
    with pytest.raises(ClientError, match=r"topic 'nowhere': .* \(UNKNOWN_TOPIC_OR_PART\)"):
        find_open(cluster, cluster, ["nowhere"])


def test_only_what_hangs_still_is_aborted_and_a_leader_that_does_not_answer_is_an_error() -> None:
    cluster: Any = Cluster()
    (one,) = find_open(cluster, cluster).transactions
    abort_hanging(cluster, one)
    assert cluster.aborted == [(A, cluster.hangs)]
    cluster.hangs = producer(9, 6)  # its next one, of the same epoch
    abort_hanging(cluster, one)
    assert len(cluster.aborted) == 1
    with pytest.raises(ClientError, match="TOPIC_AUTHORIZATION_FAILED"):
        abort_hanging(cluster, replace(one, blocks=(Blocked(A, 6, 3), Blocked(B, 4, 5))))
    assert len(cluster.aborted) == 1


def test_what_begins_or_ends_while_it_is_asked_for_does_not_hang() -> None:
    stays = producer(9, 4)
    before = {A: (producer(7, 1), producer(8, 2), stays)}
    # 7 is known, 8 was over, its next one has begun, and 10 is new; only 9 was there all the time.
    after = {A: (producer(7, 1), producer(8, 5), stays, producer(10, 6))}

    hanging = unknown_to_coordinators([KNOWN], before, after)

    assert hanging == [(A, stays)]
    assert unknown_to_coordinators([KNOWN], {}, after) == []


def test_what_hangs_in_several_partitions_is_one_transaction_as_old_as_its_last_record() -> None:
    late = OpenProducer(9, 1, 0, 0, 9_000)
    [named] = assemble([], {}, [(A, producer(9, 4)), (B, late)], {A: (4, 6), B: (0, 1)}, {9: "mine"})
    assert (named.transactional_id, named.state, named.since_ms) == ("mine", "Hanging", 9_000)
    assert named.blocks == (Blocked(A, 4, 2), Blocked(B, 0, 1))
    assert named.is_older_than(999, 10_000)
    assert not named.is_older_than(1_000, 10_000)
    [unnamed] = assemble([], {}, [(A, producer(9, 4))], {}, {})
    assert (unnamed.transactional_id, unnamed.state) == (None, "Unlisted")


SERVERS = {"bootstrap.servers": "a:9092"}


def test_a_password_is_translated_and_does_not_print_itself() -> None:
    settings = {"security.protocol": "SASL_PLAINTEXT", "sasl.mechanism": "PLAIN", "sasl.username": "bob"}
    options = client_options({**SERVERS, **settings, "sasl.password": "canary"})
    assert options["sasl_plain_password"] == "canary"
    assert "canary" not in str(options)


def test_a_certificate_in_the_settings_themselves_is_taken_and_left_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = Authority(tmp_path / "ca")
    identity = authority.sign("alice")
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    settings = {
        "security.protocol": "ssl",
        "ssl.ca.pem": authority.certificate.read_text(),
        "ssl.certificate.pem": identity.certificate_pem(),
        "ssl.key.pem": identity.key_pem("canary"),
        "ssl.key.password": "canary",
        "ssl.endpoint.identification.algorithm": "none",
    }
    context = client_options({**SERVERS, **settings})["ssl_context"]
    assert not context.check_hostname
    assert [one["subject"] for one in context.get_ca_certs()]
    assert list((tmp_path / "temporary").iterdir()) == []


@pytest.mark.parametrize(
    ("settings", "cure"),
    [
        ({"security.protocol": "SASL_PLAINTEXT", "sasl.mechanism": "OAUTHBEARER"}, "`headrace.token.source`"),
        ({"security.protocol": "SASL_PLAINTEXT", "sasl.mechanism": "OTHER"}, "use PLAIN, SCRAM-SHA-256"),
        ({"security.protocol": "SSL", "ssl.keystore.location": "a.p12"}, "openssl pkcs12"),
    ],
)
def test_what_kafka_python_has_not_is_named_with_what_to_do(settings: dict[str, Any], cure: str) -> None:
    with pytest.raises(ConfigError, match="kafka-python") as raised:
        client_options({**SERVERS, **settings})
    assert cure in str(raised.value)
