"""What a development broker's `server.properties` says, and which ports its servers use."""

from __future__ import annotations

import random
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

HOST = "127.0.0.1"

# Below the ranges from which Linux (32768-60999) and macOS (49152-65535) take ports for outgoing connections: a port
# from inside could be taken by a client between a broker's kill and its restart, even by one reconnecting to itself.
_PORTS = range(20_000, 32_000)


@dataclass(frozen=True, slots=True)
class Ports:
    """One server's ports on the loopback address."""

    broker: int
    controller: int


def server_properties(node_id: int, ports: Sequence[Ports], log_dir: Path, extra: Mapping[str, str]) -> dict[str, str]:
    """The properties of server `node_id` (from 1) of a cluster of `len(ports)` servers; `extra` wins.

    Each server is broker and controller. It listens on the loopback address only. Internal topics are as replicated
    as the cluster allows and have few partitions, and a consumer group does not wait for members: a development
    cluster is judged by how soon it is ready. Topics are not created by being named (`auto.create.topics.enable`):
    a misspelt name is an error here, as it is on most clusters that matter.
    """
    servers = len(ports)
    own = ports[node_id - 1]
    voters = ",".join(f"{number}@{HOST}:{each.controller}" for number, each in enumerate(ports, 1))
    replicas = str(min(servers, 3))
    in_sync = str(1 if servers < 3 else 2)
    return {
        "process.roles": "broker,controller",
        "node.id": str(node_id),
        "controller.quorum.voters": voters,
        "controller.listener.names": "CONTROLLER",
        "listeners": f"PLAINTEXT://{HOST}:{own.broker},CONTROLLER://{HOST}:{own.controller}",
        "advertised.listeners": f"PLAINTEXT://{HOST}:{own.broker}",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "inter.broker.listener.name": "PLAINTEXT",
        "log.dirs": str(log_dir),
        "auto.create.topics.enable": "false",
        "default.replication.factor": replicas,
        "min.insync.replicas": in_sync,
        "offsets.topic.num.partitions": str(servers),
        "offsets.topic.replication.factor": replicas,
        "transaction.state.log.num.partitions": str(servers),
        "transaction.state.log.replication.factor": replicas,
        "transaction.state.log.min.isr": in_sync,
        "group.initial.rebalance.delay.ms": "0",
        # By default a record is gone within minutes of its arrival whose own timestamp is older than a week: replayed
        # history, and every example with a fixed date.
        "log.retention.ms": "-1",
        # A broker is let in with the heartbeat after it has caught up, and after `kill -9` only once its former self's
        # session has expired: with the defaults (2 s and 9 s) a restart takes 14 s, with these under 4 s.
        "broker.heartbeat.interval.ms": "200",
        "broker.session.timeout.ms": "2000",
        # The default of 128 MiB would be a quarter of the heap.
        "log.cleaner.dedupe.buffer.size": str(8 * 1024 * 1024),
        **extra,
    }


def render(properties: Mapping[str, str]) -> str:
    r"""The text of a Java properties file.

    >>> render({"a": "1", "path": r"C:\x"})
    'a=1\npath=C:\\\\x\n'
    """
    escaped = str.maketrans({"\\": "\\\\", "\n": "\\n", "\r": "\\r"})
    return "".join(f"{name}={value.translate(escaped)}\n" for name, value in properties.items())


def is_free(port: int) -> bool:
    """Whether a server could listen on this loopback port now."""
    with socket.socket() as probe:
        # As Java does it: a port whose last connections are still in TIME_WAIT is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def free_ports(count: int, draw: random.Random) -> list[int]:
    """Ports that are free now. Someone may take one before the server does: the caller tries again with others."""
    found: list[int] = []
    while len(found) < count:
        port = draw.choice(_PORTS)
        if port not in found and is_free(port):
            found.append(port)
    return found
