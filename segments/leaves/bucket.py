"""Buckets: a lasting random share of the subjects, drawn by a keyed hash of their ids."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Annotated, Any

from pydantic import AfterValidator, Field
from sqlalchemy import BigInteger, ColumnElement, and_, cast, literal

from kernel.fields import Strict
from kernel.quantities import parse_share
from kernel.vocabulary import Subject
from segments.comparisons import Text
from segments.scope import Flaw, OnColumns, Scope, Surroundings, Whose, sure

PRIME = 2**31 - 1
"""Products of two remainders fit into 64 bits on every database."""
_COEFFICIENTS = 4


def _check_share(value: str) -> str:
    parse_share(value)
    return value


ShareText = Annotated[str, AfterValidator(_check_share)]


class Bucket(OnColumns, Strict):
    """A share of all subjects that stays the same people for as long as the salt stays the same.

    A larger share holds everyone of a smaller one; shares of one salt that begin where another ends have nobody in
    common; different salts draw independently of each other. With `of: account` all contacts of an account fall into
    the bucket together.
    """

    salt: Text = Field(min_length=1, max_length=200, description="Any word; it decides who is drawn.")
    share: ShareText = Field(description='How many of all, as "20%".')
    from_: ShareText = Field(default="0%", alias="from", description="Where the share begins, as 20% for the next one.")
    of: Whose | None = Field(default=None, description="Who is drawn; default: the subject itself.")

    def flaws(self, surroundings: Surroundings) -> Iterable[Flaw]:
        """Return a share of nobody or beyond the whole, or contacts drawn in a segment of accounts."""
        if parse_share(self.from_) + parse_share(self.share) > 1 + 1e-9:
            yield Flaw(place=("share",), message=f"share: {self.from_} and {self.share} are more than 100% together")
        if parse_share(self.share) == 0:
            hint = "write a larger share, as 10%"
            yield Flaw(place=("share",), message=f"share: {self.share} is nobody at all", hint=hint)
        if surroundings.subject is Subject.ACCOUNT and self.of == "contact":
            yield Flaw(place=("of",), message="of: in a segment of accounts write any_contact: {bucket: …}")

    def holds(self, scope: Scope) -> ColumnElement[bool]:
        """Return whether the hash of the id falls into the share."""
        first, end = self.borders()
        place = self._place(scope)
        return sure(and_(place >= first, place < end))

    def borders(self) -> tuple[int, int]:
        """Return the first place of the bucket and the first after it, of places 0 to PRIME - 1."""
        first = parse_share(self.from_)
        return round(first * PRIME), round(min(1.0, first + parse_share(self.share)) * PRIME)

    def shown(self, scope: Scope) -> dict[str, ColumnElement[Any]]:
        """Return the place in the whole, from 0 to 1."""
        return {"place": self._place(scope) / float(PRIME)}

    def _place(self, scope: Scope) -> ColumnElement[Any]:
        first, *others = (literal(number, BigInteger) for number in coefficients(self.salt))
        remainder = cast(scope.id_of(self.of or scope.subject), BigInteger) % literal(PRIME, BigInteger)
        place: ColumnElement[Any] = first
        for number in others:
            place = (place * remainder + number) % literal(PRIME, BigInteger)
        return place


def coefficients(salt: str) -> list[int]:
    """Return the polynomial a salt stands for, the highest power first."""
    digest = hashlib.sha256(salt.encode()).digest()
    return [int.from_bytes(digest[8 * n : 8 * n + 8], "big") % PRIME for n in range(_COEFFICIENTS)]


def place_of(salt: str, subject_id: int) -> int:
    """Return the place, 0 to PRIME - 1, of a subject: a polynomial of its id, modulo a prime.

    Source:
        Wegman and Carter (1981), "New hash functions and their use in authentication and set equality", section 3:
        a random polynomial of degree 3 over a prime field is a 4-wise independent hash.
    """
    place = 0
    for number in coefficients(salt):
        place = (place * (subject_id % PRIME) + number) % PRIME
    return place
