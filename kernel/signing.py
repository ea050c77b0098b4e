"""Short signed tokens for links, pixels, unsubscribe pages and bounce addresses.

A token is `kid | message id | number | 16 bytes of MAC`, in URL-safe base64 or, where letters may lose their case on
the way, in hex (return paths) or base32 (what providers take as our reference). Old keys stay in the ring for
verification.

The MACs of one message come in blocks: one keyed BLAKE2b of 64 bytes gives those of all purposes for a number, and
another those of four links, each a quarter of its block. A quarter says nothing about another, so a click token can
never pass for an unsubscribe token, and a message with eight links costs four hashes instead of twelve.

Tokens of the form used before (one HMAC-SHA256 each, a key for each purpose) have a kid of their own and stay valid.

Source:
    RFC 7693 (BLAKE2, keyed as a MAC); RFC 4648 sections 5 and 6.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from itertools import groupby
from typing import NamedTuple

from kernel.errors import ConfigError

_MAC_BYTES = 16
_MOST_BYTES = 1 + 10 + 10 + _MAC_BYTES
"""Of a token whose numbers have 64 bits; a longer one is nobody's, and not worth reading."""
LONGEST_TOKEN = (_MOST_BYTES * 8 + 5) // 6
"""Characters of the longest token in base64."""
_URL_SAFE = bytes.maketrans(b"+/", b"-_")
_HEX = re.compile(r"(?:[0-9A-Fa-f]{2})+")
_BASE32 = "abcdefghijklmnopqrstuvwxyz234567"
_BASE32_PAIRS = [first + second for first in _BASE32 for second in _BASE32]


class Purpose(StrEnum):
    OPEN = "open"
    CLICK = "click"
    UNSUBSCRIBE = "unsubscribe"
    PREFERENCES = "preferences"
    BOUNCE = "bounce"


_QUARTER = {Purpose.OPEN: 0, Purpose.UNSUBSCRIBE: 16, Purpose.PREFERENCES: 32, Purpose.BOUNCE: 48}
"""Where in its block the MAC of a purpose begins; clicks have blocks of their own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Signed:
    """What a valid token says: which message, and a number (the link's id for clicks, else 0)."""

    message_id: int
    number: int


class _Key:
    """One secret of the ring: what it signs with, and how its tokens are recognised."""

    def __init__(self, secret: bytes) -> None:
        self.kid = hashlib.sha256(b"kid2" + secret).digest()[:1]
        self.own = hashlib.blake2b(key=hmac.digest(secret, b"carillon/2/own", "sha256"))
        self.click = hashlib.blake2b(key=hmac.digest(secret, b"carillon/2/click", "sha256"))
        self.former_kid = hashlib.sha256(b"kid" + secret).digest()[:1]
        self.former = {purpose: hmac.digest(secret, f"carillon/{purpose}".encode(), "sha256") for purpose in Purpose}

    def mac(self, purpose: Purpose, message: bytes, number: int) -> bytes:
        """Return the MAC of a message, its id as a varint, for a purpose and a number."""
        if purpose is Purpose.CLICK:
            return _block(self.click, message + varint(number >> 2))[_quarter(number)]
        start = _QUARTER[purpose]
        return _block(self.own, message + varint(number))[start : start + _MAC_BYTES]


class OwnTokens(NamedTuple):
    """What every e-mail carries of its own: three for URLs, and one in lower-case hex for the return path."""

    opened: bytes
    unsubscribe: bytes
    preferences: bytes
    bounce: str


_Groups = tuple[tuple[bytes, tuple[tuple[bytes, slice], ...]], ...]


class LinkNumbers:
    """The numbers of a message's links, worked out once for all messages that have the same ones."""

    __slots__ = ("groups",)

    def __init__(self, numbers: Sequence[int]) -> None:
        self.groups: _Groups = tuple(
            (varint(group), tuple((varint(number), _quarter(number)) for number in members))
            for group, members in groupby(numbers, key=lambda number: number >> 2)
        )
        """For each block of MACs in turn: its own number, and of each link the number and its quarter."""


class MessageTokens:
    """The tokens of one message, their common work done once."""

    __slots__ = ("_block", "_head", "_key", "_message")

    def __init__(self, key: _Key, message_id: int) -> None:
        self._key = key
        self._message = message = varint(message_id)
        self._head = key.kid + message
        # The copy carries the key already mixed in, which is half the work.
        hasher = key.own.copy()
        hasher.update(message + b"\0")
        self._block = hasher.digest()

    def own(self) -> OwnTokens:
        """Return all tokens but those of clicks."""
        head, block = self._head + b"\0", self._block
        size = len(head) + _MAC_BYTES
        gap = bytes(-size % 3)
        three = head + block[:16] + gap + head + block[16:32] + gap + head + block[32:48]
        text = binascii.b2a_base64(three, newline=False).translate(_URL_SAFE)
        step, end = (size + 2) // 3 * 4, (size * 8 + 5) // 6
        bounce = (head + block[48:]).hex()
        return OwnTokens(text[:end], text[step : step + end], text[2 * step : 2 * step + end], bounce)

    def of(self, purpose: Purpose) -> str:
        """Return the token for a purpose other than clicks."""
        start = _QUARTER[purpose]
        return _base64(self._head + b"\0" + self._block[start : start + _MAC_BYTES]).decode("ascii")

    def clicks(self, numbers: LinkNumbers) -> list[bytes]:
        """Return the token of each link, in their order; neighbours with neighbouring numbers share a hash."""
        head, message, keyed = self._head, self._message, self._key.click
        raws: list[bytes] = []
        for group, members in numbers.groups:
            hasher = keyed.copy()
            hasher.update(message + group)
            block = hasher.digest()
            raws += [head + number + block[quarter] for number, quarter in members]
        return _all_base64(raws)


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
        self._keys = [_Key(secret) for secret in secrets]

    def of(self, message_id: int) -> MessageTokens:
        """Return what signs the links of one message."""
        return MessageTokens(self._keys[0], message_id)

    def token(self, purpose: Purpose, message_id: int, number: int = 0) -> str:
        """Return a URL-safe token without padding, 30 to 40 characters."""
        key, message = self._keys[0], varint(message_id)
        raw = key.kid + message + varint(number) + key.mac(purpose, message, number)
        return _base64(raw).decode("ascii")

    def address_token(self, message_id: int) -> str:
        """Return a lower-case base32 token that survives systems which change case, and is shorter than one in hex."""
        key, message = self._keys[0], varint(message_id)
        return _base32(key.kid + message + b"\0" + key.mac(Purpose.BOUNCE, message, 0))

    def verify(self, purpose: Purpose, token: str) -> Signed | None:
        """Return what the token says, or None where it is forged, foreign or not in its one canonical form."""
        try:
            raw = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
        except (binascii.Error, ValueError):
            return None
        if _base64(raw).decode("ascii") != token:
            return None
        return self._verified(purpose, raw)

    def verify_address(self, token: str) -> Signed | None:
        """Return what a token in hex or base32 says, in letters of either case, or None where it is not ours."""
        if _HEX.fullmatch(token):
            found = self._verified(Purpose.BOUNCE, bytes.fromhex(token))
            if found is not None:
                return found
        upper = token.upper()
        try:
            raw = base64.b32decode(upper + "=" * (-len(upper) % 8))
        except (binascii.Error, ValueError):
            return None
        return self._verified(Purpose.BOUNCE, raw)

    def _verified(self, purpose: Purpose, raw: bytes) -> Signed | None:
        if len(raw) > _MOST_BYTES:
            return None
        payload, mac = raw[:-_MAC_BYTES], raw[-_MAC_BYTES:]
        numbers = _read_varints(payload[1:])
        if len(numbers) != 2:
            return None
        message_id, number = numbers
        # A number has one form only: a varint with zeros in front would be another token that says the same.
        if payload[1:] != varint(message_id) + varint(number):
            return None
        for key in self._keys:
            if payload[:1] == key.kid and hmac.compare_digest(key.mac(purpose, varint(message_id), number), mac):
                return Signed(message_id=message_id, number=number)
            if payload[:1] == key.former_kid and hmac.compare_digest(
                hmac.digest(key.former[purpose], payload, "sha256")[:_MAC_BYTES], mac
            ):
                return Signed(message_id=message_id, number=number)
        return None


def _quarter(number: int) -> slice:
    start = (number & 3) * _MAC_BYTES
    return slice(start, start + _MAC_BYTES)


def _block(keyed: hashlib.blake2b, content: bytes) -> bytes:
    hasher = keyed.copy()
    hasher.update(content)
    return hasher.digest()


def _base64(raw: bytes) -> bytes:
    return binascii.b2a_base64(raw, newline=False).translate(_URL_SAFE).rstrip(b"=")


def _all_base64(raws: list[bytes]) -> list[bytes]:
    """Return what `_base64` makes of each; of those with one length, which most are, in one go."""
    lengths = set(map(len, raws))
    if len(lengths) != 1:
        return [_base64(raw) for raw in raws]
    (size,) = lengths
    gap = bytes(-size % 3)
    text = binascii.b2a_base64(gap.join([*raws, b""]), newline=False).translate(_URL_SAFE)
    step, end = (size + 2) // 3 * 4, (size * 8 + 5) // 6
    return [text[start : start + end] for start in range(0, step * len(raws), step)]


def _base32(raw: bytes) -> str:
    """Return the bytes in lower-case base32 without padding, two letters at a time."""
    padded = int.from_bytes(raw + bytes(-len(raw) % 5), "big")
    bits = (len(raw) + 4) // 5 * 40
    text = "".join([_BASE32_PAIRS[padded >> shift & 1023] for shift in range(bits - 10, -1, -10)])
    return text[: (len(raw) * 8 + 4) // 5]


@lru_cache(maxsize=65_536)
def varint(number: int) -> bytes:
    """Return a number from 0 on in seven bits a byte, the lowest first."""
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
