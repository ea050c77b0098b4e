"""Where the wholesaler's customers live: countries, zones, languages, names, and telephone numbers nobody owns."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

Rng = np.random.Generator
Option = TypeVar("Option")


def pick(rng: Rng, options: Sequence[Option]) -> Option:
    """Return one of the options, each as likely as the others."""
    return options[int(rng.integers(len(options)))]


def pick_by_share(rng: Rng, shares: Iterable[tuple[Option, float]]) -> Option:
    """Return one of the options by its share; shares need not sum to 1."""
    options, weights = zip(*shares, strict=True)
    borders = np.cumsum(weights)
    chosen: Option = options[int(np.searchsorted(borders, rng.random() * borders[-1], side="right"))]
    return chosen


@dataclass(frozen=True, slots=True, kw_only=True)
class Country:
    """One market: its share of the accounts, and what its accounts have in common."""

    code: str
    share: float
    language: str
    zones: tuple[tuple[str, float], ...]
    cities: tuple[str, ...]
    first_names: tuple[str, ...]
    last_names: tuple[str, ...]
    suffixes: tuple[str, ...]


_ENGLISH_FIRST = (
    "Aisha", "Alice", "Amelia", "Ben", "Callum", "Charlotte", "Daniel", "Eleanor", "Fergus", "Grace", "Hannah", "Imran",
    "Jack", "James", "Kate", "Leah", "Liam", "Maya", "Nadia", "Oliver", "Olivia", "Priya", "Rachel", "Rohan", "Sam",
    "Sophie", "Thomas", "Victoria", "William", "Zoe",
)  # fmt: skip
_ENGLISH_LAST = (
    "Ahmed", "Bailey", "Barker", "Begum", "Brooks", "Carter", "Clarke", "Cooper", "Dawson", "Edwards", "Fletcher",
    "Foster", "Graham", "Hughes", "Hussain", "Jackson", "Kaur", "Lawson", "Mason", "Mitchell", "Morgan", "O'Brien",
    "Patel", "Reid", "Shaw", "Singh", "Sutton", "Taylor", "Walsh", "Wright",
)  # fmt: skip
_GERMAN_FIRST = (
    "Anna", "Björn", "Clara", "Dieter", "Elif", "Franziska", "Günther", "Hannah", "Jörg", "Jürgen", "Katharina", "Lars",
    "Lukas", "Maximilian", "Mehmet", "Nina", "Paul", "Sabine", "Sören", "Ursula",
)  # fmt: skip
_GERMAN_LAST = (
    "Bäcker", "Becker", "Fischer", "Groß", "Hoffmann", "Jäger", "Keller", "Koch", "Köhler", "Krüger", "Lehmann",
    "Meyer", "Müller", "Neumann", "Schäfer", "Schmidt", "Schröder", "Schulz", "Weiß", "Yılmaz",
)  # fmt: skip
_FRENCH_FIRST = ("Amélie", "Antoine", "Camille", "Chloé", "François", "Hélène", "Julien", "Léa", "Mathieu", "Noémie")
_FRENCH_LAST = ("Bernard", "Dubois", "Durand", "Fournier", "Garnier", "Lefèvre", "Marchand", "Moreau", "Petit", "Roux")
_DUTCH_FIRST = ("Anouk", "Bram", "Daan", "Femke", "Joris", "Lotte", "Maarten", "Sanne", "Sven", "Willemijn")
_DUTCH_LAST = ("Bakker", "de Boer", "de Vries", "Jansen", "Mulder", "Smit", "van den Berg", "van Dijk", "Visser", "Vos")
_SWEDISH_FIRST = ("Åsa", "Björn", "Elin", "Erik", "Göran", "Ingrid", "Karin", "Lars", "Maja", "Oskar")
_SWEDISH_LAST = (
    "Åberg",
    "Andersson",
    "Eriksson",
    "Holm",
    "Lindqvist",
    "Lundgren",
    "Nyström",
    "Öberg",
    "Sjöberg",
    "Ström",
)

COUNTRIES: tuple[Country, ...] = (
    Country(
        code="GB", share=0.32, language="en-GB", zones=(("Europe/London", 1.0),),
        cities=("Leeds", "Bristol", "Glasgow", "Cardiff", "Belfast", "Sheffield", "Norwich", "Exeter", "York", "Derby"),
        first_names=_ENGLISH_FIRST, last_names=_ENGLISH_LAST, suffixes=("Ltd", "plc", "& Sons", "LLP"),
    ),
    Country(
        code="US", share=0.27, language="en-US",
        zones=(
            ("America/New_York", 0.42), ("America/Chicago", 0.26), ("America/Denver", 0.10),
            ("America/Los_Angeles", 0.22),
        ),
        cities=("Boston", "Columbus", "Dayton", "Fresno", "Omaha", "Portland", "Raleigh", "Tucson", "Tulsa", "Boise"),
        first_names=_ENGLISH_FIRST, last_names=_ENGLISH_LAST, suffixes=("Inc.", "LLC", "Corp.", "& Co."),
    ),
    Country(
        code="DE", share=0.18, language="de", zones=(("Europe/Berlin", 1.0),),
        cities=("Bremen", "Dresden", "Köln", "Leipzig", "München", "Nürnberg", "Rostock", "Ulm", "Würzburg"),
        first_names=_GERMAN_FIRST, last_names=_GERMAN_LAST, suffixes=("GmbH", "AG", "KG", "GmbH & Co. KG"),
    ),
    Country(
        code="NL", share=0.06, language="nl", zones=(("Europe/Amsterdam", 1.0),),
        cities=("Utrecht", "Breda", "Zwolle", "Delft"), first_names=_DUTCH_FIRST, last_names=_DUTCH_LAST,
        suffixes=("B.V.", "N.V."),
    ),
    Country(
        code="FR", share=0.05, language="fr", zones=(("Europe/Paris", 1.0),),
        cities=("Lyon", "Nantes", "Orléans", "Angoulême"), first_names=_FRENCH_FIRST, last_names=_FRENCH_LAST,
        suffixes=("SARL", "SAS"),
    ),
    Country(
        code="SE", share=0.04, language="sv", zones=(("Europe/Stockholm", 1.0),),
        cities=("Malmö", "Örebro", "Uppsala", "Luleå"), first_names=_SWEDISH_FIRST, last_names=_SWEDISH_LAST,
        suffixes=("AB",),
    ),
    Country(
        code="AU", share=0.04, language="en-AU", zones=(("Australia/Sydney", 0.7), ("Australia/Perth", 0.3)),
        cities=("Newcastle", "Fremantle", "Geelong"), first_names=_ENGLISH_FIRST, last_names=_ENGLISH_LAST,
        suffixes=("Pty Ltd",),
    ),
    Country(
        code="SG", share=0.02, language="en-SG", zones=(("Asia/Singapore", 1.0),), cities=("Jurong", "Tampines"),
        first_names=("Wei Ling", "Jun Hao", "Mei", "Arjun", "Siti", "Kai"),
        last_names=("Tan", "Lim", "Lee", "Ng", "Rahman", "Nair"), suffixes=("Pte Ltd",),
    ),
    Country(
        code="NZ", share=0.01, language="en-NZ", zones=(("Pacific/Auckland", 1.0),), cities=("Auckland", "Dunedin"),
        first_names=_ENGLISH_FIRST, last_names=_ENGLISH_LAST, suffixes=("Limited",),
    ),
    Country(
        code="AE", share=0.01, language="en", zones=(("Asia/Dubai", 1.0),), cities=("Dubai", "Sharjah"),
        first_names=("Fatima", "Omar", "Layla", "Yusuf", "Priya", "Hassan"),
        last_names=("Al Farsi", "Haddad", "Khan", "Menon", "Saleh", "Rahimi"), suffixes=("LLC", "FZE"),
    ),
)  # fmt: skip

BUSINESSES: tuple[tuple[str, str], ...] = (
    ("Catering", "hospitality"), ("Hotels", "hospitality"), ("Kitchens", "hospitality"), ("Bakery", "hospitality"),
    ("Tools", "trade"), ("Builders", "trade"), ("Electrical", "trade"), ("Plumbing", "trade"), ("Joinery", "trade"),
    ("Cleaning", "facilities"), ("Facilities", "facilities"), ("Property Care", "facilities"),
    ("Stationers", "retail"), ("Hardware", "retail"), ("Garden Centre", "retail"), ("Market", "retail"),
    ("Clinics", "care"), ("Care Homes", "care"), ("Dental", "care"),
    ("Logistics", "industry"), ("Packaging", "industry"), ("Engineering", "industry"), ("Workshops", "industry"),
)  # fmt: skip
"""The last word of a company's name, and the industry it stands for."""

_STEMS = (
    "Alder", "Amber", "Anchor", "Arrow", "Ash", "Aspen", "Beacon", "Birch", "Black", "Blue", "Bridge", "Bright",
    "Cedar", "Clear", "Cobalt", "Copper", "Crown", "Eagle", "East", "Elm", "Falcon", "Fern", "Flint", "Fox", "Glen",
    "Gold", "Granite", "Green", "Harbour", "Hart", "Hawk", "Hazel", "Heron", "High", "Holly", "Iron", "Ivy", "Kings",
    "Lake", "Lark", "Maple", "Marsh", "Mill", "Moor", "North", "Oak", "Orchard", "Otter", "Pine", "Quarry", "Red",
    "River", "Raven", "Robin", "Rowan", "Saffron", "Sand", "Silver", "Sorrel", "South", "Spring", "Stone", "Summer",
    "Swan", "Thorn", "Vale", "Walnut", "West", "White", "Willow", "Winter", "Wren",
)  # fmt: skip
_ENDINGS = (
    "bourne", "brook", "bury", "by", "combe", "dale", "field", "ford", "gate", "ham", "haven", "hurst", "ley", "mere",
    "moor", "port", "side", "stead", "ton", "vale", "well", "wick", "wood", "worth",
)  # fmt: skip


def company_stems(rng: Rng) -> list[str]:
    """Return every invented company stem ("Harbourgate", "Flintwell") once, shuffled."""
    stems = list(dict.fromkeys(stem + end for stem in _STEMS for end in _ENDINGS if not stem.lower().endswith(end)))
    return [stems[index] for index in rng.permutation(len(stems))]


# --- telephone numbers ---------------------------------------------------------------------------------------
#
# Every number lies in a range that its country reserves for fiction. `phonenumbers` calls the American, German and
# Swedish ones valid, the British and French ones possible. Countries without such a range have no mobiles here.
# Sources: NANPA (555-0100 to 555-0199 of every area code), Bundesnetzagentur Mitteilung 148/2021 ("Drama Numbers"),
# PTS (070-1740605 to 070-1740699), Ofcom ("Numbers for drama": 07700 900000 to 900999, 020 7946 0xxx), Arcep
# decision 2018-0881 (06 39 98 xx xx).

_US_AREA_CODES = (
    201, 202, 203, 205, 206, 207, 208, 210, 212, 213, 214, 215, 216, 217, 218, 219, 224, 225, 228, 229, 231, 234, 239,
    240, 248, 251, 252, 253, 254, 256, 260, 262, 267, 269, 270, 276, 281, 301, 302, 303, 304, 305, 307, 308, 309, 310,
)  # fmt: skip


def _american() -> Iterator[str]:
    return (f"+1{area}5550{number:03d}" for number in range(100, 200) for area in _US_AREA_CODES)


def _german() -> Iterator[str]:
    return (f"+49{prefix}{number:02d}" for number in range(100) for prefix in ("17139200", "176040690"))


def _swedish() -> Iterator[str]:
    return (f"+46701740{number}" for number in range(605, 700))


def _british() -> Iterator[str]:
    return (f"+447700900{number:03d}" for number in range(1000))


def _french() -> Iterator[str]:
    return (f"+33639980{number:03d}" for number in range(1000))


def _british_office() -> Iterator[str]:
    return (f"+4420794600{number:02d}" for number in range(100))


MOBILE_NUMBERS: dict[str, Callable[[], Iterator[str]]] = {
    "US": _american,
    "GB": _british,
    "DE": _german,
    "FR": _french,
    "SE": _swedish,
}
"""Countries whose contacts have a mobile telephone; each number is handed out once."""

OFFICE_NUMBERS: dict[str, Callable[[], Iterator[str]]] = {"GB": _british_office}
