"""Write down PyFlink's public names and signatures as facts, from an unpacked wheel, without running it.

    python tests/unit/oracle/extract.py FOLDER_WITH_PYFLINK > tests/unit/oracle/pyflink-2.2.0.json

The result maps each module under `pyflink.common`, `pyflink.datastream` and `pyflink.metrics` to its public names; a
class has its public methods, its attributes (enum members among them) and its nested classes. A parameter is `[name,
kind, default]`, with the default as its source text or None. Whatever takes a Java object (a parameter `j_…`, a member
`…_j_…`) is left out: it belongs to PyFlink's gateway, not to its interface.
"""

from __future__ import annotations

import ast
import json
import sys
from pathlib import Path
from typing import Any

PACKAGES = ("common", "datastream", "metrics")


def is_public(name: str) -> bool:
    """Whether programs may use the name; constructors and container methods count."""
    if name.startswith("__"):
        return name in {"__init__", "__enter__", "__exit__", "__iter__", "__next__", "__getitem__", "__len__"}
    return not name.startswith("_") and not name.startswith("j_") and "_j_" not in name and "java" not in name


def parameters(function: ast.FunctionDef) -> list[list[str | None]] | None:
    """Parameters without `self`; None where a Java object is asked for."""
    arguments = function.args
    decorators = {ast.unparse(decorator) for decorator in function.decorator_list}
    positional = arguments.posonlyargs + arguments.args
    defaults: list[ast.expr | None] = [None] * (len(positional) - len(arguments.defaults)) + list(arguments.defaults)
    rows: list[list[str | None]] = [
        [argument.arg, "positional", ast.unparse(default) if default else None]
        for argument, default in zip(positional, defaults, strict=True)
    ]
    if "staticmethod" not in decorators and rows and rows[0][0] in {"self", "cls"}:
        rows = rows[1:]
    if arguments.vararg:
        rows.append([arguments.vararg.arg, "var_positional", None])
    for argument, keyword_default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True):
        rows.append([argument.arg, "keyword", ast.unparse(keyword_default) if keyword_default else None])
    if arguments.kwarg:
        rows.append([arguments.kwarg.arg, "var_keyword", None])
    if any(row[0] is not None and (row[0].startswith("j_") or "_j_" in row[0]) for row in rows):
        return None
    return rows


def method_kind(function: ast.FunctionDef) -> str:
    decorators = {ast.unparse(decorator) for decorator in function.decorator_list}
    for kind in ("staticmethod", "classmethod", "property"):
        if kind in decorators:
            return kind
    return "method"


def class_facts(definition: ast.ClassDef) -> dict[str, Any]:
    methods: dict[str, Any] = {}
    attributes: list[str] = []
    nested: dict[str, Any] = {}
    for statement in definition.body:
        match statement:
            case ast.FunctionDef(name=name) if is_public(name):
                rows = parameters(statement)
                if rows is not None:
                    methods[name] = {"kind": method_kind(statement), "parameters": rows}
            case ast.ClassDef(name=name) if is_public(name):
                nested[name] = class_facts(statement)
            case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)) if is_public(name):
                attributes.append(name)
            case _:
                pass
    facts: dict[str, Any] = {"kind": "class", "bases": [ast.unparse(base) for base in definition.bases]}
    facts |= {"methods": methods, "attributes": attributes, "nested": nested}
    return facts


def module_facts(tree: ast.Module) -> dict[str, Any]:
    names: dict[str, Any] = {}
    listed: list[str] | None = None
    installed: dict[str, Any] = {}
    for statement in tree.body:
        match statement:
            case ast.Assign(targets=[ast.Name(id="__all__")], value=ast.List(elts=elements)):
                listed = [element.value for element in elements if isinstance(element, ast.Constant)]  # type: ignore[misc]
            case ast.ClassDef(name=name):
                names[name] = class_facts(statement)
            case ast.FunctionDef(name="_install"):
                installed |= {
                    call.args[1].value: {"kind": "import"}
                    for call in ast.walk(statement)
                    if isinstance(call, ast.Call)
                    and ast.unparse(call.func) == "setattr"
                    and isinstance(call.args[1], ast.Constant)
                }
            case ast.FunctionDef(name=name):
                rows = parameters(statement)
                names[name] = {"kind": "function", "parameters": rows}
            case ast.Assign(targets=[ast.Name(id=name)]):
                names[name] = {"kind": "constant"}
            case ast.ImportFrom(module=module, names=aliases) if module and module.startswith("pyflink."):
                for alias in aliases:
                    names[alias.asname or alias.name] = {"kind": "import"}
            case _:
                pass
    if listed is None:
        return {name: facts for name, facts in names.items() if is_public(name) and facts["kind"] != "import"}
    return {name: names[name] for name in listed if is_public(name) and name in names} | installed


def main(root: Path) -> None:
    modules = []
    for package in PACKAGES:
        for path in sorted((root / "pyflink" / package).rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            if "tests" in parts:
                continue
            module = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            names = sorted(module_facts(ast.parse(path.read_text())).items())
            lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(facts, sort_keys=True)}" for name, facts in names)
            modules.append(f"{json.dumps(module)}: {{\n{lines}\n}}")
    # One line for each name: short, and a new version's file shows by name what has changed.
    print('{"version": "2.2.0", "modules": {', ",\n".join(modules), "}}", sep="\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
