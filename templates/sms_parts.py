"""How an SMS is cut into parts, and so what it costs.

Source: 3GPP TS 23.038 section 6.2.1 (the 7-bit alphabet and its extension), TS 23.040 section 9.2.3.24 (concatenation).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

BASIC = (
    "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§"
    "¿abcdefghijklmnopqrstuvwxyzäöñüà"
)
_EXTENSION = "\f^{}\\[~]|€"
_SEPTETS = dict.fromkeys(BASIC, 1) | dict.fromkeys(_EXTENSION, 2)


class Encoding(StrEnum):
    GSM7 = "gsm7"
    UCS2 = "ucs2"


_SINGLE = {Encoding.GSM7: 160, Encoding.UCS2: 70}
_JOINED = {Encoding.GSM7: 153, Encoding.UCS2: 67}


@dataclass(frozen=True, slots=True)
class Parts:
    """An SMS cut into what each part carries, in order."""

    encoding: Encoding
    parts: tuple[str, ...]


def split(text: str) -> Parts:
    """Return the parts of a text.

    One part holds 160 septets or 70 UTF-16 units; several hold 153 or 67 each (an 8-bit reference). An escaped
    letter of the extension and a surrogate pair are never cut in two, so a part may hold one less. An empty text is
    one empty part.
    """
    encoding = Encoding.GSM7 if _SEPTETS.keys() >= set(text) else Encoding.UCS2
    size = _SEPTETS.__getitem__ if encoding is Encoding.GSM7 else _units
    if sum(map(size, text)) <= _SINGLE[encoding]:
        return Parts(encoding, (text,))
    return Parts(encoding, tuple(_cut(text, size, _JOINED[encoding])))


def count_parts(text: str) -> int:
    """Return how many parts a text takes."""
    return len(split(text).parts)


def count_cn(text: str) -> int:
    """Return how many parts Chinese platforms charge: every character is one, Latin too; an emoji is two."""
    units = sum(map(_units, text))
    return 1 if units <= _SINGLE[Encoding.UCS2] else -(-units // _JOINED[Encoding.UCS2])


def in_gsm7(letter: str) -> bool:
    """Return whether a letter is in the 7-bit alphabet or its extension."""
    return letter in _SEPTETS


def _units(letter: str) -> int:
    return 2 if ord(letter) > 0xFFFF else 1


def _cut(text: str, size: Callable[[str], int], room: int) -> list[str]:
    parts: list[str] = []
    start = used = 0
    for index, letter in enumerate(text):
        wanted = size(letter)
        if used + wanted > room:
            parts.append(text[start:index])
            start, used = index, 0
        used += wanted
    return [*parts, text[start:]]
