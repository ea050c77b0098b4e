"""Pieces of a body in quoted-printable that may stand in any order, so that what is fixed is encoded once.

A piece begins at the start of a line and ends in a line break, of the text's own or a soft one (`=` before it). Joined,
pieces are one quoted-printable text. More is promised than RFC 2045 section 6.7 wants: no line begins with a full stop
(SMTP has nothing to stuff), no white space stands beside white space or before a line break, and there are no tabs (the
relaxed body of DKIM is the body itself, RFC 6376 section 3.4.4).
"""

from __future__ import annotations

import re

SOFT = b"=\r\n"
_EQUALS = ord("=")
MOST = 75
"""Characters before a soft line break's `=`; RFC 2045 allows lines of 76."""
_EARLIEST = 40
"""A line is broken after a space where one stands beyond this column."""
_UNSAFE = re.compile(rb"[^\n -<>-~]| (?=\n)|  ")
_CODED = {bytes([code]): b"=%02X" % code for code in range(256)} | {b"  ": b" =20"}
_PLAIN = bytes([10, *range(32, 127)])


def quoted(raw: bytes) -> bytes:
    r"""Return a piece.

    Args:
        raw: UTF-8 with lines ended by \n; may end within a line.
    """
    if not raw:
        return b""
    out: list[bytes] = []
    lines = _coded(raw).split(b"\n")
    last = lines.pop()
    for line in lines:
        _wrap(line, out)
        out.append(b"\r\n")
    if last:
        _wrap(last, out)
        out.append(SOFT)
    return b"".join(out)


def _coded(raw: bytes) -> bytes:
    """Return the text with every octet in code that cannot stand as it is."""
    if raw.translate(None, _PLAIN):
        return _UNSAFE.sub(lambda found: _CODED[found[0]], raw)
    return raw.replace(b"=", b"=3D").replace(b"  ", b" =20").replace(b" \n", b"=20\n")


def _wrap(line: bytes, out: list[bytes]) -> None:
    """Append a line in parts of at most 75 characters, all but the last with a soft break."""
    start, length = 0, len(line)
    while True:
        room = MOST
        if line.startswith(b".", start):
            out.append(b"=2E")
            start += 1
            room -= 3
        if length - start <= room:
            out.append(line[start:])
            return
        end = line.rfind(b" ", start + _EARLIEST, start + room) + 1 or start + room
        if line[end - 1] == _EQUALS:
            end -= 1
        elif line[end - 2] == _EQUALS:
            end -= 2
        out += (line[start:end], SOFT)
        start = end


def quoted_value(text: str) -> bytes:
    """Return a piece that holds a short value. The same as `quoted`, faster for what most values are: plain ASCII.

    Raises:
        UnicodeEncodeError: half a surrogate pair.
    """
    if (
        len(text) < MOST
        and text.isascii()
        and text.isprintable()
        and "=" not in text
        and "  " not in text
        and text[:1] not in ("", ".")
    ):
        return text.encode("ascii") + SOFT
    return quoted(text.encode())
