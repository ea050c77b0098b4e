"""What a server of the tests took over, on disk and fsynced before its client hears of it."""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

_MESSAGE_ID = re.compile(rb"^message-id:\s*(<[^>\r\n]+>)", re.IGNORECASE | re.MULTILINE)
_DATE = re.compile(rb"^date:[^\r\n]*\r\n", re.IGNORECASE | re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Taken:
    """One message that arrived whole. `kept` tells whether the server took it over; `at` is its clock, in seconds."""

    id: str
    sender: str
    recipient: str
    sha256: str
    at: float
    kept: bool


class TruthLog:
    """An append-only file of what arrived; a line is on disk before `write` returns."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def write(self, taken: Taken) -> None:
        os.write(self._descriptor, json.dumps(asdict(taken)).encode() + b"\n")
        os.fsync(self._descriptor)

    def close(self) -> None:
        os.close(self._descriptor)


def read_truth(path: Path) -> Iterator[Taken]:
    """Yield all that arrived; a last line cut short by a kill never was answered and is left out."""
    if not path.exists():
        return
    for line in path.read_bytes().split(b"\n")[:-1]:
        yield Taken(**json.loads(line))


class TruthReader:
    """Reads a truth file again and again, and each line once."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read = 0
        self._seen: list[Taken] = []

    def all(self) -> list[Taken]:
        """Return all that arrived so far."""
        if self._path.exists():
            with self._path.open("rb") as file:
                file.seek(self._read)
                new, _, _ = file.read().rpartition(b"\n")
            if new:
                self._seen += [Taken(**json.loads(line)) for line in new.split(b"\n")]
                self._read += len(new) + 1
        return list(self._seen)


def mail_taken(raw: bytes, sender: str, recipient: str, *, kept: bool) -> Taken:
    """Describe an e-mail by its Message-ID and the digest of all its bytes but the Date field."""
    found = _MESSAGE_ID.search(raw)
    digest = hashlib.sha256(_DATE.sub(b"", raw, count=1)).hexdigest()
    return Taken(found[1].decode() if found else "", sender, recipient, digest, time.time(), kept)
