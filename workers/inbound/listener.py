"""The door for returned mail: SMTP and LMTP on one port, open for bounce addresses we signed and for nothing else.

A recipient without a valid token is refused, so the door relays nothing and takes no backscatter. What is taken is in
the database before it is answered for.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import threading
from types import TracebackType
from typing import Any

import structlog
from aiosmtpd.smtp import SMTP, Envelope, Session
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from kernel.clock import Clock, system_clock
from kernel.errors import ConfigError
from kernel.ids import digest, host_name
from kernel.settings import Workspace
from kernel.signing import Signer
from store.engine import open_database, writing
from store.inbox import BOUNCE_SOURCE, put
from workers.inbound.receivers import receiving, smpp_receivers

log = structlog.get_logger(__name__)

MAIL_BYTES = 20 * 1024 * 1024
"""Whoever returns a whole message returns its attachments too."""
LINE_BYTES = 1024 * 1024
"""Mail systems exist that break the 998 of RFC 5322 in their reports, and return a whole HTML page in one line."""
_RECIPIENTS = 100
_START_S = 10.0


class _Door(SMTP):
    """SMTP that also understands LHLO, whose client wants one answer per recipient (RFC 2033 section 4.2)."""

    line_length_limit = LINE_BYTES
    command_size_limit = 1024
    lmtp = False

    async def smtp_LHLO(self, hostname: str) -> None:  # noqa: N802 - aiosmtpd finds commands by name
        """Greet an LMTP client."""
        await self.smtp_EHLO(hostname)
        self.lmtp = True


class _Handler:
    """Answers for recipients and mail."""

    def __init__(self, engine: Engine, signer: Signer, clock: Clock) -> None:
        self._engine = engine
        self._signer = signer
        self._clock = clock

    async def handle_RCPT(  # noqa: N802 - aiosmtpd's name and order
        self, _server: SMTP, _session: Session, envelope: Envelope, address: str, _options: list[str]
    ) -> str:
        """Take a bounce address we signed; anything else has no mailbox here."""
        if bounce_token(self._signer, address) is None:
            return "550 5.1.1 no such mailbox"
        if len(envelope.rcpt_tos) >= _RECIPIENTS:
            return "452 4.5.3 too many recipients"
        envelope.rcpt_tos.append(address)
        return "250 2.1.5 ok"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802 - as above
        """Keep the mail, then answer for it."""
        peer = session.peer[0] if isinstance(session.peer, tuple) else ""
        try:
            await asyncio.get_running_loop().run_in_executor(None, self._keep, envelope, peer)
        except SQLAlchemyError as error:
            log.error("bounce_not_kept", error=f"{type(error).__name__}: {error}")
            answer = "451 4.3.0 cannot keep it now, try again"
        else:
            answer = "250 2.0.0 kept"
        return "\r\n".join([answer] * len(envelope.rcpt_tos)) if getattr(server, "lmtp", False) else answer

    def _keep(self, envelope: Envelope, peer: str) -> None:
        raw: bytes = envelope.original_content or b""
        at = self._clock()
        with writing(self._engine) as connection:
            for recipient in envelope.rcpt_tos:
                put(
                    connection,
                    key=digest(BOUNCE_SOURCE, recipient.lower(), raw),
                    source=BOUNCE_SOURCE,
                    body=raw,
                    meta={"recipient": recipient, "sender": envelope.mail_from or "", "peer": peer},
                    received_at=at,
                )


def bounce_token(signer: Signer, address: str) -> int | None:
    """Return the message a bounce address belongs to, or None where it is not one of ours."""
    local = address.strip("<> ").partition("@")[0]
    name, plus, token = local.partition("+")
    signed = signer.verify_address(token) if plus and name.lower() == "bounce" else None
    return signed.message_id if signed else None


class BounceDoor:
    """The listener, in a thread of its own; a context manager. `port` is the real one once it is started."""

    def __init__(self, engine: Engine, signer: Signer, *, host: str, port: int, clock: Clock = system_clock) -> None:
        """Take where to listen; port 0 means any free one."""
        self.host = host
        self.port = port
        self._handler = _Handler(engine, signer, clock)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="bounce-door", daemon=True)
        self._server: asyncio.Server | None = None

    def start(self) -> None:
        """Listen.

        Raises:
            ConfigError: the port is taken or not ours to take.
        """
        self._thread.start()
        future = asyncio.run_coroutine_threadsafe(self._open(), self._loop)
        try:
            self._server = future.result(_START_S)
        except OSError as error:
            self.stop()
            raise ConfigError(
                f"inbound.smtp_port: cannot listen on {self.host}:{self.port}: {error.strerror or error}"
            ) from error
        self.port = self._server.sockets[0].getsockname()[1]

    def stop(self) -> None:
        """Listen no more; mail being received right now is not answered for, so its sender keeps it."""
        if self._thread.is_alive():
            asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(_START_S)
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(_START_S)
        self._loop.close()

    def __enter__(self) -> BounceDoor:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    async def _open(self) -> asyncio.Server:
        return await self._loop.create_server(self._connected, self.host, self.port)

    def _connected(self) -> Any:
        return _Door(
            self._handler,
            data_size_limit=MAIL_BYTES,
            enable_SMTPUTF8=True,
            hostname=host_name(),
            ident="Carillon",
            timeout=120,
            loop=self._loop,
        )

    async def _close(self) -> None:
        if self._server is not None:
            self._server.close()
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(*tasks, return_exceptions=True)
        await self._loop.shutdown_default_executor()


def serve_bounces(workspace: Workspace) -> None:
    """Receive returned mail on `inbound.host` and `inbound.smtp_port`, and SMS by SMPP, until SIGTERM or SIGINT.

    Raises:
        ConfigError: carillon.yaml names neither a port nor an SMPP gateway, or the port is taken.
    """
    from workers.app import ready_file

    inbound = workspace.settings.inbound
    if inbound.smtp_port is None and not smpp_receivers(workspace.settings):
        raise ConfigError("carillon.yaml names no `inbound: smtp_port`; set one, such as 2525, to receive bounces")
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    engine = open_database(workspace.database_url)
    try:
        with contextlib.ExitStack() as stack:
            stack.enter_context(receiving(workspace, engine))
            door = None
            if inbound.smtp_port is not None:
                door = BounceDoor(engine, workspace.signer(), host=inbound.host, port=inbound.smtp_port)
                stack.enter_context(door)
            ready_file(workspace.root, "inbound").write_text(str(os.getpid()), encoding="ascii")
            if door is not None:
                log.info("bounce_door_ready", host=door.host, port=door.port)
            stop.wait()
    finally:
        engine.dispose()
