"""Consent: the latest word a contact had given for a channel."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import Annotated, Any, Literal

from pydantic import Field
from sqlalchemy import BigInteger, ColumnElement, and_, case, func, literal, true, type_coerce

from kernel.fields import Strict
from kernel.vocabulary import Channel, ConsentStatus, Subject
from segments.scope import Clock, Flaw, OnRows, Rows, Scope, Surroundings
from store.aggregates import last_text
from store.tables import consent_events


class Consent(OnRows, Strict):
    """Contacts by their consent: granted, withdrawn, or none where the person never said a word.

    It is the latest word before now; of two words of one instant a withdrawal holds.
    """

    channel: Annotated[Channel, Field(strict=False)]
    status: Literal["granted", "withdrawn", "none"] = "granted"

    def flaws(self, surroundings: Surroundings) -> Iterable[Flaw]:
        """Return that only people consent, where the segment is about accounts."""
        if surroundings.subject is Subject.ACCOUNT:
            hint = "in a segment of accounts write any_contact: {consent: …}"
            yield Flaw(place=(), message="consent is given by contacts, not by accounts", hint=hint)

    def rows(self, scope: Scope) -> Rows:
        """Return every word for the channel before now."""
        where = and_(consent_events.c.channel == self.channel, consent_events.c.at < scope.as_of)
        key = consent_events.c.contact_id
        name = f"consent/{self.channel}"
        return Rows(name=name, source=consent_events, key=key, whose=Subject.CONTACT, where=where)

    def test(self, scope: Scope) -> ColumnElement[bool]:
        """Return whether the latest word is the one asked for."""
        return _latest() == self.status

    def shown(self, scope: Scope) -> dict[str, ColumnElement[Any]]:
        """Return the latest word."""
        return {"status": self.asked(scope, _latest())}

    def clocks(self, scope: Scope) -> Iterable[Clock]:
        """Return when words dated in the future begin to hold."""
        where = consent_events.c.channel == self.channel
        key, at = consent_events.c.contact_id, consent_events.c.at
        yield Clock(source=consent_events, key=key, whose=Subject.CONTACT, at=at, where=where, after=(timedelta(0),))


def _latest() -> ColumnElement[Any]:
    columns = consent_events.c
    withdrawn = case((columns.status == ConsentStatus.WITHDRAWN, 1), else_=0)
    return func.coalesce(
        last_text(columns.status, type_coerce(columns.at, BigInteger), withdrawn, true()), literal("none")
    )
