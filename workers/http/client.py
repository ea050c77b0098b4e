"""The pool of connections of one channel, and the event loop all HTTP channels of a process share."""

from __future__ import annotations

import asyncio
import os
import ssl
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import uvloop

from workers.http.connection import Connection
from workers.http.exchange import Answer, NotSent, Request

_T = TypeVar("_T")
_CONNECT_S = 10.0
_loops: dict[int, asyncio.AbstractEventLoop] = {}
_loops_lock = threading.Lock()


class Client:
    """Sends requests over kept-alive connections. No redirects, cookies, proxies or netrc: what is sent is as built.

    Every method runs in the loop's thread, `run` and `close` excepted.
    """

    def __init__(self, *, timeout_s: float, ca_file: str | None = None) -> None:
        """Take the patience with an answer, and certificates to trust beside the system's."""
        self._timeout_s = timeout_s
        self._ca_file = ca_file
        self._context: ssl.SSLContext | None = None
        self._idle: dict[tuple[str, str, int], list[Connection]] = {}
        self._busy: set[Connection] = set()

    async def ask(self, request: Request, before: Callable[[], None]) -> Answer:
        """Send a request and return the answer.

        Args:
            request: What to send.
            before: Called once a connection is there, right before the first byte leaves.

        Raises:
            NotSent: no connection could be had, or it ended before the whole request had left.
            NoAnswer: the request left and no whole answer came.
            ValueError: the request cannot be written.
        """
        wire, origin = request.wire(), request.origin
        connection = self._kept(origin) or await self._opened(origin)
        before()
        self._busy.add(connection)
        try:
            answer = await connection.ask(wire, self._timeout_s)
        finally:
            self._busy.discard(connection)
        if connection.is_usable(asyncio.get_running_loop().time()):
            self._idle.setdefault(origin, []).append(connection)
        return answer

    def run(self, work: Coroutine[Any, Any, _T]) -> _T:
        """Run a coroutine in the loop and return its result; an interrupted caller takes the work down with it."""
        future = asyncio.run_coroutine_threadsafe(work, loop_of_this_process())
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def close(self) -> None:
        """End every connection; an answer still awaited is waited for no longer. Never raises."""
        loop_of_this_process().call_soon_threadsafe(self._close_all)

    def _close_all(self) -> None:
        for connection in list(self._busy):
            connection.give_up("this process stops waiting")
        for connections in self._idle.values():
            for connection in connections:
                connection.close()
        self._idle.clear()

    def _kept(self, origin: tuple[str, str, int]) -> Connection | None:
        now = asyncio.get_running_loop().time()
        kept = self._idle.get(origin, [])
        while kept:
            connection = kept.pop()
            if connection.is_usable(now):
                return connection
            connection.close()
        return None

    async def _opened(self, origin: tuple[str, str, int]) -> Connection:
        scheme, host, port = origin
        loop = asyncio.get_running_loop()
        where = f"{host}:{port}"
        try:
            context = self._trust() if scheme == "https" else None
            async with asyncio.timeout(_CONNECT_S):
                _, connection = await loop.create_connection(Connection, host, port, ssl=context)
        except ssl.SSLError as error:
            lasting = isinstance(error, ssl.SSLCertVerificationError)
            raise NotSent(f"{where}: TLS failed: {error}", lasting=lasting) from error
        except TimeoutError as error:
            raise NotSent(f"{where}: no connection within {_CONNECT_S:g} s") from error
        except OSError as error:
            raise NotSent(f"{where}: {error}") from error
        return connection

    def _trust(self) -> ssl.SSLContext:
        if self._context is None:
            self._context = ssl.create_default_context()
            if self._ca_file:
                self._context.load_verify_locations(self._ca_file)
        return self._context


def loop_of_this_process() -> asyncio.AbstractEventLoop:
    """Return the event loop of this process's HTTP channels, started in a thread of its own on first use.

    A forked child has its own: a thread does not survive a fork.
    """
    with _loops_lock:
        loop = _loops.get(os.getpid())
        if loop is None:
            _loops.clear()
            loop = _loops[os.getpid()] = uvloop.new_event_loop()
            threading.Thread(target=loop.run_forever, name="http-channels", daemon=True).start()
        return loop
