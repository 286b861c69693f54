"""Properties of hosted Kafka."""

from __future__ import annotations

import sys
import types

import pytest

from headrace.errors import ConfigError
from headrace.kafka.presets import aiven, confluent_cloud, event_hubs, msk_iam, msk_iam_token, redpanda
from headrace.kafka.properties import masked, translate
from headrace.kafka.property_table import Role


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize(
    "properties",
    [
        confluent_cloud("KEY", "opensesame"),
        event_hubs("news", "Endpoint=sb://news/;SharedAccessKey=opensesame"),
        redpanda("bob", "opensesame"),
        aiven("ca.pem", "service.cert", "service.key"),
        msk_iam("eu-central-1"),
    ],
)
def test_a_preset_is_properties_of_both_clients_and_shows_no_secret(properties: dict[str, str], role: Role) -> None:
    made = translate(properties, role)
    assert made.warnings == ()
    assert made.settings["security.protocol"] in ("SASL_SSL", "SSL")
    assert "opensesame" not in str(masked(properties))


def test_the_confluent_cloud_preset_says_what_its_snippet_says() -> None:
    snippet = {
        "security.protocol": "SASL_SSL",
        "sasl.mechanism": "PLAIN",
        "sasl.jaas.config": (
            "org.apache.kafka.common.security.plain.PlainLoginModule required username='KEY' password='opensesame';"
        ),
    }
    preset = translate(confluent_cloud("KEY", "opensesame"), Role.CONSUMER)
    assert preset.settings == translate(snippet, Role.CONSUMER).settings


def test_a_token_for_msk_comes_from_the_signer(monkeypatch: pytest.MonkeyPatch) -> None:
    class MSKAuthTokenProvider:
        @staticmethod
        def generate_auth_token(region: str) -> tuple[str, int]:
            return f"token for {region}", 1_700_000_000_500

    signer = types.ModuleType("aws_msk_iam_sasl_signer")
    signer.MSKAuthTokenProvider = MSKAuthTokenProvider  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "aws_msk_iam_sasl_signer", signer)
    properties = msk_iam("eu-central-1")
    assert msk_iam_token(properties["sasl.oauthbearer.config"]) == ("token for eu-central-1", 1_700_000_000.5, "msk")


def test_without_the_signer_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "aws_msk_iam_sasl_signer", None)
    with pytest.raises(ConfigError, match="pip install aws-msk-iam-sasl-signer-python"):
        msk_iam_token("region=eu-central-1")
