"""One HTTP/1.1 connection that carries one request at a time and knows whether it may have left.

Libraries hide just that: several repeat a request by themselves when a kept-alive connection turns out closed, which
for an SMS is a second SMS. So the connection is ours; the answer is parsed by httptools (llhttp, the parser of Node).
"""

from __future__ import annotations

import asyncio
import re
from typing import cast

import httptools

from workers.http.exchange import ANSWER_LIMIT, Answer, NoAnswer, NotSent

_IDLE_S = 4.0
"""Servers close idle connections without a word, many after five seconds; a request written into that is in doubt."""
_KEEP_ALIVE = re.compile(r"timeout=(\d{1,4})")


class Connection(asyncio.Protocol):
    """Implements asyncio.Protocol; every method runs in the loop's thread."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._waiter: asyncio.Future[Answer] | None = None
        self._encrypted = False
        self._buffered = False
        self._idle_until = 0.0
        self._headers: dict[str, str] = {}
        self._body: list[bytes] = []
        self._status = 0
        self._received = 0
        self._length_known = False
        self._complete = False
        self._keep = False
        self._surplus = False
        self._begin()

    # --- what the client calls ---

    def is_usable(self, now: float) -> bool:
        """Tell whether a request may be written at this instant of the loop's clock."""
        return self._transport is not None and not self._transport.is_closing() and now < self._idle_until

    async def ask(self, wire: bytes, timeout_s: float) -> Answer:
        """Write a request and return the answer.

        Raises:
            NotSent: the connection ended while a part of the request was still ours.
            NoAnswer: it ended, fell silent or spoke no HTTP after that.
        """
        if self._transport is None or self._transport.is_closing():
            raise NotSent("the connection is closed")
        loop = asyncio.get_running_loop()
        self._begin()
        self._waiter = loop.create_future()
        timer = loop.call_later(timeout_s, self._end, NoAnswer(f"no answer within {timeout_s:g} s"))
        self._transport.write(wire)
        try:
            return await self._waiter
        finally:
            timer.cancel()
            if not self._waiter.done() or self._waiter.cancelled():
                self.close()
            self._waiter = None

    def give_up(self, reason: str) -> None:
        """Wait for no answer any more."""
        self._end(NoAnswer(reason))

    def close(self) -> None:
        """End the connection at once."""
        if self._transport is not None:
            self._transport.abort()

    # --- what asyncio calls ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.Protocol."""
        # uvloop's transports are asyncio's by shape only.
        self._transport = stream = cast("asyncio.Transport", transport)
        self._encrypted = stream.get_extra_info("ssl_object") is not None
        # Told at once when a write does not fit the socket: so much of the request has not left yet.
        stream.set_write_buffer_limits(high=0)
        self._idle_until = asyncio.get_running_loop().time() + _IDLE_S

    def pause_writing(self) -> None:
        """See asyncio.Protocol."""
        self._buffered = True

    def resume_writing(self) -> None:
        """See asyncio.Protocol."""
        self._buffered = False

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        if self._waiter is None or self._waiter.done():
            self.close()  # An answer nobody asked for: whatever came next on this connection could be mistaken.
            return
        self._received += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._end(NoAnswer(f"the answer is not HTTP: {error}"))
            return
        if self._complete:
            self._answered(keep=self._keep and not self._surplus)
        elif self._received > ANSWER_LIMIT:
            if self._status:
                self._answered(keep=False, whole=False)
            else:
                self._end(NoAnswer("the answer's header has no end"))

    def eof_received(self) -> None:
        """See asyncio.Protocol: the transport closes itself."""

    def connection_lost(self, error: Exception | None) -> None:
        """See asyncio.Protocol."""
        self._idle_until = 0.0
        if self._waiter is None or self._waiter.done():
            return
        if self._status and not self._length_known:
            self._answered(keep=False)  # Such a body ends with the connection (RFC 9112 section 6.3).
        elif self._buffered and not self._encrypted:
            self._waiter.set_exception(NotSent(f"connection lost before the whole request had left ({error})"))
        else:
            self._waiter.set_exception(NoAnswer(f"connection lost before the whole answer came ({error or 'closed'})"))

    # --- what httptools calls ---

    def on_message_begin(self) -> None:
        """Note a second answer to one request: it is nobody's, and the connection has lost count."""
        self._surplus = self._complete

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take one header."""
        if not self._complete:
            self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        """Take the status; interim answers (1xx) are passed over."""
        if self._complete:
            return
        status = self._parser.get_status_code()
        if status >= 200:
            self._status = status
            self._length_known = (
                "content-length" in self._headers
                or "chunked" in self._headers.get("transfer-encoding", "").lower()
                or status in (204, 304)
            )
        else:
            self._headers = {}

    def on_body(self, data: bytes) -> None:
        """Take a piece of the body."""
        if not self._complete:
            self._body.append(data)

    def on_message_complete(self) -> None:
        """Note the answer's end."""
        if self._status and not self._complete:
            self._complete = True
            self._keep = self._parser.should_keep_alive()

    # --- inside ---

    def _begin(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._headers = {}
        self._body = []
        self._status = self._received = 0
        self._length_known = self._complete = self._keep = self._surplus = False

    def _answered(self, *, keep: bool, whole: bool = True) -> None:
        if self._waiter is None or self._waiter.done():
            return
        answer = Answer(self._status, self._headers, b"".join(self._body)[:ANSWER_LIMIT], whole=whole)
        if keep:
            told = _KEEP_ALIVE.search(self._headers.get("keep-alive", ""))
            idle_s = min(_IDLE_S, float(told[1]) - 1) if told else _IDLE_S
            self._idle_until = asyncio.get_running_loop().time() + idle_s
        else:
            self._idle_until = 0.0
            self.close()
        self._waiter.set_result(answer)

    def _end(self, error: Exception) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(error)
        self.close()
