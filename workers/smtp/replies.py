"""Bytes from a server in, SMTP replies out; whatever the server says, memory stays bounded and nothing is guessed.

Source:
    RFC 5321 sections 4.2, 4.2.1 (multiline replies) and 4.5.3.1.5 (512 octets a line, of which servers take more).
"""

from __future__ import annotations

MAX_LINE = 4096
"""Octets of one line; the RFC allows 512."""
MAX_REPLY = 65_536
"""Octets of one reply with all its lines."""

Reply = tuple[int, bytes]
"""The code and the words after it; the lines of a multiline reply are joined by a line feed."""

_CODES = {b"%d" % code: code for code in range(200, 600)}
_LAST_LINES = {b"%d " % code: code for code in range(200, 600)}
"""How the line begins that is a whole reply by itself, as nearly all are."""


class ReplyReader:
    """Takes a connection's bytes as they come, in pieces of any size.

    A server that says something that is no reply is not asked what it meant: `broken` tells why, and nothing after
    that is read. Replies that came whole before it stand.
    """

    __slots__ = ("_code", "_lines", "_rest", "_size", "broken")

    def __init__(self) -> None:
        self._rest = b""
        self._lines: list[bytes] | None = None
        self._code = 0
        self._size = 0
        self.broken = ""

    @property
    def pending(self) -> bool:
        """Whether part of a reply has come and its end has not."""
        return bool(self._rest) or self._lines is not None

    def feed(self, data: bytes) -> list[Reply]:
        """Return the replies that these bytes complete."""
        if self.broken:
            return []
        if self._rest:
            data = self._rest + data
        lines = data.split(b"\n")  # Servers that end lines with LF alone are understood too.
        self._rest = lines.pop()
        replies: list[Reply] = []
        for line in lines:
            code = _LAST_LINES.get(line[:4])
            if code is not None and self._lines is None and len(line) <= MAX_LINE and line.endswith(b"\r"):
                replies.append((code, line[4:-1]))
                continue
            self._line(replies, line)
            if self.broken:
                return replies
        if len(self._rest) > MAX_LINE:
            self.broken = f"a line of more than {MAX_LINE} octets"
        return replies

    def _line(self, replies: list[Reply], line: bytes) -> None:
        code = _CODES.get(line[:3])
        if code is None or len(line) > MAX_LINE or line[3:4] not in (b" ", b"-", b"\r", b""):
            self.broken = _complaint(line)
        else:
            self._multiline(replies, code, line[4:].removesuffix(b"\r"), last=line[3:4] != b"-")

    def _multiline(self, replies: list[Reply], code: int, text: bytes, *, last: bool) -> None:
        if self._lines is None:
            self._lines, self._code, self._size = [], code, 0
        if code != self._code:
            self.broken = f"a reply that begins with {self._code} and goes on with {code}"
            return
        self._size += len(text) + 6
        if self._size > MAX_REPLY:
            self.broken = f"a reply of more than {MAX_REPLY} octets"
            return
        self._lines.append(text)
        if last:
            replies.append((code, b"\n".join(self._lines)))
            self._lines = None


def _complaint(line: bytes) -> str:
    return f"no SMTP reply: {words(line[:60])!r}"


def words(text: bytes) -> str:
    """Return a server's words as one line that may be stored and shown."""
    shown = text.decode("utf-8", "replace")
    if not shown.isprintable():
        shown = "".join(letter if letter.isprintable() else " " for letter in shown)
    return shown[:400].strip()
