"""Addresses with their type of number (TON) and numbering plan (NPI). Source: SMPP 3.4 sections 5.2.5 and 5.2.6."""

from __future__ import annotations

from kernel.gateways import SmppGateway

Address = tuple[int, int, str]
"""TON, NPI, digits or letters."""

_LONGEST_SHORT_CODE = 6


def source_of(gateway: SmppGateway) -> Address:
    """Return what submit_sm says of the sender: the gateway's settings, and where they are silent, by its form."""
    ton, npi, sender = _told_by_form(gateway.sender)
    return (
        ton if gateway.sender_ton is None else gateway.sender_ton,
        npi if gateway.sender_npi is None else gateway.sender_npi,
        sender,
    )


def destination_of(number: str) -> Address:
    """Return an E.164 number as submit_sm wants it: international, ISDN, without its plus sign."""
    return 1, 1, number.removeprefix("+")


def _told_by_form(sender: str) -> Address:
    digits = sender.removeprefix("+")
    if not sender:
        return 0, 0, ""
    if not (digits.isascii() and digits.isdigit()):
        return 5, 0, sender  # alphanumeric
    if len(digits) <= _LONGEST_SHORT_CODE:
        return 3, 0, digits  # network specific: a short code
    return 1, 1, digits
