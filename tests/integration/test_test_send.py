"""A test send over a real SMTP server: one step, one person's data, an address of one's own, outside the ledger."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import Engine

from campaigns.loading import load_campaigns
from kernel.errors import ConfigError
from tests.integration.campaigning import CAMPAIGN, NOW, SETTINGS, add_account, add_contact, make_workspace
from tests.seeding import states
from tests.servers.smtp_sink import Sink, SinkServer
from workers.testing import send_test


def test_a_test_send_reaches_its_address_with_the_persons_data_and_leaves_the_ledger_alone(
    sqlite_engine: Engine, tmp_path: Path
) -> None:
    add_contact(sqlite_engine, "anna", add_account(sqlite_engine, "A1"), first_name="Anna")
    with SinkServer(Sink()) as server:
        settings = SETTINGS.replace("port: 2525", f"port: {server.port}")
        workspace = make_workspace(tmp_path, settings=settings, hello=CAMPAIGN)
        hello = load_campaigns(workspace)["hello"]
        receipt = send_test(workspace, sqlite_engine, hello, 1, "me@acme.example", "anna", now=NOW)
        assert "queued" in receipt.reply
        [(_, _, recipient)] = server.sink.accepted
        [body] = server.sink.bodies
    assert recipient == "me@acme.example"
    assert b"Subject: Hello Anna\r\n" in body
    assert b"X-Carillon-Test: yes\r\n" in body
    assert states(sqlite_engine) == {}


def test_a_step_or_contact_that_is_not_there_is_told(sqlite_engine: Engine, tmp_path: Path) -> None:
    add_contact(sqlite_engine, "anna")
    workspace = make_workspace(tmp_path, hello=CAMPAIGN)
    hello = load_campaigns(workspace)["hello"]
    with pytest.raises(ConfigError, match="not a step 2"):
        send_test(workspace, sqlite_engine, hello, 2, "me@acme.example", "anna", now=NOW)
    with pytest.raises(ConfigError, match="no contact 'nobody'"):
        send_test(workspace, sqlite_engine, hello, 1, "me@acme.example", "nobody", now=NOW)
