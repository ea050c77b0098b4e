"""What a refusal means, by stage, code and enhanced code: for the message, or for the gateway.

An enhanced code, where there is one, wins over the basic code: it says whose fault it is. A refusal that blames our
own set-up, our quota or the host closes the gateway and costs no message anything, whatever stage it comes at.

Source:
    RFC 5321 sections 4.2 and 4.5.3.1.10; RFC 3463 and RFC 5248 with the IANA registry of enhanced codes; RFC 4954
    section 6 for log-ins; RFC 7372 for 5.7.2x; the lists of Gmail (support.google.com/a/answer/3726730) and Microsoft
    (learn.microsoft.com, "Non-delivery reports in Exchange Online").
"""

from __future__ import annotations

import re
from enum import StrEnum

from kernel.errors import GatewayDown, PermanentError, TransientError
from workers.smtp.replies import words

_ENHANCED = re.compile(rb"([245]\.\d{1,3}\.\d{1,3})(?!\S)")


class Stage(StrEnum):
    """Where in the dialogue a reply belongs."""

    GREETING = "greeting"
    EHLO = "EHLO"
    STARTTLS = "STARTTLS"
    AUTH = "AUTH"
    MAIL = "MAIL"
    RCPT = "RCPT"
    DATA = "DATA"
    BODY = "body"
    DOT = "final dot"


_BEFORE_MAIL = frozenset({Stage.GREETING, Stage.EHLO, Stage.STARTTLS, Stage.AUTH})

_SENDER = {
    "7.26": "neither SPF nor DKIM vouches for the sender (RFC 7372)",
    "7.27": "SPF does not vouch for the sender",
    "7.29": "the message came without TLS",
    "7.30": "DKIM does not vouch for the sender, or TLS is required",
    "7.32": "the From domain is not the one that SPF or DKIM vouch for",
    "7.40": "the From domain has no DMARC record",
    "7.509": "the sending domain fails DMARC",
    "7.515": "the sending domain does not meet the receiver's level of authentication",
    "7.8": "log-in refused",
    "7.9": "this way of logging in is too weak",
    "7.11": "encryption is required for this way of logging in",
    "7.14": "the trust between us and the server is broken",
    "1.7": "the envelope sender's address is malformed",
    "1.8": "the envelope sender's domain does not exist",
    "4.5": "the account's quota is used up",
}
"""Subject and detail of codes that blame the sender's set-up or account, never the recipient."""
_HOST = frozenset({"3.1", "3.2"})
"""Storage or quota of the relay is full; the relay takes no messages now. Only of class 4."""
_TOO_BIG = frozenset({"3.4", "2.3"})
_FULL = "2.2"
"""A full mailbox: it may be emptied, so attempts and age decide, even where the server says 5.2.2."""
_LOGIN_CODES = frozenset({454, 530, 534, 535, 538})
"""Log-ins (RFC 4954); with 454 Amazon SES says too that the rate or the day's quota is exceeded, at any stage."""
_TOO_MANY = re.compile(
    rb"too many (concurrent |simultaneous )?(smtp )?(connections|sessions)|thread limit", re.IGNORECASE
)
_CONTENT_AT_MAIL = frozenset({"6.7", "6.9"})
"""The server cannot take such an address (RFC 6531)."""


def enhanced_code(text: bytes) -> str:
    """Return the RFC 3463 code a reply begins with; "" where there is none."""
    found = _ENHANCED.match(text)
    return found[1].decode("ascii") if found else ""


def reply_text(code: int, text: bytes) -> str:
    """Return a reply as people read it."""
    return f"{code} {words(text)}".strip()


def is_closing(code: int, text: bytes) -> bool:
    """Tell whether a refusal is about this connection, of which the server has enough or too many.

    Microsoft says "432 4.3.2 STOREDRV.ClientSubmit; sender thread limit exceeded", others 421 or words.
    """
    return code == 421 or enhanced_code(text) == "4.3.2" or _TOO_MANY.search(text) is not None


def refusal(stage: Stage, code: int, text: bytes) -> PermanentError | TransientError | GatewayDown:
    """Return what a reply means that is not the one hoped for at its stage.

    Args:
        stage: Where it came.
        code: The basic code, 200 to 599.
        text: The words after the code.

    Returns:
        PermanentError or TransientError for this message alone; GatewayDown where no message is to blame.
    """
    enhanced = enhanced_code(text)
    kind, _, detail = enhanced.partition(".")
    said = f"{stage}: {reply_text(code, text)}"
    permanent = (kind == "5") if kind in ("4", "5") else code >= 500
    down = _of_gateway(stage, code, kind, detail, said, permanent=permanent)
    if down is not None:
        return down
    if not 400 <= code < 600:
        return TransientError(f"unexpected answer at {said}", code=code, enhanced=enhanced)
    if stage is Stage.RCPT and code == 552 and detail not in _TOO_BIG:
        permanent = False  # "Too many recipients", for which 452 was meant.
    permanent = permanent and detail != _FULL
    return (PermanentError if permanent else TransientError)(said, code=code, enhanced=enhanced)


def _of_gateway(stage: Stage, code: int, kind: str, detail: str, said: str, *, permanent: bool) -> GatewayDown | None:
    """Return what a refusal means for the gateway; None where it is about the message."""
    if code == 421:
        return GatewayDown(f"the relay closes the connection at {said}")
    if code in _LOGIN_CODES or (detail in _SENDER and kind != "2"):
        why = _SENDER.get(detail, "log-in required or refused, or the account's limit reached")
        return GatewayDown(f"sender refused at {said} ({why})", lasting=permanent)
    if kind == "4" and detail in _HOST:
        return GatewayDown(f"the relay takes nothing now, at {said}")
    if stage in _BEFORE_MAIL:
        return GatewayDown(said, lasting=permanent and (stage is Stage.AUTH or detail.startswith("7.")))
    if stage is Stage.MAIL and not (code == 552 or detail in _TOO_BIG or detail in _CONTENT_AT_MAIL):
        # At MAIL no recipient has been named yet: it is about us or the host.
        return GatewayDown(f"sender refused at {said}", lasting=permanent)
    return None
