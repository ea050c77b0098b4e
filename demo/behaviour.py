"""How simulated customers behave: a pure, seeded model. Nothing here is measured on people.

Every decision is a function of the seed, the purpose and the person, so the same demo gives the same reactions in
whatever order messages arrive. Good customers read and buy more than those who went quiet, and everybody buys a little
without being written to, which is what makes lift against the held-out accounts visible.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Habits:
    """Chances in [0, 1]; a click needs an open, an order through a message needs a click."""

    opens: float
    clicks: float
    orders: float
    orders_anyway: float
    unsubscribes: float


HABITS: Mapping[str, Habits] = {
    "champions": Habits(opens=0.66, clicks=0.52, orders=0.46, orders_anyway=0.10, unsubscribes=0.004),
    "loyal_customers": Habits(opens=0.58, clicks=0.44, orders=0.38, orders_anyway=0.08, unsubscribes=0.006),
    "potential_loyalists": Habits(opens=0.50, clicks=0.38, orders=0.30, orders_anyway=0.05, unsubscribes=0.008),
    "need_attention": Habits(opens=0.42, clicks=0.34, orders=0.26, orders_anyway=0.03, unsubscribes=0.012),
    "cant_lose": Habits(opens=0.42, clicks=0.36, orders=0.28, orders_anyway=0.015, unsubscribes=0.020),
    "at_risk": Habits(opens=0.34, clicks=0.30, orders=0.24, orders_anyway=0.010, unsubscribes=0.025),
}
OTHERS = Habits(opens=0.22, clicks=0.20, orders=0.15, orders_anyway=0.01, unsubscribes=0.02)

UNKNOWN_USERS = 0.012
GREYLISTING_HOSTS = 0.010
HARD_BOUNCES = 0.010
SOFT_BOUNCES = 0.006
SCANNED = 0.10
PRIVACY_PROXIES = 0.15
SMS_UNDELIVERED = 0.05
SMS_STOPS = 0.03
SMS_CLICKS = 0.22


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """Who got a message: the address, the account's RFM group, and what it usually spends on an order."""

    address: str
    account_code: str
    contact_code: str
    group: str
    usual_order: float


@dataclass(frozen=True, slots=True, kw_only=True)
class MailReaction:
    """What happens to one e-mail; a None did not happen.

    Delays of machines are seconds since it arrived, those of people since they began to read their mail.
    `bounce` is an enhanced status code for a report that comes back later; then nothing else happens.
    """

    bounce: str | None = None
    scanned_after_s: float | None = None
    proxy_opens_after_s: float | None = None
    opens_after_s: float | None = None
    clicks_after_s: float | None = None
    unsubscribes_after_s: float | None = None
    orders_after_s: float | None = None
    order_value: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SmsReaction:
    """What happens to one SMS; delays as of MailReaction."""

    receipt: str
    stops_after_s: float | None = None
    clicks_after_s: float | None = None
    orders_after_s: float | None = None
    order_value: float = 0.0


class Behaviour:
    """The model for one seed. Delays are pressed from hours into seconds by `pace_s`, the least time to react."""

    def __init__(self, seed: int, *, pace_s: float = 1.6) -> None:
        self._seed = seed
        self._pace_s = pace_s

    def refuses(self, address: str) -> bool:
        """Tell whether the recipient's server knows no such person."""
        return self._chance("unknown-user", address).random() < UNKNOWN_USERS

    def greylists(self, address: str) -> bool:
        """Tell whether the recipient's server puts off the first attempt."""
        return self._chance("greylist", address).random() < GREYLISTING_HOSTS

    def to_mail(self, person: Person, subject: str) -> MailReaction:
        """Return what a person, and the machines around the mailbox, do with an e-mail.

        A person reacts no sooner than `pace_s`; security scanners press links at once.
        """
        chance = self._chance("mail", person.address, subject)
        habits = HABITS.get(person.group, OTHERS)
        fate = chance.random()
        if fate < HARD_BOUNCES:
            return MailReaction(bounce="5.1.1")
        if fate < HARD_BOUNCES + SOFT_BOUNCES:
            return MailReaction(bounce="4.2.2")
        scanned = chance.uniform(0.1, 0.5) if chance.random() < SCANNED else None
        proxied = chance.uniform(0.3, 1.0) if chance.random() < PRIVACY_PROXIES else None
        opens = self._pace_s + chance.uniform(0.0, 2.4)
        if chance.random() >= habits.opens:
            return MailReaction(scanned_after_s=scanned, proxy_opens_after_s=proxied)
        if chance.random() < habits.unsubscribes:
            leaves = opens + chance.uniform(0.5, 2.0)
            return MailReaction(
                scanned_after_s=scanned, proxy_opens_after_s=proxied, opens_after_s=opens, unsubscribes_after_s=leaves
            )
        clicks = opens + chance.uniform(0.5, 1.8) if chance.random() < habits.clicks else None
        orders = clicks + chance.uniform(0.3, 1.0) if clicks and chance.random() < habits.orders else None
        return MailReaction(
            scanned_after_s=scanned,
            proxy_opens_after_s=proxied,
            opens_after_s=opens,
            clicks_after_s=clicks,
            orders_after_s=orders,
            order_value=self._order_value(chance, person) if orders else 0.0,
        )

    def to_sms(self, person: Person, text: str) -> SmsReaction:
        """Return what becomes of an SMS and what the person does."""
        chance = self._chance("sms", person.address, text[:20])
        if chance.random() < SMS_UNDELIVERED:
            return SmsReaction(receipt="undelivered")
        if chance.random() < SMS_STOPS:
            return SmsReaction(receipt="delivered", stops_after_s=self._pace_s + chance.random())
        if chance.random() >= SMS_CLICKS:
            return SmsReaction(receipt="delivered")
        habits = HABITS.get(person.group, OTHERS)
        clicks = self._pace_s + chance.uniform(0.0, 1.5)
        orders = clicks + chance.uniform(0.5, 1.5) if chance.random() < habits.orders else None
        value = self._order_value(chance, person) if orders else 0.0
        return SmsReaction(receipt="delivered", clicks_after_s=clicks, orders_after_s=orders, order_value=value)

    def orders_anyway(self, person: Person) -> float | None:
        """Return what an account spends without being asked to, or None; the same whether it was held out or not."""
        chance = self._chance("anyway", person.account_code)
        habits = HABITS.get(person.group, OTHERS)
        return self._order_value(chance, person) if chance.random() < habits.orders_anyway else None

    def network_address(self, address: str) -> str:
        """Return a network address of the person's own, in the range kept for documentation (RFC 3849)."""
        chance = self._chance("network", address)
        return "2001:db8:" + ":".join(f"{chance.randrange(1, 0x10000):x}" for _ in range(6))

    def _order_value(self, chance: random.Random, person: Person) -> float:
        return round(max(15.0, person.usual_order * chance.lognormvariate(0.0, 0.45)), 2)

    def _chance(self, purpose: str, *about: str) -> random.Random:
        return random.Random("\0".join((str(self._seed), purpose, *about)))
