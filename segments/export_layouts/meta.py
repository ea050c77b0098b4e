"""Meta (Facebook, Instagram): a customer list for a custom audience, every column hashed.

Source: Meta Business Help Centre, "How to format a customer list when creating a custom audience" (2082575038703844):
the headers; Marketing API, "Customer file custom audiences", hashing and normalisation: e-mail trimmed and in lower
case; phone digits only with country code, no symbols, no leading zeros; names in lower case without punctuation;
postal code in lower case without white space, of the United States its first five digits; country as ISO 3166-1
alpha-2 in lower case. Read in November 2026 in stored copies of differing age.
"""

from __future__ import annotations

import unicodedata

from segments.export_layouts.layout import (
    Layout,
    Person,
    plain_country,
    plain_name,
    plain_postal_code,
    sha256_hex,
)


def _same(address: str) -> str:
    return address


def _digits(number: str) -> str:
    return number.removeprefix("+").lstrip("0")


def _name(name: str) -> str:
    return "".join(letter for letter in plain_name(name) if unicodedata.category(letter)[0] not in "PZSC")


def _postal_code(person: Person) -> str:
    code = plain_postal_code(person.postal_code).replace(" ", "")
    return code.partition("-")[0][:5] if plain_country(person.country) == "us" else code.replace("-", "")


def _rest(person: Person) -> tuple[str, ...]:
    cells = (
        _name(person.first_name),
        _name(person.last_name),
        _postal_code(person),
        plain_country(person.country),
    )
    return tuple(sha256_hex(cell) for cell in cells)


LAYOUT = Layout(
    name="meta",
    columns=("email", "phone", "fn", "ln", "zip", "country"),
    email=_same,
    phone=_digits,
    rest=_rest,
)
