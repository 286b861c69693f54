"""A port before a broker's, which can be shut: connections to it are then made, and ended at once."""

from __future__ import annotations

import contextlib
import socket
import threading
from types import TracebackType
from typing import Self

_BYTES = 65536


class Door:
    """Passes on what comes to `port` of the loopback address to another one, unless it `is_shut`."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._through: set[socket.socket] = set()
        self._lock = threading.Lock()
        self.port: int = self._listener.getsockname()[1]
        self.is_shut = False
        self.turned_away = 0
        """How many connections were ended behind the first that was said over them."""

    def lead_to(self, port: int) -> None:
        """Begin to let through, to this port."""
        threading.Thread(target=self._serve, args=(port,), daemon=True).start()

    def shut(self) -> None:
        """End all connections, and each new one as soon as it is made: as a broker does that stops or begins."""
        with self._lock:
            self.is_shut = True
            for end in self._through:
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)

    def open(self) -> None:
        self.is_shut = False

    def _serve(self, port: int) -> None:
        while True:
            try:
                outer, _ = self._listener.accept()
            except OSError:
                return
            with self._lock:
                if self.is_shut:
                    # What the client said first is read: else it would hear of a reset.
                    threading.Thread(target=self._turn_away, args=(outer,), daemon=True).start()
                    continue
                inner = socket.create_connection(("127.0.0.1", port))
                self._through |= {outer, inner}
            for one, other in ((outer, inner), (inner, outer)):
                threading.Thread(target=self._pass_on, args=(one, other), daemon=True).start()

    def _turn_away(self, outer: socket.socket) -> None:
        with outer, contextlib.suppress(OSError):
            outer.recv(_BYTES)
            with self._lock:
                self.turned_away += 1

    def _pass_on(self, one: socket.socket, other: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := one.recv(_BYTES):
                other.sendall(data)
        with contextlib.suppress(OSError):
            other.shutdown(socket.SHUT_WR)
        with self._lock:
            self._through.discard(one)
        one.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.shut()
        self._listener.close()
