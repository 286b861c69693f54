"""Avro with a schema registry, by fastavro."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from headrace.errors import ConfigError, DataError
from headrace.formats.avro import Schema, UnboundedSchema, parse_schema, reader, schema_text, writer
from headrace.formats.registry import wire
from headrace.formats.registry.client import Registry, RegistrySchema
from headrace.formats.registry.schema import (
    RegistryDeserializationSchema,
    RegistrySerializationSchema,
    SubjectNameStrategy,
    checked_subject,
)
from headrace.formats.schema import unreadable, unwritable

_KIND = "AVRO"


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
        schema: Schema | None,
        schema_registry_url: str,
        registry_configs: Mapping[str, Any] | None = None,
    ) -> ConfluentRegistryAvroDeserializationSchema:
        """Reads in the shape of `schema`, as text or as what `json.loads` makes of it; None: as it was written.

        `registry_configs` are settings under Confluent's names (`basic.auth.user.info`, `timeout` …).
        """
        if schema is not None:
            parse_schema(schema)
        text = None if schema is None else schema_text(schema)
        return ConfluentRegistryAvroDeserializationSchema(Registry.of(schema_registry_url, registry_configs), text)

    def decoder(self, schema_id: int) -> Callable[[bytes], Any]:
        written = self.registry.schema(schema_id, _KIND)
        try:
            as_written = _registered(self.registry, schema_id, written)
        except UnboundedSchema as error:
            raise DataError(str(error)) from None
        # The same text is the same shape: nothing has to be resolved.
        own = self.schema is None or self.schema == written.text
        read = reader(as_written, None if own else parse_schema(self.schema or ""))
        what = f"ConfluentRegistryAvroDeserializationSchema (schema id {schema_id})"

        def decode(message: bytes) -> Any:
            try:
                return read(message[wire.HEADER_BYTES :])
            except Exception as error:
                raise unreadable(what, error) from error

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
        schema: Schema,
        schema_registry_url: str,
        registry_configs: Mapping[str, Any] | None = None,
    ) -> ConfluentRegistryAvroSerializationSchema:
        """Writes with `schema`, which is registered at `subject` when the first record is written.

        `registry_configs` are settings under Confluent's names, `auto.register.schemas` (true), `use.latest.version`
        (false: else the newest schema of the subject is written with) and `normalize.schemas` (false) among them.
        """
        name = _full_name(parse_schema(schema))
        if checked_subject(subject) in (SubjectNameStrategy.RECORD, SubjectNameStrategy.TOPIC_RECORD):
            SubjectNameStrategy.RECORD.subject(None, False, name)
        registry = Registry.of(schema_registry_url, registry_configs)
        return ConfluentRegistryAvroSerializationSchema(registry, subject, None, False, schema_text(schema))

    def encoder(self) -> Callable[[Any], bytes]:
        given = RegistrySchema(_KIND, self.schema)
        schema_id, schema = self.published(given, _full_name(parse_schema(self.schema)))
        write = writer(_registered(self.registry, schema_id, schema))
        head = wire.header(schema_id)
        what = f"ConfluentRegistryAvroSerializationSchema (schema id {schema_id})"

        def encode(element: Any) -> bytes:
            try:
                return head + write(element)
            except Exception as error:
                raise unwritable(what, error) from error

        return encode


def _registered(registry: Registry, schema_id: int, schema: RegistrySchema) -> Any:
    """A schema of the registry's, parsed with what it imports."""
    try:
        return parse_schema(schema.text, {name: one.text for name, one in registry.imported(schema).items()})
    except UnboundedSchema as error:
        raise UnboundedSchema(f"the schema with id {schema_id} is not used: {error}") from None
    except ConfigError as error:
        raise registry.nonsense(f"the schema with id {schema_id} is none: {error}") from None


def _full_name(schema: Any) -> str | None:
    """The full name of a parsed schema; None if it has none."""
    name = schema.get("name") if isinstance(schema, dict) else None
    return None if name is None else str(name)
