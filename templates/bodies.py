"""Body parts as bytes: quoted-printable where most of a text is ASCII, else base64; lines of at most 76 characters.

Source: RFC 2045 sections 6.7 and 6.8. Base64 costs less time, but spam filters count it against a text that has no need
of it, and nobody can read it in a log.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Callable
from dataclasses import dataclass

from kernel.signing import LONGEST_TOKEN
from templates.problems import TemplateProblem
from templates.quoting import MOST, SOFT, quoted, quoted_value

_CONTROLS = bytes(code for code in (*range(32), 127) if code not in (9, 10))
_ASCII, _HIGH = bytes(range(128)), bytes(range(128, 256))
_LETTER = re.compile(rb"[G-Zg-z<>]")
"""What no octet in code consists of."""


def wire_text(text: str, part: str) -> bytes:
    r"""Return the text in UTF-8 with lines ended by \n, the last one too.

    Args:
        text: Lines ended by \n, \r\n or \r.
        part: How errors name it.

    Raises:
        TemplateProblem: a control character or half a surrogate pair, which no mail may carry.
    """
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    try:
        raw = text.encode()
    except UnicodeEncodeError as error:
        raise TemplateProblem(f"{part}: character {error.start} is half of a surrogate pair") from error
    if len(raw.translate(None, _CONTROLS)) != len(raw):
        found = next(byte for byte in raw if byte in _CONTROLS)
        raise TemplateProblem(f"{part}: holds the control character U+{found:04X}")
    return raw if raw.endswith(b"\n") else raw + b"\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Coding:
    """A content transfer encoding and its pieces, which make a body when they are joined and finished."""

    name: bytes
    fixed: Callable[[bytes], bytes]
    """Makes a piece of UTF-8 with lines ended by LF."""
    value: Callable[[str], bytes]
    """Makes a piece of a value; the same, faster for short ones. Raises UnicodeEncodeError."""
    around: Callable[[bytes, bytes], tuple[bytes, bytes]]
    """Returns what stands before and after a token, of what its URL has before and after it."""
    gaps: re.Pattern[bytes]
    """Finds three line breaks of the text or more, which a derived text draws together."""
    stripped: Callable[[bytes], bytes]
    """Takes the text's own line breaks off both ends."""
    has_text: Callable[[bytes], bool]
    """Returns whether there surely is more than white space."""
    finished: Callable[[bytes, bool], bytes | None]
    """Returns the lines of the body, or None where the other encoding is the one for this text.

    Takes the joined pieces, and whether values held more letters beyond ASCII than the text surely bears.
    """


def _quoted_around(before: bytes, after: bytes) -> tuple[bytes, bytes]:
    """Make one line of the URL, however long its token is, or end the line before the token."""
    fits = len(before) + LONGEST_TOKEN + len(after) <= MOST
    return before if fits else quoted(before), after + SOFT


def _crlf(raw: bytes) -> bytes:
    return raw.replace(b"\n", b"\r\n")


def _crlf_value(text: str) -> bytes:
    return text.encode().replace(b"\n", b"\r\n")


def is_mostly_ascii(raw: bytes) -> bool:
    """Return whether at most a sixth of the octets are beyond ASCII."""
    return raw.isascii() or len(raw.translate(None, _HIGH)) * 6 >= len(raw) * 5


def wide_octets(raw: bytes) -> bytes:
    """Return the octets beyond ASCII."""
    return raw.translate(None, _ASCII)


def _stripped(joined: bytes) -> bytes:
    joined = joined.lstrip(b"\r\n")
    while joined.endswith(b"\r\n") and not joined.endswith(SOFT):
        joined = joined[:-2]
    return joined


def _as_quoted(joined: bytes, wide: bool) -> bytes | None:
    # Signs of equality stand for octets in code, and for soft breaks: so few of them leave no doubt.
    if wide and joined.count(b"=") * 9 > len(joined):
        return None
    return joined if joined.endswith(b"\r\n") and not joined.endswith(SOFT) else joined + b"\r\n"


def _as_base64(joined: bytes, wide: bool) -> bytes | None:  # noqa: ARG001 - one form for both
    return None if is_mostly_ascii(joined) else _base64(joined if joined.endswith(b"\r\n") else joined + b"\r\n")


def _base64(raw: bytes) -> bytes:
    text = binascii.b2a_base64(raw, newline=False)
    return b"\r\n".join([text[start : start + 76] for start in range(0, len(text), 76)]) + b"\r\n"


QUOTED = Coding(
    name=b"quoted-printable",
    fixed=quoted,
    value=quoted_value,
    around=_quoted_around,
    gaps=re.compile(rb"(?<!=)\r\n(?:\r\n){2,}"),
    stripped=_stripped,
    has_text=lambda joined: _LETTER.search(joined) is not None,
    finished=_as_quoted,
)
RAW = Coding(
    name=b"base64",
    fixed=_crlf,
    value=_crlf_value,
    around=lambda before, after: (before, after),
    gaps=re.compile(rb"\r\n(?:\r\n){2,}"),
    stripped=lambda joined: joined.strip(b"\r\n"),
    has_text=lambda joined: bool(joined.decode().strip()),
    finished=_as_base64,
)
"""Its pieces are not encoded yet: groups of three octets do not end where pieces do."""


def encoded(raw: bytes) -> tuple[bytes, bytes]:
    """Return the content transfer encoding chosen and the encoded lines, CRLF at the end.

    Args:
        raw: What `wire_text` returned.
    """
    return (QUOTED.name, quoted(raw)) if is_mostly_ascii(raw) else (RAW.name, _base64(_crlf(raw)))
