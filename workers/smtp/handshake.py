"""From the server's first word to the moment it takes MAIL: greeting, EHLO, STARTTLS, EHLO again, AUTH.

No sockets here: a generator that yields what to say (or STARTTLS) and is sent the replies.

Source:
    RFC 5321 sections 3.1, 3.2 and 4.1.4; RFC 3207 section 4.2 (what was said before TLS is forgotten).
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, replace
from typing import Literal

from kernel.errors import GatewayDown
from workers.smtp.logins import Login, log_in
from workers.smtp.meaning import Stage, refusal
from workers.smtp.offers import Offers, read_offers
from workers.smtp.replies import Reply, words

START_TLS = object()
"""Yielded instead of bytes: encrypt the connection now, then send any reply."""
Tls = Literal["starttls", "implicit", "none"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """How we introduce ourselves."""

    helo: str
    tls: Tls
    login: Login | None = None


def greet(terms: Terms) -> Generator[bytes | object, Reply, Offers]:
    """Introduce ourselves; returns what the server offers, with its greeting.

    Raises:
        GatewayDown: the server refuses, or does not offer what the terms ask for.
    """
    code, text = yield b""
    if code != 220:
        raise refusal(Stage.GREETING, code, text)
    offers = yield from _introduce(terms)
    if terms.tls == "starttls":
        if not offers.starttls:
            raise GatewayDown("the relay does not offer STARTTLS; nothing is sent in clear", lasting=True)
        code, text = yield b"STARTTLS\r\n"
        if code != 220:
            raise GatewayDown(f"{refusal(Stage.STARTTLS, code, text)}; nothing is sent in clear", lasting=code >= 500)
        yield START_TLS
        offers = yield from _introduce(terms)
    if terms.login is not None:
        yield from log_in(terms.login, offers)
    return replace(offers, greeting=offers.greeting or words(text))


def _introduce(terms: Terms) -> Generator[bytes, Reply, Offers]:
    name = terms.helo.encode("ascii", "replace")
    code, text = yield b"EHLO %s\r\n" % name
    if code == 250:
        return read_offers(text)
    if code == 421 or code < 500:
        raise refusal(Stage.EHLO, code, text)
    # A server from before ESMTP, or one that hides it: plain SMTP, without any extension.
    code, text = yield b"HELO %s\r\n" % name
    if code != 250:
        raise refusal(Stage.EHLO, code, text)
    return Offers(greeting=words(text.split(b"\n")[0]))
