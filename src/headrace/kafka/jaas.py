r"""`sasl.jaas.config`, read as Kafka's Java client reads it, as settings of librdkafka.

Java cuts the line into tokens with a `StreamTokenizer`, which decides what quotes, escapes and comments mean: either
quote, C's escapes (`\n`, `\101`), `//` and `/* */`, and bare words of letters, digits, `_`, `-`, `$` and `.` that begin
with none of a number's characters. What Java would read as something else than it looks like (a quoted text that goes
on in the next line) is an error here, as it is there most of the time.

No error shows any of the line: it holds the password.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from headrace.common.secrets import is_reference
from headrace.errors import ConfigError, NotSupportedError

_TOKEN: Final = re.compile(
    r"""
    (?P<gap>      [\x00-\x20]+ | //[^\r\n]* | /\*.*?\*/ | /(?!\*)[^\r\n]* )
    | (?P<word>   [A-Za-z_$\xa0-\U0010ffff][\w$.\-\xa0-\U0010ffff]* )
    | (?P<quoted> "(?:[^"\\\r\n]|\\.)*" | '(?:[^'\\\r\n]|\\.)*' )
    | (?P<sign>   [=;] )
    """,
    re.X | re.S | re.A,
)
_ESCAPE: Final = re.compile(r"\\([0-3][0-7]{0,2}|[4-7][0-7]?|.)", re.S)
_ESCAPED: Final = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}
_FLAGS: Final = ("required", "requisite", "sufficient", "optional")
_EXAMPLE: Final = (
    'it is `org.apache.kafka.common.security.plain.PlainLoginModule required username="…" password="…";`, '
    "or the same with ScramLoginModule or OAuthBearerLoginModule"
)


@dataclass(frozen=True, slots=True)
class Login:
    """What a line says: the login module's class, and its options."""

    module: str
    options: Mapping[str, str] = field(repr=False)

    @property
    def kind(self) -> str:
        """The class without its package: copies of Kafka's client that were put into another one have it too."""
        return self.module.rpartition(".")[2]


def parse(line: str) -> Login:
    """The one login of a line. Raises `ConfigError` for what Java would not read either.

    >>> login = parse("org.apache.kafka.common.security.plain.PlainLoginModule required username='bob' password='x y';")
    >>> login.kind, login.options["password"]
    ('PlainLoginModule', 'x y')
    """
    tokens = list(_tokens(line))
    if not tokens:
        raise _wrong("it is empty", _EXAMPLE)
    if tokens[-1] != ("sign", ";"):
        raise _wrong("it does not end with `;`", "put one behind the last option")
    if tokens.count(("sign", ";")) > 1:
        raise _wrong("it has several login modules, or a `;` in the middle", "leave one; a `;` of a value is in quotes")
    kinds = [kind for kind, _ in tokens[:2]]
    if kinds != ["word", "word"] or tokens[1][1].lower() not in _FLAGS:
        raise _wrong("it does not begin with a login module and `required`", _EXAMPLE)
    options: dict[str, str] = {}
    rest = tokens[2:-1]
    for at in range(0, len(rest), 3):
        match rest[at : at + 3]:
            case [("word" | "quoted", name), ("sign", "="), ("word" | "quoted", value)]:
                options[name] = value
            case _:
                raise _wrong(
                    f"option {at // 3 + 1} is not NAME='VALUE'",
                    "check its quotes; a value that is not a plain word needs them",
                )
    return Login(tokens[0][1], options)


def _tokens(line: str) -> Iterator[tuple[str, str]]:
    at = 0
    while at < len(line):
        found = _TOKEN.match(line, at)
        if found is None:
            is_quote = line[at] in "\"'"
            raise _wrong(
                f"a quote at character {at + 1} is not closed in its line"
                if is_quote
                else f"character {at + 1} is in no quotes, and has no meaning there",
                r"a line break within a value is written \n" if is_quote else "put the value into quotes",
            )
        at = found.end()
        match found.lastgroup:
            case "gap":
                continue
            case "quoted":
                yield "quoted", _ESCAPE.sub(_unescaped, found[0][1:-1])
            case kind:
                yield str(kind), found[0]


def _unescaped(found: re.Match[str]) -> str:
    code = found[1]
    return chr(int(code, 8)) if code[0] in "01234567" else _ESCAPED.get(code, code)


def _wrong(what: str, cure: str) -> ConfigError:
    return ConfigError(f"`sasl.jaas.config` cannot be read: {what}; {cure}")


def settings_of(line: str, properties: Mapping[str, str]) -> Mapping[str, str]:
    """The line as settings of librdkafka; `properties` are all that the program sets. Raises `ConfigError`."""
    login = parse(line)
    mechanism = properties.get("sasl.mechanism", properties.get("sasl.mechanisms"))
    fitting: tuple[str, ...]
    match login.kind:
        case "PlainLoginModule":
            fitting = ("PLAIN",)
        case "ScramLoginModule":
            fitting = ("SCRAM-SHA-256", "SCRAM-SHA-512")
        case "OAuthBearerLoginModule":
            fitting = ("OAUTHBEARER",)
        case "Krb5LoginModule":
            raise NotSupportedError(f"`sasl.jaas.config` names Krb5LoginModule: {NO_KERBEROS}")
        case "IAMLoginModule":
            raise NotSupportedError(f"`sasl.jaas.config` names IAMLoginModule: {USE_MSK_IAM}")
        case other:
            named = other if other.endswith("LoginModule") else "another class than these"
            raise NotSupportedError(
                f"`sasl.jaas.config` names {named}, and Headrace runs no Java classes; {_EXAMPLE}. For other "
                "mechanisms use librdkafka's `sasl.*` settings"
            )
    if mechanism is None:
        raise ConfigError(
            f"`sasl.jaas.config` is set and `sasl.mechanism` is not; set it to {' or '.join(fitting)}, as "
            f"{login.kind} says"
        )
    if mechanism.upper() not in fitting:
        raise ConfigError(
            f"`sasl.jaas.config` names {login.kind}, which does not fit `sasl.mechanism` {mechanism}; set that to "
            f"{' or '.join(fitting)}, or name another module"
        )
    return _token_settings(login, properties) if fitting == ("OAUTHBEARER",) else _password_settings(login)


NO_KERBEROS: Final = (
    "the Kafka client that Headrace uses has no Kerberos; use a listener of the brokers with SCRAM-SHA-512, "
    "OAUTHBEARER or client certificates"
)
USE_MSK_IAM: Final = "Headrace runs no Java classes; take the properties from `headrace.kafka.presets.msk_iam(region)`"


def _password_settings(login: Login) -> Mapping[str, str]:
    if login.options.get("tokenauth", "false").lower() == "true":
        raise NotSupportedError(
            "`sasl.jaas.config` logs in with a delegation token (`tokenauth`), which librdkafka cannot; give the "
            "user's own name and password"
        )
    if not {"username", "password"} <= login.options.keys():
        raise ConfigError("`sasl.jaas.config` has no username or no password; give both")
    if referring := [name for name, value in login.options.items() if is_reference(value)]:
        raise _wrong(
            f"its option `{referring[0]}` refers to a secret",
            "refer to the whole line instead (`env:NAME`, `file:PATH`), or set `sasl.username` and `sasl.password`",
        )
    return {"sasl.username": login.options["username"], "sasl.password": login.options["password"]}


def _token_settings(login: Login, properties: Mapping[str, str]) -> Mapping[str, str]:
    """OIDC: client credentials are exchanged for tokens at `sasl.oauthbearer.token.endpoint.url`."""
    options = login.options
    if any(name.startswith("unsecuredLogin") for name in options):
        raise NotSupportedError(
            "`sasl.jaas.config` asks for unsecured tokens; for tests, use librdkafka's `sasl.oauthbearer.config` and "
            "`enable.sasl.oauthbearer.unsecure.jwt`"
        )
    if not options and "headrace.token.source" in properties:
        return {}
    if not {"clientId", "clientSecret"} <= options.keys():
        raise ConfigError("`sasl.jaas.config` has no clientId or no clientSecret; give both")
    if "sasl.oauthbearer.token.endpoint.url" not in properties:
        raise ConfigError(
            "`sasl.jaas.config` has a clientId, and `sasl.oauthbearer.token.endpoint.url` is not set: set it to where "
            "tokens are issued"
        )
    prefix = "extension_"
    extensions = {name.removeprefix(prefix): value for name, value in options.items() if name.startswith(prefix)}
    made = {
        "sasl.oauthbearer.method": "oidc",
        "sasl.oauthbearer.client.id": options["clientId"],
        "sasl.oauthbearer.client.secret": options["clientSecret"],
        "sasl.oauthbearer.scope": options.get("scope", ""),
        "sasl.oauthbearer.extensions": ",".join(f"{name}={value}" for name, value in extensions.items()),
    }
    return {name: value for name, value in made.items() if value}
