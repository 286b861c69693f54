"""What the development broker tells Kafka."""

from __future__ import annotations

import random
import socket
from pathlib import Path

from headrace.broker.properties import HOST, Ports, free_ports, is_free, server_properties

THREE = [Ports(20001, 20011), Ports(20002, 20012), Ports(20003, 20013)]


def test_every_listener_is_on_the_loopback_address() -> None:
    for node_id in (1, 2, 3):
        properties = server_properties(node_id, THREE, Path("/data"), {})
        addresses = (properties["listeners"] + "," + properties["advertised.listeners"]).split(",")
        assert all(address.split("://")[1].startswith("127.0.0.1:") for address in addresses)


def test_replication_fits_the_number_of_brokers() -> None:
    one = server_properties(1, THREE[:1], Path("/data"), {})
    three = server_properties(2, THREE, Path("/data"), {})
    assert (one["transaction.state.log.replication.factor"], one["transaction.state.log.min.isr"]) == ("1", "1")
    assert (three["transaction.state.log.replication.factor"], three["transaction.state.log.min.isr"]) == ("3", "2")
    assert three["controller.quorum.voters"] == "1@127.0.0.1:20011,2@127.0.0.1:20012,3@127.0.0.1:20013"


def test_the_callers_properties_win() -> None:
    properties = server_properties(1, THREE[:1], Path("/data"), {"transaction.max.timeout.ms": "5000"})
    assert properties["transaction.max.timeout.ms"] == "5000"


def test_free_ports_are_different_and_not_taken() -> None:
    # The same draw twice: the second time, the first choice is taken.
    taken = free_ports(1, random.Random(7))[0]
    with socket.socket() as listener:
        listener.bind((HOST, taken))
        listener.listen()
        assert not is_free(taken)
        chosen = free_ports(6, random.Random(7))
    assert taken not in chosen
    assert len(set(chosen)) == 6
