"""`sasl.jaas.config`, as Java reads it."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from headrace.errors import ConfigError, NotSupportedError
from headrace.kafka import jaas
from headrace.kafka.properties import translate
from headrace.kafka.property_table import Role

PLAIN = "org.apache.kafka.common.security.plain.PlainLoginModule required"
SCRAM = "org.apache.kafka.common.security.scram.ScramLoginModule required"
OAUTH = "org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule required"
ISSUER = {"sasl.mechanism": "OAUTHBEARER", "sasl.oauthbearer.token.endpoint.url": "https://issuer/token"}


@pytest.mark.parametrize(
    ("line", "password"),
    [
        (f"{PLAIN} username='bob' password='it\\'s';", "it's"),
        (f'{PLAIN} username="bob" password="a \\"b\\";c";', 'a "b";c'),
        (f"{PLAIN} username=bob password=plain-word_1.x$;", "plain-word_1.x$"),
        (f"{PLAIN} /* who */ username=bob // how\n password='//no comment';", "//no comment"),
        (f"  {PLAIN.replace('required', 'REQUIRED')}\n\tusername = bob password\n= 'x' ;\n", "x"),
        (f"{PLAIN} username=bob password='tab\\tline\\nA\\101\\q';", "tab\tline\nAAq"),
        (f"{PLAIN} 'username'=bob \"password\"=ü;", "ü"),
        (f"{PLAIN} username=bob password=one password=two;", "two"),
        (f"org.apache.flink.kafka.shaded.{PLAIN} username=bob password=x serviceName='kafka';", "x"),
    ],
)
def test_a_line_is_read_as_java_reads_it(line: str, password: str) -> None:
    made = translate({"sasl.jaas.config": line, "sasl.mechanism": "PLAIN"}, Role.CONSUMER).settings
    assert made == {"sasl.username": "bob", "sasl.password": password, "sasl.mechanism": "PLAIN"}


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("", "it is empty"),
        ("// opensesame", "it is empty"),
        ("nonsense opensesame", "does not end with `;`"),
        ("opensesame;", "does not begin with a login module"),
        (f"{PLAIN.replace('required', 'opensesame')} username=bob;", "with a login module and `required`"),
        (f"{PLAIN} username=bob password=opensesame", "does not end with `;`"),
        (f"{PLAIN} username=bob password=opensesame; {PLAIN} username=bob;", "several login modules"),
        (f"{PLAIN} username=bob password=opensesame@1;", "character .* is in no quotes"),
        (f"{PLAIN} username=bob password=1opensesame;", "character .* is in no quotes"),
        (f"{PLAIN} username=bob password 'opensesame';", "option 2 is not NAME='VALUE'"),
        (f"{PLAIN} username=bob password='opensesame;", "a quote at .* is not closed"),
        (f"{PLAIN} username=bob password='open\nsesame';", r"a quote at .* written \\n"),
        (f"{PLAIN} username=bob passwd=opensesame;", "no username or no password"),
        (f"{SCRAM} username=bob password=opensesame;", "does not fit `sasl.mechanism` PLAIN"),
        (f"{OAUTH} clientId=bob clientSecret=opensesame;", "does not fit `sasl.mechanism` PLAIN"),
    ],
)
def test_a_line_that_cannot_be_read_says_what_is_wrong_and_nothing_of_itself(line: str, text: str) -> None:
    with pytest.raises(ConfigError, match=text) as raised:
        translate({"sasl.jaas.config": line, "sasl.mechanism": "PLAIN"}, Role.CONSUMER)
    assert "`sasl.jaas.config`" in str(raised.value)
    assert "sesame" not in str(raised.value)


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("com.sun.security.auth.module.Krb5LoginModule required keyTab='opensesame';", "Kerberos; use .*SCRAM-SHA-512"),
        ("software.amazon.msk.auth.iam.IAMLoginModule required;", "`headrace.kafka.presets.msk_iam"),
        ("org.example.OtherLoginModule required password=opensesame;", "names OtherLoginModule"),
        ("opensesame required;", "names another class"),
        (f"{SCRAM} username=bob password=opensesame tokenauth=true;", "delegation token"),
        (f"{OAUTH} unsecuredLoginStringClaim_sub=bob;", "unsecured tokens"),
    ],
)
def test_what_has_no_equal_is_refused_with_what_to_do(line: str, text: str) -> None:
    mechanism = "SCRAM-SHA-512" if "Scram" in line else "OAUTHBEARER"
    with pytest.raises(NotSupportedError, match=text) as raised:
        translate({"sasl.jaas.config": line, "sasl.mechanism": mechanism}, Role.CONSUMER)
    assert "sesame" not in str(raised.value)


def test_a_line_without_its_mechanism_asks_for_it() -> None:
    with pytest.raises(ConfigError, match="set it to PLAIN, as PlainLoginModule says"):
        translate({"sasl.jaas.config": f"{PLAIN} username=bob password=opensesame;"}, Role.CONSUMER)


@pytest.mark.parametrize("mechanism", ["SCRAM-SHA-256", "SCRAM-SHA-512"])
def test_scram_is_a_user_and_a_password(mechanism: str) -> None:
    properties = {"sasl.jaas.config": f"{SCRAM} username=bob password='x';", "sasl.mechanism": mechanism}
    assert translate(properties, Role.PRODUCER).settings == {
        "sasl.username": "bob",
        "sasl.password": "x",
        "sasl.mechanism": mechanism,
    }


def test_client_credentials_are_exchanged_for_tokens() -> None:
    line = f"{OAUTH} clientId='bob' clientSecret='opensesame' scope='kafka' extension_cluster='lkc-1' extension_b='2';"
    made = translate({"sasl.jaas.config": line, **ISSUER}, Role.CONSUMER).settings
    assert made == {
        "sasl.mechanism": "OAUTHBEARER",
        "sasl.oauthbearer.method": "oidc",
        "sasl.oauthbearer.client.id": "bob",
        "sasl.oauthbearer.client.secret": "opensesame",
        "sasl.oauthbearer.scope": "kafka",
        "sasl.oauthbearer.extensions": "cluster=lkc-1,b=2",
        "sasl.oauthbearer.token.endpoint.url": "https://issuer/token",
    }


@pytest.mark.parametrize(
    ("line", "properties", "text"),
    [
        (f"{OAUTH} clientId=bob;", ISSUER, "no clientId or no clientSecret"),
        (f"{OAUTH} clientId=bob clientSecret=x;", {"sasl.mechanism": "OAUTHBEARER"}, "token.endpoint.url` is not set"),
    ],
)
def test_client_credentials_that_are_not_complete_are_asked_for(
    line: str, properties: dict[str, str], text: str
) -> None:
    with pytest.raises(ConfigError, match=text):
        translate({"sasl.jaas.config": line, **properties}, Role.CONSUMER)


@given(st.text(st.characters(codec="utf-8", exclude_characters="\x00"), min_size=1), st.sampled_from("'\""))
def test_any_password_survives_a_line(password: str, quote: str) -> None:
    escaped = password.replace("\\", "\\\\").replace(quote, f"\\{quote}").replace("\n", "\\n").replace("\r", "\\r")
    line = f"{PLAIN} username={quote}bob{quote} password={quote}{escaped}{quote};"
    assert jaas.parse(line).options["password"] == password


PIECES = st.sampled_from([PLAIN, "a", "=", ";", "'", '"', "\\", "/*", "//", " ", "\n", "x='y'"])


@given(st.text() | st.lists(PIECES).map("".join))
@example("/*")
def test_any_text_is_a_login_or_the_programs_mistake(line: str) -> None:
    with contextlib.suppress(ConfigError):
        assert jaas.parse(line).module


def test_a_reference_inside_the_line_is_refused_as_it_would_be_sent_as_the_password() -> None:
    line = "org.apache.kafka.common.security.plain.PlainLoginModule required username='u' password='env:SECRET';"
    with pytest.raises(ConfigError, match=r"`password` refers to a secret.*whole line") as refused:
        jaas.settings_of(line, {"sasl.mechanism": "PLAIN"})
    assert "env:SECRET" not in str(refused.value)
