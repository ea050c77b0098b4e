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
import os
import re
import signal
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

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
    """What all connections share."""

    log: Path | None = None
    folder: Path | None = None
    extensions: tuple[bytes, ...] = (b"PIPELINING", b"SIZE 10485760", b"8BITMIME", b"SMTPUTF8")
    banner: bytes = b"220 sink ESMTP\r\n"
    auth: tuple[str, str] | None = None
    tls: ssl.SSLContext | None = None
    close_after: int | None = None
    accepted: list[tuple[str, str, str]] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    keep_bodies: bool = True
    connections: int = 0
    seen_once: set[str] = field(default_factory=set)
    answers_quit: bool = True
    ponders_s: float = 0.0
    """How long it thinks before it answers a final dot."""
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


class Session(asyncio.Protocol):
    """One connection."""

    def __init__(self, sink: Sink) -> None:
        self.sink = sink
        self.buffer = b""
        self.in_data = self.paused = False
        self.sender = self.recipient = ""
        self.messages = 0
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.sink.connections += 1
        self.sink.open.add(transport)
        transport.write(self.sink.banner)
        if not self.sink.banner.startswith(b"220"):
            transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self.sink.open.discard(self.transport)

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while not self.paused:
            if self.in_data:
                end = 0 if self.buffer.startswith(b".\r\n") else self.buffer.find(b"\r\n.\r\n")
                if end < 0:
                    return
                skip = 3 if end == 0 and self.buffer.startswith(b".\r\n") else 5
                body, self.buffer = self.buffer[:end] + b"\r\n", self.buffer[end + skip :]
                self.in_data = False
                self.finish(body.replace(b"\r\n..", b"\r\n."))
            else:
                end = self.buffer.find(b"\r\n")
                if end < 0:
                    return
                line, self.buffer = self.buffer[:end], self.buffer[end + 2 :]
                self.command(line.decode("utf-8", "surrogateescape"))
            if self.transport.is_closing():
                return

    def command(self, line: str) -> None:
        verb = line[:4].upper()
        if verb == "EHLO":
            extra = ((b"AUTH PLAIN LOGIN",) if self.sink.auth else ()) + self.sink.extensions
            lines = [b"sink", *extra]
            self.transport.write(
                b"".join(b"250%s%s\r\n" % (b" " if i == len(lines) - 1 else b"-", t) for i, t in enumerate(lines))
            )
        elif verb == "AUTH":
            self.authenticate(line)
        elif verb == "MAIL":
            self.mail(line)
        elif verb == "RCPT":
            self.rcpt(line)
        elif verb == "DATA":
            self.data()
        elif verb == "QUIT":
            if self.sink.answers_quit:
                self.transport.write(b"221 bye\r\n")
                self.transport.close()
        elif verb in ("RSET", "NOOP", "HELO"):
            self.transport.write(b"250 ok\r\n")
        else:
            self.transport.write(b"500 5.5.2 what?\r\n")

    def authenticate(self, line: str) -> None:
        import base64

        parts = line.split()
        good = self.sink.auth and len(parts) == 3 and parts[1].upper() == "PLAIN"
        if good and base64.b64decode(parts[2]).decode().split("\0")[1:] == list(self.sink.auth or ()):
            self.transport.write(b"235 2.7.0 welcome\r\n")
        else:
            self.transport.write(b"535 5.7.8 wrong\r\n")

    def mail(self, line: str) -> None:
        self.sender = line[line.index("<") + 1 : line.index(">")]
        if self.sink.close_after is not None and self.messages >= self.sink.close_after:
            self.transport.close()
        elif self.sender.startswith("mail451"):
            self.transport.write(b"451 4.3.2 overloaded\r\n")
        else:
            self.transport.write(b"250 2.1.0 ok\r\n")

    def fault(self) -> str:
        return self.recipient.partition("+")[0]

    def rcpt(self, line: str) -> None:
        self.recipient = line[line.index("<") + 1 : line.index(">")]
        fault = self.fault()
        if fault == "rcptdrop":
            self.transport.close()
        elif fault == "once450" and self.recipient not in self.sink.seen_once:
            self.sink.seen_once.add(self.recipient)
            self.transport.write(b"450 4.7.1 greylisted\r\n")
        elif fault.startswith("rcpt"):
            self.transport.write(_REPLIES[fault])
            if fault == "rcpt421":
                self.transport.close()
        else:
            self.transport.write(b"250 2.1.5 ok\r\n")

    def data(self) -> None:
        fault = self.fault()
        if fault == "datadrop":
            self.transport.close()
        elif fault.startswith("data"):
            self.transport.write(_REPLIES[fault])
        else:
            self.transport.write(b"354 go\r\n")
            self.in_data = True

    def finish(self, body: bytes) -> None:
        fault = self.fault()
        self.messages += 1
        if fault == "dotlose":
            self.transport.close()
            return
        if fault.startswith("body"):
            self.transport.write(_REPLIES[fault])
            if fault == "body421":
                self.transport.close()
            return
        found = _MESSAGE_ID.search(body)
        self.sink.keep(found[1].decode() if found else "", self.sender, self.recipient, body)
        if fault == "dotdrop":
            self.transport.close()
        elif self.sink.ponders_s:
            self.pause(self.sink.ponders_s, b"250 2.0.0 queued as %d\r\n" % self.messages)
        else:
            self.transport.write(b"250 2.0.0 queued as %d\r\n" % self.messages)

    def pause(self, seconds: float, answer: bytes) -> None:
        """Answer later, and read nothing meanwhile: the replies keep their order."""

        def go_on() -> None:
            self.paused = False
            if not self.transport.is_closing():
                self.transport.write(answer)
                self.data_received(b"")

        self.paused = True
        asyncio.get_running_loop().call_later(seconds, go_on)


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
