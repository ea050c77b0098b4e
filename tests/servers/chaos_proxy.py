"""A TCP proxy that spoils connections on purpose, with the toxics of toxiproxy, each for one direction or both.

    latency      every piece is held back `seconds`                  bandwidth   so many bytes a second
    down         connections are refused at once                     slicer      pieces of at most `amount` bytes
    timeout      nothing is passed on; closed after `seconds`        limit_data  closed after `amount` bytes
    slow_close   a closed connection is passed on `seconds` later    reset_peer  reset after `seconds`

`cut_after(pattern, nth)` lets the nth piece from the client that holds the pattern through, waits for the server's
answer, keeps it and resets the client: a COMMIT that was carried out and never confirmed.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Coroutine
from dataclasses import dataclass, field, replace
from typing import Any, Literal

Direction = Literal["up", "down", "both"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Toxic:
    """What happens to a connection. `up` is from the client to the server."""

    kind: Literal["latency", "bandwidth", "slicer", "limit_data", "timeout", "slow_close", "reset_peer", "down"]
    seconds: float = 0.0
    amount: int = 0
    direction: Direction = "both"

    def meets(self, direction: str) -> bool:
        return self.direction in ("both", direction)


@dataclass(slots=True)
class _Cut:
    pattern: bytes
    nth: int
    seen: int = 0
    done: threading.Event = field(default_factory=threading.Event)


class ChaosProxy:
    """A proxy in a thread of this process, in front of a port of this machine."""

    def __init__(self, target: int) -> None:
        self.target = target
        self.port = 0
        self.connections = 0
        self._toxics: tuple[Toxic, ...] = ()
        self._cut: _Cut | None = None
        self._loop: asyncio.AbstractEventLoop
        self._stop: asyncio.Event
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._listen()), daemon=True)
        self._writers: set[asyncio.StreamWriter] = set()

    def __enter__(self) -> ChaosProxy:
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *exc: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)

    def poison(self, *toxics: Toxic) -> None:
        """From now on these toxics hold, for open connections too; none ends them all."""
        self._toxics = toxics

    def cut_after(self, pattern: bytes, nth: int) -> threading.Event:
        """Cut the connection between the server's answer to the nth such piece and the client; returns what tells."""
        self._cut = _Cut(pattern, nth)
        return self._cut.done

    def reset_all(self) -> None:
        """Reset every open connection."""
        self._loop.call_soon_threadsafe(lambda: [_reset(writer) for writer in list(self._writers)])

    async def _listen(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._stop.wait()
        server.close()
        for writer in list(self._writers):
            writer.transport.abort()
        await asyncio.sleep(0)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        if any(toxic.kind == "down" for toxic in self._toxics):
            _reset(writer)
            return
        try:
            up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            _reset(writer)
            return
        self._writers |= {writer, up_writer}
        cut = asyncio.Event()
        pumps: list[Coroutine[Any, Any, None]] = [
            self._pump(reader, up_writer, writer, "up", cut),
            self._pump(up_reader, writer, writer, "down", cut),
        ]
        try:
            with contextlib.suppress(asyncio.CancelledError):  # The proxy ends: nobody waits for this task.
                await asyncio.gather(*pumps)
        finally:
            self._writers -= {writer, up_writer}
            for each in (writer, up_writer):
                each.close()

    async def _pump(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        client: asyncio.StreamWriter,
        direction: str,
        cut: asyncio.Event,
    ) -> None:
        passed = 0
        with contextlib.suppress(ConnectionError):
            while piece := await reader.read(65536):
                if direction == "up":
                    self._watch(piece, cut)
                elif cut.is_set():
                    # The server has answered: it is done there, and nobody here will know.
                    _reset(client)
                    assert self._cut is not None
                    self._cut.done.set()
                    return
                for part in await self._spoiled(piece, direction, client, passed):
                    writer.write(part)
                    await writer.drain()
                    passed += len(part)
        await self._closing(direction)
        with contextlib.suppress(ConnectionError, OSError):
            if writer.can_write_eof():
                writer.write_eof()

    def _watch(self, piece: bytes, cut: asyncio.Event) -> None:
        order = self._cut
        if order is None or order.done.is_set() or order.pattern not in piece:
            return
        order.seen += 1
        if order.seen == order.nth:
            cut.set()

    async def _spoiled(self, piece: bytes, direction: str, client: asyncio.StreamWriter, passed: int) -> list[bytes]:
        parts = [piece]
        for toxic in self._toxics:
            if not toxic.meets(direction):
                continue
            if toxic.kind == "latency":
                await asyncio.sleep(toxic.seconds)
            elif toxic.kind == "bandwidth":
                await asyncio.sleep(len(piece) / toxic.amount)
            elif toxic.kind == "slicer":
                parts = [part[i : i + toxic.amount] for part in parts for i in range(0, len(part), toxic.amount)]
            elif toxic.kind == "limit_data" and passed + len(piece) > toxic.amount:
                parts = [piece[: max(0, toxic.amount - passed)]]
                self._loop.call_later(0.05, _reset, client)
            elif toxic.kind == "timeout":
                self._loop.call_later(toxic.seconds, _reset, client)
                parts = []
            elif toxic.kind == "reset_peer":
                self._loop.call_later(toxic.seconds, _reset, client)
        return parts

    async def _closing(self, direction: str) -> None:
        for toxic in self._toxics:
            if toxic.kind == "slow_close" and toxic.meets(direction):
                await asyncio.sleep(toxic.seconds)


def through(toxic: Toxic, direction: Direction) -> Toxic:
    """Return the toxic for one direction."""
    return replace(toxic, direction=direction)


def _reset(writer: asyncio.StreamWriter) -> None:
    raw = writer.get_extra_info("socket")
    if raw is not None and raw.fileno() >= 0:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
