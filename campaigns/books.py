"""The books: audience = sent + failed + skipped + held out + pending + in doubt, at every instant."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, Select, func, select

from campaigns.versions import load_specs
from kernel.vocabulary import ACCEPTED_STATES, PENDING_STATES, MessageState
from store.tables import enrollments, messages, runs


@dataclass(frozen=True, slots=True, kw_only=True)
class Books:
    """Counts of places (people × steps); `people` counts enrollments.

    `audience` is counted from the enrollments and the steps of their versions, never from the messages, so that a
    lost message unbalances the books.
    """

    audience: int
    people: int
    sent: int
    failed: int
    skipped: dict[str, int] = field(default_factory=dict)
    held_out: int
    pending: int
    in_doubt: int

    @property
    def balanced(self) -> bool:
        """Whether nobody is lost and nobody is there twice."""
        ended = self.sent + self.failed + sum(self.skipped.values()) + self.held_out
        return self.audience == ended + self.pending + self.in_doubt


def books(connection: Connection, *, run_id: int | None = None, campaign_id: int | None = None) -> Books:
    """Return the books of a run, of a campaign, or of everything, in one view of the database."""

    def limited(query: Select[Any]) -> Select[Any]:
        if run_id is not None:
            query = query.where(runs.c.id == run_id)
        return query if campaign_id is None else query.where(runs.c.campaign_id == campaign_id)

    enrolled = connection.execute(
        limited(select(runs.c.version_id, func.count()).join(enrollments, enrollments.c.run_id == runs.c.id)).group_by(
            runs.c.version_id
        )
    ).all()
    steps = {version: len(spec.steps) for version, spec in load_specs(connection, {row[0] for row in enrolled}).items()}
    states: dict[str, int] = {}
    skipped: dict[str, int] = {}
    query = limited(
        select(messages.c.state, messages.c.reason, func.count()).join(runs, runs.c.id == messages.c.run_id)
    ).group_by(messages.c.state, messages.c.reason)
    for state, reason, count in connection.execute(query):
        states[state] = states.get(state, 0) + count
        if state == MessageState.SKIPPED:
            skipped[reason] = skipped.get(reason, 0) + count
    return Books(
        audience=sum(count * steps[version] for version, count in enrolled),
        people=sum(count for _, count in enrolled),
        sent=sum(states.get(state, 0) for state in ACCEPTED_STATES),
        failed=states.get(MessageState.FAILED, 0),
        skipped=dict(sorted(skipped.items())),
        held_out=states.get(MessageState.HELD_OUT, 0),
        pending=sum(states.get(state, 0) for state in PENDING_STATES),
        in_doubt=states.get(MessageState.IN_DOUBT, 0),
    )
