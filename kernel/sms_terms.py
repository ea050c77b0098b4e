"""What an SMS gateway says of money and of the law: prices, how it counts, signature, opt-out wording, country."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field

from kernel.fields import CountryCode, Strict

_PRICE = re.compile(r"\d{1,9}(\.\d{1,6})?")
_PREFIX = re.compile(r"[1-9]\d{0,14}")


def _check_price(value: str) -> str:
    if not _PRICE.fullmatch(value):
        raise ValueError(f'{value!r} is not a price; write it as "0.075", with six decimals at most')
    return value


def _check_prefix(value: str) -> str:
    if value != "default" and not _PREFIX.fullmatch(value):
        raise ValueError(f'{value!r} is no beginning of a number; write it as "44" or "1868", or default')
    return value


PriceText = Annotated[str, AfterValidator(_check_price)]
PrefixText = Annotated[str, AfterValidator(_check_prefix)]


class SmsTerms(Strict):
    """What every SMS gateway may say."""

    prices: dict[PrefixText, PriceText] = Field(
        default={}, description='Price of one part by how the number begins, as {"44": "0.04", default: "0.07"}.'
    )
    counting: Literal["gsm", "cn"] = Field(
        default="gsm", description="cn: every character counts one, 70 in one part, 67 in each of several, 500 at most."
    )
    signature: str = Field(
        default="", max_length=30, description="What the platform puts before each text, as 【Acme】; it is counted."
    )
    opt_out: str = Field(
        default="", max_length=100, description="Wording every text ends with; put there where the text lacks it."
    )
    country: CountryCode | None = Field(
        default=None, description="ISO 3166 code of the country whose rules `validate` looks at."
    )
    own_words: ClassVar[bool] = True
    """False where the words lie with the provider and our text only fills them in."""


@dataclass(frozen=True, slots=True)
class Tariff:
    """What one part costs, in millionths of the currency: by the longest beginning of the number that has a price."""

    default: int | None = None
    by_prefix: Mapping[str, int] = field(default_factory=dict)
    longest: int = 0

    def micro(self, number: str) -> int | None:
        """Return what one part to an E.164 number costs; None where nothing says so."""
        if not self.by_prefix:
            return self.default
        digits = number[1 : self.longest + 1]
        for length in range(len(digits), 0, -1):
            price = self.by_prefix.get(digits[:length])
            if price is not None:
                return price
        return self.default


def tariff_of(gateway: object) -> Tariff:
    """Return a gateway's prices: `prices`, and where those are silent `price`; e-mail gateways have none."""
    price, prices = getattr(gateway, "price", None), dict(getattr(gateway, "prices", {}))
    default = prices.pop("default", price)
    by_prefix = {prefix: _micro(text) for prefix, text in prices.items()}
    return Tariff(
        default=_micro(default) if default else None,
        by_prefix=by_prefix,
        longest=max(map(len, by_prefix), default=0),
    )


def _micro(price: str) -> int:
    return int(Decimal(price).scaleb(6))
