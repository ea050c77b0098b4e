"""Messages of Amazon SNS: verified by the certificate they name, which only Amazon can serve.

Source:
    AWS, "Verifying the signatures of Amazon SNS messages" (versions 1 and 2) and "Making sure your endpoint is ready
    to process SNS messages".
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

import requests
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.hashes import SHA1, SHA256
from cryptography.x509 import load_pem_x509_certificate

from workers.inbound.callbacks import CallbackError
from workers.inbound.provider_events import text_of

Fetch = Callable[[str], bytes]
"""Gets a document by its URL. Raises CallbackError."""

_HOST = re.compile(r"sns\.[a-z0-9-]{3,40}\.amazonaws\.com(\.cn)?")
_SIGNED: dict[str, tuple[str, ...]] = {
    "Notification": ("Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type"),
    "SubscriptionConfirmation": ("Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type"),
    "UnsubscribeConfirmation": ("Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type"),
}
_FETCHED_BYTES = 64 * 1024


def verify(message: Mapping[str, Any], topic: str, fetch: Fetch) -> None:
    """Check that a message is of our topic and signed by SNS.

    Raises:
        CallbackError: it is not, or the certificate cannot be had.
    """
    if text_of(message.get("TopicArn")) != topic:
        raise CallbackError(f"the topic {text_of(message.get('TopicArn'))[:200]!r} is not the one in carillon.yaml")
    names = _SIGNED.get(text_of(message.get("Type")))
    if names is None:
        raise CallbackError("no message of SNS: its type is unknown (raw message delivery carries no signature)")
    url = text_of(message.get("SigningCertURL"))
    if not amazons(url) or not urlsplit(url).path.endswith(".pem"):
        raise CallbackError(f"the certificate is not Amazon's: {url[:200]!r}")
    # SNS signs the values as they are; a field that is not there is left out.
    signed = "".join(f"{name}\n{message[name]}\n" for name in names if isinstance(message.get(name), str))
    algorithm = SHA256() if text_of(message.get("SignatureVersion")) == "2" else SHA1()  # noqa: S303 - version 1 is so
    try:
        key = _rsa_key(fetch(url))
        signature = base64.b64decode(text_of(message.get("Signature")), validate=True)
        key.verify(signature, signed.encode("utf-8", "replace"), PKCS1v15(), algorithm)
    except CallbackError:
        raise
    except (InvalidSignature, UnsupportedAlgorithm, ValueError, binascii.Error) as error:
        raise CallbackError("the signature is not SNS's") from error


def _rsa_key(pem: bytes) -> RSAPublicKey:
    key = load_pem_x509_certificate(pem).public_key()
    if not isinstance(key, RSAPublicKey):
        raise CallbackError("the certificate holds no RSA key")
    return key


def confirm(message: Mapping[str, Any], fetch: Fetch) -> None:
    """Follow the link of a verified confirmation of a subscription.

    Raises:
        CallbackError: the link is not Amazon's, or does not answer.
    """
    url = text_of(message.get("SubscribeURL"))
    if not amazons(url):
        raise CallbackError(f"the link to confirm the subscription is not Amazon's: {url[:200]!r}")
    fetch(url)


def amazons(url: str) -> bool:
    """Tell whether a URL can only be answered by SNS: https, its own host, the usual port, nobody logged in."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return False
    plain = parts.username is None and parts.password is None and port in (None, 443)
    return parts.scheme == "https" and plain and _HOST.fullmatch(parts.hostname or "") is not None


def fetch_from_amazon(url: str) -> bytes:
    """Return a document of Amazon's; certificates are fetched once a process.

    Raises:
        CallbackError: it does not come.
    """
    return _certificate(url) if urlsplit(url).path.endswith(".pem") else _fetched(url)


@lru_cache(maxsize=8)
def _certificate(url: str) -> bytes:
    return _fetched(url)


def _fetched(url: str) -> bytes:
    try:
        with requests.get(url, timeout=10, allow_redirects=False, stream=True) as answer:
            if answer.status_code != 200:
                raise CallbackError(f"{urlsplit(url).hostname} answers {answer.status_code}")
            return bytes(answer.raw.read(_FETCHED_BYTES, decode_content=True))
    except (requests.RequestException, OSError) as error:
        raise CallbackError(f"{urlsplit(url).hostname} does not answer: {type(error).__name__}") from error
