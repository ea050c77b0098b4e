"""What a layout says: its columns, how it normalises an address before hashing, and what else it tells of a person."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass

_WHITE = re.compile(r"\s+")
_EMAIL = re.compile(r"[^\s@\x00-\x1f]+@[^\s@\x00-\x1f]+\.[^\s@\x00-\x1f]+")
_E164 = re.compile(r"\+[1-9][0-9]{6,14}")
_COUNTRY = re.compile(r"[a-z]{2}")
_POSTAL_CODE = re.compile(r"[a-z0-9][a-z0-9 -]{1,11}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """What is known of a contact beside the addresses; all may be empty."""

    first_name: str = ""
    last_name: str = ""
    country: str = ""
    postal_code: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """A platform's file: `columns` are the digest of the e-mail, that of the phone, then the cells of `rest`.

    `email` and `phone` return the normalised text that is hashed; they get a plain lower-case address and E.164.
    """

    name: str
    columns: tuple[str, ...]
    email: Callable[[str], str]
    phone: Callable[[str], str]
    rest: Callable[[Person], tuple[str, ...]]

    def row(self, email: str, phone: str, person: Person) -> tuple[str, ...]:
        """Return the cells of a person from the digests of the addresses, either of which may be empty."""
        return (email, phone, *self.rest(person))

    def removal(self, digest: str, kind: str) -> tuple[str, ...]:
        """Return the cells of an address to be removed: its digest in its column, the others empty."""
        cells = (digest, "") if kind == "email" else ("", digest)
        return (*cells, *("" for _ in self.columns[2:]))


def sha256_hex(text: str) -> str:
    """Return the SHA-256 of the text's UTF-8 in small hexadecimal digits; of nothing: nothing."""
    return hashlib.sha256(text.encode()).hexdigest() if text else ""


def plain_email(address: str) -> str | None:
    """Return the address in lower case without white space, or None where it cannot be one."""
    text = _WHITE.sub("", unicodedata.normalize("NFC", address)).lower()
    return text if _EMAIL.fullmatch(text) else None


def plain_phone(number: str) -> str | None:
    """Return the number as E.164 with its plus, or None where it is none. Source: ITU-T E.164, 6.2.1."""
    text = _WHITE.sub("", number)
    return text if _E164.fullmatch(text) else None


def plain_name(name: str) -> str:
    """Return a name in lower case, white space around it removed and within it single; accents stay."""
    return _WHITE.sub(" ", unicodedata.normalize("NFC", name)).strip().lower()


def plain_country(country: str) -> str:
    """Return a two-letter code in lower case; "" for anything else."""
    text = country.strip().lower()
    return text if _COUNTRY.fullmatch(text) else ""


def plain_postal_code(code: str) -> str:
    """Return the code in lower case with single spaces; "" for what is none: it stands in files in the clear."""
    text = _WHITE.sub(" ", code).strip().lower()
    return text if _POSTAL_CODE.fullmatch(text) else ""
