"""The audit: recounts the six promises in one view of the database, promise by promise."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from functools import partial

from sqlalchemy import Connection, Engine

from kernel.settings import Workspace
from workers.audit.findings import Breach, Note, Promise, Recounted
from workers.audit.gateway_log import compared
from workers.audit.people import few_in_doubt, nobody_lost, nobody_twice
from workers.audit.recounting import numbers_recounted
from workers.audit.restraint import nothing_after_a_no, nothing_out_of_hours
from workers.mail_log import MailLog

PROMISES: tuple[Promise, ...] = (
    Promise(number=1, says="nobody is lost", recount=nobody_lost),
    Promise(number=2, says="nobody is sent to twice", recount=nobody_twice),
    Promise(number=3, says="what is in doubt is explained, and little", recount=few_in_doubt),
    Promise(number=4, says="nothing is accepted after a no", recount=nothing_after_a_no),
    Promise(number=5, says="nothing outside its window, over its caps or rate", recount=nothing_out_of_hours),
    Promise(number=6, says="a recount gives the reports' numbers", recount=numbers_recounted),
)


def promises(*, mail_log: MailLog | None = None, gateway: str = "") -> Sequence[Promise]:
    """Return what is to be recounted: the six promises and, where there is one, the comparison with a log."""
    if mail_log is None:
        return PROMISES
    against = partial(compared, mail_log=mail_log, gateway=gateway)
    return (*PROMISES, Promise(number=None, says=f"ledger and log of {gateway} agree", recount=against))


def audit(engine: Engine, workspace: Workspace, wanted: Sequence[Promise]) -> Iterator[Recounted]:
    """Yield each promise as soon as it is recounted; all see the database as it was when the audit began."""
    with engine.connect() as connection:
        if connection.dialect.name == "postgresql":
            # On SQLite any transaction that has begun to read sees one state; here it must be asked for.
            connection = connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)  # noqa: PLW2901
        with connection.begin():
            yield from recount(connection, workspace, wanted)


def recount(connection: Connection, workspace: Workspace, wanted: Sequence[Promise]) -> Iterator[Recounted]:
    """Yield each promise recounted in the connection's transaction."""
    for promise in wanted:
        started = time.monotonic()
        found = list(promise.recount(connection, workspace))
        yield Recounted(
            number=promise.number,
            says=promise.says,
            breaches=tuple(finding for finding in found if isinstance(finding, Breach)),
            notes=tuple(finding.text for finding in found if isinstance(finding, Note)),
            took_s=time.monotonic() - started,
        )
