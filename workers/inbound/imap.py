"""Collecting returned mail from mailboxes by IMAP: kept first, marked or moved afterwards.

A connection lost at any moment loses nothing: what was not marked is fetched again, and what was kept already falls
away by its bytes.

Source:
    RFC 3501 (IMAP4rev1), 4315 (UIDPLUS), 6851 (MOVE).
"""

from __future__ import annotations

import base64
import imaplib
import re
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import structlog
from sqlalchemy import Engine

from kernel.errors import GatewayDown
from kernel.ids import digest
from kernel.settings import ImapBox, Workspace
from store.engine import writing
from store.inbox import BOUNCE_SOURCE, put
from workers.inbound.listener import MAIL_BYTES

log = structlog.get_logger(__name__)

_TIMEOUT_S = 30.0
_AT_ONCE = 500
"""Mails taken in one visit; the rest waits for the next."""


def collect_mailboxes(engine: Engine, workspace: Workspace, *, now: datetime) -> int:
    """Visit every `inbound.imap` mailbox and return how many mails were new.

    One that does not answer is named in the log and holds up no other.
    """
    kept = 0
    for box in workspace.settings.inbound.imap:
        try:
            kept += collect(engine, box, now=now)
        except GatewayDown as error:
            log.error("mailbox_not_read", host=box.host, username=box.username, error=error.text)
    return kept


def collect(engine: Engine, box: ImapBox, *, now: datetime) -> int:
    """Keep what is new in a mailbox, then mark it as seen or move it; return how many mails were new.

    Raises:
        GatewayDown: the server does not answer, refuses the login or the folder, or went away; what is kept stays so.
    """
    with _opened(box) as client:
        kept = 0
        for uid in _waiting(client, box)[:_AT_ONCE]:
            raw = _fetch(client, uid)
            if raw is None:
                continue  # Somebody else took it away meanwhile.
            kept += _keep(engine, box, raw, uid, now)
            _put_away(client, box, uid)
        return kept


def probe(box: ImapBox) -> int:
    """Log in and return how many mails wait; nothing is changed.

    Raises:
        GatewayDown: it cannot be done.
    """
    with _opened(box, readonly=True) as client:
        return len(_waiting(client, box))


@contextmanager
def _opened(box: ImapBox, *, readonly: bool = False) -> Iterator[imaplib.IMAP4]:
    try:
        client = _connected(box)
        try:
            client.login(box.username, box.password.get_secret_value())
            _asked(client.select(_quoted(box.folder), readonly=readonly), f"the folder {box.folder!r}")
            yield client
        finally:
            _leave(client)
    except (imaplib.IMAP4.error, OSError, EOFError) as error:
        # imaplib repeats the server's words, never ours: the password is not among them.
        raise GatewayDown(f"{type(error).__name__}: {error}") from error


def _connected(box: ImapBox) -> imaplib.IMAP4:
    if box.tls == "none":
        return imaplib.IMAP4(box.host, box.port, timeout=_TIMEOUT_S)
    context = ssl.create_default_context(cafile=box.ca_file)
    if box.tls == "implicit":
        return imaplib.IMAP4_SSL(box.host, box.port, ssl_context=context, timeout=_TIMEOUT_S)
    client = imaplib.IMAP4(box.host, box.port, timeout=_TIMEOUT_S)
    try:
        client.starttls(context)
    except BaseException:
        client.shutdown()
        raise
    return client


def _leave(client: imaplib.IMAP4) -> None:
    try:
        client.logout()
    except (imaplib.IMAP4.error, OSError, EOFError):
        client.shutdown()  # It went away by itself, or does not want to be left in good form.


def _waiting(client: imaplib.IMAP4, box: ImapBox) -> list[bytes]:
    """Return the UIDs of mails nobody has kept: where they are moved all that are there, else the unseen."""
    wanted = "UNDELETED" if box.move_to else "UNSEEN UNDELETED"
    found = _asked(client.uid("SEARCH", wanted), "the search")
    return [uid for line in found if isinstance(line, bytes) for uid in line.split()]


def _fetch(client: imaplib.IMAP4, uid: bytes) -> bytes | None:
    """Return a mail, of a huge one its beginning; without marking it as seen."""
    answer = _asked(client.uid("FETCH", uid.decode("ascii"), f"(BODY.PEEK[]<0.{MAIL_BYTES}>)"), f"mail {uid!r}")
    for item in answer:
        if isinstance(item, tuple) and b"BODY[" in item[0].upper():
            return bytes(item[1])
    return None


def _keep(engine: Engine, box: ImapBox, raw: bytes, uid: bytes, now: datetime) -> bool:
    with writing(engine) as connection:
        return put(
            connection,
            key=digest(BOUNCE_SOURCE, "", raw),
            source=BOUNCE_SOURCE,
            body=raw,
            meta={"imap": f"{box.username}@{box.host}/{box.folder}", "uid": uid.decode("ascii")},
            received_at=now,
        )


def _put_away(client: imaplib.IMAP4, box: ImapBox, uid: bytes) -> None:
    number = uid.decode("ascii")
    if box.move_to is None:
        _asked(client.uid("STORE", number, "+FLAGS.SILENT", r"(\Seen)"), f"marking mail {number}")
    elif "MOVE" in client.capabilities:
        _asked(client.uid("MOVE", number, _quoted(box.move_to)), f"moving mail {number} to {box.move_to!r}")
    else:
        _asked(client.uid("COPY", number, _quoted(box.move_to)), f"copying mail {number} to {box.move_to!r}")
        _asked(client.uid("STORE", number, "+FLAGS.SILENT", r"(\Seen \Deleted)"), f"marking mail {number}")
        if "UIDPLUS" in client.capabilities:
            # Without UIDPLUS an EXPUNGE would take other people's deleted mail along: then the mark has to do.
            _asked(client.uid("EXPUNGE", number), f"removing mail {number}")


def _asked(answer: tuple[str, list[Any]], what: str) -> list[Any]:
    """Return what the server answered.

    Raises:
        GatewayDown: it refused.
    """
    status, data = answer
    if status != "OK":
        words = b" ".join(part for part in data if isinstance(part, bytes)).decode("utf-8", "replace")
        raise GatewayDown(f"{what} was refused: {words[:300]}")
    return data


def _quoted(folder: str) -> str:
    """Return a folder's name as IMAP wants it: modified UTF-7, quoted.

    Source:
        RFC 3501 sections 5.1.3 and 9 (quoted).
    """
    coded = re.sub(r"[^\x20-\x7e]+|&", lambda found: _modified_utf7(found[0]), folder)
    escaped = coded.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _modified_utf7(text: str) -> str:
    if text == "&":
        return "&-"
    packed = base64.b64encode(text.encode("utf-16-be")).decode("ascii").rstrip("=").replace("/", ",")
    return f"&{packed}-"
