"""Values of one message as pieces of its bodies: what code compiled for the wire calls.

Each of the functions for values takes what an expression gave, pays for it, and returns the piece; those named `made`
take what a block of the template made, which is paid for and escaped already. All raise GaveUp where the piece might
not be what the other way would make of it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from functools import cache, lru_cache
from typing import Any, NamedTuple

from markupsafe import escape

from templates.bodies import QUOTED, Coding, wide_octets
from templates.budget import MAX_OUTPUT, RENDERING
from templates.quoting import MOST, SOFT
from templates.sandbox import printed

_PRINTED = bytes(range(32, 127))
_SIMPLE_IN_HTML = _PRINTED.translate(None, b"=&<>\"'")
"""What stands as it is in quoted-printable, and is not escaped."""
_SIMPLE_IN_TEXT = _PRINTED.translate(None, b"=/")
"""The same in a text, where a slash might be a link's."""
_FULL_STOP = ord(".")
CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\ud800-\udfff]")
"""What a body may not hold, and carriage returns, which only mean a line's end together with what follows."""


class GaveUp(Exception):
    """Raised where the fast way cannot be sure to give what the other one gives."""


class ValueFunctions(NamedTuple):
    """What makes pieces of values, of what a block of the template made, and of links."""

    shown: Callable[..., bytes]
    """Also takes how long the piece may be: a value that stands in several places is paid for once."""
    made: Callable[[Any], bytes]
    linked: Callable[[Any], bytes]
    """Of a link that went through the filter of links."""
    plain: Callable[[Any], str]
    """Returns a value as it is printed, to be a part of what `bare` takes."""
    bare: Callable[[Iterable[str]], bytes]
    """Of the parts of a link that stands in a text."""


def value_functions(coding: Coding, *, base_url: str, html: bool) -> ValueFunctions:
    """Return what makes the pieces of a body.

    Args:
        coding: Of the body.
        base_url: What own links begin with.
        html: Whether values are escaped; if not, a value that might hold a link gives up, since links in texts are
            found where they stand.
    """
    piece = coding.value

    def made(value: Any) -> bytes:
        text = str(value)
        if not html and ("://" in text or text.startswith("/")):
            raise GaveUp
        found, wide = _piece(coding, text)
        if wide:
            _note_wide(wide)
        return found

    simple = _SIMPLE_IN_HTML if html else _SIMPLE_IN_TEXT
    short = _short_values(html=html) if coding is QUOTED else None

    def shown(value: Any, most: int = MAX_OUTPUT) -> bytes:
        # Nearly all values are a few plain letters. They are not paid for: the piece is, by its length.
        if short is not None and type(value) is str and 0 < len(value) < MOST:
            raw = value.encode()
            if not raw.translate(None, simple) and b"  " not in raw and raw[0] != _FULL_STOP and len(raw) < MOST:
                return raw + SOFT
            found, wide = short(value)
            if wide:
                _note_wide(wide)
            return found
        found = made(escape(printed(value)) if html else printed(value))
        if len(found) > most:
            raise GaveUp
        return found

    def linked(value: Any) -> bytes:
        # An own link is left alone in a text, and has nothing in it to look for.
        return piece(str(value)) if value.startswith(base_url) else made(value)

    def plain(value: Any) -> str:
        return str(printed(value))

    def bare(parts: Iterable[str]) -> bytes:
        text, rendering = "".join(parts), RENDERING.get()
        if rendering is None or rendering.bare is None or CONTROLS.search(text):
            raise GaveUp
        if not text.isascii():
            _note_wide(_wide_octets(text))
        return piece(rendering.bare(text))

    return ValueFunctions(shown, made, linked, plain, bare)


def _piece(coding: Coding, text: str) -> tuple[bytes, int]:
    """Return the piece, and how many octets beyond ASCII it stands for."""
    if not text.isprintable() and CONTROLS.search(text):
        raise GaveUp
    return coding.value(text), 0 if text.isascii() else _wide_octets(text)


@cache
def _short_values(*, html: bool) -> Callable[[str], tuple[bytes, int]]:
    """Return what makes pieces of short values in quoted-printable, and remembers the last few thousand.

    A company's name is in the messages to all its people, and in both bodies of each.
    """

    @lru_cache(maxsize=4096)
    def short(value: str) -> tuple[bytes, int]:
        if not html and ("://" in value or value.startswith("/")):
            raise GaveUp
        return _piece(QUOTED, str(escape(value)) if html else value)

    return short


def _wide_octets(text: str) -> int:
    return len(wide_octets(text.encode()))


def _note_wide(octets: int) -> None:
    rendering = RENDERING.get()
    if rendering is not None:
        rendering.wide += octets
