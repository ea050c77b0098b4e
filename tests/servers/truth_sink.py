"""An SMTP server that tells the truth on disk before it answers, and misbehaves at any stage by plan.

A plan is a list of faults, `stage:act[:times[:after]]`: at the stages connect, ehlo, starttls, auth, mail, rcpt, data,
body, dot and quit, the first `times` passes (1; `*` for all) after `after` others (0) meet the act instead of the usual
answer:

    reset     the connection is reset               close    it is closed without a word
    lost      (dot) reset, the message not kept     kept     (dot) kept, then reset
    silent    no answer, ever                       drip     the usual answer, one byte a second
    held      (dot) kept; the answer never comes    =TEXT;   TEXT, with \\n for line ends; kept if it begins with 2

Run as a process: python -m tests.servers.truth_sink --log FILE --port-file FILE [--port N] [--plan FAULT …]
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.servers.truth import TruthLog, mail_taken

EXTENSIONS = (b"PIPELINING", b"SIZE 10485760", b"8BITMIME", b"SMTPUTF8", b"ENHANCEDSTATUSCODES")
STAGES = ("connect", "ehlo", "starttls", "auth", "mail", "rcpt", "data", "body", "dot", "quit")


@dataclass(slots=True)
class Fault:
    """One line of a plan. `times` None means for ever."""

    stage: str
    act: str
    times: int | None = 1
    after: int = 0
    passed: int = 0

    @classmethod
    def read(cls, text: str, stages: Sequence[str] = STAGES) -> Fault:
        stage, _, rest = text.partition(":")
        if stage not in stages:
            raise ValueError(f"no stage {stage!r}")
        if rest.startswith("="):
            act, _, rest = rest.partition(";")
        else:
            act, _, rest = rest.partition(":")
        times, _, after = rest.partition(":")
        return cls(stage, act, None if times == "*" else int(times or 1), int(after or 0))

    def strikes(self) -> bool:
        """Count a pass of the stage, and tell whether the fault meets it."""
        self.passed += 1
        past = self.passed - self.after
        return past > 0 and (self.times is None or past <= self.times)


@dataclass
class TruthSink:
    """What all connections share."""

    log: TruthLog
    plan: list[Fault] = field(default_factory=list)
    extensions: Sequence[bytes] = EXTENSIONS
    auth: bool = False
    tls: ssl.SSLContext | None = None
    open: set[asyncio.Transport] = field(default_factory=set)
    connections: int = 0
    mails: list[str] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    keep_bodies: bool = False
    bodies: list[bytes] = field(default_factory=list)
    helo: bool = False
    """Whether HELO is answered although EHLO meets a fault."""
    struck: int = 0
    delay_s: float = 0.0
    receive_buffer: int | None = None
    greylist: bool = False
    chance: Callable[[str], str | None] | None = None
    """Asked at each stage for an act of its own, after the plan."""
    envelopes: set[tuple[str, str]] = field(default_factory=set)
    """Every pair of sender and recipient that was named."""

    def act(self, stage: str) -> str | None:
        for fault in self.plan:
            if fault.stage == stage and fault.strikes():
                self.struck += 1
                return fault.act
        act = self.chance(stage) if self.chance else None
        self.struck += act is not None
        return act

    def heard(self) -> str:
        """Return every command that was said."""
        return "\n".join(self.lines)

    def too_early(self, sender: str, recipient: str) -> bool:
        """Tell whether a greylist sees this pair for the first time."""
        new = (sender, recipient) not in self.envelopes
        self.envelopes.add((sender, recipient))
        return new and self.greylist


class _Session(asyncio.Protocol):
    def __init__(self, sink: TruthSink) -> None:
        self.sink = sink
        self.buffer = bytearray()
        self.in_data = self.body_passed = self.deaf = self.mailed = self.named = False
        self.sender = self.recipient = ""
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.sink.connections += 1
        self.sink.open.add(transport)
        self.answer("connect", b"220 truth ESMTP\r\n")

    def connection_lost(self, exc: Exception | None) -> None:
        self.sink.open.discard(self.transport)

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while not self.deaf and not self.transport.is_closing():
            if self.in_data:
                if not self.take_body():
                    return
                continue
            end = self.buffer.find(b"\r\n")
            if end < 0:
                return
            line = bytes(self.buffer[:end]).decode("utf-8", "surrogateescape")
            del self.buffer[: end + 2]
            self.command(line)

    def take_body(self) -> bool:
        """Take a body once it is whole; a fault mid-body strikes when its first bytes are there."""
        if not self.body_passed and self.buffer:
            self.body_passed = True
            act = self.sink.act("body")
            if act is not None:
                self.misbehave(act, b"")
                return False
        start = self.buffer.startswith(b".\r\n")
        end = 0 if start else self.buffer.find(b"\r\n.\r\n")
        if end < 0:
            return False
        body = bytes(self.buffer[:end]) + (b"" if start else b"\r\n")
        del self.buffer[: end + (3 if start else 5)]
        self.in_data = False
        self.dot(body.replace(b"\r\n..", b"\r\n.").removeprefix(b"." if body.startswith(b"..") else b""))
        return True

    def command(self, line: str) -> None:
        verb = line[:4].upper()
        self.sink.lines.append(line)
        if verb in ("EHLO", "HELO"):
            extra = [*((b"AUTH PLAIN LOGIN",) if self.sink.auth else ()), *self.sink.extensions]
            lines = [b"truth", *(extra if verb == "EHLO" else ())]
            if verb == "HELO" and self.sink.helo:
                self.transport.write(b"250 truth\r\n")
                return
            last = len(lines) - 1
            self.answer(
                "ehlo", b"".join(b"250%s%s\r\n" % (b" " if i == last else b"-", t) for i, t in enumerate(lines))
            )
        elif verb == "MAIL":
            self.sender = line[line.index("<") + 1 : line.index(">")]
            self.sink.mails.append(line)
            self.mailed = self.answer("mail", b"250 2.1.0 ok\r\n")
            self.named = False
        elif verb == "RCPT":
            self.recipient = line[line.index("<") + 1 : line.index(">")]
            early = self.sink.too_early(self.sender, self.recipient)
            if early:
                self.transport.write(b"451 4.7.1 greylisted, come again\r\n")
            elif self.mailed:
                self.named = self.answer("rcpt", b"250 2.1.5 ok\r\n")
            else:
                self.transport.write(b"503 5.5.1 MAIL first\r\n")
        elif verb == "STAR":
            self.answer("starttls", b"454 4.7.0 TLS not available\r\n")
        elif verb == "AUTH":
            self.answer("auth", b"235 2.7.0 welcome\r\n")
        elif verb == "DATA":
            if not self.named:
                self.transport.write(b"554 5.5.1 no valid recipients\r\n")
            elif self.answer("data", b"354 go\r\n"):
                self.in_data, self.body_passed = True, False
        elif verb == "QUIT":
            if self.answer("quit", b"221 2.0.0 bye\r\n"):
                self.transport.close()
        else:
            known = verb in ("RSET", "NOOP")
            if verb == "RSET":
                self.mailed = self.named = False
            self.transport.write(b"250 2.0.0 ok\r\n" if known else b"500 5.5.2 what?\r\n")

    def dot(self, body: bytes) -> None:
        self.mailed = self.named = False
        act = self.sink.act("dot")
        kept = act in (None, "kept", "held", "drip") or (act or "").startswith("=2")
        if self.sink.keep_bodies and kept:
            self.sink.bodies.append(body)
        self.sink.log.write(mail_taken(body, self.sender, self.recipient, kept=kept))
        if act is None:
            if self.sink.delay_s:
                self.deaf = True  # What comes next is answered next.
                asyncio.get_running_loop().call_later(self.sink.delay_s, self.answer_late)
            else:
                self.transport.write(b"250 2.0.0 queued\r\n")
        else:
            self.misbehave(act, b"250 2.0.0 queued\r\n")

    def answer(self, stage: str, usual: bytes) -> bool:
        """Give the usual answer or misbehave; return whether the client was told yes."""
        act = self.sink.act(stage)
        if act is None:
            self.transport.write(usual)
            return True
        self.misbehave(act, usual)
        return act == "drip" or act.startswith(("=2", "=3"))  # Odd as it is, it says yes.

    def misbehave(self, act: str, usual: bytes) -> None:
        if act in ("reset", "lost", "kept"):
            raw = self.transport.get_extra_info("socket")
            if raw is not None:
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.transport.abort()
        elif act == "close":
            self.transport.close()
        elif act in ("silent", "held"):
            self.deaf = True
        elif act == "drip":
            self.deaf = True
            asyncio.get_running_loop().create_task(self.drip(usual))
        elif act.startswith("="):
            text = act[1:].encode().replace(b"\\n", b"\r\n").replace(b"\\0", b"\0")
            self.transport.write(text + b"\r\n")
            if text.startswith(b"421"):
                self.transport.close()
        else:
            raise ValueError(f"no act {act!r}")

    def answer_late(self) -> None:
        self.transport.write(b"250 2.0.0 queued\r\n")
        self.deaf = False
        self.data_received(b"")

    async def drip(self, usual: bytes) -> None:
        for byte in usual:
            self.transport.write(bytes([byte]))
            await asyncio.sleep(1)
        self.deaf = False
        self.data_received(b"")


class TruthServer:
    """A sink in a thread of this process."""

    def __init__(self, sink: TruthSink, port: int = 0) -> None:
        self.sink = sink
        self.port = port
        self._loop: asyncio.AbstractEventLoop
        self._stop: asyncio.Event
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)

    def __enter__(self) -> TruthServer:
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *exc: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)

    async def _serve(self) -> None:
        sink = self.sink
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        door = socket.create_server(("127.0.0.1", self.port))
        if sink.receive_buffer is not None:
            door.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, sink.receive_buffer)
        server = await self._loop.create_server(lambda: _Session(sink), sock=door, ssl=sink.tls)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._stop.wait()
        server.close()
        for transport in list(sink.open):
            transport.abort()
        await asyncio.sleep(0)


async def _serve(port: int, sink: TruthSink, port_file: Path) -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    server = await loop.create_server(lambda: _Session(sink), "127.0.0.1", port)
    temporary = port_file.with_suffix(".new")
    temporary.write_text(str(server.sockets[0].getsockname()[1]))
    temporary.rename(port_file)
    await stop.wait()
    server.close()


def main() -> None:
    """Run a sink as a process."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--log", type=Path, required=True)
    parser.add_argument("--port-file", type=Path, required=True)
    parser.add_argument("--plan", nargs="*", default=[])
    parser.add_argument("--delay-ms", type=int, default=0)
    options = parser.parse_args()
    os.umask(0o077)
    sink = TruthSink(
        TruthLog(options.log), [Fault.read(text) for text in options.plan], delay_s=options.delay_ms / 1000
    )
    asyncio.run(_serve(options.port, sink, options.port_file))


if __name__ == "__main__":
    main()
