"""A registry that is slow, down, or answers nonsense: whose fault it is, in bounded time, and without a secret."""

from __future__ import annotations

import json
import pickle
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import cloudpickle
import pytest
from tests.kafka.certificates import Authority

from headrace.datastream.formats.registry import (
    ConfluentRegistryAvroDeserializationSchema,
    ConfluentRegistryAvroSerializationSchema,
    ConfluentRegistryJsonDeserializationSchema,
    ConfluentRegistryProtobufDeserializationSchema,
)
from headrace.errors import ConfigError, DataError, ExternalError

ITEM = {"type": "record", "name": "Item", "fields": [{"name": "url", "type": "string"}]}
HELLO = b"\0\0\0\0\x07\x0ahello"
QUICK = {"retries.wait.ms": 1}
IMPATIENT = {"timeout": 0.2, "max.retries": 0}


@dataclass
class Answering:
    """A server that gives `answers`, one after the other and the last one for ever: a status and what is sent.

    An `Event` in place of bytes is waited for, and nothing is sent.
    """

    answers: list[tuple[int, bytes | threading.Event]]
    tls: ssl.SSLContext | None = None
    asked: list[str] = field(default_factory=list)
    logins: list[str | None] = field(default_factory=list)

    def __post_init__(self) -> None:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                outer.asked.append(self.path)
                outer.logins.append(self.headers["Authorization"])
                self.rfile.read(int(self.headers["Content-Length"] or 0))
                status, body = outer.answers[min(len(outer.asked), len(outer.answers)) - 1]
                if isinstance(body, threading.Event):
                    body.wait()
                    return
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_POST = answer

            def log_message(self, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        if self.tls is not None:
            self._server.socket = self.tls.wrap_socket(self._server.socket, server_side=True)
        host = "127.0.0.1" if self.tls is None else "localhost"
        self.url = f"http{'' if self.tls is None else 's'}://{host}:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def close(self) -> None:
        for _, body in self.answers:
            if isinstance(body, threading.Event):
                body.set()
        self._server.shutdown()
        self._server.server_close()


Serve = Callable[..., Answering]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """`serve((200, b"…"), …)`: a server with these answers."""
    servers: list[Answering] = []

    def serve(*answers: tuple[int, Any], tls: ssl.SSLContext | None = None) -> Answering:
        servers.append(
            Answering([(s, json.dumps(b).encode() if isinstance(b, dict | list) else b) for s, b in answers], tls)
        )
        return servers[-1]

    yield serve
    for server in servers:
        server.close()


def reader(url: str, configs: dict[str, Any]) -> ConfluentRegistryAvroDeserializationSchema:
    return ConfluentRegistryAvroDeserializationSchema.for_generic(None, url, configs)


def writer(url: str, configs: dict[str, Any]) -> ConfluentRegistryAvroSerializationSchema:
    return ConfluentRegistryAvroSerializationSchema.for_generic("subject", ITEM, url, configs)


RIGHT = (200, {"schema": json.dumps(ITEM)})


def test_a_registry_that_is_down_is_an_external_error(serve: Serve) -> None:
    server = serve(RIGHT)
    server.close()

    with pytest.raises(ExternalError, match=f"the schema registry at {server.url} did not answer") as caught:
        reader(server.url, QUICK).deserialize(HELLO)
    assert caught.value.retriable
    with pytest.raises(ExternalError, match="did not answer, asked for subject"):
        writer(server.url, QUICK).serialize({"url": "a"})


def test_a_registry_that_is_slow_is_an_external_error(serve: Serve) -> None:
    server = serve((200, threading.Event()))

    with pytest.raises(ExternalError, match=r"ReadTimeout.*`timeout` and `max\.retries` say how long to wait"):
        reader(server.url, IMPATIENT).deserialize(HELLO)
    assert len(server.asked) == 1


def test_nobody_waits_without_end_who_has_set_nothing(serve: Serve) -> None:
    settings = reader(serve(RIGHT).url, {}).registry._client().config()

    assert (settings["timeout"], settings["max.retries"], settings["retries.max.wait.ms"]) == (10, 2, 2000)


@pytest.mark.parametrize("status", [500, 503, 408, 429])
def test_a_registry_that_cannot_answer_now_is_asked_again_and_then_an_external_error(serve: Serve, status: int) -> None:
    server = serve((status, {"error_code": 50001, "message": "the store is not there"}))

    with pytest.raises(ExternalError, match=rf"cannot give .* now \(HTTP {status}\): the store is not there") as caught:
        reader(server.url, QUICK).deserialize(HELLO)
    assert caught.value.retriable
    assert len(server.asked) == 3


def test_a_schema_goes_on_when_its_registry_is_back(serve: Serve) -> None:
    server = serve(*[(503, b"")] * 3, (404, {"error_code": 40403, "message": "not yet"}), RIGHT)
    schema = reader(server.url, QUICK)
    with pytest.raises(ExternalError):
        schema.deserialize(HELLO)
    with pytest.raises(DataError, match="no schema with id 7"):
        schema.deserialize(HELLO)

    assert schema.deserialize(HELLO) == {"url": "hello"}


NONSENSE: dict[str, tuple[int, Any]] = {
    "a page": (200, b"<html>Welcome!</html>"),
    "nothing": (200, b""),
    "no schema": (200, {"hello": 1}),
    "a list": (200, [1, 2]),
    "a number": (200, b"7"),
    "text": (200, b'"7"'),
    "a number as schema": (200, {"schema": 7}),
    "a list as schema": (200, {"schema": ["string"]}),
    "wrong references": (200, {"schema": '"string"', "references": [{"name": "a", "subject": "b", "version": "x"}]}),
    "no Avro": (200, {"schema": "nonsense"}),
    "an unknown type": (200, {"schema": '{"type": "what"}'}),
    "a page that is not found": (404, b"<html>Not found</html>"),
    "a list that is not found": (404, [1]),
    "an answer without a code": (404, {"message": "what?"}),
    "a code that is none": (404, {"error_code": "none", "message": "what?"}),
    "somewhere else": (302, b""),
    "bytes": (200, b"\xff\xfe\x00"),
}


@pytest.mark.parametrize("answer", NONSENSE.values(), ids=NONSENSE)
def test_nonsense_for_a_schema_is_a_clear_external_error(serve: Serve, answer: tuple[int, Any]) -> None:
    server = serve(answer)

    with pytest.raises(ExternalError, match=f"what answers at {server.url} is no schema registry: .*; look at the ad"):
        reader(server.url, QUICK).deserialize(HELLO)


@pytest.mark.parametrize(
    "answer",
    [
        (200, b"<html>Welcome!</html>"),
        (200, b""),
        (200, {"hello": 1}),
        (200, {"id": "seven"}),
        (200, {"id": -1}),
        (200, {"id": 2**32}),
        (200, {"id": True}),
        (200, [7]),
        (405, b"what?"),
    ],
)
@pytest.mark.parametrize("configs", [{}, {"auto.register.schemas": False}], ids=["register", "look up"])
def test_nonsense_for_an_id_is_a_clear_external_error(
    serve: Serve, answer: tuple[int, Any], configs: dict[str, Any]
) -> None:
    server = serve(answer)

    with pytest.raises(ExternalError, match=f"what answers at {server.url} is no schema registry: "):
        writer(server.url, {**QUICK, **configs}).serialize({"url": "a"})


@pytest.mark.parametrize(
    ("schema", "says"),
    [
        ({"type": "array", "items": "null"}, "has an array of what takes no bytes"),
        ({"type": "record", "name": "A", "fields": [{"name": "a", "type": "A"}]}, "'s record A has to contain itself"),
    ],
)
def test_a_schema_by_which_no_bytes_are_data_without_end_is_a_data_error(
    serve: Serve, schema: dict[str, Any], says: str
) -> None:
    server = serve((200, {"schema": json.dumps(schema)}))

    with pytest.raises(DataError, match=f"the schema with id 7 is not used: the Avro schema ?{says}"):
        reader(server.url, QUICK).deserialize(HELLO)


@pytest.mark.parametrize(("kind", "text"), [("JSON", "{"), ("PROTOBUF", "message {"), ("PROTOBUF", "AAAA")])
def test_nonsense_of_other_kinds_is_a_clear_external_error(serve: Serve, kind: str, text: str) -> None:
    from google.protobuf.timestamp_pb2 import Timestamp

    url = serve((200, {"schema": text, "schemaType": kind})).url
    schema = {
        "JSON": ConfluentRegistryJsonDeserializationSchema.for_generic(url, validate=True),
        "PROTOBUF": ConfluentRegistryProtobufDeserializationSchema.for_specific(Timestamp, url),
    }[kind]

    with pytest.raises(ExternalError, match="the schema with id 7 is none"):
        schema.deserialize(HELLO)


@pytest.mark.parametrize(("status", "code"), [(409, 409), (409, 40901), (422, 42201), (422, 422), (405, 40501)])
def test_a_schema_that_is_refused_is_a_config_error(serve: Serve, status: int, code: int) -> None:
    server = serve((status, {"error_code": code, "message": "READER_FIELD_MISSING"}))

    with pytest.raises(ConfigError, match="READER_FIELD_MISSING"):
        writer(server.url, QUICK).serialize({"url": "a"})
    assert len(server.asked) == 1


@pytest.mark.parametrize("status", [401, 403])
def test_a_login_that_is_refused_is_an_external_error_that_nothing_mends(serve: Serve, status: int) -> None:
    server = serve((status, {"error_code": status, "message": "Unauthorized"}))

    with pytest.raises(ExternalError, match=rf"HTTP {status}\); see `basic\.auth\.user\.info`") as caught:
        reader(server.url, {**QUICK, "basic.auth.user.info": "ada:opensesame"}).deserialize(HELLO)
    assert not caught.value.retriable
    assert "opensesame" not in str(caught.value)


def test_normalizing_is_asked_for(serve: Serve) -> None:
    server = serve((200, {"id": 7}))

    writer(server.url, {**QUICK, "normalize.schemas": "true"}).serialize({"url": "a"})

    assert server.asked == ["/subjects/subject/versions?normalize=True"]


def test_a_secret_is_looked_up_when_it_is_needed_and_kept_nowhere(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serve(RIGHT)
    place = tmp_path / "login"
    place.write_text("ada:first\n")
    schema = reader(server.url, {"basic.auth.user.info": f"file:{place}", "basic.auth.credentials.source": "USER_INFO"})
    monkeypatch.setenv("REGISTRY_TOKEN", "opensesame")
    with_token = reader(server.url, {"bearer.auth.token": "env:REGISTRY_TOKEN"})

    schema.deserialize(HELLO)
    place.write_text("ada:second\n")
    reader(server.url, dict(schema.registry.settings)).deserialize(HELLO)
    with_token.deserialize(HELLO)

    assert server.logins == ["Basic YWRhOmZpcnN0", "Basic YWRhOnNlY29uZA==", "Bearer opensesame"]
    for made in (schema, with_token):
        for kept in (repr(made), pickle.dumps(made), cloudpickle.dumps(made), cloudpickle.dumps(made.deserializer)):
            assert not any(secret in str(kept) for secret in ("first", "second", "opensesame"))


def test_a_secret_that_is_not_there_is_a_config_error(serve: Serve) -> None:
    server = serve(RIGHT)

    with pytest.raises(ConfigError, match=r"`bearer\.auth\.token` is env:NO_SUCH_TOKEN, and there is no such"):
        reader(server.url, {"bearer.auth.token": "env:NO_SUCH_TOKEN"}).deserialize(HELLO)
    assert server.asked == []


def test_a_certificate_is_checked_against_the_authority_that_is_named(serve: Serve, tmp_path: Path) -> None:
    authority = Authority(tmp_path / "ca")
    identity = authority.sign("registry", ["localhost"])
    chain = tmp_path / "chain.pem"
    chain.write_text(identity.key_pem() + identity.certificate_pem())
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(chain)
    server = serve(RIGHT, tls=tls)

    trusts = reader(server.url, {**QUICK, "ssl.ca.location": str(authority.certificate)})

    assert trusts.deserialize(HELLO) == {"url": "hello"}
    with pytest.raises(ExternalError, match=r"CERTIFICATE_VERIFY_FAILED.*`ssl\.ca\.location` names the certificates"):
        reader(server.url, QUICK).deserialize(HELLO)
    with pytest.raises(ConfigError, match=r"no client for the schema registry .* can be made with these settings"):
        reader(server.url, {"ssl.ca.location": str(tmp_path / "nothing.pem")}).deserialize(HELLO)


def test_an_error_on_the_way_through_a_proxy_has_its_cure_and_nothing_of_the_proxys_password(
    serve: Serve, tmp_path: Path
) -> None:
    identity = Authority(tmp_path / "ca").sign("proxy", ["localhost"])
    chain = tmp_path / "chain.pem"
    chain.write_text(identity.key_pem() + identity.certificate_pem())
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(chain)
    proxy = serve(RIGHT, tls=tls).url.replace("https://", "HTTPS://ada:opensesame@")

    with pytest.raises(
        ExternalError, match=r"by way of `proxy`.*`ssl\.ca\.location` names the certificates"
    ) as untrusted:
        reader("http://localhost:1", {**QUICK, "proxy": proxy}).deserialize(HELLO)
    # Such a password belongs there percent-encoded: `opens` is read as a port.
    with pytest.raises(ConfigError, match="with `proxy` set") as misread:
        reader("http://localhost:1", {"proxy": "http://ada:opens/esame@localhost:1"}).deserialize(HELLO)

    assert "opens" not in f"{untrusted.value} {misread.value}"
