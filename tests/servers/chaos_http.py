"""A real HTTP server that misbehaves as the text of the SMS says, and remembers which requests reached it whole."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import struct
import threading
from concurrent.futures import Future

ACCEPTED = b'{"result":{"status":"0","id":"gw-1"}}'


def answer(status: int, body: bytes = b"", *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status} Whatever", *headers, f"Content-Length: {len(body)}", "", ""]
    return "\r\n".join(lines).encode() + body


ANSWERS: dict[str, bytes] = {
    "accept": answer(200, ACCEPTED),
    "charged": answer(200, b'{"result":{"status":"0","id":"gw-1","parts":3}}'),
    "charged-text": answer(200, b'{"result":{"status":"0","id":"gw-1","parts":"2"}}'),
    "charged-oddly": answer(200, b'{"result":{"status":"0","id":"gw-1","parts":-1}}'),
    "status-error": answer(200, b'{"result":{"status":"7"}}'),
    "status-throttled": answer(200, b'{"result":{"status":"1"}}'),
    "json-list": answer(200, b"[1]"),
    "not-json": answer(200, b"<html>hello</html>"),
    "nul-json": answer(200, b'{"result":{"status":"0","id":"a\x00b"}}'),
    "deep-json": answer(200, b"[" * 60_000),
    "empty": answer(200),
    "huge": answer(200, b"x" * 2_000_000),
    "huge-refusal": answer(400, b"x" * 2_000_000),
    "too-many": answer(429, b"slow down", "Retry-After: 7"),
    "busy": answer(503, b"busy", "Date: Thu, 26 Nov 2026 10:00:00 GMT", "Retry-After: Thu, 26 Nov 2026 10:02:00 GMT"),
    "odd-wait": answer(503, b"busy", "Retry-After: soon"),
    "broken": answer(500, b"oops"),
    "proxy": answer(502, b"bad gateway"),
    "proxy-late": answer(504, b"late"),
    "unauthorized": answer(401),
    "redirect": answer(302, b"", "Location: http://127.0.0.1:1/"),
    "refuse": answer(422, b"bad number"),
    "interim": b"HTTP/1.1 102 Processing\r\n\r\n" + answer(200, ACCEPTED),
    "chunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n"
    % (len(ACCEPTED), ACCEPTED),
    "two-answers": answer(200, ACCEPTED) + answer(400, b"?"),
}
"""Whole answers; the connection stays open."""
LAST_WORDS: dict[str, bytes] = {
    "until-the-end": b"HTTP/1.1 200 OK\r\n\r\n" + ACCEPTED,
    "cut-body": b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n" + ACCEPTED,
    "cut-header": b"HTTP/1.1 200 OK\r\nContent-Le",
    "cut-chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\nabc",
    "no-http": b"220 smtp.example ready\r\n",
    "hang-up": b"",
}
"""What is said before the connection is closed."""


class ChaosServer:
    """Listens on 127.0.0.1; `whole` holds the text of every request that arrived whole, in order."""

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        self.whole: list[str] = []
        self.connections = 0
        self._context = context
        self._loop = asyncio.new_event_loop()
        self._ready: Future[int] = Future()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.port = 0

    def __enter__(self) -> ChaosServer:
        self._thread.start()
        self.port = self._ready.result(10)
        return self

    def __exit__(self, *exc: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)

    def _run(self) -> None:
        self._loop.run_until_complete(self._serve())
        self._loop.close()

    async def _serve(self) -> None:
        self._stop = asyncio.Event()
        server = await asyncio.start_server(self._connection, "127.0.0.1", 0, ssl=self._context)
        self._ready.set_result(server.sockets[0].getsockname()[1])
        await self._stop.wait()
        server.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await asyncio.sleep(0.01)  # A transport closes its socket one turn of the loop after it was told to.

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while await self._exchange(reader, writer):
                pass
        except (OSError, asyncio.IncompleteReadError):
            writer.close()
        except asyncio.CancelledError:
            writer.transport.abort()
            raise
        else:
            writer.close()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        length = next((int(line[15:]) for line in head.split("\r\n") if line.startswith("Content-Length:")), 0)
        if "x-chaos: reset-in-body" in head.lower():
            reset(writer)
            return False
        body = await reader.readexactly(length)
        text = str(json.loads(body)["text"]) if body else ""
        self.whole.append(text)
        if text in ANSWERS:
            writer.write(ANSWERS[text])
            await writer.drain()
            return True
        if text in LAST_WORDS:
            writer.write(LAST_WORDS[text])
            await writer.drain()
        elif text == "reset":
            reset(writer)
        elif text == "silence":
            await asyncio.sleep(3600)
        elif text == "drip":
            for byte in ANSWERS["accept"]:
                writer.write(bytes([byte]))
                await asyncio.sleep(0.2)
        elif text == "endless-header":
            writer.write(b"HTTP/1.1 200 OK\r\nX-Long: ")
            while True:
                writer.write(b"x" * 4096)
                await writer.drain()
        elif text.startswith("late:"):
            await asyncio.sleep(float(text[5:]))
            writer.write(ANSWERS["accept"])
            return True
        return False


def reset(writer: asyncio.StreamWriter) -> None:
    """End the connection by RST."""
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
