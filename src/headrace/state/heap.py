"""Keyed state on the heap: one dict per named state, from key to value.

A lookup is a dict lookup, nothing more: key groups are computed when a snapshot is written, and whoever puts a new key
into a table has seen to it that the key can have one (`check_key`). A snapshot is written in one go, between batches,
as one pickle per key group, so that a lane can restore a part of a file.

Pickle runs code. A checkpoint folder must be as trusted as the program itself: never restore a stranger's. Checksums
(compared before anything is unpickled) tell damage apart, not malice.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Container
from typing import Any, Final

from headrace.errors import ConfigError, NotSupportedError, StateError
from headrace.state.key_groups import key_group

_MAGIC: Final = b"headrace heap state 1\n"


class HeapState:
    """The keyed state of one operator on one lane.

    >>> state = HeapState("count")
    >>> counts = state.table("count")
    >>> counts["reuters.com"] = 3
    >>> restored = HeapState("count")
    >>> restored.restore(b"".join(state.snapshot(128)), range(128), 128)
    >>> restored.table("count")
    {'reuters.com': 3}
    """

    def __init__(self, operator: str) -> None:
        self.operator = operator
        self._tables: dict[str, dict[Any, Any]] = {}

    def table(self, name: str) -> dict[Any, Any]:
        """The dict of one named state: the same object for as long as this one lives, so callers may keep it."""
        return self._tables.setdefault(name, {})

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to write."""
        return not any(self._tables.values())

    def snapshot(self, max_parallelism: int) -> list[bytes]:
        """The state as it is now, as the chunks of one file.

        Raises `ConfigError`, naming operator, state and types, for a key or value that no snapshot can hold: a restart
        would only make it again.
        """
        groups: dict[int, dict[str, list[tuple[Any, Any]]]] = {}
        for name, table in self._tables.items():
            try:
                for item in table.items():
                    groups.setdefault(key_group(item[0], max_parallelism), {}).setdefault(name, []).append(item)
            except NotSupportedError as error:
                raise NotSupportedError(f"state {name!r} of operator {self.operator!r}: {error}") from error
        ordered = sorted(groups)
        chunks = [self._pickle(groups[group]) for group in ordered]
        header = {
            "operator": self.operator,
            "max_parallelism": max_parallelism,
            "groups": [[group, len(chunk)] for group, chunk in zip(ordered, chunks, strict=True)],
        }
        return [_MAGIC, json.dumps(header).encode() + b"\n", *chunks]

    def restore(self, data: bytes, groups: Container[int], max_parallelism: int) -> None:
        """Add the state of these key groups from a file's content, verified against its checksum before.

        Raises `StateError` for content that is no heap state, was divided otherwise, or whose classes are gone.
        """
        if not data.startswith(_MAGIC):
            raise StateError(
                f"the state of operator {self.operator!r} is not heap state of a format that this version of "
                "Headrace reads; use the state backend and the version that wrote it"
            )
        end = data.index(b"\n", len(_MAGIC))
        header = json.loads(data[len(_MAGIC) : end])
        if header["max_parallelism"] != max_parallelism:
            raise StateError(
                f"the state of operator {self.operator!r} is divided into {header['max_parallelism']} key groups, not "
                f"{max_parallelism}; set `pipeline.max-parallelism` back to {header['max_parallelism']}"
            )
        at = end + 1
        for group, size_bytes in header["groups"]:
            if group in groups:
                self._unpickle(data[at : at + size_bytes])
            at += size_bytes

    def _pickle(self, tables: dict[str, list[tuple[Any, Any]]]) -> bytes:
        try:
            return pickle.dumps(tables, protocol=5)
        except MemoryError:
            raise
        except Exception:
            # Only now is it worth finding out which one it was.
            for name, items in tables.items():
                for key, value in items:
                    try:
                        pickle.dumps((key, value), protocol=5)
                    except Exception as error:
                        raise ConfigError(
                            f"state {name!r} of operator {self.operator!r} holds a {type(value).__qualname__} under "
                            f"a key of type {type(key).__qualname__} that cannot be pickled, so no checkpoint can be "
                            f"made: {error}. Keep plain data in state, and classes at the top level of a module"
                        ) from error
            raise

    def _unpickle(self, chunk: bytes) -> None:
        try:
            tables = pickle.loads(chunk)
        except Exception as error:
            raise StateError(
                f"the state of operator {self.operator!r} cannot be read by this program: {error}. It holds objects of "
                "classes that were moved, renamed or changed since; bring them back, or start over with `--fresh`, "
                "which repeats records"
            ) from error
        for name, items in tables.items():
            self.table(name).update(items)
