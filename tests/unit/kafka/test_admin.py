"""What an admin client makes of connections that fail while it waits for an answer."""

from __future__ import annotations

from concurrent.futures import Future

import pytest

from headrace.kafka.client.protocol import ClientError, Failure
from headrace.kafka.client.pure.admin import PureAdmin

BROKEN_OFF = Failure("_TRANSPORT", "SSL handshake failed: Disconnected: connecting to a PLAINTEXT broker listener?")


class Slow(Future[str]):
    """An answer that is there when it is asked for the third time; until then connections are broken off."""

    def __init__(self, admin: PureAdmin) -> None:
        super().__init__()
        self._admin = admin
        self._asked = 0

    def done(self) -> bool:
        self._admin._reports.hear(BROKEN_OFF)
        self._asked += 1
        if self._asked == 3:
            self.set_result("answer")
        return super().done()


@pytest.fixture
def admin() -> PureAdmin:
    return PureAdmin({"bootstrap.servers": "127.0.0.1:1"}, timeout_s=30.0)


def test_connections_that_are_broken_off_end_the_wait_for_a_first_answer(admin: PureAdmin) -> None:
    with pytest.raises(ClientError) as raised:
        admin._result(Slow(admin))

    assert raised.value.failure.cause == BROKEN_OFF


def test_connections_that_are_broken_off_end_no_wait_for_later_answers(admin: PureAdmin) -> None:
    first: Future[str] = Future()
    first.set_result("first")
    assert admin._result(first) == "first"

    assert admin._result(Slow(admin)) == "answer"
    assert admin._result(first) == "first"
    assert admin._reports.events == []
