"""A local mail server that keeps what it receives: one .eml file a message, and an index of envelopes.

It speaks real SMTP and hands nothing on. Some addresses it refuses for good, some it puts off once, as servers of
the world do; which ones, its owner says.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from email import message_from_bytes, policy
from email.message import EmailMessage
from email.parser import BytesHeaderParser
from pathlib import Path
from typing import Any

from aiosmtpd.smtp import SMTP, Envelope, Session

UNKNOWN_USER = "550 5.1.1 The email account that you tried to reach does not exist"
GREYLISTED = "451 4.7.1 Greylisted, please try again later"

AddressTest = Callable[[str], bool]
"""Says whether something is so about a recipient's address."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """One accepted message; `number` counts from 1 in the order of arrival."""

    number: int
    file: str
    mail_from: str
    rcpt_to: str
    message_id: str
    subject: str


class Mailbox:
    """What a running mail server has received. Safe to read from other threads."""

    def __init__(self, folder: Path, *, refuses: AddressTest, defers_once: AddressTest) -> None:
        """Keep messages in `folder`, made if need be.

        Args:
            folder: Where .eml files and index.jsonl go.
            refuses: Addresses that get a 550 at RCPT.
            defers_once: Addresses whose first RCPT gets a 451.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.port = 0
        self.refused: list[str] = []
        self.deferred: set[str] = set()
        self._refuses = refuses
        self._defers_once = defers_once
        self._received: list[Received] = []
        self._arrived = threading.Condition()
        self._index = (folder / "index.jsonl").open("a", encoding="utf-8", buffering=1)
        self._headers = BytesHeaderParser(policy=policy.default)

    def messages(self, after: int = 0) -> list[Received]:
        """Return what was received, without the first `after` messages."""
        with self._arrived:
            return self._received[after:]

    def wait_for(self, count: int, timeout_s: float) -> bool:
        """Wait until `count` messages are here in all; return whether they are."""
        with self._arrived:
            return self._arrived.wait_for(lambda: len(self._received) >= count, timeout_s)

    def read(self, received: Received) -> EmailMessage:
        """Return a message parsed."""
        parsed = message_from_bytes(self.raw(received), policy=policy.default)
        if not isinstance(parsed, EmailMessage):
            raise TypeError(f"{received.file} is no e-mail message")
        return parsed

    def raw(self, received: Received) -> bytes:
        """Return the bytes of a message, as they came over the wire, without dot-stuffing."""
        return (self.folder / received.file).read_bytes()

    def close(self) -> None:
        """Close the index; nothing is received after this."""
        self._index.close()

    # The methods below are called by aiosmtpd, in its loop; their names are its own.

    async def handle_RCPT(  # noqa: N802 - aiosmtpd's name
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        """Answer a recipient."""
        if self._refuses(address):
            self.refused.append(address)
            return UNKNOWN_USER
        if self._defers_once(address) and address not in self.deferred:
            self.deferred.add(address)
            return GREYLISTED
        envelope.rcpt_tos.append(address)
        envelope.rcpt_options.extend(options)
        return "250 2.1.5 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802 - aiosmtpd's name
        """Keep a message."""
        content = envelope.content
        raw = content if isinstance(content, bytes) else str(content).encode()
        headers = self._headers.parsebytes(raw)
        with self._arrived:
            number = len(self._received) + 1
            received = Received(
                number=number,
                file=f"{number:06d}.eml",
                mail_from=(envelope.mail_from or "").strip("<>"),
                rcpt_to=",".join(envelope.rcpt_tos),
                message_id=str(headers.get("Message-ID", "")).strip(),
                subject=str(headers.get("Subject", "")),
            )
            (self.folder / received.file).write_bytes(raw)
            self._index.write(json.dumps(asdict(received), ensure_ascii=False) + "\n")
            self._received.append(received)
            self._arrived.notify_all()
        return f"250 2.0.0 OK kept as {received.file}"


@contextmanager
def running_mailbox(
    folder: Path,
    *,
    port: int = 0,
    refuses: AddressTest = lambda _address: False,
    defers_once: AddressTest = lambda _address: False,
) -> Iterator[Mailbox]:
    """Run a mailbox on 127.0.0.1, in a thread of its own; port 0 takes a free one, told in `port`."""
    mailbox = Mailbox(folder, refuses=refuses, defers_once=defers_once)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="mailbox", daemon=True)
    thread.start()
    server: asyncio.Server | None = None
    try:
        server = asyncio.run_coroutine_threadsafe(_listen(mailbox, port), loop).result(10)
        mailbox.port = int(server.sockets[0].getsockname()[1])
        yield mailbox
    finally:
        if server is not None:
            asyncio.run_coroutine_threadsafe(_stop(server), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()
        mailbox.close()


async def _listen(mailbox: Mailbox, port: int) -> asyncio.Server:
    loop = asyncio.get_running_loop()

    def protocol() -> Any:
        return SMTP(mailbox, hostname="mailbox.example", ident="Carillon demo mailbox", enable_SMTPUTF8=True, loop=loop)

    return await loop.create_server(protocol, "127.0.0.1", port)


async def _stop(server: asyncio.Server) -> None:
    """Close the port and end every connection's task, so that none is destroyed while pending."""
    server.close()
    others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
    await server.wait_closed()
