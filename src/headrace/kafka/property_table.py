"""The table of properties: Kafka's Java client's, librdkafka's and our own, one row each, with what becomes of it."""

from __future__ import annotations

import os.path
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from shlex import quote
from typing import Final, TypeAlias, overload

from headrace.common.secrets import is_reference
from headrace.errors import ConfigError, NotSupportedError
from headrace.kafka import jaas


class Role(Enum):
    """Which client a property is for."""

    CONSUMER = "consumer"
    PRODUCER = "producer"


@dataclass(frozen=True, slots=True)
class Passed:
    """Taken by librdkafka under `name`, or the property's own."""

    name: str | None = None


@dataclass(frozen=True, slots=True)
class Own:
    """Headrace's or the connector's own; no client sees it. `what` says what it does."""

    what: str


@dataclass(frozen=True, slots=True)
class Ignored:
    """Has no effect here. `why` is worth a warning; empty: it changes nothing that a program could notice."""

    why: str = ""


@dataclass(frozen=True, slots=True)
class Refused:
    """Cannot be had; `instead` says what to do."""

    instead: str


@dataclass(frozen=True, slots=True)
class Translated:
    """Becomes the settings that `into` makes of its value and of all properties; `what` says which."""

    into: Callable[[str, Mapping[str, str]], Mapping[str, str]]
    what: str


Treatment: TypeAlias = Passed | Own | Ignored | Refused | Translated


@dataclass(frozen=True, slots=True)
class Property:
    """One row: a property and what becomes of it. `role` None: both clients."""

    name: str
    treatment: Treatment
    role: Role | None = None
    is_secret: bool = False


@overload
def read_int(properties: Mapping[str, str], name: str, default: int) -> int: ...
@overload
def read_int(properties: Mapping[str, str], name: str, default: int | None) -> int | None: ...
def read_int(properties: Mapping[str, str], name: str, default: int | None) -> int | None:
    """A property as a number. Raises `ConfigError`."""
    return number(name, properties[name]) if name in properties else default


def read_bool(properties: Mapping[str, str], name: str, default: bool) -> bool:
    """A property of our own as a truth value. Raises `ConfigError`."""
    match properties.get(name, "").strip().lower():
        case "true":
            return True
        case "false":
            return False
        case "" if name not in properties:
            return default
        case other:
            raise ConfigError(f"`{name}` is {other!r}; it has to be true or false")


def number(name: str, value: str) -> int:
    """A property's value as a number. Raises `ConfigError`."""
    # `int` takes more than Java does: 1_000, and other scripts' digits. A number has 64 bits at most in both clients.
    if re.fullmatch(r"[+-]?[0-9]{1,19}", value) is None:
        raise ConfigError(f"`{name}` is {value!r}; it has to be a whole number")
    return int(value)


def _brokers(value: str, properties: Mapping[str, str]) -> Mapping[str, str]:
    """Looked at here, as librdkafka asks the network for whatever stands there, and waits."""
    given = [broker for part in value.split(",") if (broker := part.strip())]
    for broker in given or [value]:
        if "@" in broker:
            # What stands before it may be a password.
            shown = broker.rpartition("@")[2]
            raise ConfigError(f"`bootstrap.servers` has a login before {shown!r}; it belongs into `sasl.jaas.config`")
        found = _BROKER.fullmatch(broker)
        if found is None or not 0 < int(found["port"] or 9092) < 65536:
            raise ConfigError(f"`bootstrap.servers` holds {broker!r}; each broker is HOST:PORT, as localhost:9092")
    return {"bootstrap.servers": ",".join(given)}


# librdkafka takes a protocol in front.
_BROKER: Final = re.compile(r"(?:\w+://)?(?:\[[0-9A-Fa-f:.]+(?:%\w+)?\]|[^\s,:/@\[\]]+)(?::(?P<port>[0-9]{1,5}))?")


def _jaas(value: str, properties: Mapping[str, str]) -> Mapping[str, str]:
    # A line that is only referred to is read when it is known.
    return {} if is_reference(value) else jaas.settings_of(value, properties)


def _mechanism(value: str, properties: Mapping[str, str]) -> Mapping[str, str]:
    """Java's default is Kerberos, so a program that sets that without a login means nothing by it."""
    if not has_login(properties):
        return {"sasl.mechanism": value} if value.upper() != "GSSAPI" else {}
    match value.upper():
        case "GSSAPI":
            raise NotSupportedError(f"`sasl.mechanism` is GSSAPI: {jaas.NO_KERBEROS}")
        case "AWS_MSK_IAM":
            raise NotSupportedError(f"`sasl.mechanism` is AWS_MSK_IAM: {jaas.USE_MSK_IAM}")
        case _:
            return {"sasl.mechanism": value}


def has_login(properties: Mapping[str, str]) -> bool:
    """Whether the client has to say who it is by SASL."""
    return properties.get("security.protocol", "").upper().startswith("SASL")


def _token_handler(value: str, properties: Mapping[str, str]) -> Mapping[str, str]:
    # Java's own, which asks for tokens with the client's id and secret; librdkafka has it built in.
    if value.rpartition(".")[2] == "OAuthBearerLoginCallbackHandler":
        return {}
    raise NotSupportedError(
        f"`sasl.login.callback.handler.class` cannot be {value}: Headrace runs no Java classes; name a function of "
        "Python that gives tokens with `headrace.token.source`"
    )


def _no_interceptors(value: str, properties: Mapping[str, str]) -> Mapping[str, str]:
    # Empty is Java's default, which whoever prints its configuration has too.
    if not value:
        return {}
    raise NotSupportedError(
        "`interceptor.classes` cannot be set: Headrace runs no Java classes; put the work into a map()"
    )


def _pem(name: str) -> Translated:
    def into(value: str, _: Mapping[str, str]) -> Mapping[str, str]:
        return {name: value if is_reference(value) else _unfolded(value)}

    return Translated(into, f"`{name}`; may be in one line")


def _unfolded(pem: str) -> str:
    r"""PEM with its line breaks: files of Java properties have it in one line, with `\n` or blanks between."""

    def block(found: re.Match[str]) -> str:
        label, body = found["label"], found["body"]
        # The headers of old encrypted keys have blanks of their own.
        lines = body.strip().splitlines() if ":" in body else body.split()
        return "\n".join([f"-----BEGIN {label}-----", *lines, f"-----END {label}-----"]) + "\n"

    return _PEM_BLOCK.sub(block, pem.replace("\\n", "\n"))


_PEM_BLOCK: Final = re.compile(
    r"-----BEGIN (?P<label>[A-Z0-9 ]+)-----(?P<body>[^-]*(?:-(?!----)[^-]*)*)-----END (?P=label)-----\s*"
)


def _truststore(value: str, properties: Mapping[str, str]) -> Mapping[str, str]:
    kind = properties.get("ssl.truststore.type", "JKS").upper()
    if kind == "PEM":
        return {"ssl.ca.location": value}
    # With a key librdkafka reads PKCS#12, but no certificates alone.
    raise NotSupportedError(
        f"`ssl.truststore.location` {value!r} is {kind}, and librdkafka reads certificates in PEM. "
        f"{_to_pem(value, kind, '-nokeys ')} `ssl.truststore.location` to that file and `ssl.truststore.type` to PEM"
    )


def _to_pem(store: str, kind: str, option: str) -> str:
    """What to do with a Java store, as commands to paste."""
    stem = os.path.splitext(store)[0]
    first, source = "", store
    if kind != "PKCS12" and not store.endswith((".p12", ".pfx")):
        source = f"{stem}.p12"
        stores = f"-srckeystore {quote(store)} -destkeystore {quote(source)} -deststoretype PKCS12"
        first = f"`keytool -importkeystore {stores}`, then "
    return f"Convert it once: {first}`openssl pkcs12 -in {quote(source)} {option}-out {quote(f'{stem}.pem')}`, and set"


def _keystore(value: str, properties: Mapping[str, str]) -> Mapping[str, str]:
    match properties.get("ssl.keystore.type", "JKS").upper():
        case "PEM":
            return {"ssl.certificate.location": value, "ssl.key.location": value}
        case "PKCS12":
            return {"ssl.keystore.location": value}
        case _:
            if value.endswith((".p12", ".pfx")):
                return {"ssl.keystore.location": value}
            raise NotSupportedError(
                f"`ssl.keystore.location` {value!r} is a Java keystore, and librdkafka reads PEM and PKCS12. "
                f"{_to_pem(value, 'JKS', '')} `ssl.keystore.location` to that file and `ssl.keystore.type` to PEM (or "
                "to the .p12 file, and PKCS12)"
            )


def _identification(value: str, properties: Mapping[str, str]) -> Mapping[str, str]:
    return {"ssl.endpoint.identification.algorithm": value.lower() or "none"}


def _buffer_memory(value: str, properties: Mapping[str, str]) -> Mapping[str, str]:
    return {"queue.buffering.max.kbytes": str(max(1, number("buffer.memory", value) // 1024))}


def _counted(name: str, setting: str, role: Role | None = None) -> Property:
    """A number that Headrace goes by itself."""

    def into(value: str, _: Mapping[str, str]) -> Mapping[str, str]:
        return {setting: str(number(name, value))}

    return Property(name, Translated(into, f"`{setting}`, which has to be a whole number"), role)


def _ignore_keys(value: str, properties: Mapping[str, str]) -> Mapping[str, str]:
    return {"partitioner": "random"} if read_bool(properties, "partitioner.ignore.keys", False) else {}


def _socket_buffer(name: str) -> Callable[[str, Mapping[str, str]], Mapping[str, str]]:
    # -1 means the system's default in Java, 0 in librdkafka.
    return lambda value, _: {f"socket.{name}": str(max(0, number(name, value)))}


def _rows() -> Iterable[Property]:
    consumer, producer = Role.CONSUMER, Role.PRODUCER
    for role, names in _PASSED:
        for name in names.split():
            yield Property(name, Passed(), role, is_secret=name in _SECRET)
    no_class = "Headrace runs no Java classes"
    interceptor = "put the work into a map()"
    no_registry = "neither source nor sink asks a schema registry; give it to the schema that does"
    no_handler = f"{no_class}; name a function of Python that gives tokens with `headrace.token.source`"
    no_login = (
        "librdkafka asks for a token again when four fifths of its life are over, and 10 s after one it did not get"
    )
    buffer = "`socket.*` of the same name; -1, the system's choice, is 0 there"
    mechanism = "the same, but for GSSAPI, which is Kerberos and refused"
    own_handler = "Java's own is built in, another one is refused"
    truststore = "`ssl.ca.location` if `ssl.truststore.type` is PEM; others are refused"
    keystore = (
        "`ssl.certificate.location` and `ssl.key.location` of `ssl.keystore.type` PEM, `ssl.keystore.location` of "
        "PKCS12; JKS is refused"
    )
    no_key = "records without a key stay with a partition for `sticky.partitioning.linger.ms`"
    yield from (
        # What Headrace decides itself.
        Property("auto.offset.reset", Own("where to go on when a log does not hold a position"), consumer),
        Property("partition.discovery.interval.ms", Own("how often new partitions are looked for (300000)"), consumer),
        Property("commit.offsets.on.checkpoint", Own("whether progress is reported to the group (true)"), consumer),
        Property("client.id.prefix", Own("what each client's `client.id` begins with"), consumer),
        Property("default.api.timeout.ms", Own("how long an answer of the brokers is waited for (30000)")),
        Property("transaction.timeout.ms", Own("when brokers end a transaction (1 h, or their limit)"), producer),
        Property("headrace.token.source", Own("`module:function` that gives OAUTHBEARER tokens")),
        Property(
            "headrace.partition.assignment",
            Own(
                "`flink` (the default) or `fewest`: which subtask gets a new partition, by Flink's formula or the one "
                "with the fewest"
            ),
            consumer,
        ),
        Property("headrace.marker.topic", Own("the topic of the marker's offset"), producer),
        Property("headrace.marker.group", Own("what the marker's group begins with"), producer),
        Property("transactional.id", Refused("call `set_transactional_id_prefix` on the sink's builder"), producer),
        Property("enable.partition.eof", Refused("Headrace sets it; a bounded end needs it"), consumer),
        Property("enable.auto.offset.store", Refused("Headrace keeps positions in its checkpoints"), consumer),
        Property("delivery.report.only.error", Refused("Headrace decides which deliveries are reported"), producer),
        Property("log_level", Refused("set the level of the logger `headrace.kafka.client`")),
        Property("log.queue", Refused("set the level of the logger `headrace.kafka.client`")),
        Property("internal.termination.signal", Refused("Headrace waits for no thread of librdkafka")),
        Property("enable.random.seed", Refused("librdkafka seeds what it draws itself")),
        Property("auto.commit.enable", Refused("set `commit.offsets.on.checkpoint` or `enable.auto.commit`"), consumer),
        *(
            Property(f"offset.store.{name}", Refused("Headrace keeps positions in its checkpoints"), consumer)
            for name in ("method", "path", "sync.interval.ms")
        ),
        Property("consume.callback.max.messages", Refused("Headrace reads without callbacks"), consumer),
        Property("produce.offset.report", Refused("nobody asks for the offsets of what was written"), producer),
        Property("socket.blocking.max.ms", Ignored()),
        Property("topic.metadata.refresh.fast.cnt", Ignored()),
        Property("bootstrap.servers", Translated(_brokers, "the same; each is HOST:PORT, or HOST alone for 9092")),
        Property("metadata.broker.list", Translated(_brokers, "`bootstrap.servers`")),
        # The same thing under another name.
        Property("fetch.max.wait.ms", Passed("fetch.wait.max.ms"), consumer),
        _counted("max.request.size", "message.max.bytes", producer),
        _counted("message.max.bytes", "message.max.bytes"),
        _counted("batch.size", "batch.size", producer),
        _counted("receive.message.max.bytes", "receive.message.max.bytes"),
        Property("request.timeout.ms", Passed("socket.timeout.ms"), consumer),
        Property("receive.buffer.bytes", Translated(_socket_buffer("receive.buffer.bytes"), buffer)),
        Property("send.buffer.bytes", Translated(_socket_buffer("send.buffer.bytes"), buffer)),
        Property("buffer.memory", Translated(_buffer_memory, "`queue.buffering.max.kbytes`, in KiB"), producer),
        Property("sasl.jaas.config", Translated(_jaas, "what it says, see *Logging in*"), is_secret=True),
        Property("sasl.mechanism", Translated(_mechanism, mechanism)),
        Property("sasl.mechanisms", Translated(_mechanism, mechanism)),
        Property("sasl.login.callback.handler.class", Translated(_token_handler, own_handler)),
        Property("ssl.truststore.location", Translated(_truststore, truststore)),
        Property("ssl.truststore.certificates", _pem("ssl.ca.pem")),
        Property("ssl.keystore.location", Translated(_keystore, keystore)),
        Property("ssl.keystore.certificate.chain", _pem("ssl.certificate.pem")),
        Property("ssl.keystore.key", _pem("ssl.key.pem"), is_secret=True),
        Property("ssl.endpoint.identification.algorithm", Translated(_identification, "the same; empty is `none`")),
        Property("partitioner.ignore.keys", Translated(_ignore_keys, "`partitioner` random, if true"), producer),
        # Nothing to do.
        Property("ssl.truststore.type", Ignored()),
        Property("ssl.truststore.password", Ignored(), is_secret=True),
        Property("ssl.keystore.type", Ignored()),
        Property("key.deserializer", Ignored(), consumer),
        Property("value.deserializer", Ignored(), consumer),
        Property("key.serializer", Ignored(), producer),
        Property("value.serializer", Ignored(), producer),
        Property("max.poll.records", Ignored(), consumer),
        Property("register.consumer.metrics", Own("whether the consumer's own metrics are shown; true"), consumer),
        Property("register.producer.metrics", Own("whether the producer's own metrics are shown; true"), producer),
        Property("flink.disable-metrics", Own("true: the client's own metrics are not shown")),
        Property("group.id", Ignored(), producer),
        Property("max.block.ms", Ignored("a full queue is waited for; `delivery.timeout.ms` bounds it"), producer),
        Property("exclude.internal.topics", Ignored(), consumer),
        # Of snippets for all of Confluent Cloud: for serializers with a schema registry.
        Property("schema.registry.url", Ignored(no_registry)),
        Property("basic.auth.credentials.source", Ignored(no_registry)),
        Property("basic.auth.user.info", Ignored(no_registry), is_secret=True),
        Property("metric.reporters", Ignored(no_class)),
        Property("metrics.num.samples", Ignored()),
        Property("metrics.sample.window.ms", Ignored()),
        Property("metrics.recording.level", Ignored()),
        Property("auto.include.jmx.reporter", Ignored()),
        # Flink assigns partitions itself too.
        Property("partition.assignment.strategy", Ignored(), consumer),
        # Of Java's admin client, which Flink gives a source's properties too.
        Property(
            "retries", Ignored("whoever asks the brokers does so until `default.api.timeout.ms` is over"), consumer
        ),
        Property("metadata.max.idle.ms", Ignored("librdkafka keeps what it knows of the topics it writes"), producer),
        Property("partitioner.adaptive.partitioning.enable", Ignored(no_key), producer),
        Property("partitioner.availability.timeout.ms", Ignored(no_key), producer),
        Property(
            "socket.connection.setup.timeout.max.ms",
            Ignored("each attempt has `socket.connection.setup.timeout.ms`, however many failed before"),
        ),
        *(
            Property(f"sasl.kerberos.{name}", Ignored(jaas.NO_KERBEROS))
            for name in (
                *("keytab", "kinit.cmd", "min.time.before.relogin", "principal", "service.name"),
                *("ticket.renew.jitter", "ticket.renew.window.factor"),
            )
        ),
        Property("sasl.login.connect.timeout.ms", Ignored(no_login)),
        Property("sasl.login.read.timeout.ms", Ignored(no_login)),
        Property("sasl.login.refresh.buffer.seconds", Ignored(no_login)),
        Property("sasl.login.refresh.min.period.seconds", Ignored(no_login)),
        Property("sasl.login.refresh.window.factor", Ignored(no_login)),
        Property("sasl.login.refresh.window.jitter", Ignored(no_login)),
        Property("sasl.login.retry.backoff.ms", Ignored(no_login)),
        Property("sasl.login.retry.backoff.max.ms", Ignored(no_login)),
        # For whoever checks tokens: the brokers.
        Property("sasl.oauthbearer.clock.skew.seconds", Ignored()),
        Property("sasl.oauthbearer.expected.audience", Ignored()),
        Property("sasl.oauthbearer.expected.issuer", Ignored()),
        Property("sasl.oauthbearer.jwks.endpoint.refresh.ms", Ignored()),
        Property("sasl.oauthbearer.jwks.endpoint.retry.backoff.ms", Ignored()),
        Property("sasl.oauthbearer.jwks.endpoint.retry.backoff.max.ms", Ignored()),
        Property("sasl.oauthbearer.jwks.endpoint.url", Ignored()),
        Property("sasl.oauthbearer.scope.claim.name", Ignored()),
        Property("ssl.keymanager.algorithm", Ignored("OpenSSL has its own")),
        Property("ssl.trustmanager.algorithm", Ignored("OpenSSL has its own")),
        Property("ssl.secure.random.implementation", Ignored("OpenSSL has its own")),
        Property("ssl.protocol", Ignored("OpenSSL chooses the newest that both sides know")),
        Property("ssl.enabled.protocols", Ignored("OpenSSL chooses the newest that both sides know")),
        # What cannot be had.
        Property(
            "interceptor.classes",
            Translated(_no_interceptors, f"nothing to do if it is empty, else refused: {no_class}; {interceptor}"),
        ),
        Property("partitioner.class", Refused(f"{no_class}; set `partitioner` to one that librdkafka has"), producer),
        Property("sasl.client.callback.handler.class", Refused(no_handler)),
        Property("sasl.login.class", Refused(no_handler)),
        Property("bootstrap.controllers", Refused("sources and sinks speak to brokers; set `bootstrap.servers`")),
        Property("ssl.engine.factory.class", Refused(no_class)),
        Property("ssl.provider", Refused(f"{no_class}; OpenSSL's are named in librdkafka's `ssl.providers`")),
        Property("security.providers", Refused(no_class)),
    )


# Names that librdkafka 2.16 lists, without callbacks, and without those that Java's rows above treat.
_PASSED: Final = (
    (
        None,
        """
        client.id client.rack client.dns.lookup allow.auto.create.topics
        api.version.request api.version.request.timeout.ms api.version.fallback.ms broker.version.fallback
        broker.address.family broker.address.ttl connections.max.idle.ms debug enable.metrics.push
        enable.sasl.oauthbearer.unsecure.jwt enable.ssl.certificate.verification https.ca.location https.ca.pem
        enable.sparse.connections log.connection.close log.thread.name max.in.flight
        max.in.flight.requests.per.connection message.copy.max.bytes metadata.max.age.ms
        metadata.request.timeout.ms metadata.recovery.strategy
        metadata.recovery.rebootstrap.trigger.ms plugin.library.paths
        reconnect.backoff.jitter.ms reconnect.backoff.ms reconnect.backoff.max.ms retry.backoff.ms
        retry.backoff.max.ms
        sasl.oauthbearer.assertion.algorithm sasl.oauthbearer.assertion.claim.aud
        sasl.oauthbearer.assertion.claim.exp.seconds sasl.oauthbearer.assertion.claim.iss
        sasl.oauthbearer.assertion.claim.jti.include sasl.oauthbearer.assertion.claim.nbf.seconds
        sasl.oauthbearer.assertion.claim.sub sasl.oauthbearer.assertion.file
        sasl.oauthbearer.assertion.jwt.template.file sasl.oauthbearer.assertion.private.key.file
        sasl.oauthbearer.assertion.private.key.passphrase sasl.oauthbearer.assertion.private.key.pem
        sasl.oauthbearer.client.credentials.client.id sasl.oauthbearer.client.credentials.client.secret
        sasl.oauthbearer.client.id sasl.oauthbearer.client.secret sasl.oauthbearer.config
        sasl.oauthbearer.extensions sasl.oauthbearer.grant.type sasl.oauthbearer.metadata.authentication.type
        sasl.oauthbearer.method sasl.oauthbearer.scope sasl.oauthbearer.sub.claim.name
        sasl.oauthbearer.token.endpoint.url sasl.password sasl.username security.protocol
        socket.connection.setup.timeout.ms socket.keepalive.enable socket.max.fails socket.nagle.disable
        socket.receive.buffer.bytes socket.send.buffer.bytes socket.timeout.ms ssl.ca.certificate.stores
        ssl.ca.location ssl.ca.pem ssl.certificate.location ssl.certificate.pem ssl.cipher.suites ssl.crl.location
        ssl.curves.list ssl.engine.id ssl.engine.location ssl.key.location ssl.key.password ssl.key.pem
        ssl.keystore.password ssl.providers ssl.sigalgs.list statistics.interval.ms topic.blacklist
        topic.metadata.propagation.max.ms topic.metadata.refresh.fast.interval.ms
        topic.metadata.refresh.interval.ms topic.metadata.refresh.sparse
        """,
    ),
    (
        Role.CONSUMER,
        """
        auto.commit.interval.ms check.crcs coordinator.query.interval.ms enable.auto.commit fetch.error.backoff.ms
        fetch.max.bytes fetch.message.max.bytes fetch.min.bytes fetch.queue.backoff.ms fetch.wait.max.ms group.id
        group.instance.id group.protocol group.protocol.type group.remote.assignor heartbeat.interval.ms
        isolation.level max.partition.fetch.bytes max.poll.interval.ms
        queued.max.messages.kbytes queued.min.messages session.timeout.ms
        """,
    ),
    (
        Role.PRODUCER,
        """
        acks batch.num.messages compression.codec compression.level compression.type
        delivery.timeout.ms enable.gapless.guarantee enable.idempotence linger.ms message.send.max.retries
        message.timeout.ms partitioner queue.buffering.backpressure.threshold queue.buffering.max.kbytes
        queue.buffering.max.messages queue.buffering.max.ms queuing.strategy request.required.acks
        request.timeout.ms retries sticky.partitioning.linger.ms
        """,
    ),
)
_SECRET: Final = (
    "sasl.password",
    "sasl.oauthbearer.assertion.private.key.passphrase",
    "sasl.oauthbearer.assertion.private.key.pem",
    "sasl.oauthbearer.client.credentials.client.secret",
    "sasl.oauthbearer.client.secret",
    "sasl.oauthbearer.config",
    "ssl.key.password",
    "ssl.key.pem",
    "ssl.keystore.password",
)

PROPERTIES: Final[tuple[Property, ...]] = tuple(_rows())

# librdkafka has two names for one setting; ours must not meet the user's under the other.
ALIASES: Final[Mapping[str, str]] = {
    "metadata.broker.list": "bootstrap.servers",
    "sasl.mechanisms": "sasl.mechanism",
    "max.partition.fetch.bytes": "fetch.message.max.bytes",
    "request.required.acks": "acks",
    "message.timeout.ms": "delivery.timeout.ms",
    "queue.buffering.max.ms": "linger.ms",
    "max.in.flight": "max.in.flight.requests.per.connection",
    "compression.codec": "compression.type",
    "message.send.max.retries": "retries",
}
