"""Names that are fixed before anything is sent and stay the same on every attempt."""

from __future__ import annotations

import hashlib
import socket
import uuid
from pathlib import Path


def message_id_header(message_id: int, installation: str, domain: str) -> str:
    """Return the Message-ID of a message: a pure function of its row, so every attempt bears the same one.

    Args:
        message_id: The message's primary key.
        installation: This installation's random name, so that two installations never collide.
        domain: The sender's own domain, in ASCII.

    Source:
        RFC 5322 section 3.6.4.
    """
    return f"<m{message_id}.{installation}@{domain}>"


def new_installation() -> str:
    """Return a random name for a new database."""
    return uuid.uuid4().hex[:12]


def digest(*parts: str | bytes) -> str:
    """Return a SHA-256 in hex over parts, each length-prefixed so that their borders count."""
    total = hashlib.sha256()
    for part in parts:
        raw = part if isinstance(part, bytes) else part.encode()
        total.update(len(raw).to_bytes(8, "big"))
        total.update(raw)
    return total.hexdigest()


def host_name() -> str:
    """Return this machine's name as kept with claims."""
    return socket.gethostname()


def boot_id() -> str:
    """Return a name that changes whenever this machine restarts; "" where the system tells none."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""
