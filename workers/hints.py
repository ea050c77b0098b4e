"""What a look at the status should lead to: for each trouble, the command that tells more or mends it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from kernel.vocabulary import MessageState

_IDLE_AFTER = timedelta(minutes=2)
"""Hints are published twice a second and swept up every few: what stays due so long has nobody to take it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Symptoms:
    """What hints follow from. `sendable_since` is since when something could leave and did not."""

    states: dict[str, int]
    sendable_since: datetime | None
    claims: int
    closed: tuple[str, ...]
    unknown_gateways: tuple[str, ...]
    paused_due: int
    balanced: bool


def hints(symptoms: Symptoms, *, now: datetime) -> tuple[str, ...]:
    """Return what to do, the most pressing first; nothing where all is well."""
    return tuple(_hints(symptoms, now))


def _hints(symptoms: Symptoms, now: datetime) -> Iterator[str]:
    if not symptoms.balanced:
        yield "the books do not balance: `carillon ledger audit` says which messages are missing"
    since = symptoms.sendable_since
    if since is not None and not symptoms.claims and now - since > _IDLE_AFTER:
        yield (
            f"messages are due since {since:%Y-%m-%d %H:%M} UTC and nobody sends them: is `carillon up` running, or a "
            "worker and a scheduler?"
        )
    for name in symptoms.closed:
        yield f"{name} is closed: `carillon doctor` tries it; once mended, `carillon lanes open {name}`"
    for name in symptoms.unknown_gateways:
        yield f"messages wait for gateway {name!r}, which carillon.yaml lacks: put it back, or cancel the campaign"
    if symptoms.paused_due:
        yield f"{symptoms.paused_due:,} of the messages due belong to paused campaigns: `carillon campaigns list`"
    doubtful = symptoms.states.get(MessageState.IN_DOUBT, 0)
    if doubtful:
        yield f"{doubtful:,} may or may not have been sent: `carillon ledger doubts`"
