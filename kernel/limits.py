"""How much may leave, and by which way: what gateways, routes and budgets say of themselves in carillon.yaml."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from kernel.errors import Refusal
from kernel.fields import DateText, DurationText, Money, Name, RateText, Strict
from kernel.quantities import parse_rate
from kernel.sms_terms import PriceText

_DOMAIN = re.compile(r"(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z][a-z0-9-]{0,61}[a-z0-9]")


def _check_quota(value: str) -> str:
    if parse_rate(value).per.days != 1:
        raise ValueError(f"{value!r} is not a quota; a quota is for a day, as in 50000/day")
    return value


def _check_domain(value: str) -> str:
    if value != "*" and not _DOMAIN.fullmatch(value):
        raise ValueError(f'{value!r} is no domain; write it in small letters, as gmail.com, or "*" for every other')
    return value


DomainName = Annotated[str, AfterValidator(_check_domain)]
QuotaText = Annotated[str, AfterValidator(_check_quota)]


class Warmup(Strict):
    """A gateway that is to become known slowly: so many messages on the first day, `growth` times as many each day."""

    start: DateText = Field(description="The first day, on the workspace's clock; nothing leaves before.")
    first_day: int = Field(ge=1, description="Messages on that day.")
    growth: float = Field(default=1.5, gt=1, le=10)
    until: int = Field(ge=1, description="A day that would allow as many as this, and all after it, are not limited.")

    @model_validator(mode="after")
    def _grows(self) -> Warmup:
        if self.until <= self.first_day:
            raise ValueError(f"until: {self.until} must be more than first_day: {self.first_day}")
        return self


class DomainLimits(Strict):
    """What one recipient domain is sent through a gateway."""

    rate: RateText | None = None
    concurrency: int | None = Field(default=None, ge=1, description="At most so many in one worker's hands at once.")


class Budget(Strict):
    """Money that SMS may cost within a day or a month of the workspace's clock; never more, whoever sends."""

    amount: Money
    per: Literal["day", "month"]


class Limited(Strict):
    """What every gateway may say of its own limits."""

    rate: RateText | None = None
    quota: QuotaText | None = None
    warmup: Warmup | None = None


class Priced(Limited):
    """What every gateway that charges by the part may say."""

    price: PriceText | None = Field(default=None, description='Price of one part, as "0.075".')
    budget: Budget | None = None

    @property
    def prices_everything(self) -> bool:
        """Whether the price of every part is known, whoever it goes to; only then can a budget hold."""
        return self.price is not None or "default" in (getattr(self, "prices", None) or {})

    @model_validator(mode="after")
    def _budget_needs_prices(self) -> Priced:
        if self.budget is not None and not self.prices_everything:
            message, remedy = "a budget needs the price of every part", "give `price`, or `prices` with a default"
            raise Refusal(message, remedy, at=("budget",))
        return self


class Route(Strict):
    """Several gateways of one channel that stand in for each other."""

    gateways: dict[Name, int] = Field(min_length=1, description="Weight of each; 0: only where the others are closed.")
    failover: DurationText = Field(default="2min", description="A gateway closed for longer hands over to the others.")

    @model_validator(mode="after")
    def _weighs(self) -> Route:
        if any(weight < 0 for weight in self.gateways.values()) or not sum(self.gateways.values()):
            raise ValueError("weights are whole numbers of 0 or more, and one at least is more")
        return self
