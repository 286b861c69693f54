"""The page of what there is of Flink's connector, and the tests it names, agree."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def matrix() -> ModuleType:
    """`tools/matrix.py`."""
    spec = importlib.util.spec_from_file_location("matrix", ROOT / "tools" / "matrix.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_what_the_tool_makes_of_the_tests_that_there_are(matrix: ModuleType) -> None:
    assert (ROOT / "docs" / "matrix.md").read_text(encoding="utf-8") == matrix.page()


def test_every_row_of_the_connectors_is_there_once(matrix: ModuleType) -> None:
    """All but those of sources over several clusters, and of records that cannot be read."""
    assert [row.number for row in matrix.rows()] == [n for n in [*range(1, 110), *range(120, 123)] if n not in (67, 68)]


def test_a_row_whose_test_is_gone_is_an_error(
    matrix: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    table = tmp_path / "matrix.txt"
    monkeypatch.setattr(matrix, "TABLE", table)
    table.write_text("1 | something | done | test_that_nobody_has_written\n")
    with pytest.raises(LookupError, match="row 1: test_that_nobody_has_written is in 0 files"):
        matrix.page()
    table.write_text("1 | something | done\n")
    with pytest.raises(LookupError, match="row 1 is done, with 0 tests"):
        matrix.page()
