"""TLS in front of a server: the wheel's has none of its own."""

from __future__ import annotations

import contextlib
import selectors
import socket
import ssl
import subprocess
import tempfile
import threading
from pathlib import Path
from types import TracebackType

_MAKE_CERTIFICATE = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
_MAKE_CERTIFICATE += ["-nodes", "-days", "2", "-subj", "/CN=localhost"]


class TlsFront:
    """Takes TLS connections on a port of its own, and passes on what they carry."""

    def __init__(self, port: int) -> None:
        self._server = port
        self._directory = tempfile.TemporaryDirectory(prefix="qc-tls-")
        certificate, key = (Path(self._directory.name, name) for name in ("cert.pem", "key.pem"))
        subprocess.run(
            [*_MAKE_CERTIFICATE, "-keyout", str(key), "-out", str(certificate)],
            check=True,
            capture_output=True,
        )
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(certificate, key)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._sockets: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    @property
    def url(self) -> str:
        return f"rediss://127.0.0.1:{self.port}/0"

    def _accept(self) -> None:
        while True:
            try:
                raw, _ = self._listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._pass_on, args=(raw,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _pass_on(self, raw: socket.socket) -> None:
        with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
            client = stack.enter_context(self._context.wrap_socket(raw, server_side=True))
            server = stack.enter_context(socket.create_connection(("127.0.0.1", self._server)))
            self._sockets += [client, server]
            client.settimeout(0.0)
            selector = stack.enter_context(selectors.DefaultSelector())
            selector.register(client, selectors.EVENT_READ)
            selector.register(server, selectors.EVENT_READ)
            while True:
                for key, _ in selector.select():
                    if key.fileobj is server:
                        data = server.recv(65_536)
                        client.settimeout(10.0)
                        client.sendall(data)
                        client.settimeout(0.0)
                    else:
                        data = b"\0"
                        with contextlib.suppress(ssl.SSLWantReadError):
                            while data := client.recv(65_536):
                                server.sendall(data)
                    if not data:
                        return

    def __enter__(self) -> TlsFront:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Only this wakes a thread that waits in `accept`.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for one in self._sockets:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(10.0)
        self._directory.cleanup()
