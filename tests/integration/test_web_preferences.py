"""Unsubscribing and choosing channels, through a real server."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine, update

from kernel.settings import Workspace
from kernel.signing import Purpose, Signer
from store.engine import writing
from store.feedback import suppress
from store.tables import consent_events, consents, contacts, message_events, suppressions, touches
from tests.integration.returning import (
    SENT_AT,
    Site,
    TurnedClock,
    make_workspace,
    rows,
    sent_messages,
    served,
    state_of,
)


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return make_workspace(tmp_path / "workspace")


@pytest.fixture
def clock() -> TurnedClock:
    return TurnedClock(SENT_AT + timedelta(minutes=5))


@pytest.fixture
def site(sqlite_engine: Engine, workspace: Workspace, clock: TurnedClock) -> Iterator[Site]:
    with served(sqlite_engine, workspace, clock) as site:
        yield site


def unsubscribe_path(workspace: Workspace, message: int) -> str:
    return f"/u/{workspace.signer().token(Purpose.UNSUBSCRIBE, message)}"


def preference_path(workspace: Workspace, message: int) -> str:
    return f"/p/{workspace.signer().token(Purpose.PREFERENCES, message)}"


def consent(engine: Engine, channel: str) -> set[str]:
    return {status for name, status in rows(engine, consents, "channel", "status") if name == channel}


def test_looking_at_the_page_changes_nothing(sqlite_engine: Engine, workspace: Workspace, site: Site) -> None:
    [message] = sent_messages(sqlite_engine)
    answer = site.get(unsubscribe_path(workspace, message))
    assert answer.status_code == 200
    assert '<form method="post">' in answer.text
    assert '<meta name="viewport"' in answer.text
    assert "Acme &amp; Co &lt;Wholesale&gt;" in answer.text
    assert "user1@customer.example" not in answer.text
    assert consent(sqlite_engine, "email") == {"granted"}
    assert rows(sqlite_engine, suppressions, "address") == []
    assert rows(sqlite_engine, touches, "kind", "link_id") == [("page", None)]


@pytest.mark.parametrize("encoding", ["urlencoded", "multipart"])
def test_one_click_unsubscribes_in_either_encoding(
    sqlite_engine: Engine, workspace: Workspace, site: Site, encoding: str
) -> None:
    [message] = sent_messages(sqlite_engine)
    fields = {"List-Unsubscribe": "One-Click"}
    body = {"data": fields} if encoding == "urlencoded" else {"files": {"List-Unsubscribe": (None, "One-Click")}}
    answer = site.post(unsubscribe_path(workspace, message), headers={"User-Agent": ""}, **body)
    assert (answer.status_code, answer.text) == (200, "unsubscribed\n")
    assert "Location" not in answer.headers
    assert consent(sqlite_engine, "email") == {"withdrawn"}
    assert consent(sqlite_engine, "sms") == {"granted"}
    assert rows(sqlite_engine, suppressions, "channel", "address", "reason", "message_id") == [
        ("email", "user1@customer.example", "unsubscribe", message)
    ]
    assert rows(sqlite_engine, message_events, "kind") == [("unsubscribed",)]
    assert state_of(sqlite_engine, message) == "sent"


def test_the_button_unsubscribes_and_says_so(sqlite_engine: Engine, workspace: Workspace, site: Site) -> None:
    [message] = sent_messages(sqlite_engine)
    answer = site.post(unsubscribe_path(workspace, message), data={"action": "unsubscribe"})
    assert answer.status_code == 200
    assert "You are unsubscribed" in answer.text
    assert consent(sqlite_engine, "email") == {"withdrawn"}


def test_unsubscribing_again_and_again_changes_nothing_more(
    sqlite_engine: Engine, workspace: Workspace, site: Site, clock: TurnedClock
) -> None:
    [message] = sent_messages(sqlite_engine)
    for _ in range(3):
        assert site.post(unsubscribe_path(workspace, message)).status_code == 200
        clock.turn(3600)
    assert len(rows(sqlite_engine, message_events, "id")) == 1
    assert len(rows(sqlite_engine, consent_events, "id")) == 1
    assert rows(sqlite_engine, suppressions, "at") == [(SENT_AT + timedelta(minutes=5),)]


def test_a_forged_token_unsubscribes_nobody_and_tells_nothing(
    sqlite_engine: Engine, workspace: Workspace, site: Site
) -> None:
    [message] = sent_messages(sqlite_engine)
    foreign = Signer([b"x" * 64])
    unknown_here = site.post(f"/u/{workspace.signer().token(Purpose.UNSUBSCRIBE, message + 1)}")
    forged = site.post(f"/u/{foreign.token(Purpose.UNSUBSCRIBE, message)}")
    shown = site.get(f"/u/{foreign.token(Purpose.UNSUBSCRIBE, message)}")
    assert {answer.status_code for answer in (unknown_here, forged, shown)} == {404}
    assert unknown_here.text == forged.text == shown.text
    assert rows(sqlite_engine, suppressions, "address") == []


def test_only_get_head_and_post_are_answered(sqlite_engine: Engine, workspace: Workspace, site: Site) -> None:
    [message] = sent_messages(sqlite_engine)
    for method in ("PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"):
        assert site.request(method, unsubscribe_path(workspace, message)).status_code == 405
    assert consent(sqlite_engine, "email") == {"granted"}


def test_preferences_show_and_save_each_channel(sqlite_engine: Engine, workspace: Workspace, site: Site) -> None:
    [message] = sent_messages(sqlite_engine)
    path = preference_path(workspace, message)
    assert site.get(path).text.count("checked") == 2
    answer = site.post(path, data={"save": "yes", "email": "on"})
    assert "Your choice is saved" in answer.text
    assert answer.text.count("checked") == 1
    assert (consent(sqlite_engine, "email"), consent(sqlite_engine, "sms")) == ({"granted"}, {"withdrawn"})
    assert rows(sqlite_engine, suppressions, "channel", "reason") == [("sms", "unsubscribe")]


def test_who_comes_back_is_written_to_again_and_the_wording_is_kept(
    sqlite_engine: Engine, workspace: Workspace, site: Site, clock: TurnedClock
) -> None:
    [message] = sent_messages(sqlite_engine)
    site.post(unsubscribe_path(workspace, message))
    clock.turn(60)
    site.post(preference_path(workspace, message), data={"save": "yes", "email": "on", "sms": "on"})
    assert consent(sqlite_engine, "email") == {"granted"}
    assert rows(sqlite_engine, suppressions, "address") == []
    words = rows(sqlite_engine, consent_events, "status", "source", "wording")
    assert (
        "granted",
        f"preference page:message {message}",
        "Acme & Co <Wholesale> sends me marketing messages by E-mail",
    ) in words
    clock.turn(60)
    site.post(unsubscribe_path(workspace, message))
    assert consent(sqlite_engine, "email") == {"withdrawn"}
    assert rows(sqlite_engine, suppressions, "reason") == [("unsubscribe",)]


def test_a_body_that_is_not_our_form_saves_nothing(sqlite_engine: Engine, workspace: Workspace, site: Site) -> None:
    [message] = sent_messages(sqlite_engine)
    path = preference_path(workspace, message)
    for body in (b"", b"email=", b"\xff\xfe\x00", b"save=no&sms=on"):
        site.post(path, data=body, headers={"Content-Type": "application/x-www-form-urlencoded"})
    site.post(path, data=b"--x\r\nbroken", headers={"Content-Type": "multipart/form-data; boundary=x"})
    site.post(path, data=b"{}", headers={"Content-Type": "application/json"})
    assert consent(sqlite_engine, "email") == {"granted"}
    assert rows(sqlite_engine, suppressions, "address") == []


def test_a_dead_address_cannot_be_ticked_on_again(sqlite_engine: Engine, workspace: Workspace, site: Site) -> None:
    [message] = sent_messages(sqlite_engine)
    with writing(sqlite_engine) as connection:
        suppress(connection, channel="email", address="User1@Customer.example", reason="hard_bounce", at=SENT_AT)
    path = preference_path(workspace, message)
    assert "mail to this address comes back" in site.get(path).text
    site.post(path, data={"save": "yes", "email": "on", "sms": "on"})
    assert rows(sqlite_engine, suppressions, "address", "reason") == [("user1@customer.example", "hard_bounce")]


def test_a_name_with_markup_cannot_write_the_page(tmp_path: Path, sqlite_engine: Engine) -> None:
    text = (
        'brand: {name: "<script>alert(1)</script>", postal_address: "\\"\'><img src=x>"}\n'
        "senders: {default: {name: A, email: a@a.example}}\n"
    )
    workspace = make_workspace(tmp_path / "evil", text=text)
    with served(sqlite_engine, workspace, TurnedClock(SENT_AT)) as site:
        page = site.get("/c/x").text
    assert "<script" not in page
    assert "<img" not in page


def test_a_contact_without_a_telephone_is_not_offered_sms(
    sqlite_engine: Engine, workspace: Workspace, site: Site
) -> None:
    [message] = sent_messages(sqlite_engine)
    with writing(sqlite_engine) as connection:
        connection.execute(update(contacts).values(phone=None))
    assert "SMS" not in site.get(preference_path(workspace, message)).text


def test_an_sms_link_stops_sms_only(sqlite_engine: Engine, workspace: Workspace, site: Site) -> None:
    [message] = sent_messages(sqlite_engine, channel="sms", lane="text")
    site.post(unsubscribe_path(workspace, message))
    assert rows(sqlite_engine, suppressions, "channel", "address") == [("sms", "+447900000001")]
    assert consent(sqlite_engine, "email") == {"granted"}
