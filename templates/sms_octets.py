"""The octets of an SMS: septets of the 7-bit alphabet or UTF-16, and the header that joins parts on the telephone.

Source:
    3GPP TS 23.038 sections 6.2.1 and 6.2.1.1 (alphabet, extension); TS 23.040 section 9.2.3.24.1 (concatenation, 8-bit
    reference). Gateways take the septets one to an octet and pack them themselves (SMPP 3.4, data_coding 0).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from templates.sms_parts import BASIC, Encoding, Parts

_ESCAPE = 0x1B
_EXTENSION = {
    "\f": 0x0A,
    "^": 0x14,
    "{": 0x28,
    "}": 0x29,
    "\\": 0x2F,
    "[": 0x3C,
    "~": 0x3D,
    "]": 0x3E,
    "|": 0x40,
    "€": 0x65,
}
# The escape itself stands at 0x1B of the table and is no letter.
_CODES = {letter: bytes([code if code < _ESCAPE else code + 1]) for code, letter in enumerate(BASIC)} | {
    letter: bytes([_ESCAPE, code]) for letter, code in _EXTENSION.items()
}
_LETTERS = {code[0]: letter for letter, code in _CODES.items() if len(code) == 1}
_EXTENDED = {code: letter for letter, code in _EXTENSION.items()}


@dataclass(frozen=True, slots=True)
class Octets:
    """One part as it leaves: the joining header ("" for a message of one part), and what the telephone shows."""

    header: bytes
    body: bytes


def octets_of(parts: Parts, reference: int) -> Iterator[Octets]:
    """Yield the parts of a text in order.

    Args:
        parts: What `split` made of the text.
        reference: The telephone joins the parts of one sender by it; its low eight bits count.
    """
    total = len(parts.parts)
    for number, text in enumerate(parts.parts, start=1):
        header = bytes([5, 0, 3, reference & 0xFF, total, number]) if total > 1 else b""
        yield Octets(header, gsm7(text) if parts.encoding is Encoding.GSM7 else text.encode("utf-16-be"))


def gsm7(text: str) -> bytes:
    """Return the septets of a text, one to an octet.

    Raises:
        KeyError: a letter is not in the alphabet; `split` would have chosen UCS-2.
    """
    return b"".join(map(_CODES.__getitem__, text))


def from_gsm7(octets: bytes) -> str:
    """Return the text of septets that came one to an octet; what the tables do not have becomes U+FFFD.

    An escape before a letter of no extension shows that letter, as TS 23.038 asks of telephones.
    """
    letters = []
    escaped = False
    for octet in octets:
        if escaped:
            letters.append(_EXTENDED.get(octet) or _LETTERS.get(octet, "\ufffd"))
            escaped = False
        elif octet == _ESCAPE:
            escaped = True
        else:
            letters.append(_LETTERS.get(octet, "\ufffd"))
    return "".join(letters)
