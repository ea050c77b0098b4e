"""A real SMTP server that counts, keeps the truth on disk before it answers, and misbehaves on demand.

What it does to a message is written in the recipient's local part, as `<fault>+<anything>@…`:

    rcpt550 rcptfull rcptroute rcpt450 rcpt421 rcptpolicy rcptdrop        at RCPT
    mail451                                             (in the sender's local part) at MAIL
    data451 data554 datadrop                            at DATA
    body450 body550 bodypolicy body421 bodygarbage      after the final dot: refused
    dotdrop                                             after the final dot: connection closed without a word (kept)
    dotlose                                             the same, but the message is not kept
    once450                                             450 at the first RCPT for this address, accepted afterwards

Run as a process: python -m tests.servers.smtp_sink --port 0 --log FILE [--port-file FILE]
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import hmac
import os
import re
import signal
import socket
import ssl
import struct
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests.servers.smtp_faults import REPLIES as FAULT_REPLIES
from tests.servers.smtp_faults import fault_of

_MESSAGE_ID = re.compile(rb"^message-id:\s*(<[^>\r\n]+>)", re.IGNORECASE | re.MULTILINE)
_REPLIES = {
    "rcpt550": b"550 5.1.1 no such user\r\n",
    "rcptfull": b"550 5.2.2 over quota\r\n",
    "rcptroute": b"550 5.4.4 no route\r\n",
    "rcpt450": b"450 4.2.1 try later\r\n",
    "rcpt421": b"421 4.3.2 closing\r\n",
    "rcptpolicy": b"550 5.7.26 sender not authenticated\r\n",
    "data451": b"451 4.3.0 try later\r\n",
    "data554": b"554 5.6.0 no\r\n",
    "body450": b"450 4.2.0 try later\r\n",
    "body550": b"550 5.6.0 content refused\r\n",
    "body421": b"421 4.3.2 closing\r\n",
    "bodypolicy": b"550 5.7.515 authentication level\r\n",
    "bodygarbage": b"hello there\r\n",
}


@dataclass
class Sink:
    """What all connections share, and how the server behaves.

    `faults` maps a stage of tests.servers.smtp_faults to an action: `rst`, `close`, `silence`, or the name of a reply;
    `fault_times` says how often it is done before the server is well again. `violations` holds what a client did that
    it may not do.
    """

    log: Path | None = None
    folder: Path | None = None
    extensions: tuple[bytes, ...] = (b"PIPELINING", b"SIZE 10485760", b"8BITMIME", b"SMTPUTF8")
    banner: bytes = b"220 sink ESMTP\r\n"
    esmtp: bool = True
    auth: tuple[str, str] | None = None
    mechanisms: bytes = b"PLAIN LOGIN"
    tls: ssl.SSLContext | None = None
    starttls: bytes = b"220 go on\r\n"
    close_after: int | None = None
    farewell_after: int | None = None
    """After so many messages of a connection MAIL is answered with 421."""
    most_connections: int | None = None
    faults: dict[str, str] = field(default_factory=dict)
    fault_times: int | None = None
    data_without_recipient: bytes = b"354 go\r\n"
    byte_by_byte: bool = False
    accepted: list[tuple[str, str, str]] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    keep_bodies: bool = True
    connections: int = 0
    most_at_once: int = 0
    seen_once: set[str] = field(default_factory=set)
    answers_quit: bool = True
    ponders_s: float = 0.0
    """How long it thinks before it answers a final dot."""
    ponders_over: str = ""
    """If not empty, it thinks only over messages to this domain."""
    answer_now: threading.Event | None = None
    """If set, dots of `ponders_over` are answered once this is set, however long that takes."""
    commands: list[str] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)
    open: set[asyncio.Transport] = field(default_factory=set)
    _file: int | None = None

    def keep(self, message_id: str, sender: str, recipient: str, body: bytes) -> None:
        """Write the acceptance down before the client hears of it."""
        if self.log is not None:
            if self._file is None:
                self._file = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            os.write(self._file, f"{message_id}\t{sender}\t{recipient}\n".encode())
        else:
            self.accepted.append((message_id, sender, recipient))
            if self.keep_bodies:
                self.bodies.append(body)
        if self.folder is not None:
            (self.folder / f"{len(list(self.folder.iterdir())):06d}.eml").write_bytes(body)

    def offers(self, keyword: bytes) -> bool:
        """Whether an extension is offered."""
        return any(line.split()[0] == keyword for line in self.extensions)

    def action_at(self, stage: str) -> str:
        """Return what `faults` orders at a stage now; "" for nothing."""
        action = self.faults.get(stage, "")
        if action and self.fault_times is not None:
            self.fault_times -= 1
            if self.fault_times < 0:
                return ""
        return action


class Session(asyncio.Protocol):
    """One connection."""

    def __init__(self, sink: Sink) -> None:
        self.sink = sink
        self.buffer = b""
        self.in_data = self.paused = self.silent = False
        self.chunk: tuple[int, bool] | None = None
        self.body = b""
        self.sender = self.recipient = ""
        self.begun = self.has_recipient = False
        self.messages = self.trickled = 0
        self.answers: deque[Callable[[str], None]] = deque()
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        sink = self.sink
        sink.connections += 1
        sink.open.add(transport)
        sink.most_at_once = max(sink.most_at_once, len(sink.open))
        if self.misbehaves("connect") or self.misbehaves("banner"):
            return
        if sink.most_connections is not None and len(sink.open) > sink.most_connections:
            self.write(b"421 4.7.0 too many connections\r\n")
            transport.close()
            return
        self.write(sink.banner)
        if not sink.banner.startswith(b"220"):
            transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self.sink.open.discard(self.transport)

    def data_received(self, data: bytes) -> None:
        self.buffer = b"" if self.silent else self.buffer + data
        while not (self.paused or self.silent or self.transport.is_closing()):
            if self.in_data:
                if not self.read_body():
                    return
            elif self.chunk is not None:
                if not self.read_chunk(*self.chunk):
                    return
            else:
                end = self.buffer.find(b"\r\n")
                if end < 0:
                    return
                line, self.buffer = self.buffer[:end], self.buffer[end + 2 :]
                if self.buffer and not self.sink.offers(b"PIPELINING") and not line.upper().startswith(b"BDAT"):
                    self.sink.violations.append(f"pipelined behind {line!r}")
                self.command(line.decode("utf-8", "surrogateescape"))

    def read_body(self) -> bool:
        if self.buffer and self.misbehaves("body", self.recipient):
            return False
        end = 0 if self.buffer.startswith(b".\r\n") else self.buffer.find(b"\r\n.\r\n")
        if end < 0:
            return False
        skip = 3 if end == 0 and self.buffer.startswith(b".\r\n") else 5
        body, self.buffer = self.buffer[:end] + (b"\r\n" if skip == 5 else b""), self.buffer[end + skip :]
        self.in_data = False
        if body.startswith(b".."):
            body = body[1:]
        self.finish(body.replace(b"\r\n..", b"\r\n."))
        return True

    def read_chunk(self, octets: int, last: bool) -> bool:
        if len(self.buffer) < octets:
            return False
        self.body += self.buffer[:octets]
        self.buffer = self.buffer[octets:]
        self.chunk = None
        if not self.has_recipient:
            self.body = b""
            self.write(b"503 5.5.1 no recipient\r\n")
        elif last:
            body, self.body = self.body, b""
            self.finish(body)
        else:
            self.write(b"250 2.0.0 chunk taken\r\n")
        return True

    def write(self, data: bytes) -> None:
        """Write an answer, one byte a write if the sink is slow of speech."""
        if not self.sink.byte_by_byte:
            self.transport.write(data)
            return
        for position in range(len(data)):
            self.transport.write(data[position : position + 1])

    def misbehaves(self, stage: str, address: str = "") -> bool:
        """Do what is ordered at this stage; returns whether anything was."""
        asked_at, action = fault_of(address)
        if asked_at != stage:
            action = self.sink.action_at(stage)
        if not action:
            return False
        if action == "rst":
            # With no lingering, closing sends RST.
            socket_ = self.transport.get_extra_info("socket")
            socket_.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.transport.abort()
        elif action == "close":
            self.transport.close()
        elif action == "silence":
            self.silent = True
        elif action == "trickle":
            self.silent = True
            self.trickle()
        else:
            self.write(FAULT_REPLIES[action])
            if stage == "body":
                self.silent = True  # It goes on reading, or closing would take its words back.
            elif action == "421" or stage in ("banner", "connect"):
                self.transport.close()
        return True

    def trickle(self) -> None:
        """Go on for ever with a reply that never ends, a byte at a time."""
        if not self.transport.is_closing():
            self.transport.write(b"250-"[self.trickled % 4 :][:1] if self.trickled < 4 else b"a")
            self.trickled += 1
            asyncio.get_running_loop().call_later(0.05, self.trickle)

    def command(self, line: str) -> None:
        if self.answers:
            self.answers.popleft()(line)
            return
        verb = line[:4].upper()
        self.sink.commands.append(line)
        if verb == "EHLO":
            self.ehlo()
        elif verb == "AUTH":
            self.authenticate(line)
        elif verb == "STAR":
            self.write(self.sink.starttls)
        elif verb == "MAIL":
            self.mail(line)
        elif verb == "RCPT":
            self.rcpt(line)
        elif verb == "DATA":
            self.data()
        elif verb == "BDAT":
            _, octets, *rest = line.split()
            self.chunk = (int(octets), bool(rest))
        elif verb == "QUIT":
            if self.misbehaves("quit"):
                return
            if self.sink.answers_quit:
                self.write(b"221 bye\r\n")
                self.transport.close()
        elif verb in ("RSET", "NOOP", "HELO"):
            self.begun = self.has_recipient = False
            self.write(b"250 ok\r\n")
        else:
            self.write(b"500 5.5.2 what?\r\n")

    def ehlo(self) -> None:
        if self.misbehaves("ehlo"):
            return
        if not self.sink.esmtp:
            self.write(b"502 5.5.1 what?\r\n")
            return
        extra = ((b"AUTH " + self.sink.mechanisms,) if self.sink.auth else ()) + self.sink.extensions
        lines = [b"sink", *extra]
        self.write(b"".join(b"250%s%s\r\n" % (b" " if i == len(lines) - 1 else b"-", t) for i, t in enumerate(lines)))

    def authenticate(self, line: str) -> None:
        """PLAIN and XOAUTH2 with an initial response, LOGIN and CRAM-MD5 in steps."""
        mechanism, _, initial = line[5:].partition(" ")
        user, secret = self.sink.auth or ("", "")
        challenge = b"<1.2@sink>"
        expected = {
            "PLAIN": [f"\0{user}\0{secret}"],
            "XOAUTH2": [f"user={user}\x01auth=Bearer {secret}\x01\x01"],
            "LOGIN": [user, secret],
            "CRAM-MD5": [f"{user} {hmac.new(secret.encode(), challenge, 'md5').hexdigest()}"],
        }[mechanism.upper()]
        prompts = {"LOGIN": [b"Username:", b"Password:"], "CRAM-MD5": [challenge]}.get(mechanism.upper(), [b""])
        given: list[str] = []

        def answer(said: str) -> None:
            given.append(base64.b64decode(said).decode())
            if len(given) < len(expected):
                self.write(b"334 " + base64.b64encode(prompts[len(given)]) + b"\r\n")
                self.answers.append(answer)
            elif given == expected:
                self.write(b"235 2.7.0 welcome\r\n")
            elif mechanism.upper() == "XOAUTH2":
                self.write(b"334 " + base64.b64encode(b'{"status":"400"}') + b"\r\n")
                self.answers.append(lambda said: self.write(b"535 5.7.8 wrong\r\n"))
            else:
                self.write(b"535 5.7.8 wrong\r\n")

        if initial:
            answer(initial)
        else:
            self.write(b"334 " + base64.b64encode(prompts[0]) + b"\r\n")
            self.answers.append(answer)

    def mail(self, line: str) -> None:
        self.sender = line[line.index("<") + 1 : line.index(">")]
        self.recipient = ""
        if self.begun:
            self.write(b"503 5.5.1 nested MAIL\r\n")
        elif self.misbehaves("mail", self.sender):
            pass
        elif self.sink.close_after is not None and self.messages >= self.sink.close_after:
            self.transport.close()
        elif self.sink.farewell_after is not None and self.messages >= self.sink.farewell_after:
            self.write(b"421 4.7.0 enough for one connection\r\n")
            self.transport.close()
        elif self.sender.startswith("mail451"):
            self.write(b"451 4.3.2 overloaded\r\n")
        else:
            self.begun = True
            self.write(b"250 2.1.0 ok\r\n")

    def fault(self) -> str:
        return self.recipient.partition("+")[0]

    def rcpt(self, line: str) -> None:
        self.recipient = line[line.index("<") + 1 : line.index(">")]
        fault = self.fault()
        if not self.begun:
            self.write(b"503 5.5.1 MAIL first\r\n")
        elif self.misbehaves("rcpt", self.recipient):
            pass
        elif fault == "rcptdrop":
            self.transport.close()
        elif fault == "once450" and self.recipient not in self.sink.seen_once:
            self.sink.seen_once.add(self.recipient)
            self.write(b"450 4.7.1 greylisted\r\n")
        elif fault.startswith("rcpt"):
            self.write(_REPLIES[fault])
            if fault == "rcpt421":
                self.transport.close()
        else:
            self.has_recipient = True
            self.write(b"250 2.1.5 ok\r\n")

    def data(self) -> None:
        fault = self.fault()
        if not self.begun:
            self.write(b"503 5.5.1 MAIL first\r\n")
        elif not self.has_recipient:
            self.write(self.sink.data_without_recipient)
            self.in_data = self.sink.data_without_recipient.startswith(b"354")
        elif self.misbehaves("data", self.recipient):
            pass
        elif fault == "datadrop":
            self.transport.close()
        elif fault.startswith("data"):
            self.write(_REPLIES[fault])
        else:
            self.write(b"354 go\r\n")
            self.in_data = True

    def finish(self, body: bytes) -> None:
        fault, has_recipient = self.fault(), self.has_recipient
        self.begun = self.has_recipient = False
        if not has_recipient:
            if body:
                self.sink.violations.append("a body without a recipient")
            self.write(b"554 5.5.1 no valid recipients\r\n")
            return
        self.messages += 1
        if self.misbehaves("dot", self.recipient):
            return
        if fault == "dotlose":
            self.transport.close()
            return
        if fault.startswith("body"):
            self.write(_REPLIES[fault])
            if fault == "body421":
                self.transport.close()
            return
        found = _MESSAGE_ID.search(body)
        self.sink.keep(found[1].decode() if found else "", self.sender, self.recipient, body)
        if self.misbehaves("kept", self.recipient):
            return
        if fault == "dotdrop":
            self.transport.close()
            return
        self.accept(b"250 2.0.0 queued as %d\r\n" % self.messages)

    def accept(self, answer: bytes) -> None:
        """Say yes to a message: at once, or after pondering, reading nothing meanwhile."""
        sink = self.sink
        if not self.recipient.endswith(sink.ponders_over) or not (sink.ponders_s or sink.answer_now):
            self.write(answer)
            return
        loop = asyncio.get_running_loop()
        self.paused = True

        def go_on() -> None:
            if sink.answer_now is not None and not sink.answer_now.is_set():
                loop.call_later(0.01, go_on)
                return
            self.paused = False
            if not self.transport.is_closing():
                self.write(answer)
                self.data_received(b"")

        loop.call_later(sink.ponders_s, go_on)


class SinkServer:
    """A sink in a thread of this process."""

    def __init__(self, sink: Sink, port: int = 0) -> None:
        self.sink = sink
        self.port = port
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> SinkServer:
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *exc: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    def _run(self) -> None:
        async def listen() -> asyncio.Server:
            return await self._loop.create_server(lambda: Session(self.sink), "127.0.0.1", self.port, ssl=self.sink.tls)

        server = self._loop.run_until_complete(listen())
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        self._loop.run_forever()
        server.close()
        for transport in list(self.sink.open):
            transport.abort()
        self._loop.run_until_complete(asyncio.sleep(0))
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        self._loop.close()


async def _serve(port: int, sink: Sink, say: Callable[[int], None]) -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    server = await loop.create_server(lambda: Session(sink), "127.0.0.1", port)
    say(server.sockets[0].getsockname()[1])
    await stop.wait()
    server.close()


def main() -> None:
    """Run a sink as a process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--log", type=Path)
    parser.add_argument("--port-file", type=Path)
    options = parser.parse_args()

    def say(port: int) -> None:
        if options.port_file:
            temporary = options.port_file.with_suffix(".new")
            temporary.write_text(str(port))
            temporary.rename(options.port_file)
        else:
            print(port, flush=True)

    asyncio.run(_serve(options.port, Sink(log=options.log, keep_bodies=False), say))


if __name__ == "__main__":
    main()
