"""The one spelling of an e-mail address and of a phone number."""

from __future__ import annotations

import re

import idna

_LOCAL_PART = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*")
_PLAIN_DOMAIN = re.compile(r"([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z][a-z0-9-]{0,61}[a-z0-9]")


def normal_email(text: str) -> str | None:
    """Return the address as it is sent to: domain in lower-case A-labels, local part as given.

    None where it is no address a mail system without SMTPUTF8 delivers to (RFC 5321 section 4.1.2; quoted
    local parts and address literals, valid but unused for people, are refused as well).

    Source:
        RFC 5321 sections 4.1.2 and 4.5.3.1; UTS #46, non-transitional.
    """
    local, at, domain = text.strip().rpartition("@")
    if not at or len(local) > 64 or not _LOCAL_PART.fullmatch(local):
        return None
    domain = domain.lower()
    if not _PLAIN_DOMAIN.fullmatch(domain) or "--" in domain:
        try:
            domain = idna.encode(domain, uts46=True, std3_rules=True).decode("ascii")
        except (idna.IDNAError, UnicodeError):
            return None
        if not _PLAIN_DOMAIN.fullmatch(domain):
            return None
    return f"{local}@{domain}" if len(local) + len(domain) < 254 else None


def normal_phone(text: str, region: str | None) -> str | None:
    """Return the number in E.164; None where it cannot be one.

    Args:
        text: The number as people write it.
        region: Country of numbers without an international prefix; None refuses those.
    """
    import phonenumbers

    try:
        number = phonenumbers.parse(text, region)
    except phonenumbers.NumberParseException:
        return None
    if phonenumbers.is_possible_number_with_reason(number) != phonenumbers.ValidationResult.IS_POSSIBLE:
        return None
    return phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)
