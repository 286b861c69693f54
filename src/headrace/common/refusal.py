"""Saying no by name: what PyFlink has and Headrace has not (yet) raises an error that says so and what to do instead.

Three forms, by what is refused: `refuse_names` for the names of a module (an import of one raises), `refuses` for the
methods of a class (a call of one raises), and `not_supported` for anything else, an argument, a setting, or a whole
module (its import raises).

What PyFlink has moved, and still finds under the old name, `refuse_names` finds too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from importlib import import_module
from types import MappingProxyType
from typing import Any, NoReturn, TypeVar

from headrace.errors import NotSupportedError

C = TypeVar("C", bound=type[Any])


def not_supported(name: str, instead: str) -> NotSupportedError:
    """The error for `name`; `instead` says what a program can do about it."""
    return NotSupportedError(f"`{name}` is not supported by Headrace; {instead}")


def refuse_names(
    module: str,
    names: Iterable[str] | Mapping[str, str],
    instead: str = "",
    moved: Mapping[str, str] = MappingProxyType({}),
) -> Callable[[str], Any]:
    """A module's `__getattr__` that refuses `names`, each for its own reason or all with `instead`.

    `moved` says in which module a name is now. That one may be above: it is imported when the name is asked for.

    >>> __getattr__ = refuse_names("headrace.datastream.window", ["Trigger"], "windows come with a later version")
    >>> __getattr__("Trigger")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    headrace.errors.NotSupportedError: `headrace.datastream.window.Trigger` is not supported by Headrace; ...
    """
    reasons = dict(names) if isinstance(names, Mapping) else dict.fromkeys(names, instead)

    def __getattr__(name: str) -> Any:
        if name in moved:
            return getattr(import_module(moved[name]), name)
        if name in reasons:
            raise not_supported(f"{module}.{name}", reasons[name])
        raise AttributeError(f"module {module!r} has no attribute {name!r}")

    return __getattr__


def refuses(methods: Mapping[str, str]) -> Callable[[C], C]:
    """Class decorator: calls of these methods are refused, each with what to do instead."""

    def decorate(cls: C) -> C:
        for name, instead in methods.items():
            setattr(cls, name, _refused_method(f"{cls.__name__}.{name}", instead))
        return cls

    return decorate


def _refused_method(name: str, instead: str) -> Callable[..., NoReturn]:
    def method(*args: Any, **kwargs: Any) -> NoReturn:
        raise not_supported(name, instead)

    method.__name__ = name.rpartition(".")[2]
    method.__doc__ = f"Not supported: {instead}."
    return method
