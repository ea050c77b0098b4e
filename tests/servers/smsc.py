"""A real SMSC on 127.0.0.1 that speaks SMPP 3.4 by code of its own; what it answers is in the message's text."""

from __future__ import annotations

import asyncio
import ssl
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

BIND_RECEIVER, BIND_TRANSMITTER, BIND_TRANSCEIVER = 0x01, 0x02, 0x09
SUBMIT_SM, DELIVER_SM, UNBIND, ENQUIRE_LINK, GENERIC_NACK = 0x04, 0x05, 0x06, 0x15, 0x80000000
RESPONSE = 0x80000000


@dataclass(frozen=True, slots=True, kw_only=True)
class Submit:
    """One submit_sm as it came."""

    source: tuple[int, int, str]
    destination: tuple[int, int, str]
    esm_class: int
    validity: str
    registered: int
    data_coding: int
    octets: bytes

    @property
    def header(self) -> bytes:
        return self.octets[: self.octets[0] + 1] if self.esm_class & 0x40 else b""

    @property
    def part(self) -> int:
        return self.header[5] if self.header else 1

    @property
    def text(self) -> str:
        body = self.octets[len(self.header) :]
        return body.decode("utf-16-be") if self.data_coding == 8 else body.decode("latin-1")


Said = int | str
"""A status to answer with; or "drop" (close unanswered), "silent", "unbind", "nack"."""

BY_TEXT: dict[str, Said] = {
    "accept": 0,
    "refuse": 0x0B,
    "defer": 0x08,
    "throttle": 0x58,
    "full": 0x14,
    "sender": 0x0A,
    "vendor": 0x41D,
    "drop": "drop",
    "silent": "silent",
    "unbind": "unbind",
    "nack": "nack",
}


def by_text(submit: Submit) -> Said:
    return BY_TEXT.get(submit.text.split(" ")[0], 0)


@dataclass
class Smsc:
    """Takes binds and messages; a context manager. `submits` holds what came, whatever was answered."""

    answer: Callable[[Submit], Said] = by_text
    password: str = "secret"
    bind_status: int = 0
    delay_s: float = 0.0
    tls: ssl.SSLContext | None = None
    deaf: bool = False
    """Answers no enquire_link."""
    receipt_first: Callable[[str], bytes] | None = None
    """Makes a receipt that is delivered before the submit_sm is answered."""
    first_id: int = 1
    hex_ids: bool = False
    port: int = 0
    submits: list[Submit] = field(default_factory=list)
    binds: list[tuple[int, str]] = field(default_factory=list)
    unbinds: int = 0
    nacks: list[int] = field(default_factory=list)
    enquired: int = 0
    delivered: int = 0
    open_now: int = 0
    peak: int = 0

    def __post_init__(self) -> None:
        self.said = threading.Condition()
        self._next_id = self.first_id
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._peers: list[tuple[int, asyncio.StreamWriter]] = []
        self._answered: dict[int, int] = {}
        self._silent: dict[int, tuple[asyncio.StreamWriter, int]] = {}
        self._sequence = 0

    def __enter__(self) -> Smsc:
        self._thread.start()
        self._server = asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(5)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    def __exit__(self, *exc: object) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(5)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()

    def wait(self, true: Callable[[Smsc], bool], seconds: float = 10) -> None:
        with self.said:
            assert self.said.wait_for(lambda: true(self), seconds), "the SMSC waited in vain"

    def deliver(self, source: str, octets: bytes, *, seconds: float = 10, **fields: Any) -> int:
        """Deliver to the first bind that receives; returns the status of its answer."""
        self.wait(lambda smsc: bool(smsc.listeners()), seconds)
        sequence = asyncio.run_coroutine_threadsafe(self._deliver(source, octets, fields), self._loop).result(5)
        self.wait(lambda smsc: sequence in smsc._answered, seconds)
        return self._answered[sequence]

    def answer_late(self, number: int, status: int = 0) -> None:
        """Answer one of the submit_sm that were left in silence, by its place among all."""
        writer, sequence = self._silent[number]
        self._loop.call_soon_threadsafe(self._say, writer, status, sequence, b"" if status else b"late\0")

    def listeners(self) -> list[asyncio.StreamWriter]:
        return [writer for kind, writer in self._peers if kind != BIND_TRANSMITTER]

    def send_raw(self, octets: bytes) -> None:
        """Send any octets to the first peer."""
        self._loop.call_soon_threadsafe(lambda: self._peers[0][1].write(octets))

    def hang_up(self) -> None:
        """Cut every connection."""
        self._loop.call_soon_threadsafe(lambda: [writer.transport.abort() for _, writer in self._peers])

    async def _listen(self) -> asyncio.Server:
        return await asyncio.start_server(self._serve, "127.0.0.1", self.port, ssl=self.tls)

    async def _close(self) -> None:
        self._server.close()
        for _, writer in self._peers:
            writer.transport.abort()
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                length, command, status, sequence = struct.unpack(">LLLL", await reader.readexactly(16))
                if length > 4096:
                    break  # TLS on a plain port, or noise.
                body = await reader.readexactly(length - 16)
                with self.said:
                    goes_on = self._hear(writer, command, status, sequence, body)
                    self.said.notify_all()
                if not goes_on:
                    break
        except (OSError, EOFError):
            pass
        finally:
            with self.said:
                self._peers = [peer for peer in self._peers if peer[1] is not writer]
                self.said.notify_all()
            writer.transport.abort()

    def _hear(self, writer: asyncio.StreamWriter, command: int, status: int, sequence: int, body: bytes) -> bool:
        if command in (BIND_RECEIVER, BIND_TRANSMITTER, BIND_TRANSCEIVER):
            system_id, password = (word.decode() for word in body.split(b"\0")[:2])
            self.binds.append((command, system_id))
            refused = self.bind_status or (0 if password == self.password else 0x0E)
            _write(writer, command | RESPONSE, refused, sequence, b"" if refused else b"smsc\0")
            if not refused:
                self._peers.append((command, writer))
        elif command == SUBMIT_SM:
            submit = _submit(body)
            self.submits.append(submit)
            self.open_now += 1
            self.peak = max(self.peak, self.open_now)
            return self._answer(writer, sequence, self.answer(submit), submit.destination[2])
        elif command == ENQUIRE_LINK:
            self.enquired += 1
            if not self.deaf:
                _write(writer, ENQUIRE_LINK | RESPONSE, 0, sequence)
        elif command == UNBIND:
            self.unbinds += 1
            _write(writer, UNBIND | RESPONSE, 0, sequence)
        elif command == GENERIC_NACK:
            self.nacks.append(sequence)
        elif command == DELIVER_SM | RESPONSE:
            self._answered[sequence] = status
            self.delivered += status == 0
        return True

    def _answer(self, writer: asyncio.StreamWriter, sequence: int, said: Said, number: str) -> bool:
        if said == "drop":
            self.open_now = 0
            return False
        if said == "unbind":
            _write(writer, UNBIND, 0, 7)
        elif said == "nack":
            _write(writer, GENERIC_NACK, 0x02, sequence)
        elif said == "silent":
            self._silent[len(self.submits) - 1] = writer, sequence
        else:
            assert isinstance(said, int)
            named = f"{self._next_id:08X}" if self.hex_ids else str(self._next_id)
            self._next_id += 1
            octets = b"" if said else f"{named}\0".encode()
            if not said and self.receipt_first is not None:
                self._send_deliver(writer, number, self.receipt_first(named), {"esm_class": 4})
            self._loop.call_later(self.delay_s, self._say, writer, said, sequence, octets)
        return True

    def _say(self, writer: asyncio.StreamWriter, status: int, sequence: int, octets: bytes) -> None:
        self.open_now -= 1
        if not writer.is_closing():
            _write(writer, SUBMIT_SM | RESPONSE, status, sequence, octets)

    async def _deliver(self, source: str, octets: bytes, fields: dict[str, Any]) -> int:
        return self._send_deliver(self.listeners()[0], source, octets, fields)

    def _send_deliver(self, writer: asyncio.StreamWriter, source: str, octets: bytes, fields: dict[str, Any]) -> int:
        self._sequence += 1
        body = b"\0\1\1" + source.encode() + b"\0\1\1" + b"4477\0" + bytes([fields.get("esm_class", 0), 0, 0])
        body += b"\0\0" + bytes([0, 0, fields.get("data_coding", 0), 0, len(octets)]) + octets + fields.get("tlvs", b"")
        _write(writer, DELIVER_SM, 0, self._sequence, body)
        return self._sequence


def _write(writer: asyncio.StreamWriter, command: int, status: int, sequence: int, body: bytes = b"") -> None:
    writer.write(struct.pack(">LLLL", 16 + len(body), command, status, sequence) + body)


def _submit(body: bytes) -> Submit:
    def text(at: int) -> tuple[str, int]:
        end = body.index(b"\0", at)
        return body[at:end].decode("latin-1"), end + 1

    _service, at = text(0)
    source, end = text(at + 2)
    destination, after = text(end + 2)
    esm_class = body[after]
    _schedule, at_validity = text(after + 3)
    validity, rest = text(at_validity)
    registered, _replace, data_coding, _default, length = body[rest : rest + 5]
    assert len(body) == rest + 5 + length
    return Submit(
        source=(body[at], body[at + 1], source),
        destination=(body[end], body[end + 1], destination),
        esm_class=esm_class,
        validity=validity,
        registered=registered,
        data_coding=data_coding,
        octets=body[rest + 5 :],
    )


def deliver_sm(
    octets: bytes, *, source: str = "447900000001", esm_class: int = 0, data_coding: int = 0, tlvs: bytes = b""
) -> bytes:
    """Return a whole deliver_sm."""
    body = b"\0\1\1" + source.encode() + b"\0\1\1" + b"36180\0" + bytes([esm_class, 0, 0]) + b"\0\0"
    body += bytes([0, 0, data_coding, 0, len(octets)]) + octets + tlvs
    return struct.pack(">LLLL", 16 + len(body), 5, 0, 9) + body
