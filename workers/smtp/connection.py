"""One connection: a socket around a handshake, then around a dialogue."""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol, cast

from kernel.errors import GatewayDown, OutcomeUnknown, PermanentError, TransientError
from workers.channels.port import Receipt
from workers.smtp.dialogue import Dialogue
from workers.smtp.handshake import START_TLS, Terms, greet
from workers.smtp.letters import Letter
from workers.smtp.meaning import reply_text
from workers.smtp.offers import Offers
from workers.smtp.replies import Reply, ReplyReader

LONGEST_LIFE_S = 300.0
"""After so long a connection is renewed. Source: Postfix's smtp_connection_reuse_time_limit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Relay:
    """Where to, and on what terms. `context` verifies certificates; None where there is no TLS."""

    host: str
    port: int
    context: ssl.SSLContext | None = field(repr=False)
    timeout_s: float
    final_timeout_s: float
    messages_per_connection: int
    connections: int
    dsn: bool
    renewable: bool = False
    """Whether a secret that is refused can be replaced by a fresh one."""

    @property
    def where(self) -> str:
        """Host and port, for people."""
        return f"{self.host}:{self.port}"


class Owner(Protocol):
    """The pool, as a connection sees it."""

    def take(self) -> Letter | None: ...
    def accepted(self, letter: Letter, receipt: Receipt) -> None: ...
    def decided(self, letter: Letter, error: PermanentError | TransientError | OutcomeUnknown) -> None: ...
    def returned(self, letter: Letter) -> None: ...
    def troubled(self, connection: Connection, letter: Letter, down: GatewayDown, *, closing: bool) -> None: ...
    def broken(self, reason: str) -> None: ...
    def heard(self) -> None: ...
    def idle(self, connection: Connection) -> None: ...
    def gone(self, connection: Connection) -> None: ...


class Connection(asyncio.Protocol):
    """A connection of a pool; the crew of its own dialogue."""

    def __init__(self, relay: Relay, owner: Owner, now: Callable[[], float]) -> None:
        self._relay = relay
        self._owner = owner
        self._now = now
        self._reader = ReplyReader()
        self._heard: deque[Reply] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self._transport: asyncio.Transport | None = None
        self._lost = ""
        self._carried = 0
        self._pouring = False
        self._ends_at = now() + LONGEST_LIFE_S
        self.since = now()
        """When a reply last came, or work began."""
        self.dialogue: Dialogue | None = None
        self.closed = False
        self.straggling = False
        """What it carries belongs to a batch that no longer waits for it."""

    # --- opening ---------------------------------------------------------------------------------------------

    async def greet(self, terms: Terms) -> Offers:
        """Do the handshake over a connection that stands. Raises GatewayDown."""
        steps = greet(terms)
        say = next(steps)
        try:
            while True:
                if say is START_TLS:
                    await self._encrypt()
                    say = steps.send((220, b""))
                else:
                    self._write(cast("bytes", say))
                    say = steps.send(await self._reply())
        except StopIteration as end:
            return cast("Offers", end.value)

    def carry(self, offers: Offers) -> None:
        """From now on this connection carries letters."""
        self.dialogue = Dialogue(self, offers, self._write, self._reader, dsn=self._relay.dsn)

    async def _encrypt(self) -> None:
        if self._transport is None or self._relay.context is None:
            raise GatewayDown("there is nothing to encrypt")
        encrypted = await asyncio.get_running_loop().start_tls(
            self._transport,
            self,
            self._relay.context,
            server_hostname=self._relay.host,
            ssl_handshake_timeout=self._relay.timeout_s,
        )
        if encrypted is None:
            raise GatewayDown("connection lost while TLS began")
        self._transport = encrypted
        # RFC 3207: what was said in clear is forgotten; a reply cut in two by the change of keys is an attack.
        self._reader = ReplyReader()

    async def _reply(self) -> Reply:
        """Return the next reply of the handshake. A server that says more than it was asked for is not trusted."""
        try:
            async with asyncio.timeout(self._relay.timeout_s):
                while not self._heard:
                    if self._lost:
                        raise GatewayDown(self._lost)
                    self._waiter = asyncio.get_running_loop().create_future()
                    await self._waiter
        except TimeoutError:
            raise GatewayDown(f"no answer within {self._relay.timeout_s:g} s") from None
        finally:
            self._waiter = None
        reply = self._heard.popleft()
        if self._heard or self._reader.pending:
            raise GatewayDown(f"the relay says more than it was asked, after {reply_text(*reply)}")
        return reply

    def _wake_handshake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # --- asyncio.Protocol ------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.Protocol."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        if self.dialogue is not None:
            # Part of a reply is none: who sends a byte a minute is silent.
            if self.dialogue.receive(data):
                self.since = self._now()
            self._owner.heard()
            return
        self._heard.extend(self._reader.feed(data))
        if self._reader.broken:
            self._lost = f"unintelligible answer: {self._reader.broken}"
        self._wake_handshake()

    def eof_received(self) -> bool:
        """See asyncio.Protocol; a server that closes its half has said its last word."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio.Protocol."""
        self.closed = True
        reason = f"{exc or 'the relay closed the connection'}"
        self._lost = self._lost or f"connection lost: {reason}"
        self._wake_handshake()
        if self.dialogue is not None:
            self.dialogue.fail(reason)
            self._owner.gone(self)

    def resume_writing(self) -> None:
        """See asyncio.Protocol."""
        if self._pouring and self.dialogue is not None and self._transport is not None:
            self._pouring = False
            self.since = self._now()
            self._transport.set_write_buffer_limits()
            self.dialogue.drained()

    # --- Crew ------------------------------------------------------------------------------------------------

    def take(self) -> Letter | None:
        """See Crew."""
        if self._carried >= self._relay.messages_per_connection or self.since >= self._ends_at or self.closed:
            return None
        letter = self._owner.take()
        if letter is not None:
            self._carried += 1
        return letter

    def commit(self, letter: Letter) -> bool:
        """See Crew."""
        return letter.batch.commit(letter)

    def accepted(self, letter: Letter, code: int, text: bytes) -> None:
        """See Crew."""
        self.straggling = False
        self._owner.accepted(letter, Receipt(reply=reply_text(code, text), code=code))

    def decided(self, letter: Letter, error: PermanentError | TransientError) -> None:
        """See Crew."""
        self.straggling = False
        self._owner.decided(letter, error)

    def lost(self, letter: Letter, reason: str) -> None:
        """See Crew."""
        self._owner.decided(letter, OutcomeUnknown(reason))

    def broken(self, reason: str) -> None:
        """See Crew."""
        self._owner.broken(reason)

    def returned(self, letter: Letter) -> None:
        """See Crew."""
        self._owner.returned(letter)

    def troubled(self, letter: Letter, down: GatewayDown, *, closing: bool) -> None:
        """See Crew."""
        self._owner.troubled(self, letter, down, closing=closing)

    def idle(self) -> None:
        """See Crew."""
        self._owner.idle(self)

    def pour(self, data: bytes) -> None:
        """See Crew."""
        if self._transport is None:
            return
        self._pouring = True
        self._transport.set_write_buffer_limits(high=0)
        self._transport.write(data)
        if not self._transport.get_write_buffer_size():
            asyncio.get_running_loop().call_soon(self.resume_writing)

    def hang_up(self) -> None:
        """See Crew; what is still to be written is thrown away."""
        if not self.closed:
            self.closed = True
            if self._transport is not None:
                self._transport.abort()

    # --- the pool's side -------------------------------------------------------------------------------------

    @property
    def worn(self) -> bool:
        """Whether it has carried its share, or lived long enough."""
        return self._carried >= self._relay.messages_per_connection or self._now() >= self._ends_at

    @property
    def flying(self) -> Letter | None:
        """The letter whose final dot is out and unanswered."""
        return None if self.dialogue is None else self.dialogue.flying

    def give_up(self, reason: str) -> None:
        """Wait for no answer any more."""
        if self.dialogue is not None:
            self.dialogue.fail(reason)

    def begin(self) -> bool:
        """Take up work, if there is any; returns whether there was."""
        self.since = self._now()
        return self.dialogue is not None and self.dialogue.begin()

    def say_goodbye(self) -> None:
        """QUIT, and close without waiting for an answer: the messages have long been taken over (RFC 5321 6.1)."""
        if not self.closed:
            self.closed = True
            if self._transport is not None:
                self._transport.write(b"QUIT\r\n")
                self._transport.close()

    def _write(self, data: bytes) -> None:
        if data and self._transport is not None:
            self._transport.write(data)
