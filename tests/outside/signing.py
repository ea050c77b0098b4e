"""Keys to sign with, the DNS records that belong to them, and dkimpy as the judge."""

from __future__ import annotations

import re
from pathlib import Path

import dkim

from kernel.settings import Workspace
from templates.dkim import keys_of
from templates.dkim_keys import new_key

ALGORITHMS = ("ed25519", "rsa")
SENDER_KEYS = ", dkim: [{selector: ed25519, key_file: ed25519.pem}, {selector: rsa, key_file: rsa.pem}]"
"""What carillon.yaml says of the sender, after other keys."""


def make_keys(root: Path) -> None:
    """Write both keys into a workspace."""
    (root / "ed25519.pem").write_text(new_key("ed25519"), encoding="ascii")
    (root / "rsa.pem").write_text(new_key("rsa"), encoding="ascii")


def records_of(workspace: Workspace) -> dict[str, str]:
    """Return the TXT records that belong in the DNS, by name."""
    [sender] = workspace.settings.senders.values()
    return {key.name: key.record for key in keys_of(sender, workspace.root)}


def verified(body: bytes, records: dict[str, str]) -> list[bool]:
    """Return dkimpy's verdict on each signature, the topmost first."""

    def txt(name: bytes, timeout: int = 5) -> bytes:
        return records.get(name.decode().rstrip("."), "").encode()

    def verdict(index: int) -> bool:
        try:
            return bool(dkim.DKIM(body).verify(idx=index, dnsfunc=txt))
        except dkim.ValidationError:
            return False

    count = len(re.findall(rb"^DKIM-Signature:", body, re.MULTILINE | re.IGNORECASE))
    return [verdict(index) for index in range(count)]
