"""The PDUs of SMPP 3.4 in typed form; `smpplib` does the coding of bodies.

Source:
    Short Message Peer to Peer Protocol Specification v3.4, issue 1.2: section 3.2 (header), 4 (bodies), 5.1.3 (status).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import Any

from smpplib import command_codes, consts, smpp
from smpplib.exceptions import PDUError, UnknownCommandError

HEADER_BYTES = 16
LONGEST_PDU = 64 * 1024 + 1024
"""A message_payload may hold 64 KiB; nothing longer is SMPP."""

OK = 0x00
RX_TEMPORARY = 0x64
"""ESME_RX_T_APPN: keep it and deliver it again later."""
UNKNOWN_COMMAND = 0x03

_HEADER = struct.Struct(">LLLL")
_RESPONSE = 0x80000000
_UNREADABLE = (PDUError, UnknownCommandError, struct.error, KeyError, ValueError, TypeError, AttributeError, IndexError)
"""What smpplib raises on octets that are no PDU; none of it says anything of ourselves."""


class Unreadable(ValueError):
    """Octets that are no PDU of SMPP 3.4."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pdu:
    """One PDU. `fields` holds its body's fields by their names in the specification; text fields are octets."""

    command: str
    status: int
    sequence: int
    fields: dict[str, Any] = field(default_factory=dict)

    @property
    def is_request(self) -> bool:
        return not self.command.endswith("_resp") and self.command != "generic_nack"

    def octets(self, name: str) -> bytes:
        """Return a field of octets; b"" where the PDU has none."""
        value = self.fields.get(name)
        return value if isinstance(value, bytes) else b""

    def number(self, name: str) -> int:
        """Return a numeric field; 0, the specification's default, where the PDU has none."""
        value = self.fields.get(name)
        return value if isinstance(value, int) else 0

    def text(self, name: str) -> str:
        """Return a C-octet string."""
        return self.octets(name).decode("latin-1").strip()


def length_of(prefix: bytes) -> int:
    """Return how many octets a PDU has that begins with these four.

    Raises:
        Unreadable: no PDU has that length.
    """
    (length,) = struct.unpack(">L", prefix)
    if not HEADER_BYTES <= length <= LONGEST_PDU:
        raise Unreadable(f"a PDU of {length:,} octets")
    return int(length)


def read(raw: bytes) -> Pdu:
    """Return the PDU of these octets. An error response has no body, whatever stands in it.

    Raises:
        Unreadable: they are none, or one that SMPP 3.4 does not have.
    """
    _length, code, status, sequence = _HEADER.unpack_from(raw)
    try:
        command = command_codes.get_command_name(code)
        if code & _RESPONSE and status != OK:
            return Pdu(command=command, status=status, sequence=sequence)
        # A response to nothing of ours has no sequence to take: any number will do, the header's replaces it.
        parsed = smpp.make_pdu(command, client=_Counter(), allow_unknown_opt_params=True)
        parsed.parse(raw)
        fields = {name: getattr(parsed, name, None) for name in parsed.params}
    except _UNREADABLE as error:
        raise Unreadable(f"command {code:#010x}: {type(error).__name__}: {error}") from error
    return Pdu(command=command, status=status, sequence=sequence, fields=fields)


def sequence_of(raw: bytes) -> tuple[bool, int]:
    """Return whether whole octets ask for an answer, and their sequence number, however strange the command."""
    _length, code, _status, sequence = _HEADER.unpack_from(raw)
    return not code & _RESPONSE, sequence


def write(command: str, sequence: int, status: int = OK, **fields: Any) -> bytes:
    """Return a PDU's octets.

    Raises:
        ValueError: a field cannot be written, as a system_id in Cyrillic.
    """
    made = smpp.make_pdu(command, client=_Counter(), **fields)
    made.sequence = sequence
    made.status = status
    octets: bytes = made.generate()
    return octets


def status_name(status: int) -> str:
    """Return a status as the specification calls it, with its number."""
    return f"{_NAMES[status]} ({status:#x})" if status in _NAMES else f"status {status:#x}"


class _Counter:
    """Stands for smpplib's client, which PDUs ask for a number that `write` and `read` replace."""

    sequence = 0

    def next_sequence(self) -> int:
        return 0


_NAMES: dict[int, str] = {
    value: name.removeprefix("SMPP_") for name, value in vars(consts).items() if name.startswith("SMPP_ESME_")
}
