"""An SMS provider over HTTP that tells the truth on disk before it answers, and misbehaves at any stage by plan.

The plan is that of tests.servers.truth_sink with the stages connect (the connection stands), head (the request's head
is read), body (it is read whole, nothing is kept) and answer (the message is kept, then the act). Acts are reset,
close, silent, drip and `=STATUS BODY`; at the stage body that answer is one of a provider that took nothing over.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.servers.truth import Taken, TruthLog
from tests.servers.truth_sink import Fault

STAGES = ("connect", "head", "body", "answer")
_ACCEPTED = '200 {"status": "0", "id": "gw-%d"}'


@dataclass
class TruthProvider:
    """What all connections share. A request names its message in the field `ref`."""

    log: TruthLog
    plan: list[Fault] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)
    taken_over: Callable[[Taken], None] | None = None
    """Told of each message before its answer leaves."""
    struck: int = 0
    taken: int = 0

    def act(self, stage: str) -> str | None:
        for fault in self.plan:
            if fault.stage == stage and fault.strikes():
                self.struck += 1
                return fault.act
        return None


def plan_of(*texts: str) -> list[Fault]:
    """Read faults of this server's stages."""
    return [Fault.read(text, STAGES) for text in texts]


class TruthProviderServer:
    """A provider in a thread of this process."""

    def __init__(self, provider: TruthProvider, port: int = 0, tls: ssl.SSLContext | None = None) -> None:
        self.provider = provider
        self.port = port
        self._tls = tls
        self._loop: asyncio.AbstractEventLoop
        self._stop: asyncio.Event
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)
        self._open: set[asyncio.StreamWriter] = set()

    def __enter__(self) -> TruthProviderServer:
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *exc: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        server = await asyncio.start_server(self._connection, "127.0.0.1", self.port, ssl=self._tls)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._stop.wait()
        server.close()
        for writer in list(self._open):
            writer.transport.abort()
        await asyncio.sleep(0)

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        try:
            if await self._misbehaved("connect", writer):
                return
            while await self._request(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self._open.discard(writer)
            writer.close()

    async def _request(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = await reader.readuntil(b"\r\n\r\n")
        if await self._misbehaved("head", writer):
            return False
        fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:] if b": " in line)
        body = await reader.readexactly(int(fields.get(b"content-length", b"0")))
        if await self._misbehaved("body", writer):
            return not writer.is_closing()
        self._keep(json.loads(body), body)
        if await self._misbehaved("answer", writer):
            return not writer.is_closing()
        writer.write(self._answer(_ACCEPTED % self.provider.taken))
        await writer.drain()
        return True

    def _keep(self, data: dict[str, Any], body: bytes) -> None:
        self.provider.taken += 1
        digest = hashlib.sha256(body).hexdigest()
        taken = Taken(data["ref"], "", data["to"], digest, time.time(), kept=True)
        self.provider.log.write(taken)
        if self.provider.taken_over is not None:
            self.provider.taken_over(taken)

    async def _misbehaved(self, stage: str, writer: asyncio.StreamWriter) -> bool:
        act = self.provider.act(stage)
        if act is None:
            return False
        if act == "reset":
            raw = writer.get_extra_info("socket")
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
        elif act == "close":
            writer.close()
        elif act == "silent":
            await self._stop.wait()
        elif act == "drip":
            for byte in self._answer(_ACCEPTED % self.provider.taken):
                writer.write(bytes([byte]))
                await asyncio.sleep(1)
        else:
            writer.write(self._answer(act.removeprefix("=")))
            await writer.drain()
        return True

    def _answer(self, text: str) -> bytes:
        status, _, body = text.partition(" ")
        content = (body * 200_000 if body == "huge" else body).encode()
        extra = "".join(f"{name}: {value}\r\n" for name, value in self.provider.headers.items())
        head = f"HTTP/1.1 {status} Said\r\nContent-Length: {len(content)}\r\n{extra}\r\n"
        return head.encode() + content
