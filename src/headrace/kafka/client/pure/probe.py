"""A second look at a port: the client does not say why brokers close its connections, or what is wrong with TLS.

A client without TLS at a port that wants it, and one without a login at a port that wants one, hear nothing but that
their connections are gone; so does a client at a proxy whose brokers are still starting. Only the first two can be
told to the user at once. And librdkafka has one text for a certificate of another authority, one that has expired, and
one for another host, which Python's own TLS tells apart.
"""

from __future__ import annotations

import re
import socket
import ssl
from pathlib import Path

from headrace.kafka.client.protocol import Failure, Settings, TlsFault

_WAIT_S = 1.0
_AT_MOST = 3

# OpenSSL's, of a certificate's verification.
_NOT_YET_VALID, _EXPIRED, _WRONG_HOST, _WRONG_ADDRESS = 9, 10, 62, 64
_IS_IDENTIFIED = "ssl.endpoint.identification.algorithm"
_OWN_CERTIFICATE = ("ssl.certificate.location", "ssl.certificate.pem", "ssl.keystore.location")


def speaks_tls(servers: str) -> bool:
    """Whether one of the first of these `host:port` answers a TLS handshake, be it with a refusal."""
    return any(_is_tls(*address) for address in addresses(servers)[:_AT_MOST])


def addresses(servers: str) -> list[tuple[str, int]]:
    """Hosts and ports of `bootstrap.servers`.

    >>> addresses("a:9092, SSL://[::1]:9093,b")
    [('a', 9092), ('::1', 9093), ('b', 9092)]
    """
    found = [re.fullmatch(r"\s*(?:\w+://)?(?:\[(.+)]|([^:]+?))(?::(\d+))?\s*", each) for each in servers.split(",")]
    return [(each[1] or each[2], int(each[3] or 9092)) for each in found if each]


def tls_fault(settings: Settings, failure: Failure) -> TlsFault | None:
    """What is wrong with TLS if a client with these settings fails so; None if it is about something else, or if the
    first brokers show no reason."""
    if "SSL alert number" in failure.text:
        has_own = any(settings.get(name) for name in _OWN_CERTIFICATE)
        return TlsFault.CERTIFICATE if has_own else TlsFault.NO_CERTIFICATE
    if failure.name != "_SSL":
        return None
    try:
        context = trust(settings)
    except (OSError, ValueError):
        # The client has read these files, so it is Python that cannot.
        return None
    at = addresses(settings.get("bootstrap.servers", ""))[:_AT_MOST]
    return next((found for address in at if (found := _fault(context, *address)) is not None), None)


def trust(settings: Settings) -> ssl.SSLContext:
    """Trusts whom a client with these settings trusts."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = settings.get(_IS_IDENTIFIED, "https") != "none"
    location, pem = settings.get("ssl.ca.location"), settings.get("ssl.ca.pem")
    if pem:
        context.load_verify_locations(cadata=pem)
    elif location and location != "probe":
        is_folder = Path(location).is_dir()
        context.load_verify_locations(None if is_folder else location, location if is_folder else None)
    else:
        context.load_default_certs()
    return context


def _fault(context: ssl.SSLContext, host: str, port: int) -> TlsFault | None:
    try:
        with (
            socket.create_connection((host, port), timeout=_WAIT_S) as connection,
            context.wrap_socket(connection, server_hostname=host),
        ):
            return None
    except ssl.SSLCertVerificationError as error:
        match error.verify_code:
            case code if code in (_NOT_YET_VALID, _EXPIRED):
                return TlsFault.EXPIRED
            case code if code in (_WRONG_HOST, _WRONG_ADDRESS):
                return TlsFault.NAME
            case _:
                return TlsFault.AUTHORITY
    except OSError:
        return None


def _is_tls(host: str, port: int) -> bool:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    # Nothing is sent but the handshake, and nobody is believed anything.
    context.verify_mode = ssl.CERT_NONE
    try:
        with (
            socket.create_connection((host, port), timeout=_WAIT_S) as connection,
            context.wrap_socket(connection, server_hostname=host),
        ):
            return True
    except ssl.SSLEOFError:
        return False
    except ssl.SSLError as error:
        return error.reason is not None and "ALERT" in error.reason
    except OSError:
        return False
