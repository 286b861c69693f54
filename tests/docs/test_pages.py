"""What the pages say of the code is so."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tests.docs.pages import PAGES, ROOT, snippets

from headrace.cli.explain import options_table
from headrace.kafka.properties_page import properties_table

SOURCES = {
    file.relative_to(ROOT / "src" / "headrace").as_posix(): file.read_text(encoding="utf-8")
    for file in (ROOT / "src" / "headrace").rglob("*.py")
}


def test_the_settings_page_holds_the_table_that_the_command_prints() -> None:
    page = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    assert page.endswith(f"\n\n{options_table()}\n"), "print it anew: headrace explain --options"


def test_the_properties_page_holds_the_table_that_the_command_prints() -> None:
    page = (ROOT / "docs" / "properties.md").read_text(encoding="utf-8")
    assert page.endswith(f"\n\n{properties_table()}\n"), "print it anew: headrace explain --properties"


def test_every_file_and_every_name_in_the_design_is_there() -> None:
    design = (ROOT / "DESIGN.md").read_text(encoding="utf-8")
    files = set(re.findall(r"`([\w/]+\.py)`", design))
    assert {f for f in files if not any(path == f or path.endswith(f"/{f}") for path in SOURCES)} == set()
    code = "\n".join(SOURCES.values())
    names = {m.split(".")[-1] for m in re.findall(r"`([A-Za-z_]\w*(?:\.\w+)?)`", design)} - {"toml", "make"}
    assert {name for name in names if not re.search(rf"\b{re.escape(name)}\b", code)} == set()


def test_every_package_is_on_the_designs_map() -> None:
    design = (ROOT / "DESIGN.md").read_text(encoding="utf-8")
    packages = {path.split("/")[0] for path in SOURCES if path.count("/")}
    assert {package for package in packages if f"| `{package}` |" not in design} == set()


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_every_link_to_a_file_leads_somewhere(path: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)\)", path.read_text(encoding="utf-8"))
    assert [link for link in links if "://" not in link and not (path.parent / link).exists()] == []


def test_the_job_in_the_readme_is_short() -> None:
    job = next(s for s in snippets(ROOT / "README.md") if s.text.startswith("# counts.py"))
    assert len([line for line in job.text.splitlines() if line.strip()]) <= 34


def test_the_reasons_not_to_start_are_quoted_as_the_code_says_them() -> None:
    page = (ROOT / "docs" / "guarantees.md").read_text(encoding="utf-8")
    table = page.split("## When a job does not start")[1].split("\n\n")[1]
    code = re.sub(r'"\s*\n\s*f?"', "", "\n".join(SOURCES.values()))
    said = [row.split("|")[1].strip() for row in table.splitlines()[2:]]
    parts = [part.strip(" ,:") for words in said for part in re.split("…|: process", words) if part.strip(" ,:")]
    assert len(said) == 7
    assert [part for part in parts if part not in code] == []
