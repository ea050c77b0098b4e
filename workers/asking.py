"""Ending doubts by asking the provider: what it has was sent, what it never got is planned again, the rest waits.

Asked again and again at growing intervals. When each message was last asked about is kept in memory only: after a
restart it is asked once more, which harms nothing. Several schedulers may ask at once for the same reason.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import structlog
from sqlalchemy import Connection, Engine, select

from campaigns.rendering import prepare_step
from campaigns.versions import load_version
from kernel.errors import CarillonError
from kernel.settings import Workspace
from store.doubts import Doubt, Settlement, doubts_by, note_gateway_id, settle
from store.engine import reading, writing
from store.feedback import record_message_event
from store.links import LinkRegistry
from store.message_facts import message_by_gateway_id
from store.schema import installation
from store.tables import messages
from templates.context import load_contexts
from templates.sms import SmsStep
from workers.reconcilers.port import Absent, Finding, Found, Question, Reconciler
from workers.reconcilers.registry import open_reconciler

log = structlog.get_logger(__name__)

FIRST_ASKED_AFTER = timedelta(minutes=1)
_ASKED_FOR = timedelta(days=7)
_LONGEST_WAIT = timedelta(hours=6)
_AT_ONCE = 100


class Asker:
    """Asks about what is in doubt. One per process; its channels' connections are kept."""

    def __init__(self, engine: Engine, workspace: Workspace) -> None:
        self._engine = engine
        self._workspace = workspace
        self._signer = workspace.signer()
        self._reconcilers: dict[str, Reconciler] = {}
        for name, gateway in workspace.settings.gateways.items():
            reconciler = open_reconciler(gateway)
            if reconciler is not None:
                self._reconcilers[name] = reconciler
        self._next: dict[int, datetime] = {}

    def ask(self, *, now: datetime) -> int:
        """Ask about every doubt whose time has come, at most a hundred; return how many were settled."""
        if not self._reconcilers:
            return 0
        with reading(self._engine) as connection:
            open_doubts = doubts_by(connection, sorted(self._reconcilers), since=now - _ASKED_FOR)
        self._next = {doubt.message: self._next.get(doubt.message, _first(doubt)) for doubt in open_doubts}
        due = [doubt for doubt in open_doubts if self._next[doubt.message] <= now]
        return sum(self._ask_one(doubt, now) for doubt in due[:_AT_ONCE])

    def close(self) -> None:
        """End every connection."""
        for reconciler in self._reconcilers.values():
            reconciler.close()

    def _ask_one(self, doubt: Doubt, now: datetime) -> bool:
        self._next[doubt.message] = now + min(max(now - doubt.since, FIRST_ASKED_AFTER), _LONGEST_WAIT)
        finding = self._reconcilers[doubt.gateway].ask(self._question(doubt), now=now)
        with writing(self._engine) as connection:
            settled = _write(connection, doubt, finding, now)
        told = log.info if settled else log.debug
        told("doubt_asked", message=doubt.message, gateway=doubt.gateway, words=finding.words, settled=settled)
        return settled

    def _question(self, doubt: Doubt) -> Question:
        def is_ours(gateway_id: str) -> bool:
            with reading(self._engine) as connection:
                known = message_by_gateway_id(connection, lane=doubt.gateway, gateway_id=gateway_id)
            return known is not None and known.id != doubt.message

        return Question(
            ref=self._signer.address_token(doubt.message),
            address=doubt.address,
            since=doubt.since,
            text=lambda: self._text(doubt),
            is_ours=is_ours,
        )

    def _text(self, doubt: Doubt) -> str | None:
        """Render the SMS again, as of when it was sent; None where that cannot be done any more."""
        settings = self._workspace.settings
        try:
            with reading(self._engine) as connection:
                where = messages.c.id == doubt.message
                row = connection.execute(select(messages.c.step, messages.c.contact_id).where(where)).one()
                contexts = load_contexts(
                    connection,
                    [row.contact_id],
                    now=doubt.since,
                    currency=settings.currency,
                    zone=ZoneInfo(settings.timezone),
                )
                context = contexts[row.contact_id]
                language = context["contact"].get("language") or settings.language
                pinned = load_version(connection, doubt.version_id)
                name = installation(connection)
            step = prepare_step(self._workspace, pinned, row.step, language, self._signer, name)
            if not isinstance(step, SmsStep):
                return None
            links = LinkRegistry(self._engine)
            return step.compose(message_id=doubt.message, address=doubt.address, context=context, links=links).text
        except (CarillonError, KeyError) as error:
            log.warning("doubt_not_rendered", message=doubt.message, error=str(error))
            return None


def _first(doubt: Doubt) -> datetime:
    return doubt.since + FIRST_ASKED_AFTER


def _write(connection: Connection, doubt: Doubt, finding: Finding, now: datetime) -> bool:
    if isinstance(finding, Found):
        if not settle(connection, doubt.message, Settlement.SENT, at=now, words=finding.words):
            return False
        if finding.gateway_id:
            note_gateway_id(connection, doubt.message, finding.gateway_id)
        if finding.kind is not None:
            record_message_event(
                connection,
                key=f"{finding.kind}:{doubt.message}",
                message_id=doubt.message,
                kind=finding.kind,
                at=now,
                detail=finding.words,
            )
        return True
    if isinstance(finding, Absent):
        return settle(connection, doubt.message, Settlement.NOT_SENT, at=now, words=finding.words)
    return False
