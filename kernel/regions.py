"""What the law of a region wants in marketing e-mails to people there, as carillon.yaml says it."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from kernel.fields import CountryCode, Strict


def _check_line(value: str) -> str:
    if not value.isprintable():
        raise ValueError("may not hold line breaks or other control characters")
    return value


class Region(Strict):
    """Countries with one law; the country of a person is that of the account."""

    countries: list[CountryCode] = Field(min_length=1, description="As [CN].")
    subject_prefix: Annotated[str, AfterValidator(_check_line)] = Field(
        default="", max_length=40, description="Stands before every subject that does not begin with it."
    )
    footer: Annotated[str, AfterValidator(_check_line)] = Field(
        default="", max_length=1000, description="One more line of the footer, as an address to opt out by."
    )
