"""A schema registry as a value, and what it is asked: confluent-kafka's HTTP client, with errors by whose fault it is.

| what comes | error |
|---|---|
| no answer in time, no connection, an answer of 5xx, 408 or 429 | `ExternalError`: the job is restarted |
| an answer that is no schema registry's | `ExternalError`, with what came |
| 401, 403 | `ExternalError` that trying again does not mend |
| a schema refused (409, 422), or not found where the program names it | `ConfigError` |
| the schema of a record not found, or of another kind | `DataError` |

A `Registry` holds no client. One is made in each process, when something is first asked, and shared by all that have
the same settings; it keeps what it was told of ids and registered schemas.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Final, Self, TypeAlias, TypeVar
from urllib.parse import urlsplit

from headrace.common.secrets import is_reference, resolve
from headrace.errors import ConfigError, DataError, ExternalError, HeadraceError
from headrace.formats.library import library

if TYPE_CHECKING:
    from confluent_kafka.schema_registry import Schema, SchemaRegistryClient

T = TypeVar("T")
Setting: TypeAlias = str | int | float | bool

_SECRETS: Final = (
    "basic.auth.user.info",
    "bearer.auth.client.secret",
    "bearer.auth.token",
    "proxy",  # it may hold a password
    "ssl.key.password",
)
_TEXTS: Final = (
    "basic.auth.credentials.source",
    "bearer.auth.client.id",
    "bearer.auth.credentials.source",
    "bearer.auth.identity.pool.id",
    "bearer.auth.issuer.endpoint.url",
    "bearer.auth.logical.cluster",
    "bearer.auth.scope",
    "ssl.ca.location",
    "ssl.certificate.location",
    "ssl.key.location",
)
# With what holds without them. Confluent's client waits for an answer without end, unless it is told not to.
_NUMBERS: Final[Mapping[str, int]] = {
    "timeout": 10,
    "max.retries": 2,
    "retries.wait.ms": 200,
    "retries.max.wait.ms": 2000,
}
_FLAGS: Final[Mapping[str, bool]] = {
    "auto.register.schemas": True,
    "use.latest.version": False,
    "normalize.schemas": False,
}
_PROXIES: Final = ("http", "https", "socks5", "socks5h")
_MAX_ID: Final = 2**32 - 1
_SHOWN: Final = 300


@dataclass(frozen=True, slots=True)
class Reference:
    """A schema that another one imports: under which name, and where it is registered."""

    name: str
    subject: str
    version: int


@dataclass(frozen=True, slots=True)
class RegistrySchema:
    """A schema as a registry keeps it. `kind` is AVRO, JSON or PROTOBUF."""

    kind: str
    text: str
    references: tuple[Reference, ...] = ()


@dataclass(frozen=True, slots=True, repr=False)
class Registry:
    """Where a registry is, and how it is asked. Made by `Registry.of`."""

    url: str
    settings: tuple[tuple[str, Setting], ...] = ()

    @classmethod
    def of(cls, url: str, configs: Mapping[str, Any] | None = None) -> Self:
        """Checks the settings, and asks nothing. Raises `ConfigError`."""
        library("confluent_kafka.schema_registry", "registry")
        for address in url.split(",") if isinstance(url, str) else [""]:
            parts = urlsplit(address.strip())
            if parts.scheme not in ("http", "https") or not parts.hostname:
                raise ConfigError(
                    "the address of a schema registry begins with http:// or https:// (several of them are separated "
                    f"by commas), got {'something else' if '@' in str(url) else repr(url)}"
                )
            if parts.username is not None or parts.password is not None:
                raise ConfigError(
                    f"the address of the schema registry at {parts.hostname} holds a login; put it into "
                    "`basic.auth.user.info`, which may be env:NAME or file:PATH"
                )
        registry = cls(url, tuple(sorted((name, _checked(name, value)) for name, value in (configs or {}).items())))
        if registry.flag("use.latest.version") and registry.flag("auto.register.schemas"):
            raise ConfigError(
                "`use.latest.version` and `auto.register.schemas` (true unless it is set) cannot both be true; "
                "set one of them to false"
            )
        return registry

    def flag(self, name: str) -> bool:
        """A setting that is true or false."""
        return bool(dict(self.settings).get(name, _FLAGS[name]))

    def schema(self, schema_id: int, kind: str) -> RegistrySchema:
        """The schema that a record names. Raises `DataError` if there is none, or one of another kind."""
        try:
            answer = self._ask(f"the schema with id {schema_id}", lambda client: client.get_schema(schema_id))
        except _RefusedError as refusal:
            if refusal.code == 40403:
                raise DataError(f"the schema registry at {self.url} has no schema with id {schema_id}") from None
            raise self._no_registry(f"the schema with id {schema_id}", refusal) from None
        found = self._understood(answer)
        if found.kind != kind:
            raise DataError(f"the schema with id {schema_id} is of kind {found.kind}, and has to be {kind}")
        return found

    def publish(self, subject: str, schema: RegistrySchema) -> int:
        """The id of a schema of the program's: registered, or else looked up. Raises `ConfigError` if it is refused."""
        normalize = self.flag("normalize.schemas")
        given = _confluent(schema)
        try:
            if self.flag("auto.register.schemas"):
                return self._id(self._ask(subject, lambda client: client.register_schema(subject, given, normalize)))
            return self._id(
                self._ask(subject, lambda client: client.lookup_schema(subject, given, normalize)).schema_id
            )
        except _RefusedError as refusal:
            raise self._refused(subject, refusal) from None

    def latest(self, subject: str, kind: str) -> tuple[int, RegistrySchema]:
        """The newest schema of a subject and its id. Raises `ConfigError` if there is none, or one of another kind."""
        try:
            answer = self._ask(subject, lambda client: client.get_latest_version(subject))
        except _RefusedError as refusal:
            raise self._refused(subject, refusal) from None
        found = self._understood(answer.schema)
        if found.kind != kind:
            raise ConfigError(f"the newest schema of subject {subject!r} is of kind {found.kind}, and has to be {kind}")
        return self._id(answer.schema_id), found

    def version(self, subject: str, schema: RegistrySchema) -> int:
        """The version of a schema that is registered."""
        normalize = self.flag("normalize.schemas")
        try:
            answer = self._ask(subject, lambda client: client.lookup_schema(subject, _confluent(schema), normalize))
        except _RefusedError as refusal:
            raise self._refused(subject, refusal) from None
        return self._number(answer.version)

    def imported(self, schema: RegistrySchema) -> dict[str, RegistrySchema]:
        """What a schema imports, directly or not, by name; each comes behind what it needs itself."""
        found: dict[str, RegistrySchema] = {}
        self._import(schema, found, set())
        return found

    def _import(self, schema: RegistrySchema, found: dict[str, RegistrySchema], seen: set[str]) -> None:
        for reference in schema.references:
            if reference.name in seen:
                continue
            seen.add(reference.name)
            subject, version = reference.subject, reference.version

            def ask(client: SchemaRegistryClient, subject: str = subject, version: int = version) -> Any:
                return client.get_version(subject, version)

            try:
                answer = self._ask(f"version {version} of subject {subject!r}", ask)
            except _RefusedError as refusal:
                raise ExternalError(
                    f"the schema registry at {self.url} has a schema that imports version {version} of subject "
                    f"{subject!r}, and does not give that: {refusal}"
                ) from None
            needed = self._understood(answer.schema)
            self._import(needed, found, seen)
            found[reference.name] = needed

    def nonsense(self, what: str) -> ExternalError:
        """The error for an answer that no schema registry gives."""
        return ExternalError(
            f"what answers at {self.url} is no schema registry: {what}; look at the address (`/apis/ccompat/v7` is "
            "part of Apicurio's), and at proxies on the way"
        )

    def _ask(self, what: str, call: Callable[[SchemaRegistryClient], T]) -> T:
        client = self._client()
        try:
            return call(client)
        except Exception as error:  # noqa: BLE001 - what the client makes of an answer that it does not expect
            raise self._error(what, error) from None

    def _error(self, what: str, error: Exception) -> Exception:
        from confluent_kafka.schema_registry.error import OAuthTokenError, SchemaRegistryError

        if isinstance(error, SchemaRegistryError):
            return self._answered(what, error.http_status_code, error.error_code, str(error.error_message))
        if isinstance(error, OAuthTokenError):
            # Its text may be the answer of whoever gives tokens.
            return ExternalError("no token for the schema registry came from `bearer.auth.issuer.endpoint.url`")
        if isinstance(error, ValueError | TypeError | LookupError | AttributeError):
            return self.nonsense(f"asked for {what}, it gave an answer that cannot be read ({type(error).__name__})")
        cure = "`timeout` and `max.retries` say how long to wait"
        if "CERTIFICATE_VERIFY_FAILED" in str(error):
            cure = "`ssl.ca.location` names the certificates to trust"
        reason = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        if "proxy" in dict(self.settings):
            # Its text may quote the proxy's address, with a password.
            reason = f"{type(error).__name__}, by way of `proxy`"
        return ExternalError(f"the schema registry at {self.url} did not answer, asked for {what} ({reason}); {cure}")

    def _answered(self, what: str, status: int, code: Any, text: str) -> Exception:
        text = text[:_SHOWN]
        if status in (401, 403):
            login = "it does not take this login" if status == 401 else "this login may not do that"
            return ExternalError(
                f"the schema registry at {self.url} was asked for {what}, and {login} (HTTP {status}); see "
                "`basic.auth.user.info` and `bearer.auth.token`",
                retriable=False,
            )
        if status in (408, 429) or status >= 500:
            return ExternalError(f"the schema registry at {self.url} cannot give {what} now (HTTP {status}): {text}")
        if type(code) is int and code > 0:
            return _RefusedError(code, text)
        return self.nonsense(f"asked for {what}, it answered with HTTP {status}: {text}")

    def _refused(self, subject: str, refusal: _RefusedError) -> HeadraceError:
        match refusal.code:
            case 409 | 40901:
                cure = f"change it so that it is, or the compatibility of the subject: {refusal}"
                why = f"the schema is not compatible with what subject {subject!r} has; {cure}"
            case 40401 | 40402:
                why = f"there is no subject {subject!r}; register a schema there, or set `auto.register.schemas` true"
            case 40403:
                why = (
                    f"subject {subject!r} does not have this schema; register it there, or set "
                    "`auto.register.schemas` true"
                )
            case code if code // 100 == 422 or code == 422:
                why = f"the schema for subject {subject!r} is not valid: {refusal}"
            case _:
                return self._no_registry(subject, refusal)
        return ConfigError(f"refused by the schema registry at {self.url}: {why}")

    def _no_registry(self, what: str, refusal: _RefusedError) -> HeadraceError:
        return ConfigError(
            f"the schema registry at {self.url}, asked for {what}, refused that with error {refusal.code}: {refusal}; "
            "is its address right?"
        )

    def _understood(self, schema: Any) -> RegistrySchema:
        """A schema as it came. A kind that is not said is AVRO."""
        text = schema.schema_str
        if not isinstance(text, str):
            raise self.nonsense("it gave an answer without a schema")
        references = tuple(
            Reference(str(one.name), str(one.subject), self._number(one.version)) for one in schema.references or ()
        )
        return RegistrySchema(str(schema.schema_type or "AVRO").upper(), text, references)

    def _id(self, schema_id: Any) -> int:
        if self._number(schema_id) > _MAX_ID:
            raise self.nonsense(f"it gave {schema_id!r:.100} as a schema's id")
        return int(schema_id)

    def _number(self, number: Any) -> int:
        if type(number) is not int or number < 0:
            raise self.nonsense(f"it gave {number!r:.100} where a number belongs")
        return number

    def _client(self) -> SchemaRegistryClient:
        settings: dict[str, Setting] = {**_NUMBERS, **dict(self.settings), "url": self.url}
        for name in _FLAGS:
            settings.pop(name, None)
        for name in _SECRETS:
            if is_reference(str(settings.get(name, ""))):
                settings[name] = resolve(name, str(settings[name]))
        settings.pop("basic.auth.credentials.source", None)
        if "bearer.auth.token" in settings:
            # What Confluent's own cloud wants besides, and others do not look at.
            settings.setdefault("bearer.auth.credentials.source", "STATIC_TOKEN")
            settings.setdefault("bearer.auth.logical.cluster", "")
        if str(settings.get("proxy", "http://")).partition("://")[0].lower() not in _PROXIES:
            raise ConfigError("`proxy` has to begin with http://, https:// or socks5://, for the schema registry")
        try:
            return _client_for(tuple(sorted(settings.items())))
        except Exception as raised:  # noqa: BLE001 - a file that is not there, or no certificate; another name of a setting
            # As in `_error`; a package that is missing for a kind of proxy has to be named.
            is_told = "proxy" not in settings or isinstance(raised, ImportError)
            error = str(raised) if is_told else f"{type(raised).__name__}, with `proxy` set"
            raise ConfigError(
                f"no client for the schema registry at {self.url} can be made with these settings: {error}"
            ) from None

    def __repr__(self) -> str:
        shown = {
            name: "***" if name in _SECRETS and not is_reference(str(value)) else value for name, value in self.settings
        }
        return f"Registry({self.url!r}, {shown})"


class _RefusedError(Exception):
    """A registry's no, with its own code for why."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


@cache
def _client_for(settings: tuple[tuple[str, Setting], ...]) -> SchemaRegistryClient:
    """One for all that have the same settings, secrets included: one that has changed makes another client."""
    from confluent_kafka.schema_registry import SchemaRegistryClient

    return SchemaRegistryClient(dict(settings))


def _confluent(schema: RegistrySchema) -> Schema:
    from confluent_kafka.schema_registry import Schema, SchemaReference

    references = [SchemaReference(one.name, one.subject, one.version) for one in schema.references]
    return Schema(schema.text, schema.kind, references)


def _checked(name: str, value: Any) -> Setting:
    """One setting, as the client takes it: numbers and truth values may be text, as in Java's properties."""
    text = str(value)
    if name in _NUMBERS:
        try:
            number = float(text)
        except ValueError:
            number = -1
        if not 0 <= number < float("inf") or (name == "timeout" and number == 0) or isinstance(value, bool):
            raise ConfigError(f"`{name}` is {value!r}, and has to be a number{' above 0' if name == 'timeout' else ''}")
        return int(number) if number.is_integer() else number
    if name in _FLAGS:
        if text.lower() not in ("true", "false"):
            raise ConfigError(f"`{name}` is {value!r}, and has to be true or false")
        return text.lower() == "true"
    if name not in _SECRETS and name not in _TEXTS:
        near = difflib.get_close_matches(name, [*_NUMBERS, *_FLAGS, *_TEXTS, *_SECRETS], 1)
        raise ConfigError(
            f"a schema registry's client has no setting `{name}`" + (f"; is it `{near[0]}`?" if near else "")
        )
    if not isinstance(value, str) or not value:
        raise ConfigError(f"`{name}` has to be a text that is not empty, and is a {type(value).__name__}")
    if name == "basic.auth.credentials.source" and value != "USER_INFO":
        raise ConfigError(f"`{name}` is {value!r}; a login is taken from `basic.auth.user.info` alone (USER_INFO)")
    return value
