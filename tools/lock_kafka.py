"""Writes the lock files of the development broker's jars (`make lock` runs it): `lock_kafka.py [VERSION ...]`."""

import sys
from pathlib import Path

from headrace.artefacts import pin

VERSIONS = ("3.7.2", "4.1.1")
FOLDER = Path(__file__).parents[1] / "src" / "headrace" / "broker"

for version in sys.argv[1:] or VERSIONS:
    roots = (f"org.apache.kafka:kafka_2.13:{version}", "org.slf4j:slf4j-simple:1.7.36")
    artefacts = pin(f"Kafka {version}", roots)
    artefacts.dump(FOLDER / f"kafka-{version}.json")
    print(f"Kafka {version}: {len(artefacts.artefacts)} files, {artefacts.size_bytes / 1e6:.0f} MB")
