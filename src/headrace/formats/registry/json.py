"""JSON Schema with a schema registry."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from headrace.errors import ConfigError, DataError
from headrace.formats.library import library
from headrace.formats.registry import wire
from headrace.formats.registry.client import Registry, RegistrySchema
from headrace.formats.registry.schema import (
    RegistryDeserializationSchema,
    RegistrySerializationSchema,
    SubjectNameStrategy,
    checked_subject,
)
from headrace.formats.schema import unreadable, unwritable

_KIND = "JSON"


@dataclass(frozen=True)
class ConfluentRegistryJsonDeserializationSchema(RegistryDeserializationSchema):
    """Reads JSON whose schemas are in a Confluent Schema Registry. *Extension*: Flink has none.

    >>> schema = ConfluentRegistryJsonDeserializationSchema.for_generic("http://localhost:8081", validate=True)

    Raises `DataError` for bytes that are no JSON, or whose schema the registry does not have, or (with `validate`)
    which are not as it says; `ExternalError` if the registry does not answer.
    """

    validate: bool = False

    @staticmethod
    def for_generic(
        schema_registry_url: str, registry_configs: Mapping[str, Any] | None = None, *, validate: bool = False
    ) -> ConfluentRegistryJsonDeserializationSchema:
        """Reads what JSON has: dicts, lists, texts, numbers. With `validate`, each is checked by its own schema.

        `registry_configs` are settings under Confluent's names (`basic.auth.user.info`, `timeout` …).
        """
        return ConfluentRegistryJsonDeserializationSchema(Registry.of(schema_registry_url, registry_configs), validate)

    def decoder(self, schema_id: int) -> Callable[[bytes], Any]:
        written = self.registry.schema(schema_id, _KIND)
        check: Callable[[Any], None] = _nothing
        if self.validate:
            try:
                check = validator(written, self.registry.imported(written), f"the schema with id {schema_id}")
            except ConfigError as error:
                raise self.registry.nonsense(f"the schema with id {schema_id} is none: {error}") from None
        loads = library("orjson", "json").loads
        what = f"ConfluentRegistryJsonDeserializationSchema (schema id {schema_id})"

        def decode(message: bytes) -> Any:
            try:
                value = loads(message[wire.HEADER_BYTES :])
            except Exception as error:
                raise unreadable(what, error) from error
            check(value)
            return value

        return decode


@dataclass(frozen=True)
class ConfluentRegistryJsonSerializationSchema(RegistrySerializationSchema):
    """Writes JSON whose schema is in a Confluent Schema Registry. *Extension*: Flink has none.

    >>> schema = ConfluentRegistryJsonSerializationSchema.for_generic(
    ...     SubjectNameStrategy.TOPIC,
    ...     {"title": "Item", "type": "object", "properties": {"url": {"type": "string"}}, "required": ["url"]},
    ...     "http://localhost:8081",
    ...     validate=True,
    ... )

    Raises `DataError` for what JSON does not have, or (with `validate`) what is not as the schema says; `ConfigError`
    if the registry refuses the schema, `ExternalError` if it does not answer.
    """

    schema: str
    validate: bool = False

    @staticmethod
    def for_generic(
        subject: str | SubjectNameStrategy,
        schema: str | Mapping[str, Any],
        schema_registry_url: str,
        registry_configs: Mapping[str, Any] | None = None,
        *,
        validate: bool = False,
    ) -> ConfluentRegistryJsonSerializationSchema:
        """Writes with `schema`, which is registered at `subject` when the first record is written.

        `registry_configs` are as `ConfluentRegistryAvroSerializationSchema` has them. A schema's name is its `title`.
        """
        text = schema if isinstance(schema, str) else json.dumps(schema)
        validator(RegistrySchema(_KIND, text), {}, "the schema")
        if checked_subject(subject) in (SubjectNameStrategy.RECORD, SubjectNameStrategy.TOPIC_RECORD):
            SubjectNameStrategy.RECORD.subject(None, False, _title(text))
        registry = Registry.of(schema_registry_url, registry_configs)
        return ConfluentRegistryJsonSerializationSchema(registry, subject, None, False, text, validate)

    def encoder(self) -> Callable[[Any], bytes]:
        schema_id, schema = self.published(RegistrySchema(_KIND, self.schema), _title(self.schema))
        check: Callable[[Any], None] = _nothing
        if self.validate:
            try:
                check = validator(schema, self.registry.imported(schema), f"the schema with id {schema_id}")
            except ConfigError as error:
                raise self.registry.nonsense(f"the schema with id {schema_id} is none: {error}") from None
        head = wire.header(schema_id)
        orjson = library("orjson", "json")
        loads, dumps, validates = orjson.loads, orjson.dumps, self.validate
        what = f"ConfluentRegistryJsonSerializationSchema (schema id {schema_id})"

        def encode(element: Any) -> bytes:
            try:
                written: bytes = dumps(element)
            except Exception as error:
                raise unwritable(what, error) from error
            if validates:
                # What will be read is checked: a dataclass is an object by then, and NaN null.
                check(loads(written))
            return head + written

        return encode


def validator(schema: RegistrySchema, imported: Mapping[str, RegistrySchema], named: str) -> Callable[[Any], None]:
    """What raises `DataError` for a value that is not as the schema says. Raises `ConfigError` for no schema."""
    jsonschema, referencing = library("jsonschema", "registry"), library("referencing", "registry")
    drafts = library("referencing.jsonschema", "registry")
    try:
        content = json.loads(schema.text)
        kind = jsonschema.validators.validator_for(content)
        kind.check_schema(content)
        others = [(name, drafts.DRAFT7.create_resource(json.loads(one.text))) for name, one in imported.items()]
        # With resources of its own it fetches none from addresses that a schema names.
        checker = kind(content, registry=referencing.Registry().with_resources(others))
    except Exception as error:
        raise ConfigError(f"this is no JSON Schema ({type(error).__name__}): {schema.text:.200}") from error

    def check(value: Any) -> None:
        try:
            checker.validate(value)
        except jsonschema.ValidationError as error:
            raise DataError(f"this is not as {named} says: at {error.json_path}: {error.message:.300}") from None
        except Exception as error:
            raise DataError(f"this cannot be checked by {named}: {type(error).__name__}: {error}") from error

    return check


def _title(text: str) -> str | None:
    content = json.loads(text)
    title = content.get("title") if isinstance(content, dict) else None
    return title if isinstance(title, str) and title else None


def _nothing(value: Any) -> None:
    pass
