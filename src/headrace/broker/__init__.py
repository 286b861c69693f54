"""The development broker: real Apache Kafka on this machine, for development, demonstrations and tests.

- `dev_broker`: `DevBroker`, one to three servers as one cluster; what users of this package need.
- `server`: one server process: start, ready, kill, pause, stop.
- `properties`: what `server.properties` says, and which ports are used.
- `supervisor`: the small program between us and each JVM, so that no JVM outlives us.
- `kafka-*.json`: every jar with its SHA-256 (`headrace.artefacts` reads them; `make lock` writes them).
"""

from headrace.broker.dev_broker import KAFKA_VERSIONS, DevBroker

__all__ = ["KAFKA_VERSIONS", "DevBroker"]
