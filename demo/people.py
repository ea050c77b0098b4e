"""The wholesaler's accounts, their contacts, and what the contacts consented to."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta

import numpy as np

from demo.places import (
    BUSINESSES,
    COUNTRIES,
    MOBILE_NUMBERS,
    OFFICE_NUMBERS,
    Country,
    Rng,
    company_stems,
    pick,
    pick_by_share,
)

ROLES = ("buyer", "owner", "operations", "finance", "marketing")
_EXTRA_ROLES = (("buyer", 0.34), ("operations", 0.24), ("finance", 0.22), ("owner", 0.12), ("marketing", 0.08))
_TRAVELS_SHARE = 0.03
"""Contacts whose own time zone is not their account's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """A buying company; `size` scales how much it orders, 1 being the median."""

    code: str
    name: str
    parent_code: str | None
    domain: str
    country: Country
    timezone: str
    industry: str
    opened_on: date
    life: str
    size: float

    @property
    def tier(self) -> str:
        """The price list the account is on."""
        return "gold" if self.size > 4 else "silver" if self.size > 1.2 else "standard"


@dataclass(frozen=True, slots=True, kw_only=True)
class Contact:
    """A person of an account."""

    code: str
    account_code: str
    first_name: str
    last_name: str
    email: str | None
    phone: str | None
    mobile: bool
    role: str
    timezone: str | None
    language: str
    created_on: date


@dataclass(frozen=True, slots=True, kw_only=True)
class Consent:
    """One word a contact gave about one channel."""

    contact_code: str
    channel: str
    status: str
    at: datetime
    source: str
    wording: str


def make_accounts(rng: Rng, count: int, anchor: date, lives: dict[str, float]) -> list[Account]:
    """Return `count` accounts; about one in four belongs to a group with a head office.

    Args:
        rng: Source of all choices.
        count: How many, head offices and branches included.
        anchor: The day the export is made; nothing in it is newer.
        lives: Share of each way of buying over time; see `demo.trade`.
    """
    stems = iter(company_stems(rng))
    accounts: list[Account] = []
    while len(accounts) < count:
        country = pick_by_share(rng, ((market, market.share) for market in COUNTRIES))
        trade, industry = pick(rng, BUSINESSES)
        branches = int(rng.integers(2, 8)) if rng.random() < 0.06 else 0
        branches = min(branches, len(country.cities), count - len(accounts) - 1)
        stem = next(stems)
        names = [f"{stem} {trade} {'Group ' if branches else ''}{pick(rng, country.suffixes)}"]
        places = rng.permutation(len(country.cities))[:branches]
        names += [f"{stem} {trade} {country.cities[int(place)]}" for place in places]
        head_code = f"A{10_001 + len(accounts)}"
        for name in names:
            life = pick_by_share(rng, lives.items())
            young = life in ("new", "newest")
            accounts.append(
                Account(
                    code=f"A{10_001 + len(accounts)}",
                    name=name,
                    parent_code=None if name is names[0] else head_code,
                    domain=_domain(stem, trade, name.removeprefix(f"{stem} {trade} ") if name is not names[0] else ""),
                    country=country,
                    timezone=pick_by_share(rng, country.zones),
                    industry=industry,
                    opened_on=anchor - timedelta(days=int(rng.integers(60, 90) if young else rng.integers(731, 3200))),
                    life=life,
                    size=float(np.exp(rng.normal(0.0, 0.8))),
                )
            )
    return accounts


def make_contacts(rng: Rng, accounts: list[Account], count: int, anchor: date) -> list[Contact]:
    """Return `count` contacts: every account has a buyer, larger accounts have more people."""
    weights = np.array([0.4 + min(account.size, 6.0) ** 0.7 for account in accounts])
    extra = rng.multinomial(count - len(accounts), weights / weights.sum())
    directory = _Directory()
    contacts: list[Contact] = []
    for account, more in zip(accounts, extra, strict=True):
        taken: set[str] = set()
        for position in range(1 + int(more)):
            role = "buyer" if position == 0 else pick_by_share(rng, _EXTRA_ROLES)
            code = f"C{100_001 + len(contacts)}"
            contacts.append(_contact(rng, code, account, role=role, taken=taken, directory=directory, anchor=anchor))
    return contacts


def _contact(
    rng: Rng, code: str, account: Account, *, role: str, taken: set[str], directory: _Directory, anchor: date
) -> Contact:
    first, last = pick(rng, account.country.first_names), pick(rng, account.country.last_names)
    local = _local_part(first, last, taken)
    phone, mobile = directory.phone(rng, account.country.code)
    days_since_opening = (anchor - account.opened_on).days
    return Contact(
        code=code,
        account_code=account.code,
        first_name=first,
        last_name=last,
        email=f"{local}@{account.domain}" if rng.random() < 0.985 else None,
        phone=phone,
        mobile=mobile,
        role=role,
        timezone=_own_zone(rng, account),
        language=account.country.language if rng.random() < 0.93 else "en",
        created_on=account.opened_on + timedelta(days=int(rng.integers(0, 1 + days_since_opening // 2))),
    )


class _Directory:
    """Hands out each fictional telephone number once."""

    def __init__(self) -> None:
        self._mobiles: dict[str, Iterator[str]] = {country: numbers() for country, numbers in MOBILE_NUMBERS.items()}
        self._offices: dict[str, Iterator[str]] = {country: numbers() for country, numbers in OFFICE_NUMBERS.items()}

    def phone(self, rng: Rng, country: str) -> tuple[str | None, bool]:
        """Return a number, or None, and whether it is a mobile's."""
        if country in self._mobiles and rng.random() < 0.62:
            number = next(self._mobiles[country], None)
            if number is not None:
                return number, True
        if country in self._offices and rng.random() < 0.2:
            return next(self._offices[country], None), False
        return None, False


def make_consents(rng: Rng, contacts: list[Contact], anchor: date) -> list[Consent]:
    """Return every word given, oldest first for each contact; some are taken back later.

    About four in five contacts with an address granted e-mail, about half of those with a mobile granted SMS;
    about one in twelve of these withdrew it again.
    """
    wording = {
        "email": "Yes, send me offers and news by e-mail. I can stop this at any time.",
        "sms": "Yes, text me about offers and restocks. Reply STOP to end.",
    }
    consents: list[Consent] = []
    for contact in contacts:
        chances = {"email": 0.84 if contact.email else 0.0, "sms": 0.58 if contact.mobile else 0.0}
        for channel, chance in chances.items():
            if rng.random() >= chance:
                continue
            days = int(rng.integers(0, max(1, (anchor - contact.created_on).days - 1)))
            at = _moment(rng, contact.created_on + timedelta(days=days // 2), anchor)
            source = pick(rng, ("account-opening form", "web shop checkout", "trade fair list", "sales representative"))
            consents.append(
                Consent(
                    contact_code=contact.code, channel=channel, status="granted", at=at, source=source,
                    wording=wording[channel],
                )
            )  # fmt: skip
            if rng.random() < 0.08:
                later = at + timedelta(days=int(rng.integers(5, 400)), minutes=7)
                if later.date() < anchor:
                    consents.append(
                        Consent(
                            contact_code=contact.code, channel=channel, status="withdrawn", at=later,
                            source="preference page", wording="",
                        )
                    )  # fmt: skip
    return consents


def _own_zone(rng: Rng, account: Account) -> str | None:
    if rng.random() >= _TRAVELS_SHARE:
        return None
    others = [zone for country in COUNTRIES for zone, _ in country.zones if zone != account.timezone]
    return pick(rng, others)


def _moment(rng: Rng, day: date, anchor: date) -> datetime:
    day = min(day, anchor - timedelta(days=1))
    return datetime.combine(day, time(int(rng.integers(7, 18)), int(rng.integers(60)), int(rng.integers(60))))


_GERMAN = str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue", "ß": "ss", "Ä": "Ae", "Ö": "Oe", "Ü": "Ue", "ı": "i"})


def _slug(text: str) -> str:
    ascii_only = unicodedata.normalize("NFKD", text.translate(_GERMAN)).encode("ascii", "ignore").decode()
    return re.sub(r"[^a-z0-9]+", "-", ascii_only.lower()).strip("-")


def _domain(stem: str, trade: str, city: str) -> str:
    """Every customer's domain lies under .example, which no mail system delivers to (RFC 2606)."""
    return f"{_slug(city)}.{_slug(f'{stem} {trade}')}.example" if city else f"{_slug(f'{stem} {trade}')}.example"


def _local_part(first: str, last: str, taken: set[str]) -> str:
    base = f"{_slug(first)}.{_slug(last)}"
    local, number = base, 2
    while local in taken:
        local, number = f"{base}{number}", number + 1
    taken.add(local)
    return local
