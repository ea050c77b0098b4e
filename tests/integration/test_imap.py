"""Returned mail from mailboxes by IMAP: a real server, connections that break, and nothing lost or counted twice."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
import trustme
from sqlalchemy import Engine

from kernel.errors import GatewayDown
from kernel.settings import ImapBox, Workspace
from store.tables import inbox, message_events, suppressions
from tests.integration.returning import SENT_AT, WORKSPACE_YAML, make_workspace, rows, sent_messages, state_of
from tests.integration.test_inbound import bounce_address, report
from tests.servers.imap_box import Box, ImapServer
from workers.doctor import Health, _mailboxes
from workers.inbound.imap import _quoted, collect, collect_mailboxes, probe
from workers.inbound.listener import MAIL_BYTES
from workers.inbound.process import process_inbox

NOW = SENT_AT + timedelta(minutes=10)


@pytest.fixture
def box() -> Box:
    return Box(folders={"INBOX": {}, "Done": {}, "&U,BTFw-": {}})


@pytest.fixture
def server(box: Box) -> Iterator[ImapServer]:
    with ImapServer(box) as server:
        yield server


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return make_workspace(tmp_path / "workspace")


def settings(server: ImapServer, **more: object) -> ImapBox:
    return ImapBox.model_validate(
        {
            "host": "127.0.0.1",
            "port": server.port,
            "tls": "none",
            "username": server.box.username,
            "password": server.box.password,
            **more,
        }
    )


def bounced(workspace: Workspace, message: int) -> bytes:
    return f"Delivered-To: {bounce_address(workspace, message)}\r\n".encode() + report()


def test_a_bounce_in_a_mailbox_is_kept_once_and_marked_as_seen(
    engine: Engine, workspace: Workspace, server: ImapServer
) -> None:
    [message] = sent_messages(engine)
    uid = server.box.put(bounced(workspace, message))
    assert probe(settings(server)) == 1
    assert collect(engine, settings(server), now=NOW) == 1
    assert server.box.flags[uid] == {r"\Seen"}
    assert collect(engine, settings(server), now=NOW) == 0
    assert process_inbox(engine, workspace, now=NOW) == 1
    assert state_of(engine, message) == "bounced"
    assert rows(engine, suppressions, "address") == [("user1@customer.example",)]


@pytest.mark.parametrize(
    ("capabilities", "left"),
    [("IMAP4rev1 UIDPLUS MOVE", 0), ("IMAP4rev1 UIDPLUS", 0), ("IMAP4rev1", 1)],
)
def test_what_was_kept_is_moved_by_whatever_the_server_offers(
    sqlite_engine: Engine, server: ImapServer, capabilities: str, left: int
) -> None:
    server.box.capabilities = capabilities
    server.box.put(report())
    for _ in range(2):
        collect(sqlite_engine, settings(server, move_to="Done"), now=NOW)
    assert list(server.box.folders["Done"].values()) == [report()]
    assert len(server.box.folders["INBOX"]) == left, "without UIDPLUS nothing of anybody's is expunged"
    assert len(rows(sqlite_engine, inbox, "id")) == 1


def test_folders_are_named_in_modified_utf7(sqlite_engine: Engine, server: ImapServer) -> None:
    server.box.put(report())
    collect(sqlite_engine, settings(server, move_to="台北"), now=NOW)
    assert len(server.box.folders["&U,BTFw-"]) == 1
    assert _quoted('Tom & "Jerry"') == '"Tom &- \\"Jerry\\""'  # RFC 3501 section 5.1.3


def test_a_connection_lost_in_the_middle_of_a_mail_loses_and_doubles_nothing(
    engine: Engine, workspace: Workspace, server: ImapServer
) -> None:
    ids = sent_messages(engine, 3)
    uids = [server.box.put(bounced(workspace, message)) for message in ids]
    server.box.drop_in_fetch_of = {uids[1]}
    with pytest.raises(GatewayDown):
        collect(engine, settings(server), now=NOW)
    assert len(rows(engine, inbox, "id")) == 1, "the first was kept; of the second nothing was, for half came"
    assert collect(engine, settings(server), now=NOW) == 2
    process_inbox(engine, workspace, now=NOW)
    assert [state_of(engine, message) for message in ids] == ["bounced"] * 3
    assert len(rows(engine, message_events, "id")) == 3


@pytest.mark.parametrize("command", ["UID STORE", "UID SEARCH", "SELECT", "LOGIN", "UID MOVE", "LOGOUT"])
def test_a_connection_lost_at_any_command_is_made_good_by_the_next_visit(
    sqlite_engine: Engine, server: ImapServer, command: str
) -> None:
    box = settings(server, move_to="Done" if command == "UID MOVE" else None)
    server.box.put(report())
    server.box.put(report(status="5.2.2"))
    server.box.drop_before = {command}
    if command == "LOGOUT":
        collect(sqlite_engine, box, now=NOW)
    else:
        with pytest.raises(GatewayDown):
            collect(sqlite_engine, box, now=NOW)
    collect(sqlite_engine, box, now=NOW)
    assert len(rows(sqlite_engine, inbox, "id")) == 2
    assert collect(sqlite_engine, box, now=NOW) == 0


def test_a_huge_mail_is_kept_in_part(sqlite_engine: Engine, server: ImapServer) -> None:
    server.box.put(report() + b"x" * MAIL_BYTES)
    assert collect(sqlite_engine, settings(server), now=NOW) == 1
    [(raw,)] = rows(sqlite_engine, inbox, "body")
    assert len(raw) == MAIL_BYTES
    assert raw.startswith(report())


def test_one_mailbox_that_does_not_answer_holds_up_no_other(
    sqlite_engine: Engine, tmp_path: Path, server: ImapServer
) -> None:
    server.box.put(report())
    boxes = "".join(
        f"\n    - {{host: 127.0.0.1, port: {port}, tls: none, username: bounces, password: '{password}'}}"
        for port, password in ((1, "x"), (server.port, "wrong"), (server.port, 'secret "quoted"'))
    )
    text = WORKSPACE_YAML.replace("inbound: {maildirs: [bounces]}", f"inbound:\n  imap:{boxes}")
    workspace = make_workspace(tmp_path / "boxes", text=text)
    assert collect_mailboxes(sqlite_engine, workspace, now=NOW) == 1


def test_refusals_are_told_in_words_without_the_password(sqlite_engine: Engine, server: ImapServer) -> None:
    with pytest.raises(GatewayDown, match="who are you") as refused:
        collect(sqlite_engine, settings(server, password="hunter2"), now=NOW)
    assert "hunter2" not in str(refused.value)
    with pytest.raises(GatewayDown, match="the folder 'Bounces' was refused: no such folder"):
        collect(sqlite_engine, settings(server, folder="Bounces"), now=NOW)
    server.box.put(report())
    with pytest.raises(GatewayDown, match="moving mail 1 to 'Nowhere' was refused"):
        collect(sqlite_engine, settings(server, move_to="Nowhere"), now=NOW)
    assert len(rows(sqlite_engine, inbox, "id")) == 1, "kept first"


def test_the_certificate_is_verified(sqlite_engine: Engine, box: Box, tmp_path: Path) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    box.put(report())
    with ImapServer(box, context) as server:
        trusted = settings(server, tls="implicit", host="localhost", ca_file=str(tmp_path / "ca.pem"))
        assert collect(sqlite_engine, trusted, now=NOW) == 1
        for wrong in ({"ca_file": None}, {"host": "127.0.0.1"}):
            with pytest.raises(GatewayDown, match="CERTIFICATE_VERIFY_FAILED"):
                collect(sqlite_engine, trusted.model_copy(update=wrong), now=NOW)


def test_the_doctor_logs_in_and_changes_nothing(tmp_path: Path, server: ImapServer) -> None:
    uid = server.box.put(report())
    boxes = "".join(
        f"\n    - {{host: 127.0.0.1, port: {server.port}, tls: none, username: {user},"
        f" password: '{server.box.password}'}}"
        for user in ("bounces", "nobody")
    )
    text = WORKSPACE_YAML.replace("inbound: {maildirs: [bounces]}", f"inbound:\n  imap:{boxes}")
    workspace = make_workspace(tmp_path / "boxes", text=text)
    checks = {check.name: check for check in _mailboxes(workspace)}
    assert checks["mailbox bounces@127.0.0.1"].health is Health.OK
    assert "1 mails wait" in checks["mailbox bounces@127.0.0.1"].says
    assert checks["mailbox nobody@127.0.0.1"].health is Health.FAIL
    assert server.box.flags[uid] == set()
