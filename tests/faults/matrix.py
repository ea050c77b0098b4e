"""The cells of the matrix, and where their verdicts are kept."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

KINDS = ("sqlite", "postgresql")
CELLS = {
    "F1": "kill -9 of a worker process at every named point of claim, prepare, send, record and recover",
    "F2": "kill -9 of a worker with all its children, also of workers that share a rate",
    "F3": "kill -9 of the scheduler around inserting a run, in mid-expansion, around the commit and the publishing",
    "F4": "SIGTERM, SIGQUIT and a second SIGTERM during a send and during a commit",
    "F5": "SIGSTOP of a worker for longer than its lease, or as a window closes, then SIGCONT",
    "F6": "a worker is stopped as it waits for a hint, the hint is published, the worker is killed",
    "F7": "Redis: kill -9 with and without its file, FLUSHALL, asleep, stopped, full, a replica; as it keeps rates",
    "F8": "Redis away when the scheduler publishes",
    "F9": "hints delivered three times, in any order, hours late",
    "F10": "a task that takes longer than the broker's visibility timeout",
    "F12": "PostgreSQL: kill -9 of a backend, an immediate stop and a restart while a chunk is under way",
    "F13": "PostgreSQL: the connection cut between a COMMIT and its reply, at every commit in turn",
    "F14": "PostgreSQL: locked tables, deadlock, statement timeout, no connection left, idle transactions ended",
    "F15": "SQLite: database locked, disk full, kill -9 within a transaction, its log deleted",
    "F17": "the connection is cut at every stage of a send, by SMTP and by HTTP",
    "F18": "421, 4xx, 5xx and replies that are no replies, at every stage of a send",
    "F19": "a server that falls silent or answers a byte a second, at every stage; others are not held up",
    "F20": "greylisting: refused at first, taken later",
    "F21": "a third refused for now, some connections dropped",
    "F22": "STARTTLS stripped, certificates wrong, old or for another host, a hung handshake, injected text",
    "F23": "log-in refused in the middle of a run, quota used up, the sender refused by policy",
    "F24": "servers without SMTPUTF8, 8BITMIME, DSN, SIZE or PIPELINING",
    "F26": "SMS over HTTP and TLS: no answer, errors within a 200, 429, 5xx, odd bodies, slow nets, wrong certificates",
    "F27": "receipts that come before the answer, twice, out of order, for nobody; a real Kannel killed and restarted",
    "F28": "SMPP: throttled, the connection lost with an open window, unbound, silent, receipts in hex and decimal",
    "F31": "poison templates: undefined names, endless loops, gigantic texts; a message that kills workers",
    "F33": "a real older version beside this one, a hint for a task nobody knows, a migration in mid-run",
    "F34": "pause, resume, cancel and apply at random moments of a run",
    "F35": "unsubscribed, bounced or without an address between planning and sending; the same person in two segments",
}


def in_turn(cell: str, values: Iterable[Any], *, both: Iterable[Any] = ()) -> list[Any]:
    """Return parameters that CI tries on one kind of database each, in turn; those named in `both` on each kind."""
    important = list(both)
    return [
        pytest.param(
            *(value if isinstance(value, tuple) else (value,)),
            marks=pytest.mark.cell(cell, quick=True if value in important else KINDS[number % 2]),
        )
        for number, value in enumerate(values)
    ]
