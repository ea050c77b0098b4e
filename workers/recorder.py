"""The flight recorder: what happened to each message of a chunk, kept where `kill -9` cannot reach it.

A memory-mapped file holds one slot per message. The kernel keeps its pages when the process dies, so whoever
takes over reads exactly what the dead worker knew. A restart of the machine voids it (the claim keeps the boot's
name): what was `sending` then is in doubt.

Two parties may touch a recorder: its owner, and a rescuer whose lease check says the owner is late. They settle
who goes first without a lock: the owner marks the slot and *then* looks at the fence; the rescuer raises the fence
and *then* reads the slots. Whatever the order, either the owner sees the fence and sends nothing, or the rescuer
sees the mark and holds the message in doubt.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

_MAGIC = b"CARILLN1"
_HEADER = struct.Struct("<8sQI")
_FENCE_AT = _HEADER.size
_IN_HAND = struct.Struct("<I")
_IN_HAND_AT = 24
"""Which slot's message is being made, counted from 1."""
_IDS_AT = 32
_SLOT = struct.Struct("<BHBBQ51s")
"""State, code, SMS parts, length of the text, instant in milliseconds, text."""
_DETAILS = struct.Struct("<HBBQ51s")
"""A slot but for its state."""


TEXT_BYTES = 51


class Slot(IntEnum):
    """What is known of one message."""

    UNTOUCHED = 0
    COMMITTED = 1
    """The final dot or the request body may be out; no answer yet."""
    ACCEPTED = 2
    REFUSED = 3
    DEFERRED = 4


@dataclass(frozen=True, slots=True)
class Entry:
    """One message's slot: its state, the gateway's code, and its first words or its own id of the message."""

    message_id: int
    slot: Slot
    code: int
    parts: int
    at_ms: int
    text: str


class Fenced(Exception):
    """The lease is gone and a rescuer has raised the fence: nothing more may be sent from this chunk."""


class FlightRecorder:
    """The recorder of one chunk. `create` makes and locks it, `rescue` opens another's."""

    def __init__(self, path: Path, descriptor: int, memory: mmap.mmap, message_ids: Sequence[int]) -> None:
        self.path = path
        self._descriptor = descriptor
        self._memory = memory
        self._ids = tuple(message_ids)
        self._slots_at = _IDS_AT + 8 * len(self._ids)

    @classmethod
    def create(cls, path: Path, claim_id: int, message_ids: Sequence[int]) -> FlightRecorder:
        """Make the file for a chunk, hold its lock, and leave every slot untouched."""
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        size = _IDS_AT + (8 + _SLOT.size) * len(message_ids)
        # Room on the disk now: a page that the kernel cannot write later would end the process in mid-flight.
        os.posix_fallocate(descriptor, 0, size)
        memory = mmap.mmap(descriptor, size)
        memory[_IDS_AT : _IDS_AT + 8 * len(message_ids)] = struct.pack(f"<{len(message_ids)}Q", *message_ids)
        # The header goes last: a file without it was never in use.
        memory[: _HEADER.size] = _HEADER.pack(_MAGIC, claim_id, len(message_ids))
        return cls(path, descriptor, memory, message_ids)

    @classmethod
    def rescue(cls, path: Path) -> FlightRecorder | None:
        """Open a recorder somebody left; None where there is none, or it was never in use."""
        try:
            descriptor = os.open(path, os.O_RDWR)
        except FileNotFoundError:
            return None
        size = os.fstat(descriptor).st_size
        if size < _IDS_AT:
            os.close(descriptor)
            return None
        memory = mmap.mmap(descriptor, size)
        magic, _claim_id, count = _HEADER.unpack(memory[: _HEADER.size])
        if magic != _MAGIC or size != _IDS_AT + (8 + _SLOT.size) * count:
            memory.close()
            os.close(descriptor)
            return None
        return cls(path, descriptor, memory, struct.unpack(f"<{count}Q", memory[_IDS_AT : _IDS_AT + 8 * count]))

    def owner_is_dead(self) -> bool:
        """Tell whether the owner's process is gone: the kernel drops its lock with it. Takes the lock if so."""
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def hold(self, index: int | None) -> None:
        """Say whose message is being made, so that one over which the process dies is known; None once none is."""
        _IN_HAND.pack_into(self._memory, _IN_HAND_AT, 0 if index is None else index + 1)

    def in_hand(self) -> int | None:
        """Return the id of the message that was being made last; None where none was."""
        (number,) = _IN_HAND.unpack_from(self._memory, _IN_HAND_AT)
        return self._ids[number - 1] if 0 < number <= len(self._ids) else None

    def commit(self, index: int, at_ms: int) -> None:
        """Mark, with the present instant, that the next byte cannot be taken back.

        Raises:
            Fenced: somebody has taken the chunk over; the mark is withdrawn and nothing may be sent.
        """
        place = self._slots_at + index * _SLOT.size
        _DETAILS.pack_into(self._memory, place + 1, 0, 0, 0, at_ms, b"")
        self._memory[place] = Slot.COMMITTED
        if self._memory[_FENCE_AT]:
            self._memory[place] = Slot.UNTOUCHED
            raise Fenced

    def retract(self, index: int) -> None:
        """Withdraw a mark: it turned out that nothing left after all."""
        self._memory[self._at(index)] = Slot.UNTOUCHED

    def record(self, index: int, slot: Slot, code: int, text: str, *, at_ms: int, parts: int = 0) -> None:
        """Keep the gateway's answer and its instant; the state goes last, so that a torn write leaves the mark."""
        raw = text.encode("utf-8", "replace")[:TEXT_BYTES]
        place = self._at(index)
        _DETAILS.pack_into(self._memory, place + 1, code, min(parts, 255), len(raw), at_ms, raw)
        self._memory[place] = slot

    def slot(self, index: int) -> Slot:
        """Return what is known of one message."""
        return Slot(self._memory[self._at(index)])

    def raise_fence(self) -> None:
        """Forbid the owner to send anything more."""
        self._memory[_FENCE_AT] = 1

    def entries(self) -> Iterator[Entry]:
        """Yield every slot in the order of the chunk."""
        for index, message_id in enumerate(self._ids):
            place = self._at(index)
            slot, code, parts, length, at_ms, raw = _SLOT.unpack(self._memory[place : place + _SLOT.size])
            yield Entry(message_id, Slot(slot), code, parts, at_ms, raw[:length].decode("utf-8", "replace"))

    def close(self, *, remove: bool) -> None:
        """Let go of the file; remove it once its outcomes are committed."""
        if remove:
            self.path.unlink(missing_ok=True)
        self._memory.close()
        os.close(self._descriptor)

    def _at(self, index: int) -> int:
        return self._slots_at + index * _SLOT.size
