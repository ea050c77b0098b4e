"""Private keys for DKIM: read, made, and what of them belongs in the DNS.

Source:
    RFC 6376 section 3.6.1 (the record), RFC 8301 (RSA of 1024 bits or more), RFC 8463 (Ed25519).
"""

from __future__ import annotations

import base64
import binascii
import re
from functools import lru_cache
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

from kernel.errors import ConfigError
from templates.dkim import DkimKey

LEAST_RSA_BITS = 1024


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


def _base64(raw: bytes) -> str:
    return binascii.b2a_base64(raw, newline=False).decode("ascii")
