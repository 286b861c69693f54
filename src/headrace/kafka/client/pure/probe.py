"""A second look at a port: the client does not say why brokers close its connections.

A client without TLS at a port that wants it, and one without a login at a port that wants one, hear nothing but that
their connections are gone; so does a client at a proxy whose brokers are still starting. Only the first two can be
told to the user at once.
"""

from __future__ import annotations

import re
import socket
import ssl

_WAIT_S = 1.0
_AT_MOST = 3


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
