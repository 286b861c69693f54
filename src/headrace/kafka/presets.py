"""Properties of hosted Kafka: what each provider's own page has its users set. *Extension*: PyFlink has no such thing.

Each gives a dict for `set_properties` of a source's and a sink's builder; what it does not say is left to the program.
Secrets may be references, `env:NAME` or `file:PATH` (`headrace.common.secrets`).

>>> from headrace.kafka import KafkaSource
>>> builder = KafkaSource.builder().set_properties(confluent_cloud("KEY", "env:CONFLUENT_SECRET"))
"""

from __future__ import annotations

from headrace.errors import ConfigError


def confluent_cloud(key: str, secret: str) -> dict[str, str]:
    """A cluster of Confluent Cloud, with an API key of it.

    >>> confluent_cloud("KEY", "env:CONFLUENT_SECRET")["sasl.password"]
    'env:CONFLUENT_SECRET'
    """
    return _login("PLAIN", key, secret)


def event_hubs(namespace: str, connection_string: str) -> dict[str, str]:
    """A namespace of Azure Event Hubs, with its connection string (`Endpoint=sb://…`).

    >>> event_hubs("news", "env:EVENT_HUBS")["bootstrap.servers"]
    'news.servicebus.windows.net:9093'
    """
    return {
        "bootstrap.servers": f"{namespace}.servicebus.windows.net:9093",
        **_login("PLAIN", "$ConnectionString", connection_string),
        # It closes what is idle for four minutes, without a word.
        "connections.max.idle.ms": "180000",
        "metadata.max.age.ms": "180000",
        "socket.keepalive.enable": "true",
    }


def redpanda(user: str, password: str, mechanism: str = "SCRAM-SHA-256") -> dict[str, str]:
    """A cluster of Redpanda Cloud, or another one with TLS and SCRAM.

    >>> redpanda("bob", "env:REDPANDA_PASSWORD")["sasl.mechanism"]
    'SCRAM-SHA-256'
    """
    return _login(mechanism, user, password)


def aiven(ca: str, certificate: str, key: str) -> dict[str, str]:
    """A service of Aiven, with its client certificate: the three files that its page offers.

    >>> aiven("ca.pem", "service.cert", "service.key")["security.protocol"]
    'SSL'
    """
    return {
        "security.protocol": "SSL",
        "ssl.ca.location": ca,
        "ssl.certificate.location": certificate,
        "ssl.key.location": key,
    }


def msk_iam(region: str) -> dict[str, str]:
    """A cluster of Amazon MSK with IAM, as whoever the process is to AWS.

    Needs the package `aws-msk-iam-sasl-signer-python`, which makes the tokens.

    >>> msk_iam("eu-central-1")["headrace.token.source"]
    'headrace.kafka.presets:msk_iam_token'
    """
    return {
        "security.protocol": "SASL_SSL",
        "sasl.mechanism": "OAUTHBEARER",
        "sasl.oauthbearer.config": f"region={region}",
        "headrace.token.source": f"{__name__}:{msk_iam_token.__name__}",
    }


def msk_iam_token(config: str) -> tuple[str, float, str]:
    """A token for `msk_iam`'s brokers; a `TokenSource`. Raises `ConfigError` without the package."""
    try:
        from aws_msk_iam_sasl_signer import MSKAuthTokenProvider  # type: ignore[import-not-found, unused-ignore]
    except ImportError:
        raise ConfigError("`msk_iam` needs another package: pip install aws-msk-iam-sasl-signer-python") from None
    token, expires_ms = MSKAuthTokenProvider.generate_auth_token(config.removeprefix("region="))
    return token, expires_ms / 1000, "msk"


def _login(mechanism: str, user: str, password: str) -> dict[str, str]:
    return {
        "security.protocol": "SASL_SSL",
        "sasl.mechanism": mechanism,
        "sasl.username": user,
        "sasl.password": password,
    }
