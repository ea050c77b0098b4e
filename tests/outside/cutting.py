"""A wire that is cut at the worst moment: between a client and a real server, once, around the final dot."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum


class Cut(StrEnum):
    """Where the wire breaks."""

    BEFORE_THE_DOT_ARRIVES = "before"
    """The client has sent it, the server never gets it: not accepted."""
    AFTER_IT_ARRIVED = "after"
    """The server has answered, the client never hears of it: accepted."""


class Wire:
    """Forwards connections to a server; breaks the first that comes to its cut, and no other."""

    def __init__(self, server_port: int, cut: Cut) -> None:
        self._server_port = server_port
        self._cut = cut
        self._broken = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        for one in (self._listener, *self._open):
            one.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", self._server_port))
            self._open += [client, server]
            threading.Thread(target=self._to_server, args=(client, server), daemon=True).start()
            threading.Thread(target=self._to_client, args=(client, server), daemon=True).start()

    def _to_server(self, client: socket.socket, server: socket.socket) -> None:
        seen = b""
        for data in _pieces(client):
            seen += data
            end = seen.find(b"\r\n.\r\n")
            if self._cut is Cut.BEFORE_THE_DOT_ARRIVES and end >= 0 and self._broken.acquire(blocking=False):
                kept = len(seen) - len(data)
                server.sendall(data[: max(end + 2 - kept, 0)])
                _break(client, server)
                return
            server.sendall(data)
        _half_close(server)

    def _to_client(self, client: socket.socket, server: socket.socket) -> None:
        for data in _pieces(server):
            if self._cut is Cut.AFTER_IT_ARRIVED and b"queued as" in data and self._broken.acquire(blocking=False):
                _break(client, server)
                return
            # Without CHUNKING every client ends its text with the dot this wire looks for.
            client.sendall(data.replace(b"CHUNKING", b"XCHUNKIN"))
        _half_close(client)


def _pieces(source: socket.socket) -> Iterator[bytes]:
    while True:
        try:
            data = source.recv(65536)
        except OSError:
            return
        if not data:
            return
        yield data


def _break(*ends: socket.socket) -> None:
    for end in ends:
        # shutdown, not close: another thread may wait on the same socket, and close would leave it waiting.
        try:
            end.shutdown(socket.SHUT_RDWR)
        except OSError:
            continue


def _half_close(end: socket.socket) -> None:
    try:
        end.shutdown(socket.SHUT_WR)
    except OSError:
        return


@contextmanager
def wire(server_port: int, cut: Cut) -> Iterator[Wire]:
    """Yield a wire to a server of this machine."""
    running = Wire(server_port, cut)
    try:
        yield running
    finally:
        running.close()
