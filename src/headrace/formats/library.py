"""The libraries that formats are read and written with: none is imported before it is needed."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from headrace.errors import ConfigError


def library(module: str, extra: str) -> Any:
    """The module, which the package's `extra` installs. ConfigError where it is missing."""
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not module.startswith(error.name):
            raise
        package = module.partition(".")[0]
        raise ConfigError(f"`{package}` is needed and not installed: `pip install 'headrace[{extra}]'`") from None
