"""PyFlink's names and signatures against Headrace's: each is there and the same, or refused by name.

PyFlink's are facts in a file, which `extract.py` writes from PyFlink's wheel.
"""

from __future__ import annotations

import enum
import importlib
import inspect
import json
import re
from pathlib import Path
from types import WrapperDescriptorType
from typing import Any, NoReturn, get_type_hints

import pytest

from headrace.errors import NotSupportedError

MODULES: dict[str, dict[str, Any]] = json.loads((Path(__file__).parent / "pyflink-2.2.0.json").read_text())["modules"]

DIFFERENT = {
    "pyflink.datastream.connectors.base.Sink.__init__": "takes a Java object",
    "pyflink.datastream.connectors.base.Source.__init__": "takes a Java object",
    "pyflink.datastream.connectors.kafka.KafkaSink.get_transformer": "a hook between PyFlink's sinks and `sink_to`",
    "pyflink.datastream.data_stream.KeyedStream.AccumulateType": "belongs to the inside of `sum` and its like",
}
"""What differs on purpose, and why."""


NAMES = [(module, name) for module, names in MODULES.items() for name in names]


def ours(module: str) -> Any:
    return importlib.import_module(module.replace("pyflink", "headrace", 1))


def find(module: str, name: str) -> tuple[Any, str | None]:
    """What a program imports, or the refusal."""
    try:
        return getattr(ours(module), name), None
    except NotSupportedError as refusal:
        return None, str(refusal)


@pytest.mark.parametrize("module", MODULES)
def test_every_module_can_be_imported(module: str) -> None:
    ours(module)


@pytest.mark.parametrize(("module", "name"), NAMES)
def test_every_name_is_there_with_its_signatures_or_is_refused(module: str, name: str) -> None:
    found, refusal = find(module, name)
    if refusal is not None:
        assert f".{name}`" in refusal
        return
    facts = MODULES[module][name]
    if facts["kind"] == "class":
        check_class(f"{module}.{name}", found, facts)
    elif facts["kind"] == "function":
        check_parameters(f"{module}.{name}", found, facts["parameters"], bound=True)


NOT_HERE = ["fn_execution.state_impl", "java_gateway", "table", "table.expressions", "util.java_utils"]


@pytest.mark.parametrize("module", NOT_HERE)
def test_a_module_that_is_not_here_is_refused_by_name(module: str) -> None:
    name = re.escape(f"headrace.{module.partition('.')[0]}")
    with pytest.raises(NotSupportedError, match=f"^`{name}` is not supported by Headrace; (use|leave it out)"):
        ours(f"pyflink.{module}")


def check_class(path: str, found: Any, facts: dict[str, Any]) -> None:
    assert inspect.isclass(found), path
    for attribute in facts["attributes"]:
        assert hasattr(found, attribute), f"{path}.{attribute}"
    for name, nested in facts["nested"].items():
        if f"{path}.{name}" not in DIFFERENT:
            check_class(f"{path}.{name}", getattr(found, name), nested)
    for name, method in facts["methods"].items():
        if f"{path}.{name}" in DIFFERENT:
            continue
        function = inspect.getattr_static(found, name)
        is_static = isinstance(function, staticmethod)
        function = getattr(found, name)
        if is_refused(function):
            with pytest.raises(NotSupportedError, match=rf"\.{name}`"):
                function()
        else:
            assert is_static == (method["kind"] == "staticmethod"), f"{path}.{name}"
            check_parameters(f"{path}.{name}", function, method["parameters"], bound=is_static)


def is_refused(function: Any) -> bool:
    """Whether it takes anything and returns never."""
    kinds = [parameter.kind for parameter in inspect.signature(function).parameters.values()]
    if kinds != [inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD]:
        return False
    return get_type_hints(function).get("return") is NoReturn


def check_parameters(path: str, function: Any, expected: list[list[str | None]], *, bound: bool) -> None:
    """The same parameters in the same order; behind them, only some that need not be given."""
    found = list(inspect.signature(function).parameters.values())[0 if bound else 1 :]
    if isinstance(function, WrapperDescriptorType):
        # A special method in C: Python's own names for what only the language itself gives, by position.
        assert len(found) == len(expected), path
        return
    rows = [[parameter.name, kind_of(parameter), default_of(parameter)] for parameter in found]
    assert rows[: len(expected)] == expected, path
    for parameter in found[len(expected) :]:
        assert parameter.default is not inspect.Parameter.empty, f"{path}: {parameter.name} has no default"


def kind_of(parameter: inspect.Parameter) -> str:
    match parameter.kind:
        case inspect.Parameter.VAR_POSITIONAL:
            return "var_positional"
        case inspect.Parameter.VAR_KEYWORD:
            return "var_keyword"
        case inspect.Parameter.KEYWORD_ONLY:
            return "keyword"
        case _:
            return "positional"


def default_of(parameter: inspect.Parameter) -> str | None:
    default = parameter.default
    if default is inspect.Parameter.empty:
        return None
    return f"{type(default).__name__}.{default.name}" if isinstance(default, enum.Enum) else repr(default)
