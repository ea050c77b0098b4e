"""Short signed tokens for links, pixels, unsubscribe pages and bounce addresses.

A token is `kid | message id | number | 16 bytes of HMAC-SHA256`, in URL-safe base64 or (for addresses,
which may lose their case on the way) base32. Each purpose has its own derived key, so that a click token
can never pass for an unsubscribe token. Old keys stay in the ring for verification.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from kernel.errors import ConfigError

_MAC_BYTES = 16


class Purpose(StrEnum):
    OPEN = "open"
    CLICK = "click"
    UNSUBSCRIBE = "unsubscribe"
    PREFERENCES = "preferences"
    BOUNCE = "bounce"


@dataclass(frozen=True, slots=True, kw_only=True)
class Signed:
    """What a valid token says: which message, and a number (the link's id for clicks, else 0)."""

    message_id: int
    number: int


class Signer:
    """Signs with the first key of the ring, verifies with all of them."""

    def __init__(self, secrets: Sequence[bytes]) -> None:
        """Take the ring, newest secret first.

        Raises:
            ConfigError: no secret, or one shorter than 32 bytes.
        """
        if not secrets or any(len(secret) < 32 for secret in secrets):
            raise ConfigError(
                "CARILLON_SECRET_KEY must hold at least 32 characters; make one with `openssl rand -hex 32`"
            )
        self._keys = [
            {purpose: hmac.digest(secret, f"carillon/{purpose}".encode(), "sha256") for purpose in Purpose}
            for secret in secrets
        ]
        self._kids = [hashlib.sha256(b"kid" + secret).digest()[:1] for secret in secrets]

    def token(self, purpose: Purpose, message_id: int, number: int = 0) -> str:
        """Return a URL-safe token without padding, 30 to 40 characters."""
        return base64.urlsafe_b64encode(self._signed(purpose, message_id, number)).rstrip(b"=").decode("ascii")

    def address_token(self, message_id: int) -> str:
        """Return a lower-case base32 token that survives mail systems which change case."""
        return base64.b32encode(self._signed(Purpose.BOUNCE, message_id, 0)).rstrip(b"=").decode("ascii").lower()

    def verify(self, purpose: Purpose, token: str) -> Signed | None:
        """Return what the token says, or None where it is forged, foreign or not in its one canonical form."""
        try:
            raw = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
        except (binascii.Error, ValueError):
            return None
        if base64.urlsafe_b64encode(raw).rstrip(b"=").decode("ascii") != token:
            return None
        return self._verified(purpose, raw)

    def verify_address(self, token: str) -> Signed | None:
        """Return what a bounce address's token says, or None where it is not ours."""
        upper = token.upper()
        try:
            raw = base64.b32decode(upper + "=" * (-len(upper) % 8))
        except (binascii.Error, ValueError):
            return None
        return self._verified(Purpose.BOUNCE, raw)

    def _signed(self, purpose: Purpose, message_id: int, number: int) -> bytes:
        payload = self._kids[0] + _varint(message_id) + _varint(number)
        return payload + hmac.digest(self._keys[0][purpose], payload, "sha256")[:_MAC_BYTES]

    def _verified(self, purpose: Purpose, raw: bytes) -> Signed | None:
        payload, mac = raw[:-_MAC_BYTES], raw[-_MAC_BYTES:]
        for kid, keys in zip(self._kids, self._keys, strict=True):
            if payload[:1] == kid and hmac.compare_digest(
                hmac.digest(keys[purpose], payload, "sha256")[:_MAC_BYTES], mac
            ):
                numbers = _read_varints(payload[1:])
                if len(numbers) == 2:
                    return Signed(message_id=numbers[0], number=numbers[1])
        return None


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def _read_varints(raw: bytes) -> list[int]:
    numbers, current, shift = [], 0, 0
    for byte in raw:
        current |= (byte & 0x7F) << shift
        shift += 7
        if not byte & 0x80:
            numbers.append(current)
            current, shift = 0, 0
    return numbers
