"""A broker with every kind of port that a secured cluster has, and with authorisation."""

from __future__ import annotations

import base64
import json
import random
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import parse_qs

from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)
from tests.kafka.certificates import Authority
from tests.kafka.door import Door

from headrace.broker import KAFKA_VERSIONS, DevBroker
from headrace.broker.properties import HOST, free_ports

TIMEOUT_S = 30.0

USER = "bob"
PASSWORD = 'canary-"7f31\\'
"""With what has to be escaped in a JAAS line."""
SCRAM_USER = "carol"
CERTIFICATE_USER = "alice"
MINIMAL_USER = "mallory"
"""Who may do nothing but what a test grants. The others may do everything."""

_PLAIN = "org.apache.kafka.common.security.plain.PlainLoginModule"
_SCRAM = "org.apache.kafka.common.security.scram.ScramLoginModule"
_OAUTH = "org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule"


def quoted(text: str) -> str:
    """As JAAS lines have it."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def line(module: str, user: str, password: str = PASSWORD) -> str:
    """A client's JAAS line."""
    return f"{module} required username={quoted(user)} password={quoted(password)};"


def plain_line(user: str = USER, password: str = PASSWORD) -> str:
    return line(_PLAIN, user, password)


def scram_line(user: str = SCRAM_USER, password: str = PASSWORD) -> str:
    return line(_SCRAM, user, password)


def token(config: str) -> tuple[str, float, str]:
    """A `TokenSource`: a token for `USER`."""
    assert config == "asked=canary"
    return unsigned_token(USER)


def unsigned_token(user: str) -> tuple[str, float, str]:
    """A token for a minute, which nobody has signed; when it ends, and whose it is."""
    # The broker's clock may be a moment behind, and it takes no token of the future.
    issued, until = time.time() - 5, time.time() + 60

    def part(claims: dict[str, object]) -> str:
        return base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")

    return f"{part({'alg': 'none'})}.{part({'sub': user, 'iat': issued, 'exp': until})}.", until, user


@dataclass(frozen=True)
class Secured:
    """Ports of one broker (each as `bootstrap.servers`), authorities, and what hangs on them."""

    open_servers: str
    """PLAINTEXT, and allowed everything."""
    servers: str
    """SASL_SSL with PLAIN."""
    scram_servers: str
    """SASL_SSL with SCRAM-SHA-256 and -512."""
    certificate_servers: str
    """SSL, for clients with a certificate."""
    token_servers: str
    """OAUTHBEARER tokens, which nobody has to have signed."""
    issuer: str
    """Where such tokens are given to clients that know `USER`'s password."""
    misnamed_servers: str
    """SSL, with a certificate for another host."""
    expired_servers: str
    """SSL, with a certificate that was valid once."""
    door: Door
    """Before a port with SSL, which clients reach in no other way."""
    authority: Authority
    other_authority: Authority

    @property
    def ca(self) -> Path:
        return self.authority.certificate

    @property
    def other_ca(self) -> Path:
        """Of an authority that signed nothing that the broker has."""
        return self.other_authority.certificate

    def admin(self) -> AdminClient:
        """One who may do everything."""
        return AdminClient({"bootstrap.servers": self.open_servers, "log_level": 2})

    @contextmanager
    def granted(self, rights: Sequence[AclBinding]) -> Iterator[None]:
        """These rights exist within the block."""
        admin = self.admin()
        for future in admin.create_acls(list(rights), request_timeout=TIMEOUT_S).values():
            future.result()
        # The controller has them; they hold once the broker has heard of them too.
        missing, deadline = set(map(str, rights)), time.monotonic() + TIMEOUT_S
        while missing:
            assert time.monotonic() < deadline, missing
            everything = AclBindingFilter(
                ResourceType.ANY, None, ResourcePatternType.ANY, None, None, AclOperation.ANY, AclPermissionType.ANY
            )
            missing -= set(map(str, admin.describe_acls(everything, request_timeout=TIMEOUT_S).result()))
        try:
            yield
        finally:
            filters = [
                AclBindingFilter(
                    one.restype,
                    one.name,
                    one.resource_pattern_type,
                    one.principal,
                    one.host,
                    one.operation,
                    one.permission_type,
                )
                for one in rights
            ]
            for future in admin.delete_acls(filters, request_timeout=TIMEOUT_S).values():
                future.result()


class _Issuer(BaseHTTPRequestHandler):
    """Exchanges a client's id and secret for a token, as OpenID Connect has it."""

    def do_POST(self) -> None:
        asked = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
        known = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        if self.headers["Authorization"] != f"Basic {known}" or asked.get("scope") != ["kafka"]:
            self.send_error(401)
            return
        token, _, _ = unsigned_token(USER)
        answer = json.dumps({"access_token": token, "token_type": "Bearer", "expires_in": 60}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def _serving() -> Iterator[ThreadingHTTPServer]:
    with ThreadingHTTPServer((HOST, 0), _Issuer) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield server
        finally:
            server.shutdown()


@contextmanager
def secured_broker(folder: Path, version: str = KAFKA_VERSIONS[0]) -> Iterator[Secured]:
    """Starts it. `folder` takes the certificates."""
    authority, other = Authority(folder / "ca"), Authority(folder / "other")
    names = ("PLAINTEXT", "CONTROLLER", "SECURE", "SCRAM", "CERTIFICATE", "TOKEN", "MISNAMED", "EXPIRED", "DOOR")
    ports = dict(zip(names, free_ports(len(names), random.Random()), strict=True))
    door = Door()
    protocols = dict.fromkeys(names, "SSL") | {
        "PLAINTEXT": "PLAINTEXT",
        "CONTROLLER": "PLAINTEXT",
        "SECURE": "SASL_SSL",
        "SCRAM": "SASL_SSL",
        "TOKEN": "SASL_PLAINTEXT",
    }
    advertised = {**ports, "DOOR": door.port}
    del advertised["CONTROLLER"]
    hosts = {"PLAINTEXT": HOST, "TOKEN": HOST}
    properties = {
        "listeners": ",".join(f"{name}://{HOST}:{port}" for name, port in ports.items()),
        "advertised.listeners": ",".join(
            f"{name}://{hosts.get(name, 'localhost')}:{port}" for name, port in advertised.items()
        ),
        "listener.security.protocol.map": ",".join(f"{name}:{protocol}" for name, protocol in protocols.items()),
        "controller.quorum.voters": f"1@{HOST}:{ports['CONTROLLER']}",
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        # ANONYMOUS is the broker itself too.
        "super.users": ";".join(f"User:{name}" for name in ("ANONYMOUS", USER, SCRAM_USER, f"CN={CERTIFICATE_USER}")),
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": str(authority.keystore("broker", ["localhost", HOST])),
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": str(authority.certificate),
        "listener.name.certificate.ssl.client.auth": "required",
        "listener.name.misnamed.ssl.keystore.location": str(authority.keystore("misnamed", ["other.example"])),
        "listener.name.expired.ssl.keystore.location": str(
            authority.keystore("expired", ["localhost", HOST], is_expired=True)
        ),
        "listener.name.secure.sasl.enabled.mechanisms": "PLAIN",
        "listener.name.secure.plain.sasl.jaas.config": (
            f"{_PLAIN} required " + " ".join(f"user_{name}={quoted(PASSWORD)}" for name in (USER, MINIMAL_USER)) + ";"
        ),
        "listener.name.scram.sasl.enabled.mechanisms": "SCRAM-SHA-256,SCRAM-SHA-512",
        "listener.name.scram.scram-sha-256.sasl.jaas.config": f"{_SCRAM} required;",
        "listener.name.scram.scram-sha-512.sasl.jaas.config": f"{_SCRAM} required;",
        "listener.name.token.sasl.enabled.mechanisms": "OAUTHBEARER",
        "listener.name.token.oauthbearer.sasl.jaas.config": (
            f'{_OAUTH} required unsecuredLoginStringClaim_sub="broker";'
        ),
    }
    with DevBroker(version, port=ports["PLAINTEXT"], properties=properties) as broker, door, _serving() as server:
        door.lead_to(ports["DOOR"])
        at = {name: f"{hosts.get(name, 'localhost')}:{port}" for name, port in ports.items()}
        made = Secured(
            broker.bootstrap_servers,
            at["SECURE"],
            at["SCRAM"],
            at["CERTIFICATE"],
            at["TOKEN"],
            f"http://{HOST}:{server.server_port}/token",
            at["MISNAMED"],
            at["EXPIRED"],
            door,
            authority,
            other,
        )
        mechanisms = (ScramMechanism.SCRAM_SHA_256, ScramMechanism.SCRAM_SHA_512)
        credentials = [
            UserScramCredentialUpsertion(SCRAM_USER, ScramCredentialInfo(each, 4096), PASSWORD.encode())
            for each in mechanisms
        ]
        admin = made.admin()
        for credential in credentials:
            # One by one: a user may be in one request only once.
            for future in admin.alter_user_scram_credentials([credential]).values():
                future.result()
        yield made
