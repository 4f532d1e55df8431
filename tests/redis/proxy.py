"""A network in front of a server that can be cut in the middle of a reply."""

from __future__ import annotations

import contextlib
import socket
import threading
from types import TracebackType


class Network:
    """Passes on what clients and a server say. Connections that were cut don't come back; new ones work."""

    def __init__(self, port: int) -> None:
        self._server = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.connections = 0
        self._left: int | None = None
        self._sockets: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def cut_after(self, count: int) -> None:
        """Cut all connections once so many more bytes of replies have been passed on."""
        self._left = count

    def cut(self) -> None:
        """Cut all connections now."""
        sockets, self._sockets = self._sockets, []
        for one in sockets:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            server = socket.create_connection(("127.0.0.1", self._server))
            self._sockets += [client, server]
            for arguments in ((client, server, False), (server, client, True)):
                thread = threading.Thread(target=self._pass_on, args=arguments, daemon=True)
                self._threads.append(thread)
                thread.start()

    def _pass_on(self, source: socket.socket, target: socket.socket, is_reply: bool) -> None:
        with source, contextlib.suppress(OSError):
            while data := source.recv(65_536):
                if is_reply and self._left is not None:
                    data = data[: self._left]
                    self._left -= len(data)
                target.sendall(data)
                if is_reply and self._left == 0:
                    self._left = None
                    self.cut()
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_RDWR)

    def __enter__(self) -> Network:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Only this wakes a thread that waits in `accept`.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()
        for thread in self._threads:
            thread.join(10.0)
