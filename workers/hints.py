"""What a look at the status should lead to: for each trouble, the command that tells more or mends it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
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
    unknown_gateways: Mapping[str, int]
    paused_due: int
    balanced: bool


FOR_HOMELESS = (
    "put it back under `gateways:`, or `carillon campaigns cancel` what they belong to (`carillon campaigns list`)"
)


def about_homeless(gateway: str, count: int) -> str:
    """Return that messages wait for a gateway that was taken out of carillon.yaml."""
    wait = f"{count:,} messages wait" if count > 1 else "1 message waits"
    return f"{wait} for gateway {gateway!r}, which carillon.yaml lacks"


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
    for name, count in symptoms.unknown_gateways.items():
        yield f"{about_homeless(name, count)}: {FOR_HOMELESS}"
    if symptoms.paused_due:
        yield f"{symptoms.paused_due:,} of the messages due belong to paused campaigns: `carillon campaigns list`"
    doubtful = symptoms.states.get(MessageState.IN_DOUBT, 0)
    if doubtful:
        yield f"{doubtful:,} may or may not have been sent: `carillon ledger doubts`"
