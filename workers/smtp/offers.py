"""What a server offers, as read from its answer to EHLO.

Source:
    RFC 5321 section 4.1.1.1; RFC 1870 (SIZE), 2920 (PIPELINING), 3030 (CHUNKING), 3207 (STARTTLS), 3461 (DSN),
    4954 (AUTH), 6152 (8BITMIME), 6531 (SMTPUTF8).
"""

from __future__ import annotations

from dataclasses import dataclass

from workers.smtp.replies import words


@dataclass(frozen=True, slots=True, kw_only=True)
class Offers:
    """The extensions of one server; none at all for a server that knows only HELO.

    `size` is the most octets it takes, None where it states no limit; `sized` tells whether it knows SIZE at all.
    """

    greeting: str = ""
    pipelining: bool = False
    chunking: bool = False
    eight_bit: bool = False
    utf8: bool = False
    dsn: bool = False
    starttls: bool = False
    sized: bool = False
    size: int | None = None
    auth: frozenset[str] = frozenset()


def read_offers(text: bytes) -> Offers:
    """Read the text of a positive answer to EHLO: a greeting, then a keyword with its parameters a line."""
    greeting, *lines = text.split(b"\n")
    offered: dict[str, list[str]] = {}
    for line in lines:
        # "AUTH=LOGIN PLAIN" is how some old servers write it.
        keyword, *parameters = line.decode("ascii", "replace").upper().replace("=", " ").split() or [""]
        offered.setdefault(keyword, []).extend(parameters)
    limit = offered.get("SIZE", [])
    return Offers(
        greeting=words(greeting),
        pipelining="PIPELINING" in offered,
        chunking="CHUNKING" in offered,
        eight_bit="8BITMIME" in offered,
        utf8="SMTPUTF8" in offered,
        dsn="DSN" in offered,
        starttls="STARTTLS" in offered,
        sized="SIZE" in offered,
        # "SIZE 0" and "SIZE" alone both state no limit.
        size=int(limit[0]) or None if limit and limit[0].isascii() and limit[0].isdecimal() else None,
        auth=frozenset(offered.get("AUTH", [])),
    )
