"""Files of properties, as Java reads them."""

from __future__ import annotations

from pathlib import Path

import pytest

from headrace.errors import ConfigError
from headrace.kafka.properties_file import parse_properties, read_properties


@pytest.mark.parametrize(
    ("text", "properties"),
    [
        ("", {}),
        ("# a\n  ! b\n\n\t\n", {}),
        ("a=1\nb : 2\nc 3\nd\te\nf", {"a": "1", "b": "2", "c": "3", "d": "e", "f": ""}),
        ("a=b=c:d # no comment", {"a": "b=c:d # no comment"}),
        ("  a  =  1 ", {"a": "1 "}),
        ("a=1\r\nb=2\ra=3", {"a": "3", "b": "2"}),
        ("a=1\\\n   # part of it\\\n\tthree", {"a": "1# part of itthree"}),
        ("a=ends with a backslash\\\\\nb=2", {"a": "ends with a backslash\\", "b": "2"}),
        ("a=1\\", {"a": "1"}),
        (r"a\=b\:c\ d=\u00fc\tx\y", {"a=b:c d": "ü\txy"}),
        ("a\\\n  b=c", {"ab": "c"}),
        ("=1", {"": "1"}),
    ],
)
def test_names_and_values_are_javas(text: str, properties: dict[str, str]) -> None:
    assert parse_properties(text) == properties


def test_the_file_of_a_hosted_cluster_is_read() -> None:
    text = """\
# Required connection configs for Kafka producer, consumer, and admin
bootstrap.servers=pkc-1.eu-central-1.aws.confluent.cloud:9092
security.protocol=SASL_SSL
sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required username='KEY' password='a+b/c==';
sasl.mechanism=PLAIN
# Required for correctness in Apache Kafka clients prior to 2.6
client.dns.lookup=use_all_dns_ips
"""
    properties = parse_properties(text)
    assert len(properties) == 5
    assert properties["sasl.jaas.config"].endswith("password='a+b/c==';")


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    for name in ("missing", "binary"):
        with pytest.raises(ConfigError, match=f"{name} cannot be read"):
            read_properties(tmp_path / name)
