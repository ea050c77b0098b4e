"""Reading the inbox: each row is understood, recorded and marked; what cannot be read never blocks what can.

Any number of processes may read at once. Rows are understood before the transaction and recorded within it, so that
transactions stay short. Everything recorded is idempotent: a row read twice changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

import structlog
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError

from kernel.settings import Workspace
from kernel.signing import Signer
from store.engine import reading, writing
from store.inbox import BOUNCE_SOURCE, InboxRow, InboxState, hold_new, mark, unread
from store.schema import installation
from workers.inbound.bounces import BounceReport, parse
from workers.inbound.mail import record_events, record_mail
from workers.inbound.outcomes import Read, Waiting, sum_of
from workers.inbound.providers import understand_events
from workers.inbound.sms import record_incoming, record_receipts
from workers.inbound.sms_gateways import callback_of, understand_incoming, understand_receipts

log = structlog.get_logger(__name__)

_BATCH = 20
_EVENTS_AT_ONCE = 200
"""A provider's call may hold thousands of events; a transaction that writes them all would hold up the senders."""
Record = Callable[[Connection], Read]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Reader:
    workspace: Workspace
    signer: Signer
    installation: str
    now: datetime

    def understand(self, row: InboxRow) -> Sequence[Record]:
        """Return how to record a row, in parts that may be written one by one; whatever is wrong with it is raised."""
        if row.source != BOUNCE_SOURCE and row.meta.get("kind") == "events":
            gateway = self.workspace.settings.gateways.get(row.gateway or "")
            events = understand_events(gateway, row)
            starts = range(0, len(events), _EVENTS_AT_ONCE) if events else (0,)
            return [self._events(row, events[start : start + _EVENTS_AT_ONCE]) for start in starts]
        return [self._whole(row)]

    def _events(self, row: InboxRow, events: Sequence[BounceReport]) -> Record:
        return lambda connection: record_events(
            connection,
            row,
            events,
            signer=self.signer,
            installation=self.installation,
            settings=self.workspace.settings.suppression,
            now=self.now,
        )

    def _whole(self, row: InboxRow) -> Record:
        if row.source == BOUNCE_SOURCE:
            reports = parse(row.body)
            return lambda connection: record_mail(
                connection,
                row,
                reports,
                signer=self.signer,
                installation=self.installation,
                settings=self.workspace.settings.suppression,
                now=self.now,
            )
        gateway = self.workspace.settings.gateways.get(row.gateway or "")
        if row.meta.get("kind") == "inbound":
            incoming = understand_incoming(gateway, callback_of(self.workspace, row))
            return lambda connection: record_incoming(connection, row, incoming)
        receipts = understand_receipts(gateway, callback_of(self.workspace, row))
        return lambda connection: record_receipts(connection, row, receipts, signer=self.signer, now=self.now)


def process_inbox(engine: Engine, workspace: Workspace, *, now: datetime, limit: int = 500) -> int:
    """Read up to `limit` new rows, oldest first, and return how many were marked.

    Rows about messages still in a worker's hands stay new and are read again at the next call.
    """
    with reading(engine) as connection:
        reader = _Reader(workspace=workspace, signer=workspace.signer(), installation=installation(connection), now=now)
    marked, after_id = 0, 0
    while marked < limit:
        with reading(engine) as connection:
            rows = unread(connection, after_id=after_id, limit=min(_BATCH, limit - marked))
        if not rows:
            break
        after_id = rows[-1].id
        marked += _read_batch(engine, reader, rows)
    return marked


def _read_batch(engine: Engine, reader: _Reader, rows: Sequence[InboxRow]) -> int:
    understood = [(row, _understood(reader, row)) for row in rows]
    together = [(row, parts[0]) for row, parts in understood if row.meta.get("kind") != "events"]
    try:
        marked = _record_all(engine, together, reader.now)
    except DBAPIError as error:
        if error.connection_invalidated:
            raise
        log.warning("inbox_batch_failed", error=str(error.orig))
        marked = sum(_alone(engine, row, [record], reader.now) for row, record in together)
    apart = [(row, parts) for row, parts in understood if row.meta.get("kind") == "events"]
    return marked + sum(_alone(engine, row, parts, reader.now) for row, parts in apart)


def _alone(engine: Engine, row: InboxRow, parts: Sequence[Record], now: datetime) -> int:
    """Record a row by itself, each part in a transaction of its own; the last marks it. A kill begins it anew."""
    reads: list[Read] = []
    try:
        for part in parts[:-1]:
            with writing(engine) as connection:
                read = _recorded(connection, row, part) if hold_new(connection, [row.id]) else None
            if read is None:
                return 0  # Somebody else is at it, or was.
            reads.append(read)
        return _record_all(engine, [(row, lambda connection: sum_of([*reads, parts[-1](connection)]))], now)
    except DBAPIError as error:
        if error.connection_invalidated:
            raise
        log.error("inbox_row_failed", row=row.id, error=str(error.orig))
        return 0


def _understood(reader: _Reader, row: InboxRow) -> Sequence[Record]:
    try:
        return reader.understand(row)
    except Exception as error:  # noqa: BLE001 - what a stranger sent must not stop the reader; the row says why
        note = f"{type(error).__name__}: {error}"
        return [lambda _connection: Read(state=InboxState.REJECTED, note=note)]


def _record_all(engine: Engine, understood: Sequence[tuple[InboxRow, Record]], now: datetime) -> int:
    marked = 0
    if not understood:
        return 0
    with writing(engine) as connection:
        held = hold_new(connection, [row.id for row, _ in understood])
        for row, record in understood:
            if row.id in held:
                read = _recorded(connection, row, record)
                if read is not None:
                    mark(connection, row.id, state=read.state, note=read.note, at=now)
                    marked += read.state is not InboxState.NEW
    return marked


def _recorded(connection: Connection, row: InboxRow, record: Record) -> Read | None:
    try:
        with connection.begin_nested():
            return record(connection)
    except Waiting:
        return None
    except (OperationalError, InterfaceError):
        raise  # The database, not the row.
    except Exception as error:
        log.error("inbox_row_rejected", row=row.id, source=row.source, exc_info=error)
        return Read(state=InboxState.REJECTED, note=f"{type(error).__name__}: {error}")
