"""AUTH: which mechanism, what is said, and where a token comes from.

Source:
    RFC 4954 (AUTH); RFC 4616 (PLAIN); RFC 2195 (CRAM-MD5); draft-murchison-sasl-login-00 (LOGIN);
    developers.google.com/workspace/gmail/imap/xoauth2-protocol (XOAUTH2).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Generator
from dataclasses import dataclass

from kernel.errors import GatewayDown
from workers.smtp.meaning import Stage, refusal
from workers.smtp.offers import Offers
from workers.smtp.replies import Reply

_BY_PREFERENCE = ("PLAIN", "LOGIN", "CRAM-MD5")
_LONGEST_INITIAL = 480
"""Octets of an initial response that still fit a command line of 512 (RFC 4954 section 4)."""


class LoginRefused(GatewayDown):
    """The server knows us, and will not have this secret: another may be better."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Login:
    """Who we are. `mechanism` is an SASL name, or "" for the best the server offers. The secret is never shown."""

    username: str
    secret: str
    mechanism: str = ""

    def __repr__(self) -> str:
        return f"Login(username={self.username!r}, mechanism={self.mechanism!r})"


def log_in(login: Login, offers: Offers) -> Generator[bytes, Reply, None]:
    """Log in: yields what to say, is sent the answers.

    Raises:
        LoginRefused: refused.
        GatewayDown: no common mechanism.
    """
    mechanism = login.mechanism or next((name for name in _BY_PREFERENCE if name in offers.auth), "")
    if mechanism not in offers.auth:
        offered = ", ".join(sorted(offers.auth)) or "none"
        raise GatewayDown(
            f"the relay offers no AUTH {mechanism or ' or '.join(_BY_PREFERENCE)} (it offers {offered})", lasting=True
        )
    user, secret = login.username.encode(), login.secret.encode()
    match mechanism:
        case "PLAIN":
            code, text = yield from _with_initial(b"PLAIN", b"\0" + user + b"\0" + secret)
        case "XOAUTH2":
            bearer = b"user=" + user + b"\x01auth=Bearer " + secret + b"\x01\x01"
            code, text = yield from _with_initial(b"XOAUTH2", bearer)
            if code == 334:  # The reason of the refusal; an empty line fetches the refusal itself.
                code, text = yield b"\r\n"
        case "LOGIN":
            code, text = yield b"AUTH LOGIN\r\n"
            for answer in (user, secret):
                if code == 334:
                    code, text = yield base64.b64encode(answer) + b"\r\n"
        case _:
            code, text = yield b"AUTH CRAM-MD5\r\n"
            if code == 334:
                code, text = yield _cram_md5(user, secret, text)
    if code == 503:
        return  # "Already authenticated", as a relay says that trusts our address.
    if not 200 <= code < 300:
        verdict = refusal(Stage.AUTH, code, text)
        lasting = isinstance(verdict, GatewayDown) and verdict.lasting
        raise LoginRefused(str(verdict), lasting=lasting)


def _with_initial(mechanism: bytes, initial: bytes) -> Generator[bytes, Reply, Reply]:
    encoded = base64.b64encode(initial)
    if len(encoded) <= _LONGEST_INITIAL:
        return (yield b"AUTH " + mechanism + b" " + encoded + b"\r\n")
    code, text = yield b"AUTH " + mechanism + b"\r\n"
    if code == 334:
        code, text = yield encoded + b"\r\n"
    return code, text


def _cram_md5(user: bytes, secret: bytes, challenge: bytes) -> bytes:
    try:
        asked = base64.b64decode(challenge, validate=True)
    except binascii.Error as error:
        raise GatewayDown(f"AUTH CRAM-MD5: the challenge is not base64: {challenge[:60]!r}") from error
    digest = hmac.new(secret, asked, hashlib.md5).hexdigest()
    return base64.b64encode(user + b" " + digest.encode()) + b"\r\n"
