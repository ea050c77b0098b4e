"""Short signed tokens for links, pixels, unsubscribe pages and bounce addresses.

A token is `kid and message id | number | 15 bytes of MAC`, each part filled with zeros to a multiple of three octets,
in URL-safe base64: so a token's text is the texts of its parts, of which a message's tokens share the first, and those
of one link in all messages the second. Where letters may lose their case on the way a token is `kid | message id | MAC`
in hex (return paths) or base32 (what providers take as our reference). Old keys stay in the ring for verification.

The MACs of one message come in blocks: one keyed BLAKE2b of 64 bytes gives those of all purposes for a number, and
another those of four links, each a part of its block. A part says nothing about another, so a click token can never
pass for an unsubscribe token, and a message with eight links costs four hashes instead of twelve.

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
from typing import NamedTuple

from kernel.errors import ConfigError

_MAC_BYTES = 15
_FORMER_MAC_BYTES = 16
_MOST_BYTES = 1 + 10 + 10 + _FORMER_MAC_BYTES
"""Of a token whose numbers have 64 bits, in either form; a longer one is nobody's, and not worth reading."""
LONGEST_TOKEN = 48
"""Characters of the longest token in base64."""
_FILLING = (b"", b"\0\0", b"\0")
_BLOCK_BYTES = 4 * _MAC_BYTES
"""What is used of a block: its base64 is four texts of twenty characters."""
_HEX = re.compile(r"(?:[0-9A-Fa-f]{2})+")
_BASE32 = "abcdefghijklmnopqrstuvwxyz234567"
_BASE32_PAIRS = [first + second for first in _BASE32 for second in _BASE32]


class Purpose(StrEnum):
    OPEN = "open"
    CLICK = "click"
    UNSUBSCRIBE = "unsubscribe"
    PREFERENCES = "preferences"
    BOUNCE = "bounce"


_OWN = {Purpose.OPEN: 0, Purpose.UNSUBSCRIBE: 15, Purpose.PREFERENCES: 30, Purpose.BOUNCE: 45}
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
            start = (number & 3) * _MAC_BYTES
            return _block(self.click, message + varint(number >> 2))[start : start + _MAC_BYTES]
        start = _OWN[purpose]
        return _block(self.own, message + varint(number))[start : start + _MAC_BYTES]


class OwnTokens(NamedTuple):
    """What every e-mail carries of its own: three for URLs, and one in lower-case hex for the return path."""

    opened: bytes
    unsubscribe: bytes
    preferences: bytes
    bounce: str


class LinkNumbers:
    """The numbers of a message's links, worked out once for all messages that have the same ones."""

    __slots__ = ("groups", "links")

    def __init__(self, numbers: Sequence[int]) -> None:
        groups = list(dict.fromkeys(number >> 2 for number in numbers))
        self.groups = [varint(group) for group in groups]
        """Of each block of MACs that is needed, its own number."""
        self.links = [
            (_base64(_filled(varint(number))), _part_of_text(groups.index(number >> 2) * 4 + (number & 3)))
            for number in numbers
        ]
        """Of each link the text of its number, and where its MAC stands in the text of the blocks."""


class MessageTokens:
    """The tokens of one message, their common work done once."""

    __slots__ = ("_head", "_key", "_message")

    def __init__(self, key: _Key, message_id: int) -> None:
        self._key = key
        self._message = varint(message_id)
        self._head = _text(_filled(key.kid + self._message))

    def own(self) -> OwnTokens:
        """Return all tokens but those of clicks."""
        block = _block(self._key.own, self._message + b"\0")
        text, head = _text(block[:45]), self._head + _NONE
        bounce = (self._key.kid + self._message + block[45:60]).hex()
        return OwnTokens(head + text[:20], head + text[20:40], head + text[40:], bounce)

    def clicks(self, numbers: LinkNumbers) -> list[bytes]:
        """Return the token of each link, in their order."""
        head, message, keyed = self._head, self._message, self._key.click
        text = _text(b"".join([_block(keyed, message + group)[:_BLOCK_BYTES] for group in numbers.groups]))
        return [head + number + text[part] for number, part in numbers.links]


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
        """Return a URL-safe token without padding, 32 to 48 characters."""
        return _base64(_raw(self._keys[0], purpose, message_id, number)).decode("ascii")

    def address_token(self, message_id: int) -> str:
        """Return a lower-case base32 token that survives systems which change case, and is shorter than one in hex."""
        return _base32(_address(self._keys[0], message_id))

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
            found = self._verified_address(bytes.fromhex(token))
            if found is not None:
                return found
        upper = token.upper()
        try:
            raw = base64.b32decode(upper + "=" * (-len(upper) % 8))
        except (binascii.Error, ValueError):
            return None
        return self._verified_address(raw)

    def _verified_address(self, raw: bytes) -> Signed | None:
        if len(raw) > _MOST_BYTES:
            return None
        message_id, _ = _read_varint(raw[:-_MAC_BYTES], 1)
        if message_id is not None:
            for key in self._keys:
                if raw[:1] == key.kid and hmac.compare_digest(_address(key, message_id), raw):
                    return Signed(message_id=message_id, number=0)
        return self._verified_as_before(Purpose.BOUNCE, raw)

    def _verified(self, purpose: Purpose, raw: bytes) -> Signed | None:
        if len(raw) > _MOST_BYTES:
            return None
        return self._verified_now(purpose, raw) or self._verified_as_before(purpose, raw)

    def _verified_now(self, purpose: Purpose, raw: bytes) -> Signed | None:
        payload = raw[:-_MAC_BYTES]
        message_id, end = _read_varint(payload, 1)
        number, _ = _read_varint(payload, end + -end % 3)
        if message_id is None or number is None:
            return None
        for key in self._keys:
            # The whole is compared: a number has one form only, and what fills a part is zeros.
            if raw[:1] == key.kid and hmac.compare_digest(_raw(key, purpose, message_id, number), raw):
                return Signed(message_id=message_id, number=number)
        return None

    def _verified_as_before(self, purpose: Purpose, raw: bytes) -> Signed | None:
        payload, mac = raw[:-_FORMER_MAC_BYTES], raw[-_FORMER_MAC_BYTES:]
        message_id, end = _read_varint(payload, 1)
        number, end = _read_varint(payload, end)
        if message_id is None or number is None or payload[1:] != varint(message_id) + varint(number):
            return None
        for key in self._keys:
            if payload[:1] == key.former_kid and hmac.compare_digest(
                hmac.digest(key.former[purpose], payload, "sha256")[:_FORMER_MAC_BYTES], mac
            ):
                return Signed(message_id=message_id, number=number)
        return None


def _raw(key: _Key, purpose: Purpose, message_id: int, number: int) -> bytes:
    """Return the octets of a token."""
    message = varint(message_id)
    return _filled(key.kid + message) + _filled(varint(number)) + key.mac(purpose, message, number)


def _address(key: _Key, message_id: int) -> bytes:
    """Return the octets of a token for an address."""
    message = varint(message_id)
    return key.kid + message + key.mac(Purpose.BOUNCE, message, 0)


def _filled(part: bytes) -> bytes:
    """Return a part of a token with zeros up to a multiple of three octets, so that its base64 stands by itself."""
    return part + _FILLING[len(part) % 3]


def _part_of_text(position: int) -> slice:
    """Return where the MAC of that number in a row of blocks stands in their base64."""
    return slice(position * 20, position * 20 + 20)


def _block(keyed: hashlib.blake2b, content: bytes) -> bytes:
    # The copy carries the key already mixed in, which is half the work.
    hasher = keyed.copy()
    hasher.update(content)
    return hasher.digest()


def _base64(raw: bytes) -> bytes:
    return _text(raw).rstrip(b"=")


def _text(raw: bytes) -> bytes:
    """Return the same for octets that fill their base64 to the end."""
    return binascii.b2a_base64(raw, newline=False).replace(b"+", b"-").replace(b"/", b"_")


def _base32(raw: bytes) -> str:
    """Return the bytes in lower-case base32 without padding, two letters at a time."""
    padded = int.from_bytes(raw + bytes(-len(raw) % 5), "big")
    bits = (len(raw) + 4) // 5 * 40
    text = "".join([_BASE32_PAIRS[padded >> shift & 1023] for shift in range(bits - 10, -1, -10)])
    return text[: (len(raw) * 8 + 4) // 5]


def varint(number: int) -> bytes:
    """Return a number from 0 on in seven bits a byte, the lowest first."""
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def _read_varint(raw: bytes, start: int) -> tuple[int | None, int]:
    """Return the number that begins there and where it ends; None where it does not end."""
    number = 0
    for position in range(start, len(raw)):
        byte = raw[position]
        number |= (byte & 0x7F) << 7 * (position - start)
        if not byte & 0x80:
            return number, position + 1
    return None, len(raw)


_NONE = _base64(_filled(varint(0)))
"""How the tokens that bear no number say so."""
