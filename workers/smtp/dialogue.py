"""The dialogue that carries messages over one connection: bytes in, bytes out, and what became of each message.

With PIPELINING, the body of a message and MAIL, RCPT and DATA of the next leave in one write, so that a message costs
one round trip; the replies come back in the order of the commands. With CHUNKING, BDAT takes the place of DATA and
the dots. Without either, one command at a time. No sockets, no clock: `Crew` is whoever owns the connection.

The point of no return is the write that holds the final dot (or the last chunk): from the moment it is handed over,
only an answer can tell what became of the message. An answer that came before the dot was out answers something else.

Source:
    RFC 5321 sections 3.3, 4.1.1 and 4.2; RFC 1047; RFC 2920 section 3.1; RFC 3030 section 2.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum, auto
from typing import Protocol

from kernel.errors import GatewayDown, PermanentError, TransientError
from workers.smtp.envelopes import Envelopes, dot_stuffed
from workers.smtp.letters import Letter
from workers.smtp.meaning import Stage, is_closing, refusal, reply_text
from workers.smtp.offers import Offers
from workers.smtp.replies import ReplyReader

LARGE = 262_144
"""A body longer than this goes out before its last piece: while the rest has not left, nothing is in doubt."""
_LAST_PIECE = 1024


class Awaits(IntEnum):
    """Which reply comes next."""

    NOTHING = auto()
    RESET = auto()
    MAIL = auto()
    RCPT = auto()
    DATA = auto()
    ROOM = auto()
    """No reply: the larger part of a long body is to leave first."""
    DOT = auto()
    VOID_RCPT = auto()
    """The answer to RCPT behind a refused MAIL."""
    VOID_DATA = auto()
    """The answer to DATA behind a refusal: no body will follow."""
    VOID_DOT = auto()
    """The answer to a dot sent alone, because the server said 354 without a recipient (RFC 2920 section 3.1)."""


_MAIL, _RCPT, _DATA = Awaits.MAIL, Awaits.RCPT, Awaits.DATA
_STAGES = {
    Awaits.MAIL: Stage.MAIL,
    Awaits.RCPT: Stage.RCPT,
    Awaits.DATA: Stage.DATA,
    Awaits.ROOM: Stage.BODY,
    Awaits.DOT: Stage.DOT,
}


_HOPED = {Awaits.RESET: 2, Awaits.MAIL: 2, Awaits.RCPT: 2, Awaits.DATA: 3}
"""The first digit of the reply hoped for: it alone decides (RFC 5321 section 4.2.1)."""


class Crew(Protocol):
    """Whoever owns the connection: gives it letters and takes what became of them."""

    def take(self) -> Letter | None:
        """Return the next letter to be sent; None where there is none, or this connection has carried its share."""

    def commit(self, letter: Letter) -> bool:
        """Mark the point of no return; False: the letter may not be sent."""

    def accepted(self, letter: Letter, code: int, text: bytes) -> None:
        """The server took it over."""

    def decided(self, letter: Letter, error: PermanentError | TransientError) -> None:
        """It was not accepted, for a reason of its own."""

    def lost(self, letter: Letter, reason: str) -> None:
        """It may be out, and no answer will come."""

    def broken(self, reason: str) -> None:
        """The connection died under a letter, which was told apart."""

    def returned(self, letter: Letter) -> None:
        """It was not sent, and nothing is held against it."""

    def troubled(self, letter: Letter, down: GatewayDown, *, closing: bool) -> None:
        """The server refuses as a whole; the letter it said so to was not accepted.

        `closing`: it said so of this connection (421, or no word at all), not of the sender.
        """

    def pour(self, data: bytes) -> None:
        """Write a long body, and call `drained` once all of it has left this process."""

    def idle(self) -> None:
        """Nothing is left to be done on this connection."""

    def hang_up(self) -> None:
        """Close the connection now; `lost` follows or not, the dialogue is over."""


class Dialogue:
    """One connection's dialogue, from the moment the server takes MAIL."""

    __slots__ = (
        "_awaits", "_bdat", "_crew", "_envelopes", "_flying", "_letter", "_over", "_pipelined", "_reader",
        "_rest", "_served", "_void", "_write",
    )  # fmt: skip

    def __init__(
        self, crew: Crew, offers: Offers, write: Callable[[bytes], None], reader: ReplyReader, *, dsn: bool = False
    ) -> None:
        self._crew = crew
        self._write = write
        self._reader = reader
        self._envelopes = Envelopes(offers, dsn=dsn)
        self._pipelined = offers.pipelining
        self._bdat = offers.chunking
        self._awaits = Awaits.NOTHING
        self._letter: Letter | None = None
        """The letter whose envelope is out."""
        self._flying: Letter | None = None
        """The letter whose body is out; it alone can be in doubt."""
        self._rest = b""
        self._served = 0
        self._void = False
        """The letter whose envelope was pipelined has gone to another connection."""
        self._over = False

    @property
    def stage(self) -> Stage | None:
        """Whose answer is awaited; None where no letter waits for one."""
        return _STAGES.get(self._awaits)

    @property
    def flying(self) -> Letter | None:
        """The letter that may be out."""
        return self._flying

    @property
    def letter(self) -> Letter | None:
        """The letter whose envelope is out and whose body is not."""
        return self._letter

    @property
    def busy(self) -> bool:
        """Whether a reply is awaited."""
        return self._awaits is not Awaits.NOTHING

    def begin(self) -> bool:
        """Start with the next letter, if nothing else is under way; returns whether one is under way now."""
        if self._awaits is Awaits.NOTHING and not self._over:
            self._next(b"")
        return self._awaits is not Awaits.NOTHING

    def receive(self, data: bytes) -> bool:
        """Take bytes from the server; returns whether they completed a reply."""
        reader = self._reader
        replies = reader.feed(data)
        ahead = len(replies)
        for code, text in replies:
            ahead -= 1
            # The answers to a pipelined envelope that go well cost a comparison; `_reply` knows all the others.
            if code == 250 and self._awaits is _MAIL and self._pipelined:
                self._awaits = _RCPT
            elif code == 250 and self._awaits is _RCPT and self._pipelined and not self._bdat:
                self._awaits = _DATA
            else:
                self._reply(code, text, ahead > 0 or reader.pending)
                if self._over:
                    return True
        if reader.broken:
            self.fail(f"unintelligible answer: {reader.broken}")
        return bool(replies)

    def drained(self) -> None:
        """All that was written has left this process: a long body's last piece may follow."""
        if self._awaits is Awaits.ROOM and self._letter is not None:
            self._launch(self._letter, self._rest)

    def release(self) -> Letter | None:
        """Give the letter behind an unanswered dot to another connection; this one closes when the answer comes."""
        if self._awaits is not Awaits.DOT or self._letter is None:
            return None
        letter, self._letter, self._void = self._letter, None, True
        return letter

    def fail(self, reason: str) -> None:
        """The connection is gone or of no more use: tell the crew what that means for each letter; hang up."""
        if self._over:
            return
        self._over = True
        stage, awaits = self.stage, self._awaits
        self._awaits = Awaits.NOTHING
        flying, self._flying = self._flying, None
        letter, self._letter = self._letter, None
        if flying is not None:
            self._crew.lost(flying, f"no answer to the final dot: {reason}")
        if letter is not None:
            if flying is not None or awaits is Awaits.RESET or (awaits is Awaits.MAIL and self._served):
                self._crew.returned(letter)  # Nothing was heard of it yet: a fresh connection is free of charge.
            elif awaits is Awaits.MAIL:
                self._crew.troubled(letter, GatewayDown(f"connection lost at {stage}: {reason}"), closing=True)
            else:
                self._crew.decided(letter, TransientError(f"connection lost at {stage}: {reason}"))
                self._crew.broken(reason)
        if flying is not None:
            self._crew.broken(reason)
        self._crew.hang_up()

    # --- replies ---------------------------------------------------------------------------------------------

    def _reply(self, code: int, text: bytes, early: bool) -> None:
        """Handle one reply; `early` tells that the server has already said more than that."""
        awaits, letter = self._awaits, self._letter
        if awaits is Awaits.DOT and self._flying is not None:
            self._answered(self._flying, code, text)
        elif letter is None:
            self._aside(awaits, code, text)
        elif code // 100 == _HOPED.get(awaits):
            self._onward(awaits, letter, early)
        elif awaits is Awaits.RESET:
            self.fail(f"RSET refused: {reply_text(code, text)}")
        elif awaits is Awaits.MAIL and code == 503 and self._served:
            self._mail_out_of_turn(letter)
        else:
            self._refused(_STAGES[awaits], letter, code, text)

    def _onward(self, awaits: Awaits, letter: Letter, early: bool) -> None:
        """Handle the reply hoped for: what was said goes on, or has been pipelined already."""
        if awaits is Awaits.MAIL:
            self._awaits = Awaits.RCPT
            if not self._pipelined:
                self._write(self._envelopes.commands(letter.content)[1])
        elif awaits is Awaits.DATA or (awaits is Awaits.RCPT and self._bdat):
            self._body(letter, early)
        elif awaits is Awaits.RCPT:
            self._awaits = Awaits.DATA
            if not self._pipelined:
                self._write(b"DATA\r\n")
        else:
            self._awaits = Awaits.MAIL
            if not self._pipelined:
                self._write(self._envelopes.commands(letter.content)[0])

    def _aside(self, awaits: Awaits, code: int, text: bytes) -> None:
        """Handle replies that decide no letter."""
        if awaits is Awaits.VOID_DATA and 300 <= code < 400:
            self._awaits = Awaits.VOID_DOT
            self._write(b".\r\n")
        elif code == 421 or awaits is Awaits.NOTHING:
            # A farewell; or a word out of turn, after which nobody knows what the next one answers.
            self.fail(f"the relay says {reply_text(code, text)}")
        elif awaits is Awaits.VOID_RCPT and not self._bdat:
            self._awaits = Awaits.VOID_DATA
        elif awaits is Awaits.RESET:
            if 200 <= code < 300:
                self._next(b"")
            else:
                self.fail(f"RSET refused: {reply_text(code, text)}")
        else:
            self._next(b"RSET\r\n")

    def _answered(self, flying: Letter, code: int, text: bytes) -> None:
        """Handle the answer to the final dot."""
        if 200 <= code < 300:
            self._flying = None
            self._crew.accepted(flying, code, text)
        elif code < 400:
            self.fail(f"unreadable answer {reply_text(code, text)}")
            return
        else:
            self._flying = None
            verdict = refusal(Stage.DOT, code, text)
            if isinstance(verdict, GatewayDown):
                self._trouble(flying, verdict, closing=is_closing(code, text))
                return
            self._crew.decided(flying, verdict)
        self._served += 1
        if self._void:
            self._finish()
        elif self._letter is not None:
            self._awaits = Awaits.MAIL
        else:
            self._next(b"")

    def _mail_out_of_turn(self, letter: Letter) -> None:
        """Some servers hold on to a transaction that failed: RSET, and the same letter once more, free of charge."""
        self._letter = None
        self._served = 0
        self._crew.returned(letter)
        self._pass_over(Stage.MAIL)

    def _refused(self, stage: Stage, letter: Letter, code: int, text: bytes) -> None:
        """Handle a refusal before the final dot: the letter was not sent."""
        if code < 400 or (code == 421 and stage is Stage.MAIL and self._served):
            # Unreadable; or a relay that has had its fill of this connection.
            self.fail(f"the relay says {reply_text(code, text)}")
            return
        verdict = refusal(stage, code, text)
        if isinstance(verdict, GatewayDown):
            self._trouble(letter, verdict, closing=is_closing(code, text))
            return
        self._letter = None
        self._crew.decided(letter, verdict)
        if stage is Stage.BODY:
            self._finish()  # What has left of the body cannot be taken back, and there is no other way to end it.
        else:
            self._pass_over(stage)

    def _pass_over(self, stage: Stage) -> None:
        """After a refusal: wait for the replies to what was pipelined behind, then reset."""
        if self._pipelined and stage is Stage.MAIL:
            self._awaits = Awaits.VOID_RCPT
        elif self._pipelined and stage is Stage.RCPT and not self._bdat:
            self._awaits = Awaits.VOID_DATA
        else:
            self._next(b"RSET\r\n")

    def _trouble(self, letter: Letter, down: GatewayDown, *, closing: bool) -> None:
        """The server refuses as a whole: no letter is to blame."""
        waiting, self._letter = self._letter, None
        if waiting is not None and waiting is not letter:
            self._crew.returned(waiting)
        self._crew.troubled(letter, down, closing=closing)
        self._finish()

    # --- what is said ----------------------------------------------------------------------------------------

    def _next(self, prefix: bytes) -> None:
        """Say `prefix` (RSET or nothing) and the envelope of the next letter; or go idle."""
        envelope = self._envelope()
        if prefix:
            self._awaits = Awaits.RESET
            self._write(prefix + envelope if self._pipelined else prefix)
        elif self._letter is None:
            self._awaits = Awaits.NOTHING
            self._crew.idle()
        else:
            self._awaits = Awaits.MAIL
            self._write(envelope)

    def _envelope(self) -> bytes:
        """Take the next letter this server can carry; returns what to say of it first, b"" where there is none."""
        while True:
            letter = self._crew.take()
            if letter is None:
                return b""
            try:
                mail, rcpt = self._envelopes.commands(letter.content)
            except PermanentError as error:
                self._crew.decided(letter, error)
                continue
            self._letter = letter
            if not self._pipelined:
                return mail
            return mail + rcpt if self._bdat else mail + rcpt + b"DATA\r\n"

    def _body(self, letter: Letter, early: bool) -> None:
        if early:
            # What has come already cannot answer a dot that is not out yet.
            self.fail("the relay answers before it is asked")
            return
        data = letter.content.data
        body = b"BDAT %d LAST\r\n%b" % (len(data), data) if self._bdat else dot_stuffed(letter.content)
        if len(body) > LARGE:
            self._awaits = Awaits.ROOM
            self._rest = body[-_LAST_PIECE:]
            self._crew.pour(body[:-_LAST_PIECE])
        else:
            self._launch(letter, body)

    def _launch(self, letter: Letter, body: bytes) -> None:
        """Pass the point of no return."""
        self._rest = b""
        self._letter = None
        if not self._crew.commit(letter):
            self._crew.returned(letter)
            self._finish()
            return
        self._flying = letter
        self._awaits = Awaits.DOT
        self._write(body + self._envelope() if self._pipelined else body)

    def _finish(self) -> None:
        self._over = True
        self._awaits = Awaits.NOTHING
        self._crew.hang_up()
