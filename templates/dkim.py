"""DKIM signatures: RSA and Ed25519 side by side, relaxed head and body, fields that matter listed once too often.

What is the same in all messages of a step is brought into its canonical form and hashed once. A body made of our own
pieces is its canonical form already; any other is brought into it.

Source:
    RFC 6376 (sections 3.4.2 and 3.4.4: relaxed; 3.7: what is hashed; 8.15: why a field is listed once more than it
    stands there), RFC 8301 (SHA-256; RSA of 1024 bits or more), RFC 8463 (Ed25519), RFC 8058 section 4 (one-click needs
    a signature over both of its fields). There is never an `l=`: what follows the signed length could be anything.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_private_key,
    load_pem_private_key,
)

from kernel.dkim_keys import DkimKeySettings
from kernel.errors import ConfigError
from kernel.settings import Sender
from templates.addresses import wire_address

SIGNED = (
    *("from", "reply-to", "list-id", "list-unsubscribe-post", "feedback-id", "auto-submitted", "precedence"),
    *("mime-version", "content-type", "date", "message-id", "to", "subject", "list-unsubscribe"),
)
"""Fields a signature covers where a message has them: first those all messages of a step share."""
OVERSIGNED = ("from", "subject", "to", "date", "reply-to", "cc")
"""Fields listed once more than they stand there: one that is added on the way breaks the signature."""
LEAST_RSA_BITS = 1024
_GAPS = re.compile(rb"[ \t\r\n]+")
_GAPS_IN_LINE = re.compile(rb"[ \t]+")
_LINE = 72


@dataclass(frozen=True, slots=True, kw_only=True)
class DkimKey:
    """A private key with its place in the DNS. `sign` takes a SHA-256 digest."""

    domain: str
    selector: str
    algorithm: str
    bits: int
    sign: Callable[[bytes], bytes]
    record: str
    """The TXT record that belongs at `name`."""

    @property
    def name(self) -> str:
        """Where the record belongs in the DNS."""
        return f"{self.selector}._domainkey.{self.domain}"


def load_key(domain: str, selector: str, material: str) -> DkimKey:
    """Return a key, its algorithm told by what it is.

    Args:
        domain: Of the signature, d=; in A-labels.
        selector: Of the signature, s=.
        material: A private key as PEM, or in base64: DER, or the 32 octets of an Ed25519 seed.

    Raises:
        ConfigError: it is no key, of another kind, or too short. The message does not repeat the key.
    """
    where = f"the DKIM key {selector!r} of {domain}"
    try:
        return _key(domain, selector, material.strip())
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        # The libraries' words may hold a part of the key.
        raise ConfigError(f"{where} is no private key; make one with `carillon dkim new {selector}`") from error
    except _Unfit as error:
        raise ConfigError(f"{where} {error}; make one with `carillon dkim new {selector}`") from error


def keys_of(sender: Sender, root: Path) -> list[DkimKey]:
    """Return the keys that sign a sender's messages.

    Args:
        sender: As of carillon.yaml.
        root: The workspace's folder, from which key files are looked for.

    Raises:
        ConfigError: a key cannot be read, or is not fit.
        TemplateProblem: the sender's address is none.
    """
    domain = wire_address(sender.email).domain
    return [load_key(key.domain or domain, key.selector, _material(key, root)) for key in sender.dkim]


def _material(key: DkimKeySettings, root: Path) -> str:
    if key.key is not None:
        return key.key.get_secret_value()
    path = root / (key.key_file or "")
    try:
        return path.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"the DKIM key {key.key_file} cannot be read; make one with `carillon dkim new {key.selector}`"
        ) from error


class _Unfit(Exception):
    """Says what is wrong with a key that was read."""


@lru_cache(maxsize=64)
def _key(domain: str, selector: str, material: str) -> DkimKey:
    private = _private(material)
    if isinstance(private, ed25519.Ed25519PrivateKey):
        public = private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        return DkimKey(
            domain=domain,
            selector=selector,
            algorithm="ed25519-sha256",
            bits=256,
            sign=private.sign,
            record=f"v=DKIM1; k=ed25519; p={_base64(public)}",
        )
    if not isinstance(private, rsa.RSAPrivateKey):
        raise _Unfit("is neither RSA nor Ed25519")
    if private.key_size < LEAST_RSA_BITS:
        raise _Unfit(f"has {private.key_size} bits, and receivers refuse fewer than {LEAST_RSA_BITS}")
    padding, digest = PKCS1v15(), Prehashed(hashes.SHA256())
    public = private.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return DkimKey(
        domain=domain,
        selector=selector,
        algorithm="rsa-sha256",
        bits=private.key_size,
        sign=lambda hashed: private.sign(hashed, padding, digest),
        record=f"v=DKIM1; k=rsa; p={_base64(public)}",
    )


def _private(material: str) -> object:
    if material.startswith("-----BEGIN"):
        return load_pem_private_key(material.encode(), password=None)
    raw = base64.b64decode(re.sub(r"\s", "", material), validate=True)
    return ed25519.Ed25519PrivateKey.from_private_bytes(raw) if len(raw) == 32 else load_der_private_key(raw, None)


def new_key(algorithm: Literal["rsa", "ed25519"]) -> str:
    """Return a new private key as PEM: Ed25519, or RSA with 2048 bits (RFC 8301 section 3.2)."""
    private: rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey
    if algorithm == "rsa":
        private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    else:
        private = ed25519.Ed25519PrivateKey.generate()
    return private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode("ascii")


class DkimStep:
    """Signs the messages of one step with all keys of its sender."""

    def __init__(self, keys: Sequence[DkimKey], fields: Iterable[bytes], *, expires_s: int | None = None) -> None:
        """Take what all messages share.

        Args:
            keys: At least one.
            fields: The fields all messages share, each with its CRLF.
            expires_s: For how long a signature holds; None for ever.
        """
        named = [(name, field) for name, field in map(relaxed_field, fields) if name in SIGNED]
        self._keys = keys
        self._names = [name for name, _ in named]
        self._fixed = hashlib.sha256(b"".join(field for _, field in named))
        self._expires_s = expires_s
        self._listed: dict[tuple[str, ...], bytes] = {}

    def signatures(self, fields: Iterable[bytes], body: bytes, *, at: int) -> bytes:
        """Return a DKIM-Signature field for each key.

        Args:
            fields: Those the message has beside the step's, each with its CRLF.
            body: As it goes on the wire.
            at: The present second since 1970.
        """
        named = [(name, field) for name, field in map(relaxed_field, fields) if name in SIGNED]
        hashed = self._fixed.copy()
        hashed.update(b"".join([field for _, field in named]))
        names = tuple([name for name, _ in named])
        listed = self._listed.get(names)
        if listed is None:
            listed = self._listed[names] = _listed([*self._names, *names])
        times = b"t=%d;" % at if self._expires_s is None else b"t=%d; x=%d;" % (at, at + self._expires_s)
        body_hash = binascii.b2a_base64(hashlib.sha256(relaxed_body(body)).digest(), newline=False)
        return b"".join([_signature(key, hashed, times, listed, body_hash) for key in self._keys])


def _signature(key: DkimKey, hashed: hashlib._Hash, times: bytes, listed: bytes, body_hash: bytes) -> bytes:
    value = (
        f"v=1; a={key.algorithm}; c=relaxed/relaxed; d={key.domain};\r\n s={key.selector}; ".encode()
        + times
        + b"\r\n h="
        + listed
        + b";\r\n bh="
        + body_hash
        + b";\r\n b="
    )
    whole = hashed.copy()
    # A fold of ours is a line break before one space, so without the breaks it is the relaxed form.
    whole.update(b"dkim-signature:" + value.replace(b"\r\n", b""))
    signature = binascii.b2a_base64(key.sign(whole.digest()), newline=False)
    lines = b"\r\n ".join([signature[start : start + _LINE] for start in range(0, len(signature), _LINE)])
    return b"DKIM-Signature: " + value + lines + b"\r\n"


def _listed(names: Sequence[str]) -> bytes:
    """Return the value of h=: the fields as they were hashed, then those listed once too often."""
    lines = [""]
    for name in [*names, *OVERSIGNED]:
        if len(lines[-1]) + len(name) > _LINE:
            lines.append("")
        lines[-1] += f"{name}:"
    return "\r\n ".join(lines).removesuffix(":").encode()


def relaxed_field(field: bytes) -> tuple[str, bytes]:
    """Return a field's name in small letters, and the field in its relaxed form with its CRLF."""
    name, _, value = field.partition(b":")
    name = name.rstrip().lower()
    return name.decode("ascii"), name + b":" + _GAPS.sub(b" ", value).strip() + b"\r\n"


def relaxed_body(body: bytes) -> bytes:
    """Return a body in its relaxed form: white space drawn together, none at line ends, no empty lines at the end.

    Args:
        body: Not empty, its last line ended by CRLF.
    """
    if b"  " in body or b"\t" in body or b" \r\n" in body:
        body = _GAPS_IN_LINE.sub(b" ", body).replace(b" \r\n", b"\r\n")
    while body.endswith(b"\r\n\r\n"):
        body = body[:-2]
    return body


def _base64(raw: bytes) -> str:
    return binascii.b2a_base64(raw, newline=False).decode("ascii")
