"""Protobuf with a schema registry."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from headrace.errors import DataError
from headrace.formats.protobuf import checked_class
from headrace.formats.registry import wire
from headrace.formats.registry.client import Reference, Registry, RegistrySchema
from headrace.formats.registry.schema import (
    RegistryDeserializationSchema,
    RegistrySerializationSchema,
    SubjectNameStrategy,
    checked_subject,
)
from headrace.formats.schema import unreadable, unwritable

if TYPE_CHECKING:
    from google.protobuf.message import Message

_KIND = "PROTOBUF"
_KNOWN = ("google/protobuf/", "google/type/", "confluent/")
"""Files that every registry and every reader has; they are not registered."""


@dataclass(frozen=True)
class ConfluentRegistryProtobufDeserializationSchema(RegistryDeserializationSchema):
    """Reads Protobuf messages whose schemas are in a Confluent Schema Registry. *Extension*: Flink has none.

    >>> from google.protobuf.timestamp_pb2 import Timestamp  # any class that protoc has made
    >>> schema = ConfluentRegistryProtobufDeserializationSchema.for_specific(Timestamp, "http://localhost:8081")

    Raises `DataError` for bytes that are no such message, which are another message by their schema, or whose schema
    the registry does not have; `ExternalError` if the registry does not answer.
    """

    message_class: type[Message]

    @staticmethod
    def for_specific(
        message_class: type[Message], schema_registry_url: str, registry_configs: Mapping[str, Any] | None = None
    ) -> ConfluentRegistryProtobufDeserializationSchema:
        """Reads messages of a class that protoc has made, in a module that the job's workers can import too.

        `registry_configs` are settings under Confluent's names (`basic.auth.user.info`, `timeout` …).
        """
        checked_class(message_class)
        registry = Registry.of(schema_registry_url, registry_configs)
        return ConfluentRegistryProtobufDeserializationSchema(registry, message_class)

    def decoder(self, schema_id: int) -> Callable[[bytes], Any]:
        written = self.registry.schema(schema_id, _KIND)
        try:
            outline = outline_of(written.text)
        except ValueError as error:
            raise self.registry.nonsense(f"the schema with id {schema_id} is none: {error}") from None
        parse = self.message_class.FromString
        wanted = self.message_class.DESCRIPTOR.full_name
        what = f"ConfluentRegistryProtobufDeserializationSchema({wanted}, schema id {schema_id})"
        right: set[tuple[int, ...]] = set()

        def decode(message: bytes) -> Any:
            indexes, start = wire.read_indexes(message)
            if indexes not in right:
                names = set(names_at(outline, indexes))
                if wanted not in names:
                    found = (
                        f"{' or '.join(sorted(names))}" if names else f"none: there is no message at {list(indexes)}"
                    )
                    raise DataError(f"by the schema with id {schema_id} this is no {wanted}, but {found}")
                right.add(indexes)
            try:
                return parse(message[start:])
            except Exception as error:
                raise unreadable(what, error) from error

        return decode


@dataclass(frozen=True)
class ConfluentRegistryProtobufSerializationSchema(RegistrySerializationSchema):
    """Writes Protobuf messages whose schema is in a Confluent Schema Registry. *Extension*: Flink has none.

    >>> from google.protobuf.timestamp_pb2 import Timestamp
    >>> schema = ConfluentRegistryProtobufSerializationSchema.for_specific(
    ...     SubjectNameStrategy.TOPIC, Timestamp, "http://localhost:8081"
    ... )

    What the message's file imports is registered too, each file at a subject of its own name, as by Confluent's
    serializers. Raises `DataError` for what is no such message, or lacks a required field; `ConfigError` if the
    registry refuses the schema, `ExternalError` if it does not answer.
    """

    message_class: type[Message]

    @staticmethod
    def for_specific(
        subject: str | SubjectNameStrategy,
        message_class: type[Message],
        schema_registry_url: str,
        registry_configs: Mapping[str, Any] | None = None,
    ) -> ConfluentRegistryProtobufSerializationSchema:
        """Writes messages of a class that protoc has made, in a module that the job's workers can import too.

        `registry_configs` are as `ConfluentRegistryAvroSerializationSchema` has them.
        """
        checked_class(message_class)
        registry = Registry.of(schema_registry_url, registry_configs)
        return ConfluentRegistryProtobufSerializationSchema(
            registry, checked_subject(subject), None, False, message_class
        )

    def encoder(self) -> Callable[[Any], bytes]:
        descriptor = self.message_class.DESCRIPTOR
        file = descriptor.file
        if self.registry.flag("use.latest.version"):
            schema_id, _ = self.published(RegistrySchema(_KIND, ""), descriptor.full_name)
        else:
            schema_id, _ = self.published(self._with_imports(file), descriptor.full_name)
        head = wire.header(schema_id) + wire.write_indexes(indexes_of(descriptor))
        expected, serialize = self.message_class, self.message_class.SerializeToString
        what = f"ConfluentRegistryProtobufSerializationSchema({descriptor.full_name}, schema id {schema_id})"

        def encode(element: Any) -> bytes:
            try:
                if type(element) is not expected:
                    raise TypeError(f"it is a {type(element).__name__}")
                return head + serialize(element)
            except Exception as error:
                raise unwritable(what, error) from error

        return encode

    def _with_imports(self, file: Any) -> RegistrySchema:
        references = []
        for needed in file.dependencies:
            if not needed.name.startswith(_KNOWN):
                schema = self._with_imports(needed)
                self.registry.publish(needed.name, schema)
                references.append(Reference(needed.name, needed.name, self.registry.version(needed.name, schema)))
        return RegistrySchema(_KIND, base64.b64encode(file.serialized_pb).decode(), tuple(references))


@dataclass(slots=True)
class Outline:
    """A message of a file, or the file: its name, and the messages in it. `is_entry`: it stands for a map."""

    name: str
    is_entry: bool = False
    messages: list[Outline] = field(default_factory=list)


def outline_of(text: str) -> Outline:
    """The messages of a file, from its text or its descriptor in base64. Raises `ValueError` for what is neither.

    >>> names_at(outline_of("package a; message B { map<string, int32> c = 1; message D {} }"), (0, 1))
    ['a.B.D']
    """
    if not re.fullmatch(r"[A-Za-z0-9+/\s]+=*\s*", text):
        return _outline_of_text(text)
    from google.protobuf.descriptor_pb2 import DescriptorProto, FileDescriptorProto
    from google.protobuf.message import DecodeError

    def outline(message: DescriptorProto) -> Outline:
        return Outline(message.name, message.options.map_entry, [outline(inner) for inner in message.nested_type])

    try:
        file = FileDescriptorProto.FromString(base64.b64decode(text))
    except DecodeError as error:
        raise ValueError(str(error)) from None
    return Outline(file.package, messages=[outline(message) for message in file.message_type])


_TOKEN = re.compile(
    r"""//[^\n]* | /\*.*?\*/ | "(?:\\.|[^"\\])*" | '(?:\\.|[^'\\])*'
    | \bpackage\s+(?P<package>[\w.]+)\s*; | \bmessage\s+(?P<message>\w+)\s*\{
    | \bmap\s*<[^>]*>\s*(?P<map>\w+) | (?P<open>\{) | (?P<close>\})""",
    re.S | re.X,
)


def _outline_of_text(text: str) -> Outline:
    file = Outline("")
    inside: list[Outline] = [file]
    for token in _TOKEN.finditer(text):
        match token.lastgroup:
            case "package":
                file.name = token["package"]
            case "message":
                inside[-1].messages.append(Outline(token["message"]))
                inside.append(inside[-1].messages[-1])
            case "map":
                inside[-1].messages.append(Outline(token["map"], is_entry=True))
            case "open":
                # An enum, a oneof (whose maps would be its message's, if it could have any), a service, options.
                inside.append(Outline(""))
            case "close":
                inside.pop()
                if not inside:
                    raise ValueError("a brace is closed that was not opened")
    if len(inside) > 1 or not file.messages:
        raise ValueError("there is no message, or one that does not end")
    return file


def names_at(file: Outline, indexes: Sequence[int]) -> list[str]:
    """The full names of the message that indexes may mean; none if there is no such message.

    Python, Go and C# count the messages that stand for maps, Java does not. They differ where a message stands in
    another one behind a map.
    """
    return list(dict.fromkeys(name for counts in (True, False) if (name := _name_at(file, indexes, counts))))


def _name_at(file: Outline, indexes: Sequence[int], counts_entries: bool) -> str | None:
    at, names = file, [file.name] if file.name else []
    for index in indexes:
        messages = [one for one in at.messages if counts_entries or not one.is_entry]
        if not 0 <= index < len(messages):
            return None
        at = messages[index]
        names.append(at.name)
    return ".".join(names)


def indexes_of(descriptor: Any) -> list[int]:
    """The way to a message in its file."""

    def way(message: Any) -> Iterator[int]:
        outer = message.containing_type
        if outer is not None:
            yield from way(outer)
        siblings = message.file.message_types_by_name.values() if outer is None else outer.nested_types
        yield [one.full_name for one in siblings].index(message.full_name)

    return list(way(descriptor))
