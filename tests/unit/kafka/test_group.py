"""What a group's coordinator answers, when it is not ready to answer."""

from __future__ import annotations

from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException, TopicPartition

from headrace.kafka.client.protocol import CommittedOffset, Failure, KafkaTopicPartition
from headrace.kafka.client.pure import group

PARTITION = KafkaTopicPartition("t", 0)


class Member:
    """A consumer whose coordinator gives one answer after the other, as a broker that has just started does."""

    def __init__(self, *answers: int | KafkaException) -> None:
        self.answers = list(answers)

    def committed(self, asked: list[TopicPartition], timeout: float) -> list[TopicPartition]:
        answer = self.answers.pop(0)
        if isinstance(answer, KafkaException):
            raise answer
        return [TopicPartition(one.topic, one.partition, answer) for one in asked]

    def poll(self, timeout: float) -> None:
        """Nothing is reported."""

    def close(self) -> None:
        """Nothing is held."""


def committed_by(member: Member, monkeypatch: pytest.MonkeyPatch) -> CommittedOffset | Failure | None:
    def get_member(*arguments: Any, **options: Any) -> Member:
        return member

    monkeypatch.setattr(group, "_member", get_member)
    return group.committed({}, "g", [PARTITION], stable=True, timeout_s=30.0)[PARTITION]


@pytest.mark.parametrize(
    "code",
    [
        KafkaError.NOT_COORDINATOR,
        KafkaError.COORDINATOR_NOT_AVAILABLE,
        KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
        KafkaError.REQUEST_TIMED_OUT,
        KafkaError._TIMED_OUT,
    ],
)
def test_a_coordinator_that_is_not_ready_is_asked_again(code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    member = Member(KafkaException(KafkaError(code)), 7)

    assert committed_by(member, monkeypatch) == CommittedOffset(7, "")


def test_a_refusal_is_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    member = Member(KafkaException(KafkaError(KafkaError.GROUP_AUTHORIZATION_FAILED)), 7)

    found = committed_by(member, monkeypatch)

    assert isinstance(found, Failure)
    assert found.name == "GROUP_AUTHORIZATION_FAILED"
