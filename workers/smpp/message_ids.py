"""An SMSC's own id of a message, in one spelling.

SMPP 3.4 lets an SMSC name a message in submit_sm_resp in any form, and its receipt (appendix B) in another: in practice
hexadecimal in one and decimal in the other, with or without zeros in front.
"""

from __future__ import annotations

import re
from typing import Literal

Mode = Literal["auto", "same"]

_HEX = re.compile(r"[0-9a-f]{1,16}")
_DECIMAL = re.compile(r"[0-9]{1,19}")


def kept_id(given: str, mode: Mode) -> str:
    """Return how an id of submit_sm_resp is kept: as given, or without zeros in front and in small letters."""
    if mode == "same":
        return given
    return given.lower().lstrip("0") or given


def spellings(told: str, mode: Mode) -> tuple[str, ...]:
    """Return what a receipt's id may have been kept as, the likeliest first; empty where it tells none."""
    plain = kept_id(told, mode)
    if mode == "same" or not plain:
        return (plain,) if plain else ()
    found = [plain]
    if _DECIMAL.fullmatch(plain):
        found.append(f"{int(plain):x}")
    if _HEX.fullmatch(plain):
        found.append(str(int(plain, 16)))
    return tuple(dict.fromkeys(found))
