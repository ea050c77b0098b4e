"""E-mail addresses as they stand on the wire, checked once more before each message."""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from typing import NamedTuple

import idna

from templates.problems import TemplateProblem

_ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_PLAIN = re.compile(rf"{_ATOM}(?:\.{_ATOM})*@{_LABEL}(?:\.{_LABEL})*")
_LONGEST, _LONGEST_LOCAL = 253, 64
"""The longest domain, which no address that is no longer has; and the longest local part."""
_DOT_ATOM = re.compile(rf"{_ATOM}(?:\.{_ATOM})*")
_SPECIAL = frozenset('()<>[]:;@\\,." ')


class WireAddress(NamedTuple):
    """An address with its domain in A-labels; `needs_smtputf8` where its local part is not ASCII."""

    text: str
    domain: str
    needs_smtputf8: bool


def is_plain(address: str) -> bool:
    """Return whether the address surely is one that stands on the wire as it is: ASCII, of lawful lengths."""
    return (
        _PLAIN.fullmatch(address) is not None
        and len(address) <= _LONGEST
        and address.index("@") <= _LONGEST_LOCAL
        and "--" not in address
    )


def wire_address(address: str) -> WireAddress:
    """Return the address as it stands in envelope and header.

    Raises:
        TemplateProblem: it is not an address, or too long for one.

    Source:
        RFC 5321 section 4.5.3.1 (lengths), RFC 5322 section 3.4.1 (dot-atom), RFC 6531 (other letters), RFC 5890.
    """
    local, at, domain = address.rpartition("@")
    if is_plain(address):
        return WireAddress(address, domain, needs_smtputf8=False)
    if not at or not _is_local(local):
        raise TemplateProblem(f"{address[:100]!r} is not an e-mail address")
    ascii_domain = _a_labels(domain)
    return WireAddress(f"{local}@{ascii_domain}", ascii_domain, needs_smtputf8=not local.isascii())


def _is_local(local: str) -> bool:
    if local.isascii():
        return len(local) <= 64 and _DOT_ATOM.fullmatch(local) is not None
    atoms = local.split(".")
    if not all(atoms) or unicodedata.normalize("NFC", local) != local:
        return False
    if any(0xD800 <= ord(letter) <= 0xDFFF for letter in local) or len(local.encode()) > 64:
        return False
    # Categories C and Z: controls, formats (among them bidirectional marks), unassigned, separators.
    return not any(unicodedata.category(letter)[0] in "CZ" or letter in _SPECIAL for atom in atoms for letter in atom)


@lru_cache(maxsize=4096)
def _a_labels(domain: str) -> str:
    try:
        encoded = idna.encode(domain, uts46=True).decode("ascii")
    except (idna.IDNAError, UnicodeError) as error:
        raise TemplateProblem(f"{domain[:100]!r} is not a domain: {error}") from error
    if len(encoded) > 253 or not encoded:
        raise TemplateProblem(f"{domain[:100]!r} is not a domain")
    return encoded
