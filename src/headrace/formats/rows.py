"""Compiled functions between rows and a format's own values: one Python frame for a record.

What `row_reader` compiles for two fields, of which the second has to be converted:

    def read(message):
        try:
            d = decode(message)
            if d is None:
                return None
            values = [d.f0, c1(d.f1)]
        except Exception:
            return slow(message)
        return row_of(names, values)

and `row_writer`:

    def write(row):
        try:
            values = fit(row)
            if values is not None:
                [v0, v1] = values
                return encode(S(v0, c1(v1)))
        except Exception:
            return slow(row)
        return slow(row)

`slow` does the same by the book, is given what the quick way could not take (None too), and makes all errors.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, TypeAlias, cast

from headrace.common.row_base import fitting
from headrace.common.typeinfo import (
    BasicType,
    BasicTypeInfo,
    PrimitiveArrayTypeInfo,
    RowTypeInfo,
    TypeInformation,
    Types,
)
from headrace.common.types import row_of
from headrace.errors import ConfigError
from headrace.formats.text import INT_RANGES

Converter: TypeAlias = Callable[..., Any]

BYTES = Types.PRIMITIVE_ARRAY(Types.BYTE())

_KINDS: Mapping[BasicType, Any] = {
    BasicType.STRING: str,
    BasicType.BOOLEAN: bool,
    BasicType.DOUBLE: float,
    **{kind: high.bit_length() + 1 for kind, (_, high) in INT_RANGES.items()},
}
"""What `fitting` can tell by itself."""


def row_type(type_info: TypeInformation | None, what: str) -> RowTypeInfo:
    """The type, which has to be a row's."""
    if type_info is None:
        raise TypeError(f"{what} needs type information: give it a row type, `Types.ROW_NAMED([…], […])`")
    if not isinstance(type_info, RowTypeInfo):
        raise ConfigError(f"{what} is for rows, and was given {type_info!r}; use `Types.ROW_NAMED([…], […])`")
    return type_info


def is_bytes(type_info: TypeInformation) -> bool:
    """Whether values of the type are `bytes`."""
    return isinstance(type_info, PrimitiveArrayTypeInfo) and type_info == BYTES


def row_reader(
    names: Sequence[str] | None,
    decode: str,
    fields: Sequence[tuple[str, Converter | None]],
    slow: Converter,
    bindings: Mapping[str, Any],
) -> Converter:
    """A function of a record's bytes. `decode` is the text that makes a value `d` of `message`; `fields` are texts that
    take a field out of `d`, each with what converts it; `bindings` are the names in them."""
    values = [text if convert is None else f"c{i}({text})" for i, (text, convert) in enumerate(fields)]
    return _compiled(
        "read",
        [
            "def read(message):",
            "    try:",
            f"        d = {decode}",
            "        if d is None:",
            "            return None",
            f"        values = [{', '.join(values)}]",
            "    except Exception:",
            "        return slow(message)",
            "    return row_of(names, values)",
        ],
        {
            **bindings,
            **{f"c{i}": convert for i, (_, convert) in enumerate(fields) if convert is not None},
            "names": None if names is None else _one_list(tuple(names)),
            "slow": slow,
            "row_of": row_of,
        },
    )


def row_converter(names: Sequence[str] | None, fields: Sequence[tuple[str, Converter | None]]) -> Converter:
    """What makes a row of a value inside a record: `row_reader` without the reading."""

    def fail(_value: Any) -> Any:
        raise

    return row_reader(names, "message", fields, fail, {})


def row_writer(
    type_info: RowTypeInfo,
    finish: Callable[[Sequence[str]], str],
    converters: Sequence[Converter | None],
    slow: Converter,
    bindings: Mapping[str, Any],
) -> Converter:
    """A function of a row. `finish` gives the text that makes bytes of the texts of its values; a value without a
    converter is written as it is if it is as declared."""
    kinds: list[Any] = []
    for convert, field_type in zip(converters, type_info.field_types, strict=True):
        kinds.append(None if convert is not None else _KINDS[cast(BasicTypeInfo, field_type).basic_type])
    variables = [f"v{i}" for i in range(len(kinds))]
    made = [f"c{i}(v{i})" if convert else f"v{i}" for i, convert in enumerate(converters)]
    return _compiled(
        "write",
        [
            "def write(row):",
            "    try:",
            "        values = fit(row)",
            "        if values is not None:",
            f"            [{', '.join(variables)}] = values",
            f"            return {finish(made)}",
            "    except Exception:",
            "        return slow(row)",
            "    return slow(row)",
        ],
        {
            **bindings,
            **{f"c{i}": convert for i, convert in enumerate(converters) if convert is not None},
            "fit": fitting(_one_list(tuple(type_info.get_field_names())), tuple(kinds)),
            "slow": slow,
        },
    )


def has_test(type_info: TypeInformation) -> bool:
    """Whether `row_writer` itself can tell that a value is as declared."""
    return isinstance(type_info, BasicTypeInfo) and type_info.basic_type in _KINDS


def checked(type_info: TypeInformation, convert: Converter | None) -> Converter | None:
    """`convert` of values that were made sure of; None where `row_writer` makes sure itself."""
    if convert is None and has_test(type_info):
        return None
    to_internal_type = type_info.to_internal_type
    if convert is None:
        return to_internal_type
    return lambda value: convert(to_internal_type(value))


def optional(convert: Converter) -> Converter:
    """`convert` that leaves None."""
    return lambda value: None if value is None else convert(value)


def each(convert: Converter) -> Converter:
    """`convert` for a list's items."""
    return lambda items: None if items is None else [convert(item) for item in items]


def each_entry(to_key: Converter | None, convert: Converter | None) -> Converter:
    """A conversion of a dict's keys and values."""
    key, value = to_key or _same, convert or _same
    return lambda entries: None if entries is None else {key(k): value(v) for k, v in entries.items()}


def _same(value: Any) -> Any:
    return value


@lru_cache
def _one_list(names: tuple[str, ...]) -> list[str]:
    """The same list for the same names, so that a writer knows a reader's rows at a look. No row changes its list."""
    return list(names)


def _compiled(name: str, lines: Sequence[str], namespace: dict[str, Any]) -> Converter:
    exec(compile("\n".join(lines) + "\n", f"<{name} rows>", "exec"), namespace)
    function: Converter = namespace[name]
    return function
