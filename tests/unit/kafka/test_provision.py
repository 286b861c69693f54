"""What a young cluster answers before it knows itself, and how it is asked again."""

from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from headrace.errors import ExternalError
from headrace.kafka.client import provision


class _Answers:
    """A client that gives these answers one after the other, whoever asks."""

    def __init__(self, *answers: Any) -> None:
        self.left = list(answers)

    def list_topics(self, topic: str | None = None, timeout: float = 0.0) -> Any:
        answer = self.left.pop(0)
        if isinstance(answer, KafkaException):
            raise answer
        return answer


def _refusal(code: int) -> KafkaException:
    return KafkaException(KafkaError(code))


def _cluster(brokers: int) -> Any:
    return SimpleNamespace(brokers=dict.fromkeys(range(brokers)))


def test_a_broker_that_knows_of_none_yet_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = _Answers(_refusal(KafkaError._PARTIAL), _cluster(1), _refusal(KafkaError._PARTIAL), _cluster(3))
    monkeypatch.setattr(provision, "_client", lambda _: answers)
    provision.wait_for_brokers("127.0.0.1:1", 3)
    assert not answers.left


def test_any_other_refusal_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = _Answers(_refusal(KafkaError._TRANSPORT), _cluster(3))
    monkeypatch.setattr(provision, "_client", lambda _: answers)
    with pytest.raises(ExternalError, match="does not say what it holds"):
        provision.wait_for_brokers("127.0.0.1:1", 3)
    assert len(answers.left) == 1
