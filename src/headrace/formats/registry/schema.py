"""What the schemas of all kinds have in common: one decoder for each schema id, and where a schema is registered."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from enum import Enum
from functools import cached_property
from typing import Any, Self

from headrace.common.serialization import DeserializationSchema, Deserializer, SerializationSchema, Serializer
from headrace.errors import ConfigError
from headrace.formats.registry import wire
from headrace.formats.registry.client import Registry, RegistrySchema


class SubjectNameStrategy(Enum):
    """After what the subject is named that a schema is registered at; Confluent's three."""

    TOPIC = "topic"
    """`<topic>-key` or `<topic>-value`: one kind of record in a topic."""
    RECORD = "record"
    """The full name of the record, message, or title: the same in all topics."""
    TOPIC_RECORD = "topic-record"
    """`<topic>-<full name>`: several kinds of record in a topic."""

    def subject(self, topic: str | None, is_key: bool, name: str | None) -> str:
        """The subject for records of this topic with this full name. Raises `ConfigError` for what is not there.

        >>> SubjectNameStrategy.TOPIC.subject("rss", False, "feeds.Item")
        'rss-value'
        >>> SubjectNameStrategy.TOPIC_RECORD.subject("rss", False, "feeds.Item")
        'rss-feeds.Item'
        """
        if self is not SubjectNameStrategy.RECORD and topic is None:
            raise ConfigError(
                f"SubjectNameStrategy.{self.name} needs a topic, and it is not known outside of a sink; ask "
                "`for_topic(topic, is_key)` of the schema, or name the subject"
            )
        if self is SubjectNameStrategy.TOPIC:
            return f"{topic}-{'key' if is_key else 'value'}"
        if name is None:
            raise ConfigError(
                f"SubjectNameStrategy.{self.name} needs a schema with a name (JSON Schema: a `title`), and this has "
                "none; use SubjectNameStrategy.TOPIC, or name the subject"
            )
        return name if self is SubjectNameStrategy.RECORD else f"{topic}-{name}"


class _Pickled:
    """Only a dataclass's fields are pickled: what was made of them for this process is made again in the next."""

    def __getstate__(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in fields(self)}  # type: ignore[arg-type]


@dataclass(frozen=True)
class RegistryDeserializationSchema(_Pickled, DeserializationSchema):
    """Reads bytes in a registry's wire format. Subclasses say what a schema's id means."""

    registry: Registry

    @abstractmethod
    def decoder(self, schema_id: int) -> Callable[[bytes], Any]:
        """What reads whole messages (the header is still there) of a schema; it raises `DataError`."""

    def deserialize(self, message: bytes | None) -> Any:
        return self._deserialize(message)

    def deserializer(self) -> Deserializer:
        return self._deserialize

    @cached_property
    def _deserialize(self) -> Deserializer:
        decoders: dict[bytes, Callable[[bytes], Any]] = {}

        def deserialize(message: bytes | None) -> Any:
            if message is None:
                return None
            head = message[: wire.HEADER_BYTES]
            decode = decoders.get(head)
            if decode is None:
                # An id that is not known is asked for each time: it may be by now.
                decode = decoders[head] = self.decoder(wire.schema_id_of(message))
            return decode(message)

        return deserialize


@dataclass(frozen=True)
class RegistrySerializationSchema(_Pickled, SerializationSchema):
    """Writes bytes in a registry's wire format. Subclasses say how."""

    registry: Registry
    subject: str | SubjectNameStrategy
    topic: str | None
    is_key: bool

    @abstractmethod
    def encoder(self) -> Callable[[Any], bytes]:
        """What writes whole messages, once their schema is published; it raises `DataError`."""

    def for_topic(self, topic: str, is_key: bool) -> Self:
        return replace(self, topic=topic, is_key=is_key)

    def subject_for(self, name: str | None) -> str:
        """The subject for a schema with this full name."""
        if isinstance(self.subject, str):
            return self.subject
        return self.subject.subject(self.topic, self.is_key, name)

    def published(self, schema: RegistrySchema, name: str | None) -> tuple[int, RegistrySchema]:
        """The schema to write with, and its id: the program's, or with `use.latest.version` the subject's newest."""
        subject = self.subject_for(name)
        if self.registry.flag("use.latest.version"):
            return self.registry.latest(subject, schema.kind)
        return self.registry.publish(subject, schema), schema

    def serialize(self, element: Any) -> bytes | None:
        return self._serialize(element)

    def serializer(self) -> Serializer:
        return self._serialize

    @cached_property
    def _serialize(self) -> Serializer:
        encode: Callable[[Any], bytes] | None = None

        def serialize(element: Any) -> bytes | None:
            nonlocal encode
            if element is None:
                return None
            if encode is None:
                encode = self.encoder()
            return encode(element)

        return serialize


def checked_subject(subject: Any) -> str | SubjectNameStrategy:
    """Raises `ConfigError` for what names no subject."""
    if isinstance(subject, SubjectNameStrategy) or (isinstance(subject, str) and subject):
        return subject
    raise ConfigError(f"a subject is a name or a SubjectNameStrategy, got {subject!r}")
