"""Countries, languages and time zones: what is a valid one, and its one spelling."""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files
from zoneinfo import ZoneInfo

_LANGUAGE = re.compile(r"([A-Za-z]{2,3})(?:[-_]([A-Za-z]{4}))?(?:[-_]([A-Za-z]{2}|[0-9]{3}))?")
_USUAL_NAMES = {
    "uk": "GB",
    "united kingdom": "GB",
    "great britain": "GB",
    "usa": "US",
    "united states of america": "US",
    "south korea": "KR",
    "the netherlands": "NL",
    "czechia": "CZ",
}


@cache
def _codes_by_name() -> dict[str, str]:
    """Read the ISO 3166-1 codes and names that the IANA time zone database carries."""
    table = files("tzdata.zoneinfo").joinpath("iso3166.tab").read_text(encoding="utf-8")
    rows = [line.split("\t") for line in table.splitlines() if line and not line.startswith("#")]
    names = {name.lower(): code for code, name in rows}
    return _USUAL_NAMES | names | {code.lower(): code for code, _ in rows}


def is_country(code: str) -> bool:
    """Say whether this is an ISO 3166-1 alpha-2 code in capitals."""
    return len(code) == 2 and _codes_by_name().get(code.lower()) == code


def country_code(text: str) -> str | None:
    """Return the ISO 3166-1 alpha-2 code of a code or an English name; None where it is neither."""
    return _codes_by_name().get(text.strip().lower())


def language_tag(text: str) -> str | None:
    """Return the language tag in its usual case (de, de-AT, zh-Hant); None where it has not that shape.

    Source:
        RFC 5646 section 2.1.1.
    """
    found = _LANGUAGE.fullmatch(text.strip())
    if not found:
        return None
    parts = (found[1].lower(), (found[2] or "").title(), (found[3] or "").upper())
    return "-".join(part for part in parts if part)


def zone_name(text: str) -> str | None:
    """Return the IANA name of a time zone; None where there is none of that name."""
    name = text.strip()
    try:
        return ZoneInfo(name).key
    except (KeyError, ValueError, OSError):
        return None
