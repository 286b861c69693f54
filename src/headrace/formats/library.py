"""The libraries that formats are read and written with: none is imported before it is needed."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from headrace.errors import ConfigError


def library(module: str, extra: str) -> Any:
    """The module, which the package's `extra` installs. ConfigError where it is missing, or what it needs itself is."""
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        missing = error.name or module
        raise ConfigError(f"`{missing}` is needed and not installed: `pip install 'headrace[{extra}]'`") from None
