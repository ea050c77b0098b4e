"""DKIM signatures: RSA and Ed25519 side by side, relaxed head and body, fields that matter listed once too often.

What is the same in all messages of a step is brought into its canonical form and hashed once. A body made of our own
pieces is its canonical form already; any other is brought into it.

Source:
    RFC 6376 (sections 3.4.2 and 3.4.4: relaxed; 3.7: what is hashed; 8.15: why a field is listed once more than it
    stands there), RFC 8301 (SHA-256; RSA of 1024 bits or more), RFC 8463 (Ed25519), RFC 8058 section 4 (one-click needs
    a signature over both of its fields). There is never an `l=`: what follows the signed length could be anything.
"""

from __future__ import annotations

import binascii
import hashlib
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

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
    if not sender.dkim:
        return []
    from templates.dkim_keys import load_key  # With all of `cryptography`, which only those need who sign.

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
