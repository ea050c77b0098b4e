"""The wholesaler's sales pipeline with its stage history, and what accounts did in the web shop."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, time, timedelta

from demo.people import Account, Contact
from demo.places import Rng, pick, pick_by_share

_STAGES = ("lead", "qualified", "proposal")
_SUBJECTS = ("Framework agreement", "New site fit-out", "Annual consumables", "Power tool renewal", "Kitchen refresh")
_EVENTS = (
    ("catalogue_downloaded", 0.45),
    ("quote_requested", 0.25),
    ("demo_requested", 0.10),
    ("cart_abandoned", 0.20),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class StageRow:
    """An opportunity entering a stage."""

    opportunity_no: str
    account_code: str
    contact_code: str
    title: str
    stage: str
    entered_at: datetime
    value: float


@dataclass(frozen=True, slots=True, kw_only=True)
class EventRow:
    """Something a contact did in the web shop."""

    event_id: str
    account_code: str
    contact_code: str
    name: str
    at: datetime


def make_stages(rng: Rng, accounts: list[Account], contacts: list[Contact], anchor: date, count: int) -> list[StageRow]:
    """Return the stage history of `count` opportunities; two in three have ended, about half of those won."""
    first_contact = _first_contacts(contacts)
    rows: list[StageRow] = []
    for index in range(count):
        account = pick(rng, accounts)
        value = round(float(1500 * account.size * rng.lognormal(0, 0.8)), 2)
        title = f"{pick(rng, _SUBJECTS)} {account.name.split()[0]}"
        at = datetime.combine(anchor - timedelta(days=int(rng.integers(1, 540))), time(9, int(rng.integers(60))))
        for stage in _path(rng):
            if at.date() >= anchor:
                break
            rows.append(
                StageRow(
                    opportunity_no=f"OP-{5_001 + index}",
                    account_code=account.code,
                    contact_code=first_contact[account.code],
                    title=title,
                    stage=stage,
                    entered_at=at,
                    value=value,
                )
            )
            at += timedelta(days=int(rng.integers(3, 40)), minutes=int(rng.integers(480)))
    return rows


def make_events(rng: Rng, contacts: list[Contact], anchor: date, count: int) -> list[EventRow]:
    """Return `count` web shop events of the last half year, oldest first."""
    ages = sorted((float(age) for age in rng.uniform(0.1, 180, count)), reverse=True)
    midnight = datetime.combine(anchor, time())
    rows = []
    for index, age in enumerate(ages):
        contact = pick(rng, contacts)
        rows.append(
            EventRow(
                event_id=f"EV-{70_001 + index}",
                account_code=contact.account_code,
                contact_code=contact.code,
                name=pick_by_share(rng, _EVENTS),
                at=(midnight - timedelta(days=age)).replace(microsecond=0),
            )
        )
    return rows


def _path(rng: Rng) -> tuple[str, ...]:
    reached = int(rng.integers(1, len(_STAGES) + 1))
    if reached < len(_STAGES) and rng.random() < 0.45:
        return _STAGES[:reached]
    return (*_STAGES[:reached], "won" if rng.random() < 0.52 else "lost")


def _first_contacts(contacts: list[Contact]) -> dict[str, str]:
    first: dict[str, str] = {}
    for contact in contacts:
        first.setdefault(contact.account_code, contact.code)
    return first
