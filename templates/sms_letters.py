"""Letters that make an SMS dear: which of a template are outside the GSM alphabet, where, and what to write instead."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from templates.sms_parts import in_gsm7

_COMMENT = re.compile(r"\{#.*?#\}", re.DOTALL)
_PLAIN = {
    **dict.fromkeys("“”„‟«»″", '"'),
    **dict.fromkeys("‘’‛′`´‹›", "'"),  # noqa: RUF001 - the letters are what this is about
    "‚": ",",  # noqa: RUF001 - as above
    **dict.fromkeys("‐‑‒–—―−", "-"),  # noqa: RUF001 - as above
    "…": "...",
    **dict.fromkeys("•·▪●", "-"),
    **dict.fromkeys("\u00a0\u2002\u2003\u2009\u202f\t", " "),
    **dict.fromkeys("\u200b\u200c\u200d\u2060\ufeff\u00ad", ""),
    "×": "x",
    "÷": ":",
    "™": "TM",
    "©": "(c)",
    "®": "(R)",
    "œ": "oe",
    "Œ": "OE",
    "½": "1/2",
    "¼": "1/4",
    "¾": "3/4",
    "№": "No.",
    "ð": "d",
    "ł": "l",
    "Ł": "L",
    "đ": "d",
    "Đ": "D",
    "ı": "i",
    "ẞ": "SS",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class DearLetter:
    """A letter that makes a text UCS-2, where it first stands, and how often. Lines and columns count from 1."""

    letter: str
    line: int
    column: int
    times: int = 1

    @property
    def name(self) -> str:
        """The letter's name in Unicode."""
        return unicodedata.name(self.letter, f"U+{ord(self.letter):04X}").capitalize()

    @property
    def shown(self) -> str:
        """The letter as it can be shown; an unseen one by its number."""
        return self.letter if self.letter.isprintable() and self.letter.strip() else f"U+{ord(self.letter):04X}"

    @property
    def instead(self) -> str | None:
        """What to write instead; "" is nothing at all, None that there is no such thing."""
        return plain(self.letter)

    @property
    def remedy(self) -> str:
        """What to do, in words."""
        if self.instead is None:
            return "leave it out, or accept the price"
        return f"write {self.instead}" if self.instead.strip() else ("write a space" if self.instead else "take it out")


def dear_letters(source: str) -> list[DearLetter]:
    """Return the letters of a template outside the GSM alphabet, each where it first stands; comments have none."""
    found: dict[str, DearLetter] = {}
    silent = _COMMENT.sub(lambda comment: re.sub(r"[^\n]", " ", comment[0]), source)
    for number, line in enumerate(silent.split("\n"), start=1):
        for column, letter in enumerate(line.rstrip("\r"), start=1):
            if in_gsm7(letter):
                continue
            known = found.get(letter)
            found[letter] = DearLetter(
                letter=letter,
                line=known.line if known else number,
                column=known.column if known else column,
                times=known.times + 1 if known else 1,
            )
    return list(found.values())


def is_avoidable(letters: Iterable[DearLetter]) -> bool:
    """Return whether a template could do with the GSM alphabet: not where a letter of another script has to stay."""
    return all(one.instead is not None or not one.letter.isalpha() for one in letters)


def plain(letter: str) -> str | None:
    """Return what says the same within the GSM alphabet; None where nothing does."""
    if in_gsm7(letter):
        return letter
    if letter in _PLAIN:
        return _PLAIN[letter]
    base = "".join(part for part in unicodedata.normalize("NFKD", letter) if not unicodedata.combining(part))
    return base if base and base != letter and all(map(in_gsm7, base)) else None


def plainly(text: str) -> str:
    """Return a text with every letter replaced that can be."""
    return "".join(_replaced(text))


def _replaced(text: str) -> Iterator[str]:
    for letter in text:
        instead = plain(letter)
        yield letter if instead is None else instead
