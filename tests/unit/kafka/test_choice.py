"""Which Kafka client is used, and what is said of it."""

from __future__ import annotations

import _ctypes
import logging
import subprocess
import sys
from collections.abc import Iterator

import pytest

from headrace.errors import ConfigError
from headrace.kafka import client as clients
from headrace.kafka.client import CHOICE, default_client
from headrace.kafka.client.native import NativeClient, NativeUnavailableError
from headrace.kafka.client.pure import PureClient


@pytest.fixture(autouse=True)
def nothing_chosen(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv(CHOICE, raising=False)
    clients._client.cache_clear()
    yield
    clients._client.cache_clear()


@pytest.fixture
def no_native(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> NativeClient:
        raise NativeUnavailableError("its extension is not built")

    monkeypatch.setattr(clients, "NativeClient", refuse)


def test_pure_is_what_the_variable_says(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setenv(CHOICE, "pure")
    assert isinstance(default_client(), PureClient)
    assert default_client() is default_client()
    assert caplog.messages == ["Kafka client: pure, as `HEADRACE_CLIENT` says"]


@pytest.mark.usefixtures("no_native")
def test_pure_serves_where_native_cannot_be_had_and_the_log_says_why(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    assert isinstance(default_client(), PureClient)
    assert caplog.messages == ["Kafka client: pure; the native one cannot be used: its extension is not built"]


@pytest.mark.usefixtures("no_native")
def test_native_that_is_asked_for_and_cannot_be_had_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CHOICE, "native")
    with pytest.raises(ConfigError, match=r"`HEADRACE_CLIENT` is native.*not built.*or set `HEADRACE_CLIENT` to pure"):
        default_client()


def test_another_name_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CHOICE, "rust")
    with pytest.raises(ConfigError, match="'rust'; it has to be native or pure"):
        default_client()


def test_a_library_that_does_not_fit_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    native = pytest.importorskip("headrace.kafka.client.native._librdkafka", reason="no C compiler built it here")
    with pytest.raises(OSError, match="no rd_kafka_version"):
        native.load(_ctypes.__file__)
    with pytest.raises(OSError, match="cannot be opened"):
        native.load("/no/such/file")
    for bounds in ("99.0 or newer, but below 100.0", "1.0 or newer, but below 2.0"):
        oldest, following = (int(word.split(".")[0]) for word in bounds.split() if "." in word)
        monkeypatch.setattr("headrace.kafka.client.native.OLDEST", (oldest, 0))
        monkeypatch.setattr("headrace.kafka.client.native.NEXT", (following, 0))
        with pytest.raises(NativeUnavailableError, match=rf"needs librdkafka {bounds}, and confluent-kafka has"):
            NativeClient()


def test_an_extension_that_was_not_built_is_named() -> None:
    program = (
        "import sys; sys.modules['headrace.kafka.client.native._librdkafka'] = None\n"
        "from headrace.kafka.client.native import NativeClient\n"
        "NativeClient()"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert "its extension is not built for this Python" in ended.stderr
