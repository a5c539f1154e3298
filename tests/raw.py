"""A socket server that sends exactly the bytes of a test's script."""

from __future__ import annotations

import select
import socket
import ssl
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

#: The maximum seconds that a script waits for its client.
PATIENCE = 60.0


class Client:
    """
    A client's connection, from the server's side.

    :param sock: The socket.
    :param number: The number of the connection, from 1.
    """

    def __init__(self, sock: Any, number: int, server: RawServer) -> None:
        self.sock = sock
        self.number = number
        self._server = server
        self._rest = b""

    def read_request(self, *, body: bool = True) -> bytes:
        """Read a request, and return it; ``b""`` at the end of the connection."""
        while b"\r\n\r\n" not in self._rest:
            piece = self.sock.recv(65_536)
            if not piece:
                return b""
            self._rest += piece
        head, _, self._rest = self._rest.partition(b"\r\n\r\n")
        length = 0
        for line in head.split(b"\r\n")[1:]:
            name, _, value = line.partition(b":")
            if name.strip().lower() == b"content-length":
                length = int(value)
        if body:
            while len(self._rest) < length:
                piece = self.sock.recv(65_536)
                if not piece:
                    return b""
                self._rest += piece
            content, self._rest = self._rest[:length], self._rest[length:]
        else:
            content = b""
        self._server.requests.append((self.number, head + b"\r\n\r\n" + content))
        return head + b"\r\n\r\n" + content

    def send(self, data: bytes) -> None:
        """Send bytes unchanged."""
        self.sock.sendall(data)

    def drip(self, data: bytes, pause: float = 0.02) -> None:
        """Send bytes one by one, until all are sent or the client disconnects."""
        for at in range(len(data)):
            if self.has_gone(pause):
                return
            self.sock.sendall(data[at : at + 1])

    def has_gone(self, within: float) -> bool:
        """Wait for some seconds, and return whether the client closed the connection."""
        readable, _, _ = select.select([self.sock], [], [], within)
        if not readable:
            return False
        try:
            return not self.sock.recv(65_536)
        except OSError:
            return True

    def wait_until_gone(self) -> None:
        """Wait until the client closes the connection."""
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until and not self._server.is_over and not self.has_gone(0.05):
            pass


class RawServer:
    """
    Serve each connection with a script, in its own thread. Use it as a context manager.

    :param script: Called with each connection.
    :param certificate: The files of a certificate and of its key, for TLS.
    :param handshakes: Whether TLS connections get a handshake.
    """

    def __init__(
        self,
        script: Callable[[Client], None],
        *,
        certificate: tuple[Path, Path] | None = None,
    ) -> None:
        self.requests: list[tuple[int, bytes]] = []
        self.connections = 0
        self.is_over = False
        self._script = script
        self._context: ssl.SSLContext | None = None
        if certificate is not None:
            self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._context.load_cert_chain(*certificate)
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self.url = f"http{'s' if certificate else ''}://127.0.0.1:{self.port}"

    def __enter__(self) -> RawServer:
        threading.Thread(target=self._accept, name="raw-server", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.is_over = True
        # A thread in accept() does not detect that its socket is closed.
        with suppress(OSError):
            socket.create_connection(("127.0.0.1", self.port), 1).close()
        self._socket.close()

    def _accept(self) -> None:
        while not self.is_over:
            try:
                sock, _ = self._socket.accept()
            except OSError:
                return
            if self.is_over:
                sock.close()
                return
            self.connections += 1
            threading.Thread(target=self._serve, args=(sock, self.connections), daemon=True).start()

    def _serve(self, sock: socket.socket, number: int) -> None:
        sock.settimeout(PATIENCE)
        with suppress(OSError), sock:
            if self._context is None:
                self._script(Client(sock, number, self))
            else:
                with self._context.wrap_socket(sock, server_side=True) as secure:
                    self._script(Client(secure, number, self))


def answer(status: int, body: bytes = b"", *headers: str, version: str = "HTTP/1.1") -> bytes:
    """Return a response with the length of its body, and with type JSON if it has a body."""
    lines = [f"{version} {status} Whatever", f"Content-Length: {len(body)}", *headers]
    if body:
        lines.append("Content-Type: application/json")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def always(response: bytes) -> Callable[[Client], None]:
    """Return a script that sends this response to each request."""

    def script(client: Client) -> None:
        while client.read_request():
            client.send(response)

    return script
