"""What `add_source` and `add_sink` take: sources and sinks of Flink's API before `Source` and `Sink`."""

from __future__ import annotations

from abc import ABC, abstractmethod

from headrace.common.typeinfo import TypeInformation
from headrace.connector.sink import Sink
from headrace.connector.source import Source


class SourceFunction(ABC):
    """A source of the old API, which is settled when it becomes a `Source`."""

    @abstractmethod
    def to_source(self) -> Source:
        """The source that does the same. Raises `ConfigError` for what is missing or contradicts itself."""

    @abstractmethod
    def get_produced_type(self) -> TypeInformation:
        """The type of its elements."""

    @abstractmethod
    def new_spelling(self, source_name: str) -> str:
        """For a warning: what a program would write instead of this object and its `add_source`."""


class SinkFunction(ABC):
    """A sink of the old API, which is settled when it becomes a `Sink`."""

    @abstractmethod
    def to_sink(self) -> Sink:
        """The sink that does the same. Raises `ConfigError` for what is missing or contradicts itself."""

    @abstractmethod
    def new_spelling(self) -> str:
        """For a warning: what a program would write instead of this object and its `add_sink`."""
