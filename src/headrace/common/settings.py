"""`Settings`: what a program sets, and over it what the command line sets."""

from __future__ import annotations

from typing import TypeVar

from headrace.common.config_options import ConfigOption
from headrace.common.configuration import Configuration
from headrace.common.options import OPTIONS

T = TypeVar("T")


class Settings:
    """A program's settings, which it may change until it is executed, under those of the command line.

    The command line wins whenever it was read: `-D parallelism.default=2` also holds for a program that calls
    `set_parallelism(1)`.
    """

    def __init__(self, program: Configuration, launch: Configuration | None) -> None:
        self.program = program
        self._launch = Configuration() if launch is None else launch

    def effective(self) -> Configuration:
        """A copy of what holds now."""
        merged = Configuration(self.program)
        for option in OPTIONS:
            if option.is_set(self._launch):
                for key in option.all_keys:
                    merged.remove_config(key)
        return merged.add_all(self._launch)

    def read(self, option: ConfigOption[T]) -> T:
        """What an option is now. Raises `ConfigError` as the option does."""
        return option.read(self.effective())

    def set(self, option: ConfigOption[T], text: str) -> None:
        """Set an option in the program. Raises `ConfigError` at once for what the option cannot be."""
        option.read(Configuration().set_string(option.key, text))
        for key in option.all_keys:
            self.program.remove_config(key)
        self.program.set_string(option.key, text)
