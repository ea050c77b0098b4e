"""Which messages a claim was made for: kept with the claim, so that no index of messages has to say it.

A claim changes a row of each of its messages. An index over the claim would have to be written each time as well, and
on PostgreSQL every other index with it: see docs/decisions/0017.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from sqlalchemy import Connection, bindparam, select

from store.tables import claims, messages


def packed(ids: Sequence[int]) -> bytes:
    """Return the ids as `claims.message_ids` holds them."""
    return struct.pack(f"<{len(ids)}q", *ids)


def ids_of_claim(connection: Connection, claim_id: int) -> list[int]:
    """Return the messages a claim was made for, those that have left it since included; empty where it is gone."""
    held: bytes | None = connection.execute(_HELD, {"claim_id": claim_id}).scalar_one_or_none()
    if held is not None:
        return list(struct.unpack(f"<{len(held) // 8}q", held))
    # A worker of an earlier version made it, or it is gone: a walk through what is pending.
    walk = select(messages.c.id).where(messages.c.ended_at.is_(None), messages.c.claim_id == claim_id)
    return list(connection.execute(walk).scalars())


_HELD = select(claims.c.message_ids).where(claims.c.id == bindparam("claim_id"))
