"""Errors, by whose fault they are and what to do now.

| class | whose fault | what now |
|---|---|---|
| `ConfigError` | the program's settings, before anything runs | change the named setting |
| `NotSupportedError` | the program uses something Headrace refuses by name | use what the message says instead |
| `UserCodeError` | the program's own function raised | the cause is attached, with the user's traceback |
| `DataError` | these bytes | the message says which record |
| `StateError` | the checkpoint folder cannot be used as asked | the message says what each choice risks |
| `ExternalError` | Kafka, the disk, the network | `retriable` says whether trying again may help |
| `FencedError` | another copy of the job took over, or a transaction timed out | see the message |
| `InternalError` | Headrace | please report it |

Messages: lower case, what failed, with which value, in which state; then what to do. No message ever holds a secret.
"""

from __future__ import annotations


class HeadraceError(Exception):
    """Base of every error that Headrace raises on purpose."""


class ConfigError(HeadraceError, ValueError):
    """A setting is wrong; nothing has run yet."""


class NotSupportedError(ConfigError, NotImplementedError):
    """PyFlink has it, Headrace does not have it (yet); the message names it."""


class UserCodeError(HeadraceError, RuntimeError):
    """A function of the program raised.

    The function's own exception is `__cause__`. `operator` is the operator's name; `record` says where
    the record came from (topic, partition, offset), or is None past an exchange.
    """

    def __init__(self, message: str, *, operator: str = "", record: str | None = None) -> None:
        super().__init__(message)
        self.operator = operator
        self.record = record


class DataError(HeadraceError, ValueError):
    """Bytes that a schema cannot read, or a value that it cannot write; `record` says which, where that is known."""

    def __init__(self, message: str, *, record: str | None = None) -> None:
        super().__init__(message)
        self.record = record


class StateError(HeadraceError, RuntimeError):
    """A checkpoint cannot be restored as asked; nothing has been changed."""


class ExternalError(HeadraceError, RuntimeError):
    """Something outside failed: a broker, a disk, the network."""

    def __init__(self, message: str, *, retriable: bool = True) -> None:
        super().__init__(message)
        self.retriable = retriable


class FencedError(ExternalError):
    """The transactional id now belongs to another producer: a newer copy of the job, or a timeout."""

    def __init__(self, message: str) -> None:
        super().__init__(message, retriable=True)


class RemoteTraceback(Exception):
    """The traceback of an exception that was raised in a worker's process, as text: the cause of that exception."""


class InternalError(HeadraceError, AssertionError):
    """A defect in Headrace. Please report it with the traceback."""
