"""What an SMSC's status says of a message, and of the lane it came by.

Source:
    SMPP 3.4 section 5.1.3, table 5-2. What no table has (0x400 to 0x4FF is the vendors' own) was not accepted, and may
    be another time: the gateway's setting `statuses` says better.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum


class Meaning(StrEnum):
    """What the caller does next."""

    TRANSIENT = "transient"
    """This message later."""
    PERMANENT = "permanent"
    """This message never."""
    THROTTLED = "throttled"
    """Slower; no message is to blame."""
    DOWN = "down"
    """Nothing more now; no message is to blame."""
    SETTINGS = "settings"
    """The operator mends it; no message is to blame."""


_MEANINGS: dict[int, Meaning] = {
    0x01: Meaning.PERMANENT,  # ESME_RINVMSGLEN
    0x02: Meaning.PERMANENT,  # ESME_RINVCMDLEN
    0x04: Meaning.DOWN,  # ESME_RINVBNDSTS: the SMSC has forgotten our bind
    0x05: Meaning.DOWN,  # ESME_RALYBND: a bind of ours from before lingers
    0x08: Meaning.TRANSIENT,  # ESME_RSYSERR
    0x0A: Meaning.SETTINGS,  # ESME_RINVSRCADR: the gateway's `sender`
    0x0B: Meaning.PERMANENT,  # ESME_RINVDSTADR
    0x0D: Meaning.DOWN,  # ESME_RBINDFAIL
    0x0E: Meaning.SETTINGS,  # ESME_RINVPASWD
    0x0F: Meaning.SETTINGS,  # ESME_RINVSYSID
    0x14: Meaning.THROTTLED,  # ESME_RMSGQFUL
    0x15: Meaning.SETTINGS,  # ESME_RINVSERTYP
    0x43: Meaning.PERMANENT,  # ESME_RINVESMCLASS: it takes no joined parts
    0x45: Meaning.TRANSIENT,  # ESME_RSUBMITFAIL
    0x48: Meaning.SETTINGS,  # ESME_RINVSRCTON
    0x49: Meaning.SETTINGS,  # ESME_RINVSRCNPI
    0x50: Meaning.SETTINGS,  # ESME_RINVDSTTON
    0x51: Meaning.SETTINGS,  # ESME_RINVDSTNPI
    0x53: Meaning.SETTINGS,  # ESME_RINVSYSTYP
    0x58: Meaning.THROTTLED,  # ESME_RTHROTTLED
    0x62: Meaning.SETTINGS,  # ESME_RINVEXPIRY: the gateway's `validity`
}


def meaning_of(status: int, own: Mapping[int, str]) -> Meaning:
    """Return what a status other than ESME_ROK means; the gateway's own table goes before the specification's."""
    if status in own:
        return Meaning(own[status])
    return _MEANINGS.get(status, Meaning.TRANSIENT)


def own_statuses(written: Mapping[str, str]) -> dict[int, str]:
    """Return the gateway's own table with its keys, decimal or as "0x41d", as numbers."""
    return {int(key, 0): word for key, word in written.items()}
