"""JSON Schema as a row type, as far as Flink's `JsonRowSchemaConverter` reads it.

Types, nullable types, tuples, and references inside the document; no unions, and nothing that only constrains values.
"""

from __future__ import annotations

import json
import re
from typing import Any

from headrace.common.typeinfo import RowTypeInfo, TypeInformation, Types
from headrace.errors import ConfigError

# A schema may have comments, names without quotes and strings in single ones, as on Flink.
_TOKEN = re.compile(
    r'"(?:[^"\\]|\\.)*"|\'(?:[^\'\\]|\\.)*\'|//[^\n]*|/\*.*?\*/|-?\d[\w.+-]*|[A-Za-z_$][\w$]*', re.DOTALL
)
_UNIONS = ("allOf", "anyOf", "not", "extends", "disallow")
_FORMATS = {"date": Types.SQL_DATE(), "time": Types.SQL_TIME(), "date-time": Types.SQL_TIMESTAMP()}
_MAX_DEPTH = 100


def type_of_json_schema(json_schema: str) -> RowTypeInfo:
    """The row type; ConfigError for a schema that is none of a row.

    >>> type_of_json_schema("{type: 'object', properties: {id: {type: 'integer'}, ok: {type: ['boolean', 'null']}}}")
    RowTypeInfo(id: BigDecimal, ok: Boolean)
    """
    try:
        root = json.loads(json_schema)
    except ValueError:
        try:
            root = json.loads(_TOKEN.sub(_strict, json_schema))
        except ValueError as error:
            raise ConfigError(f"the JSON schema is not JSON: {error}") from None
    found = _convert("<root>", root, root, 0)
    if not isinstance(found, RowTypeInfo):
        raise ConfigError(f"the JSON schema is that of {found!r}, and has to be an object's, with `properties`")
    return found


def _strict(match: re.Match[str]) -> str:
    token = match[0]
    match token[0]:
        case "'":
            return json.dumps(re.sub(r"\\(.)", r"\1", token[1:-1]))
        case "/":
            return ""
        case '"' | "-" | "0" | "1" | "2" | "3" | "4" | "5" | "6" | "7" | "8" | "9":
            return token
        case _:
            return token if token in ("true", "false", "null") else json.dumps(token)


def _convert(place: str, node: Any, root: Any, depth: int) -> TypeInformation:
    if depth > _MAX_DEPTH:
        raise ConfigError(f"the JSON schema refers to itself at {place}, and a row cannot contain itself")
    if not isinstance(node, dict):
        raise ConfigError(f"the JSON schema has {node!r:.80} at {place}, where a type has to be: {{'type': …}}")
    for union in _UNIONS:
        if union in node:
            raise ConfigError(f"the JSON schema has `{union}` at {place}; a row's field has one type, or that and null")
    target = _resolve(node["$ref"], place, root) if isinstance(node.get("$ref"), str) else None
    types: list[TypeInformation] = []
    names: list[Any] = []
    if "type" in node:
        names = node["type"] if isinstance(node["type"], list) else [node["type"]]
        types += [_of_name(name, place, node, root, depth) for name in names if name != "null"]
    elif target is not None:
        types.append(_convert(node["$ref"], target, root, depth + 1))
    for number, choice in enumerate(node.get("oneOf") or ()):
        if choice != {"type": "null"}:
            types.append(_convert(f"{place}/oneOf[{number}]", choice, root, depth + 1))
    different = list(dict.fromkeys(types))
    if len(different) != 1:
        found = " and ".join(map(repr, different)) or "none"
        raise ConfigError(f"the JSON schema has to have one type at {place}, or that and null, and has {found}")
    return different[0]


def _of_name(name: Any, place: str, node: dict[str, Any], root: Any, depth: int) -> TypeInformation:
    match name:
        case "boolean":
            return Types.BOOLEAN()
        case "number" | "integer":
            return Types.BIG_DEC()
        case "string" if "format" in node:
            return _FORMATS.get(node["format"], Types.STRING())
        case "string" if "contentEncoding" in node:
            if node["contentEncoding"] != "base64":
                raise ConfigError(
                    f"the JSON schema has `contentEncoding` {node['contentEncoding']!r} at {place}; use base64"
                )
            return Types.PRIMITIVE_ARRAY(Types.BYTE())
        case "string":
            return Types.STRING()
        case "object":
            properties = node.get("properties", {})
            if not isinstance(properties, dict):
                raise ConfigError(f"the JSON schema has `properties` that are no object at {place}")
            if node.get("additionalProperties") is True:
                raise ConfigError(f"the JSON schema allows `additionalProperties` at {place}, which a row cannot have")
            fields = [_convert(f"{place}/{key}", value, root, depth + 1) for key, value in properties.items()]
            return Types.ROW_NAMED(list(properties), fields)
        case "array":
            items = node.get("items")
            if isinstance(items, dict):
                return Types.OBJECT_ARRAY(_convert(f"{place}/items", items, root, depth + 1))
            if not isinstance(items, list):
                raise ConfigError(f"the JSON schema does not say what the array at {place} holds; give it `items`")
            return Types.ROW([_convert(f"{place}/items[{i}]", item, root, depth + 1) for i, item in enumerate(items)])
        case _:
            raise ConfigError(f"the JSON schema has the type {name!r} at {place}, which JSON has not")


def _resolve(reference: str, place: str, root: Any) -> Any:
    if not reference.startswith("#"):
        raise ConfigError(f"the JSON schema refers to {reference!r} at {place}; only `#/…` is followed")
    found = root
    for step in reference[1:].split("/")[1:]:
        key = step.replace("~1", "/").replace("~0", "~")
        if not isinstance(found, dict) or key not in found:
            raise ConfigError(f"the JSON schema has nothing at {reference!r}, to which it refers at {place}")
        found = found[key]
    return found
