"""Formats without their libraries."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest

from headrace.common import Types
from headrace.errors import ConfigError
from headrace.formats.avro import AvroDeserializationSchema
from headrace.formats.csv import CsvRowDeserializationSchema
from headrace.formats.json import JsonDeserializationSchema, JsonRowSerializationSchema
from headrace.formats.protobuf import ProtobufDeserializationSchema

ROW = Types.ROW([Types.LONG()])


@pytest.mark.parametrize(
    ("module", "extra", "make"),
    [
        ("msgspec", "json", lambda: JsonRowSerializationSchema(ROW)),
        ("orjson", "json", JsonDeserializationSchema),
        ("fastavro", "avro", lambda: AvroDeserializationSchema("string")),
        ("google.protobuf.message", "protobuf", lambda: ProtobufDeserializationSchema(dict)),
    ],
)
def test_a_library_that_is_missing_is_named_with_the_extra_that_has_it(
    module: str, extra: str, make: Callable[[], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    # As Python itself has it for a module that must not be imported.
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ConfigError, match=rf"is needed and not installed: `pip install 'headrace\[{extra}\]'`"):
        make()
    assert CsvRowDeserializationSchema.Builder(ROW).build().deserialize(b"7") is not None
