"""The lines a message travels in: MAIL and RCPT with their parameters, the body with its dots doubled.

Source:
    RFC 5321 sections 4.1.1, 4.5.2 and 4.5.3.1; RFC 1870, 6152, 6531; RFC 3461 section 4 (DSN and xtext).
"""

from __future__ import annotations

import re

from kernel.errors import PermanentError
from templates.mail import ComposedMail
from workers.smtp.offers import Offers

_PATH = re.compile(r"[^\x00-\x20<>\x7f]{1,254}")
"""What stands between < and >: nothing that could end the line or begin a parameter, and at most 256 octets."""
_LEADING_DOT = re.compile(rb"\n\.")
"""Searched by `re` because it is four times as fast here as `in`, whose search is slow where line ends are many."""
_NOT_XTEXT = re.compile(rb"[^!-*,-<>-~]")
_LONGEST_LOCAL, _LONGEST_DOMAIN, _LONGEST_PATH = 64, 255, 254


class Envelopes:
    """Makes the commands of a message for one server."""

    __slots__ = ("_dsn", "_offers")

    def __init__(self, offers: Offers, *, dsn: bool) -> None:
        """Take what the server offers.

        Args:
            offers: After TLS, if there is TLS.
            dsn: Whether to ask for delivery status notifications where the server knows of them.
        """
        self._offers = offers
        self._dsn = dsn and offers.dsn

    def commands(self, content: ComposedMail) -> tuple[bytes, bytes]:
        """Return the MAIL and RCPT lines.

        Raises:
            PermanentError: this server can never take this message: its size, its address, its eighth bit.
        """
        offers, data, sender, recipient = self._offers, content.data, content.envelope_from, content.envelope_to
        more = ""
        if offers.sized:
            if offers.size is not None and len(data) > offers.size:
                raise PermanentError(
                    f"552 5.3.4 the message has {len(data)} octets, the relay takes {offers.size}",
                    code=552,
                    enhanced="5.3.4",
                )
            more = f" SIZE={len(data)}"
        if not data.isascii():
            if not offers.eight_bit:
                raise PermanentError(
                    "554 5.6.3 the body is 8-bit and the relay does not offer 8BITMIME", code=554, enhanced="5.6.3"
                )
            more += " BODY=8BITMIME"
        if content.needs_smtputf8 or not (recipient.isascii() and sender.isascii()):
            if not offers.utf8:
                raise PermanentError(
                    "550 5.6.7 the relay does not offer SMTPUTF8, which this address needs", code=550, enhanced="5.6.7"
                )
            more += " SMTPUTF8"
        if not (_PATH.fullmatch(recipient) and (not sender or _PATH.fullmatch(sender))):
            raise _no_path(recipient)
        if len(recipient) > _LONGEST_LOCAL or not recipient.isascii():
            _check_lengths(recipient)
        if not self._dsn:
            return f"MAIL FROM:<{sender}>{more}\r\n".encode(), f"RCPT TO:<{recipient}>\r\n".encode()
        return (
            b"MAIL FROM:<%s>%s RET=HDRS ENVID=%s\r\n"
            % (sender.encode(), more.encode(), xtext(content.message_id_header.strip("<>").encode())),
            b"RCPT TO:<%s> NOTIFY=FAILURE,DELAY ORCPT=%s\r\n" % (recipient.encode(), _original(recipient)),
        )


def xtext(value: bytes) -> bytes:
    """Return a value as xtext: what is not printable ASCII, + and = become +HH. Source: RFC 3461 section 4."""
    return _NOT_XTEXT.sub(lambda found: b"+%02X" % found[0][0], value)


def _original(recipient: str) -> bytes:
    # An address beyond ASCII has a type of its own, and may then stand unencoded (RFC 6533 section 3).
    if recipient.isascii():
        return b"rfc822;" + xtext(recipient.encode())
    return b"utf-8;" + "".join(
        letter if letter.isascii() and letter not in "+=\\" else f"\\x{{{ord(letter):X}}}" for letter in recipient
    ).encode("ascii")


def _check_lengths(recipient: str) -> None:
    local, _, domain = recipient.rpartition("@")
    longest = len(local.encode()), len(domain.encode()), len(recipient.encode())
    if any(
        length > most for length, most in zip(longest, (_LONGEST_LOCAL, _LONGEST_DOMAIN, _LONGEST_PATH), strict=True)
    ):
        raise _no_path(recipient)


def _no_path(recipient: str) -> PermanentError:
    shown = "".join(letter if letter.isprintable() else "?" for letter in recipient[:80])
    return PermanentError(f"553 5.1.3 {shown!r} is no address that SMTP can carry", code=553, enhanced="5.1.3")


def dot_stuffed(content: ComposedMail) -> bytes:
    """Return the body as DATA wants it: leading dots doubled, a line end at its end, and the final dot."""
    data = content.data
    if not content.dotless:
        if _LEADING_DOT.search(data):
            data = data.replace(b"\r\n.", b"\r\n..")
        if data.startswith(b"."):
            data = b"." + data
    return data + (b".\r\n" if data.endswith(b"\r\n") else b"\r\n.\r\n")
