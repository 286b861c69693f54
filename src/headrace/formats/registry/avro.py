"""Avro with a schema registry, by fastavro."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from io import BytesIO
from typing import Any

from headrace.errors import ConfigError, DataError
from headrace.formats.registry import wire
from headrace.formats.registry.client import Registry, RegistrySchema
from headrace.formats.registry.schema import (
    RegistryDeserializationSchema,
    RegistrySerializationSchema,
    SubjectNameStrategy,
    checked_subject,
)

_KIND = "AVRO"
_ROOT = "$root"


@dataclass(frozen=True)
class ConfluentRegistryAvroDeserializationSchema(RegistryDeserializationSchema):
    """Reads Avro whose schemas are in a Confluent Schema Registry. *Extension*, after Flink's Java class of this name.

    Each record is read with the schema that it was written with, and given in the shape of `schema`, by Avro's rules:
    fields that are not in it are left out, fields that were not written have their default. A record is a dict.

    >>> schema = ConfluentRegistryAvroDeserializationSchema.for_generic(
    ...     '{"type": "record", "name": "Item", "fields": [{"name": "url", "type": "string"}]}',
    ...     "http://localhost:8081",
    ... )

    Raises `DataError` for bytes that are no such record, or whose schema the registry does not have, or which do not
    fit `schema`; `ExternalError` if the registry does not answer.
    """

    schema: str | None = None

    @staticmethod
    def for_generic(
        schema: str | Mapping[str, Any] | list[Any] | None,
        schema_registry_url: str,
        registry_configs: Mapping[str, Any] | None = None,
    ) -> ConfluentRegistryAvroDeserializationSchema:
        """Reads in the shape of `schema`, as text or as what `json.loads` makes of it; None: as it was written.

        `registry_configs` are settings under Confluent's names (`basic.auth.user.info`, `timeout` …).
        """
        text = None if schema is None else schema_text(schema)
        if text is not None:
            parsed(RegistrySchema(_KIND, text), {})
        return ConfluentRegistryAvroDeserializationSchema(Registry.of(schema_registry_url, registry_configs), text)

    def decoder(self, schema_id: int) -> Callable[[bytes], Any]:
        written = self.registry.schema(schema_id, _KIND)
        imported = self.registry.imported(written)
        try:
            writer = parsed(written, imported)
        except ConfigError as error:
            raise self.registry.nonsense(f"the schema with id {schema_id} is none: {error}") from None
        # The same text is the same shape: nothing has to be resolved.
        own = self.schema is None or self.schema == written.text
        reader = None if own else parsed(RegistrySchema(_KIND, self.schema or ""), {})
        # Compiled, it follows bytes that say "once more" until the stack is used up and the process gone: 5 kB do.
        if is_recursive(writer):
            from fastavro._read_py import schemaless_reader
        else:
            from fastavro import schemaless_reader

        def decode(message: bytes) -> Any:
            try:
                return schemaless_reader(BytesIO(message[wire.HEADER_BYTES :]), writer, reader)
            except Exception as error:
                raise DataError(
                    f"these bytes cannot be read with the schema with id {schema_id}: {type(error).__name__}: {error}"
                ) from error

        return decode


@dataclass(frozen=True)
class ConfluentRegistryAvroSerializationSchema(RegistrySerializationSchema):
    """Writes Avro whose schema is in a Confluent Schema Registry. *Extension*, after Flink's Java class of this name.

    >>> schema = ConfluentRegistryAvroSerializationSchema.for_generic(
    ...     SubjectNameStrategy.TOPIC,
    ...     '{"type": "record", "name": "Item", "fields": [{"name": "url", "type": "string"}]}',
    ...     "http://localhost:8081",
    ... )

    Elements are what fastavro writes: a dict for a record. Raises `DataError` for one that does not fit the schema,
    `ConfigError` if the registry refuses the schema, `ExternalError` if it does not answer.
    """

    schema: str

    @staticmethod
    def for_generic(
        subject: str | SubjectNameStrategy,
        schema: str | Mapping[str, Any] | list[Any],
        schema_registry_url: str,
        registry_configs: Mapping[str, Any] | None = None,
    ) -> ConfluentRegistryAvroSerializationSchema:
        """Writes with `schema`, which is registered at `subject` when the first record is written.

        `registry_configs` are settings under Confluent's names, `auto.register.schemas` (true), `use.latest.version`
        (false: else the newest schema of the subject is written with) and `normalize.schemas` (false) among them.
        """
        text = schema_text(schema)
        name = full_name(parsed(RegistrySchema(_KIND, text), {}))
        if checked_subject(subject) in (SubjectNameStrategy.RECORD, SubjectNameStrategy.TOPIC_RECORD):
            SubjectNameStrategy.RECORD.subject(None, False, name)
        registry = Registry.of(schema_registry_url, registry_configs)
        return ConfluentRegistryAvroSerializationSchema(registry, subject, None, False, text)

    def encoder(self) -> Callable[[Any], bytes]:
        from fastavro import schemaless_writer

        given = RegistrySchema(_KIND, self.schema)
        schema_id, schema = self.published(given, full_name(parsed(given, {})))
        try:
            writer = parsed(schema, self.registry.imported(schema))
        except ConfigError as error:
            raise self.registry.nonsense(f"the schema with id {schema_id} is none: {error}") from None
        head = wire.header(schema_id)

        def encode(element: Any) -> bytes:
            out = BytesIO()
            out.write(head)
            try:
                schemaless_writer(out, writer, element)
            except Exception as error:
                reason = f"{type(error).__name__}: {error}"
                raise DataError(f"this does not fit the schema with id {schema_id}: {reason}") from error
            return out.getvalue()

        return encode


def schema_text(schema: str | Mapping[str, Any] | list[Any]) -> str:
    """A schema as it is registered."""
    return schema if isinstance(schema, str) else json.dumps(schema)


def parsed(schema: RegistrySchema, imported: Mapping[str, RegistrySchema]) -> Any:
    """A schema as fastavro takes it. Raises `ConfigError` for what is none."""
    try:
        from fastavro.repository import AbstractSchemaRepository
        from fastavro.schema import load_schema
    except ImportError:
        raise ConfigError("Avro with a schema registry needs an extra: pip install 'headrace[avro,registry]'") from None

    waiting = {**imported, _ROOT: schema}

    class Once(AbstractSchemaRepository):
        """Each name is asked for once; fastavro would follow a circle until the process is gone."""

        def load(self, name: str) -> Any:
            return json.loads(waiting.pop(name).text)

    try:
        return load_schema(_ROOT, repo=Once())
    except Exception as error:
        reason = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        raise ConfigError(f"this is no Avro schema ({reason}): {schema.text:.200}") from error


def full_name(schema: Any) -> str | None:
    """The full name of a parsed schema; None if it has none."""
    name = schema.get("name") if isinstance(schema, dict) else None
    return None if name is None else str(name)


def is_recursive(schema: Any, inside: frozenset[str] = frozenset()) -> bool:
    """Whether a value of a parsed schema may hold another of the same type.

    >>> is_recursive({"type": "record", "name": "N", "fields": [{"name": "next", "type": ["null", "N"]}]})
    True
    """
    match schema:
        case str():
            return schema in inside
        case list():
            return any(is_recursive(branch, inside) for branch in schema)
        case {"type": "record" | "error", "name": str(name), "fields": list(types)}:
            return any(is_recursive(field["type"], inside | {name}) for field in types)
        case {"type": "array", "items": inner} | {"type": "map", "values": inner} | {"type": dict() | list() as inner}:
            return is_recursive(inner, inside)
    return False
