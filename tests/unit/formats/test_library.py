"""Formats without their libraries."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from headrace.common import Types
from headrace.errors import ConfigError
from headrace.formats.avro import AvroDeserializationSchema
from headrace.formats.csv import CsvRowDeserializationSchema
from headrace.formats.json import JsonDeserializationSchema
from headrace.formats.json_rows import JsonRowSerializationSchema
from headrace.formats.library import library
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


def test_what_a_library_needs_itself_is_named_when_it_is_missing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # Of `headrace[registry]` the client is always there, and what it asks registries with is not.
    (tmp_path / "needy.py").write_text("import not_there.inside")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ConfigError, match=r"^`not_there` is needed and not installed: .*headrace\[registry\]"):
        library("needy", "registry")
