"""Lots: a number from 0 to 9,999 for each contact and purpose, the same on both databases, in every run, for ever."""

from __future__ import annotations

import hashlib
from typing import Any

from sqlalchemy import BigInteger, ColumnElement, cast

LOTS = 10_000
_PRIME = 2_147_483_647
_NEAR = 1_000_003
"""Below 2^20, so that no product below leaves 63 bits."""


def lot_of(contact_id: int, purpose: str) -> int:
    """Return a contact's lot: as good as drawn anew for each purpose, as the canary of a run."""
    shift, factor = _key(purpose)
    return (contact_id + shift) % _NEAR * factor % _PRIME % LOTS


def lot(contact_id: ColumnElement[Any], purpose: str) -> ColumnElement[int]:
    """Return the same as an SQL expression."""
    shift, factor = _key(purpose)
    return (cast(contact_id, BigInteger) + shift) % _NEAR * factor % _PRIME % LOTS


def _key(purpose: str) -> tuple[int, int]:
    # A factor of its own keeps two purposes' lots from going together.
    drawn = hashlib.sha256(purpose.encode()).digest()
    return int.from_bytes(drawn[:4], "big") % _NEAR, 16_807 + int.from_bytes(drawn[4:8], "big") % (2**31 - 20_000)
