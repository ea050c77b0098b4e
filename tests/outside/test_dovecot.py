"""Returned mail is collected from a real Dovecot: marked or moved, a torn connection loses and doubles nothing."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine

from kernel.errors import GatewayDown
from kernel.settings import ImapBox, Workspace
from store.tables import inbox, message_events, suppressions
from tests.integration.returning import SENT_AT, make_workspace, rows, sent_messages, state_of
from tests.integration.test_inbound import bounce_address, report
from tests.outside.dovecot import PASSWORD, USERNAME, Dovecot, running_dovecot
from workers.inbound.imap import collect, probe
from workers.inbound.process import process_inbox

NOW = SENT_AT + timedelta(minutes=10)


@pytest.fixture(scope="module")
def server() -> Iterator[Dovecot]:
    with running_dovecot() as running:
        yield running


@pytest.fixture
def dovecot(server: Dovecot) -> Dovecot:
    for path in [*server.mails(), *server.mails("Done")]:
        path.unlink()
    return server


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return make_workspace(tmp_path / "workspace")


def box(port: int, **more: object) -> ImapBox:
    return ImapBox.model_validate(
        {"host": "127.0.0.1", "port": port, "tls": "none", "username": USERNAME, "password": PASSWORD, **more}
    )


@pytest.mark.parametrize("move_to", [None, "Done"])
def test_bounces_are_collected_once(
    engine: Engine, workspace: Workspace, dovecot: Dovecot, move_to: str | None
) -> None:
    ids = sent_messages(engine, 5)
    for message in ids:
        raw = f"Delivered-To: {bounce_address(workspace, message)}\r\n".encode() + report()
        dovecot.deliver(raw, f"{message}.host")
    assert probe(box(dovecot.port)) == 5
    assert collect(engine, box(dovecot.port, move_to=move_to), now=NOW) == 5
    assert collect(engine, box(dovecot.port, move_to=move_to), now=NOW) == 0
    assert probe(box(dovecot.port)) == 0
    assert len(dovecot.mails("Done" if move_to else "")) == 5
    process_inbox(engine, workspace, now=NOW)
    assert [state_of(engine, message) for message in ids] == ["bounced"] * 5
    assert len(rows(engine, suppressions, "address")) == 5


class Cutter:
    """A wire to Dovecot that is cut after so many bytes of its answers."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])

    def carry(self, limit: int) -> None:
        """Carry one connection in threads of its own, and cut it."""
        threading.Thread(target=self._carry, args=(limit,), daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _carry(self, limit: int) -> None:
        client, _ = self._listener.accept()
        with client, socket.create_connection(("127.0.0.1", self._port)) as server:
            threading.Thread(target=_pump, args=(client, server), daemon=True).start()
            while limit > 0 and (data := server.recv(min(limit, 4096))):
                client.sendall(data)
                limit -= len(data)
            client.shutdown(socket.SHUT_RDWR)


def _pump(source: socket.socket, target: socket.socket) -> None:
    try:
        while data := source.recv(4096):
            target.sendall(data)
    except OSError:
        pass  # Cut, as it should be.


def test_a_wire_cut_anywhere_loses_and_doubles_nothing(
    sqlite_engine: Engine, workspace: Workspace, dovecot: Dovecot
) -> None:
    ids = sent_messages(sqlite_engine, 8)
    for message in ids:
        raw = f"Delivered-To: {bounce_address(workspace, message)}\r\n".encode() + report()
        dovecot.deliver(raw, f"{message}.host")
    cutter, cuts = Cutter(dovecot.port), 0
    for limit in range(200, 4000, 130):
        cutter.carry(limit)
        try:
            collect(sqlite_engine, box(cutter.port), now=NOW)
        except GatewayDown:
            cuts += 1
    cutter.close()
    assert cuts > 5, "otherwise nothing was tried"
    collect(sqlite_engine, box(dovecot.port), now=NOW)
    assert len(rows(sqlite_engine, inbox, "id")) == 8
    process_inbox(sqlite_engine, workspace, now=NOW)
    assert len(rows(sqlite_engine, message_events, "id")) == 8
    assert {state_of(sqlite_engine, message) for message in ids} == {"bounced"}


def test_a_wrong_password_and_a_missing_folder_are_told(sqlite_engine: Engine, dovecot: Dovecot) -> None:
    with pytest.raises(GatewayDown, match="AUTHENTICATIONFAILED"):
        collect(sqlite_engine, box(dovecot.port, password="wrong"), now=NOW)
    with pytest.raises(GatewayDown, match="the folder 'Nowhere' was refused"):
        collect(sqlite_engine, box(dovecot.port, folder="Nowhere"), now=NOW)
