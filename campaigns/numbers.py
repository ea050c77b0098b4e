"""What a telephone number tells of where its owner is: the country, and the time zone where there is just one.

Source:
    The metadata of Google's libphonenumber, by the package `phonenumbers`.
"""

from __future__ import annotations

from datetime import datetime
from functools import lru_cache
from zoneinfo import ZoneInfo

_SEASONS = (datetime(2026, 1, 15, 12), datetime(2026, 7, 15, 12))  # noqa: DTZ001 - wall clocks to compare zones at


def country_of(number: str) -> str:
    """Return the ISO 3166 code of the country an E.164 number belongs to; "ZZ" where there is none.

    Countries that share a calling code are told apart where that takes no more than an area code (+1); else the largest
    of them stands for all (+44 is GB, +7 is RU).
    """
    import phonenumbers

    digits = number[1:]
    for length in (1, 2, 3):
        code = int(digits[:length] or 0)
        regions = phonenumbers.COUNTRY_CODE_TO_REGION_CODE.get(code)
        if regions:
            return _american(digits[:4]) if code == 1 else (regions[0] if regions[0] != "001" else "ZZ")
    return "ZZ"


@lru_cache(maxsize=1024)
def _american(prefix: str) -> str:
    """Return the country of the area code that follows +1."""
    import phonenumbers

    number = phonenumbers.PhoneNumber(country_code=1, national_number=int(f"{prefix[1:4]:0<3}5550100"))
    return phonenumbers.region_code_for_number(number) or "US"


def zone_of(number: str) -> str | None:
    """Return the time zone of an E.164 number; None where it may be in several that differ, or is no place's number."""
    from phonenumbers.tzdata import TIMEZONE_DATA, TIMEZONE_LONGEST_PREFIX

    digits = number[1:]
    for length in range(min(len(digits), TIMEZONE_LONGEST_PREFIX), 0, -1):
        zones = TIMEZONE_DATA.get(digits[:length])
        if zones:
            return _one_clock(zones)
    return None


@lru_cache(maxsize=4096)
def _one_clock(zones: tuple[str, ...]) -> str | None:
    """Return a zone that stands for all of them: their clocks agree in winter and in summer (London, Jersey …)."""
    try:
        clocks = [ZoneInfo(zone) for zone in zones]
    except (KeyError, ValueError):
        return None
    shown = {tuple(clock.utcoffset(day) for day in _SEASONS) for clock in clocks}
    return zones[-1] if len(shown) == 1 else None
