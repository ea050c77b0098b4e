"""Google Ads Customer Match: a customer data file with hashed data.

Source: Google Ads Help, "Formatting guidelines for uploading hashed data" (answer 7476159) and "About the customer
matching process" (answer 7474263): the six headers; e-mail, phone and names hashed, country and zip not; the four
columns of a mailing address only together. Data Manager API, "Format user data": dots and +suffix leave the local part
at gmail.com and googlemail.com, and nowhere else. Read in November 2026 in stored copies of differing age.
"""

from __future__ import annotations

from segments.export_layouts.layout import (
    Layout,
    Person,
    plain_country,
    plain_name,
    plain_postal_code,
    sha256_hex,
)

_GOOGLE_MAIL = ("gmail.com", "googlemail.com")


def normalised_email(address: str) -> str:
    """Return the address as Google hashes it; the domain stays as written: googlemail.com is not made gmail.com."""
    local, _, domain = address.rpartition("@")
    if domain in _GOOGLE_MAIL:
        local = local.partition("+")[0].replace(".", "")
    return f"{local}@{domain}"


def _same(number: str) -> str:
    return number


def _mailing_address(person: Person) -> tuple[str, ...]:
    """Return the four cells only where all are known: Google matches by all of them or not at all."""
    names = (plain_name(person.first_name), plain_name(person.last_name))
    place = (plain_country(person.country).upper(), _zip(person))
    if not all((*names, *place)):
        return ("", "", "", "")
    return (*(sha256_hex(name) for name in names), *place)


def _zip(person: Person) -> str:
    """Return the postal code; of the United States without a broken extension, elsewhere without any."""
    code = plain_postal_code(person.postal_code).upper()
    if plain_country(person.country) == "us":
        digits = code.replace("-", "").replace(" ", "")
        return f"{digits[:5]}-{digits[5:]}" if len(digits) == 9 and digits.isdigit() else code.partition("-")[0].strip()
    return code


LAYOUT = Layout(
    name="google_customer_match",
    columns=("Email", "Phone", "First Name", "Last Name", "Country", "Zip"),
    email=normalised_email,
    phone=_same,
    rest=_mailing_address,
)
