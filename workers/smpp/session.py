"""One bound connection to an SMSC, kept by a thread of its own.

The thread reads whatever comes, between chunks too: it answers enquire_link and unbind, hands over what the SMSC
delivers to be kept before it answers for it, and passes answers to submit_sm on to whoever sends. So a slow chunk
starves no receipt, and an idle worker loses no session.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import ssl
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal

import structlog

from kernel.errors import GatewayDown
from kernel.fields import duration
from kernel.gateways import SmppGateway
from workers.smpp.pdus import (
    OK,
    RX_TEMPORARY,
    UNKNOWN_COMMAND,
    Pdu,
    Unreadable,
    length_of,
    read,
    sequence_of,
    status_name,
    write,
)
from workers.smpp.statuses import Meaning, meaning_of, own_statuses

log = structlog.get_logger(__name__)

Bind = Literal["transceiver", "transmitter", "receiver"]
Keep = Callable[[Sequence[bytes]], bool]
"""Keeps what the SMSC delivered, whole PDUs, for good; False: not now, let it deliver them again."""

_CONNECT_S = 10.0
_UNBIND_S = 2.0
_LAST_WORDS_S = 0.5
_UNBOUND = "the SMSC has unbound the session"
_KEPT_AT_ONCE = 200
_LAST_SEQUENCE = 0x7FFFFFFF


@dataclass(frozen=True, slots=True)
class Answer:
    """What the SMSC says to a submit_sm. `message_id` is "" where it refuses."""

    sequence: int
    status: int
    message_id: str


@dataclass(frozen=True, slots=True)
class Lost:
    """The session is over; nothing more is written and no more answers come."""

    reason: str
    session: Session


Events = queue.SimpleQueue[Answer | Lost]
"""Where one who submits hears of answers in the order they come, and of the loss."""


class Session:
    """A bind, for any number of threads that submit."""

    def __init__(self, gateway: SmppGateway, *, bind: Bind, keep: Keep | None) -> None:
        """Take a gateway; `open` connects.

        Args:
            gateway: The SMSC.
            bind: What the session is for.
            keep: Given what the SMSC delivers; None refuses it for now.
        """
        self._gateway = gateway
        self._bind = bind
        self._keep = keep
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=f"smpp-{bind}", daemon=True)
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="smpp-keep")
        self._writer: asyncio.StreamWriter | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._delivered: asyncio.Queue[tuple[bytes, Pdu]] = asyncio.Queue()
        self._waiting: dict[int, Events] = {}
        self._told_at_the_end: list[Events] = []
        self._unbinding = False
        self._sequence = 0
        self._numbering = threading.Lock()
        self._closing = threading.Lock()
        self._heard_at = 0.0
        self._unbound = asyncio.Event()
        self._lost: Lost | None = None
        self._over = threading.Event()

    @property
    def lost(self) -> Lost | None:
        """Why the session is over; None while it stands."""
        return self._lost

    def open(self) -> None:
        """Connect and bind.

        Raises:
            GatewayDown: nobody there, no TLS, or the bind is refused.
        """
        self._thread.start()
        try:
            asyncio.run_coroutine_threadsafe(self._open(), self._loop).result()
        except GatewayDown:
            self.close()
            raise

    def wait_until_lost(self) -> str:
        """Wait until the session is over and return why."""
        self._over.wait()
        return self._lost.reason if self._lost else ""

    def submit(self, fields: dict[str, Any], events: Events) -> int:
        """Send a submit_sm; returns its sequence number, by which its answer will be known among the events."""
        sequence = self._next_sequence()
        raw = write("submit_sm", sequence, **fields)
        self._loop.call_soon_threadsafe(self._write_submit, sequence, raw, events)
        return sequence

    def was_written(self, sequence: int) -> bool:
        """Tell whether a submit_sm without an answer may have left; settled once `Lost` has come."""
        return sequence in self._waiting

    def close(self) -> None:
        """Unbind, wait a moment for the SMSC's word, and end the thread; never raises, and may be called twice."""
        with self._closing:
            if self._loop.is_closed():
                return
            with contextlib.suppress(TimeoutError):
                asyncio.run_coroutine_threadsafe(self._leave(), self._loop).result(_UNBIND_S + 3)
            self._end()

    # --- in the session's own thread -------------------------------------------------------------------------

    async def _open(self) -> None:
        gateway = self._gateway
        try:
            async with asyncio.timeout(_CONNECT_S):
                reader, self._writer = await asyncio.open_connection(
                    gateway.host, gateway.port, ssl=_context(gateway), limit=128 * 1024
                )
                answer = await self._bound(reader)
        except ssl.SSLError as error:
            hint = "; set `tls: none` if the SMSC speaks plain SMPP" if "WRONG_VERSION" in str(error) else ""
            raise GatewayDown(f"no TLS with {gateway.host}:{gateway.port}: {error}{hint}", lasting=True) from error
        except (OSError, TimeoutError, EOFError, Unreadable) as error:
            reason = str(error) or type(error).__name__
            raise GatewayDown(f"cannot bind at {gateway.host}:{gateway.port}: {reason}") from error
        if answer.status != OK:
            self._lose("the bind was refused")
            meaning = meaning_of(answer.status, own_statuses(gateway.statuses))
            raise GatewayDown(
                f"the SMSC refuses the bind: {status_name(answer.status)}", lasting=meaning is Meaning.SETTINGS
            )
        self._heard_at = self._loop.time()
        self._tasks = [
            self._loop.create_task(work) for work in (self._read(reader), self._keep_delivered(), self._stay_alive())
        ]

    async def _bound(self, reader: asyncio.StreamReader) -> Pdu:
        gateway = self._gateway
        sequence = self._next_sequence()
        self._write(
            write(
                f"bind_{self._bind}",
                sequence,
                system_id=gateway.system_id,
                password=gateway.password.get_secret_value(),
                system_type=gateway.system_type,
            )
        )
        while True:
            pdu = read(await _next_pdu(reader))
            if pdu.sequence == sequence and not pdu.is_request:
                return pdu

    async def _read(self, reader: asyncio.StreamReader) -> None:
        try:
            while True:
                raw = await _next_pdu(reader)
                self._heard_at = self._loop.time()
                self._handle(raw)
        except (OSError, EOFError, Unreadable) as error:
            self._lose(_UNBOUND if self._unbinding else f"connection lost: {str(error) or type(error).__name__}")

    def _handle(self, raw: bytes) -> None:
        try:
            pdu = read(raw)
        except Unreadable as error:
            # One PDU we do not know must not end a session with answers to come.
            log.warning("smpp_pdu_unreadable", error=str(error), octets=raw[:64].hex())
            asks, sequence = sequence_of(raw)
            if asks:
                self._write(write("generic_nack", sequence, UNKNOWN_COMMAND))
            return
        match pdu.command:
            case "submit_sm_resp" | "generic_nack":
                self._answered(pdu)
            case "deliver_sm" | "data_sm":
                self._delivered.put_nowait((raw, pdu))
            case "enquire_link":
                self._write(write("enquire_link_resp", pdu.sequence))
            case "unbind":
                self._write(write("unbind_resp", pdu.sequence))
                self._unbinding = True
                # Answers to what is out may still be on their way.
                self._loop.call_later(_LAST_WORDS_S, self._lose, _UNBOUND)
            case "unbind_resp":
                self._unbound.set()
            case _ if pdu.is_request and pdu.command != "alert_notification":
                self._write(write("generic_nack", pdu.sequence, UNKNOWN_COMMAND))

    def _answered(self, pdu: Pdu) -> None:
        if self._lost is not None:
            return  # Whoever submitted has been told of the loss, and has drawn its conclusion.
        events = self._waiting.pop(pdu.sequence, None)
        if events is not None:
            events.put(Answer(pdu.sequence, pdu.status, pdu.text("message_id")))

    async def _keep_delivered(self) -> None:
        """Keep what was delivered, as much as has come in one go, and only then answer for it."""
        while True:
            batch = [await self._delivered.get()]
            while not self._delivered.empty() and len(batch) < _KEPT_AT_ONCE:
                batch.append(self._delivered.get_nowait())
            kept = self._keep is not None and await self._loop.run_in_executor(
                self._executor, self._keep, [raw for raw, _ in batch]
            )
            for _, pdu in batch:
                self._write(write(f"{pdu.command}_resp", pdu.sequence, OK if kept else RX_TEMPORARY))

    async def _stay_alive(self) -> None:
        """Ask for a sign of life whenever it has been quiet; without one the session is over."""
        quiet_s = duration(self._gateway.enquire_link).total_seconds()
        patience_s = min(duration(self._gateway.timeout).total_seconds(), quiet_s)
        while True:
            await asyncio.sleep(max(self._heard_at + quiet_s - self._loop.time(), 0.01))
            if self._loop.time() - self._heard_at < quiet_s:
                continue
            asked_at = self._loop.time()
            self._write(write("enquire_link", self._next_sequence()))
            await asyncio.sleep(patience_s)
            if self._heard_at < asked_at:
                self._lose("no answer to enquire_link")
                return

    def _write_submit(self, sequence: int, raw: bytes, events: Events) -> None:
        if self._lost is not None:
            events.put(self._lost)
        elif not self._unbinding and self._write(raw):
            self._waiting[sequence] = events
        else:
            self._told_at_the_end.append(events)

    def _write(self, raw: bytes) -> bool:
        if self._lost is not None or self._writer is None:
            return False
        self._writer.write(raw)
        return True

    def _lose(self, reason: str) -> None:
        if self._lost is None:
            self._lost = Lost(reason, self)
            if self._writer is not None:
                self._writer.close()
            told = [*self._waiting.values(), *self._told_at_the_end]
            for events in {id(events): events for events in told}.values():
                events.put(self._lost)
            self._over.set()

    async def _leave(self) -> None:
        if self._write(write("unbind", self._next_sequence())):
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._unbound.wait(), _UNBIND_S if self._tasks else 0)
        self._lose("closed")
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._writer is not None:
            with contextlib.suppress(OSError):
                await self._writer.wait_closed()

    def _next_sequence(self) -> int:
        # Numbers are drawn by two threads; one that skips is harmless, one that repeats is not.
        with self._numbering:
            self._sequence = self._sequence % _LAST_SEQUENCE + 1
            return self._sequence

    def _end(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._executor.shutdown(wait=False)
        if not self._loop.is_running():
            self._loop.close()


async def _next_pdu(reader: asyncio.StreamReader) -> bytes:
    prefix = await reader.readexactly(4)
    return prefix + await reader.readexactly(length_of(prefix) - 4)


def _context(gateway: SmppGateway) -> ssl.SSLContext | None:
    return None if gateway.tls == "none" else ssl.create_default_context(cafile=gateway.ca_file)
