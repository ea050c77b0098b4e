"""Clicks, opens and what machines do, through a real server."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine, update

from kernel.settings import Workspace
from kernel.signing import Purpose
from store.engine import writing
from store.links import LinkRegistry
from store.tables import consents, links, message_events, messages, suppressions, touches
from tests.integration.returning import (
    FIREFOX,
    SAFARI,
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


def click_path(engine: Engine, workspace: Workspace, message_id: int, url: str) -> str:
    link_id = LinkRegistry(engine).link_id(url)
    return f"/c/{workspace.signer().token(Purpose.CLICK, message_id, link_id)}"


def verdicts(engine: Engine) -> list[tuple[object, ...]]:
    return rows(engine, touches, "kind", "verdict", "reasons")


def test_a_click_leads_to_the_registered_target_unchanged(
    sqlite_engine: Engine, workspace: Workspace, site: Site
) -> None:
    [message] = sent_messages(sqlite_engine)
    url = "https://shop.example/a;b?x=1&y=%C3%A4&utm_source=carillon#part"
    answer = site.get(click_path(sqlite_engine, workspace, message, url), ip="203.0.113.7")
    assert answer.status_code == 302
    assert answer.headers["Location"] == url
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["Referrer-Policy"] == "no-referrer-when-downgrade"
    assert answer.headers["X-Robots-Tag"].startswith("noindex")
    assert rows(sqlite_engine, touches, "message_id", "kind", "method", "ip", "user_agent", "verdict") == [
        (message, "click", "GET", "203.0.113.7", FIREFOX, "human")
    ]


@pytest.mark.parametrize("token", ["x", "A" * 30, "%2e%2e%2f", "https:%2f%2fevil.example", "é"])
def test_a_forged_click_leads_nowhere(sqlite_engine: Engine, site: Site, token: str) -> None:
    answer = site.get(f"/c/{token}")
    assert answer.status_code == 404
    assert "Location" not in answer.headers
    assert rows(sqlite_engine, touches, "id") == []


def test_every_changed_character_of_a_token_is_noticed(sqlite_engine: Engine, workspace: Workspace, site: Site) -> None:
    [message] = sent_messages(sqlite_engine)
    path = click_path(sqlite_engine, workspace, message, "https://shop.example/")
    for place in range(3, len(path)):
        changed = path[:place] + ("A" if path[place] != "A" else "B") + path[place + 1 :]
        assert site.get(changed).status_code == 404, changed
    assert rows(sqlite_engine, touches, "id") == []


def test_a_token_of_one_purpose_opens_no_other_door(sqlite_engine: Engine, workspace: Workspace, site: Site) -> None:
    [message] = sent_messages(sqlite_engine)
    opened = workspace.signer().token(Purpose.OPEN, message)
    assert site.get(f"/c/{opened}").status_code == 404
    assert site.post(f"/u/{opened}").status_code == 404
    assert site.get(f"/p/{opened}").status_code == 404
    assert rows(sqlite_engine, suppressions, "address") == []


def test_a_target_that_is_no_web_address_is_never_redirected_to(
    sqlite_engine: Engine, workspace: Workspace, site: Site
) -> None:
    [message] = sent_messages(sqlite_engine)
    assert site.get(click_path(sqlite_engine, workspace, message, "javascript:alert(1)")).status_code == 404


def test_a_target_with_line_breaks_cannot_add_headers(sqlite_engine: Engine, workspace: Workspace, site: Site) -> None:
    [message] = sent_messages(sqlite_engine)
    answer = site.get(click_path(sqlite_engine, workspace, message, "https://shop.example/\r\nSet-Cookie: a=b"))
    assert answer.headers["Location"] == "https://shop.example/%0D%0ASet-Cookie:%20a=b"
    assert "Set-Cookie" not in answer.headers


def test_a_click_still_leads_on_while_the_database_is_away(
    sqlite_engine: Engine, workspace: Workspace, site: Site
) -> None:
    [message] = sent_messages(sqlite_engine)
    path = click_path(sqlite_engine, workspace, message, "https://shop.example/known")
    assert site.get(path).status_code == 302
    with writing(sqlite_engine):  # Somebody holds the only write lock: the hit has to wait, the person must not.
        answer = site.get(path)
        assert answer.headers["Location"] == "https://shop.example/known"
    assert site.get(path).status_code == 302
    assert len(rows(sqlite_engine, touches, "id")) == 3


def test_a_head_request_is_answered_and_counts_as_a_machine(
    sqlite_engine: Engine, workspace: Workspace, site: Site
) -> None:
    [message] = sent_messages(sqlite_engine)
    answer = site.request("HEAD", click_path(sqlite_engine, workspace, message, "https://shop.example/"))
    assert answer.status_code == 302
    assert verdicts(sqlite_engine) == [("click", "machine", "head_request")]


def test_the_pixel_is_always_the_same_picture(sqlite_engine: Engine, workspace: Workspace, site: Site) -> None:
    [message] = sent_messages(sqlite_engine)
    good = site.get(f"/o/{workspace.signer().token(Purpose.OPEN, message)}.gif")
    bad = site.get("/o/nonsense.gif")
    for answer in (good, bad):
        assert answer.status_code == 200
        assert answer.headers["Content-Type"] == "image/gif"
        assert answer.headers["Cache-Control"] == "no-store, private, max-age=0"
        assert len(answer.content) == 42
        assert answer.content.startswith(b"GIF89a")
    assert verdicts(sqlite_engine) == [("open", "human", "")]


def test_a_head_of_the_pixel_is_not_recorded(sqlite_engine: Engine, workspace: Workspace, site: Site) -> None:
    [message] = sent_messages(sqlite_engine)
    assert site.request("HEAD", f"/o/{workspace.signer().token(Purpose.OPEN, message)}.gif").status_code == 200
    assert rows(sqlite_engine, touches, "id") == []


def test_a_hit_settles_a_message_in_doubt(sqlite_engine: Engine, workspace: Workspace, site: Site) -> None:
    [message] = sent_messages(sqlite_engine, state="in_doubt")
    site.get(f"/o/{workspace.signer().token(Purpose.OPEN, message)}.gif")
    assert state_of(sqlite_engine, message) == "sent"


def test_a_scanner_pressing_every_link_unsubscribes_nobody_and_is_seen_through(
    sqlite_engine: Engine, workspace: Workspace, site: Site, clock: TurnedClock
) -> None:
    people = sent_messages(sqlite_engine, 5)
    signer = workspace.signer()
    paths = {
        message: [
            f"/o/{signer.token(Purpose.OPEN, message)}.gif",
            *(click_path(sqlite_engine, workspace, message, f"https://shop.example/{n}") for n in range(4)),
            f"/u/{signer.token(Purpose.UNSUBSCRIBE, message)}",
            f"/p/{signer.token(Purpose.PREFERENCES, message)}",
        ]
        for message in people
    }
    for message in people:  # With a browser's agent, as Proofpoint and others have it.
        for path in paths[message]:
            assert site.get(path, ip="198.51.100.9", headers={"User-Agent": SAFARI}).status_code in (200, 302)
            clock.turn(0.2)
    assert rows(sqlite_engine, suppressions, "address") == []
    assert rows(sqlite_engine, message_events, "kind") == []
    assert {status for _, _, status in rows(sqlite_engine, consents, "contact_id", "channel", "status")} == {"granted"}
    found = rows(sqlite_engine, touches, "kind", "verdict")
    assert len(found) == 5 * 7
    assert {verdict for kind, verdict in found if kind != "open"} == {"machine"}

    clock.turn(60)  # The person, from her own network.
    site.get(paths[people[0]][1], ip="203.0.113.50")
    assert ("click", "human") in rows(sqlite_engine, touches, "kind", "verdict")


def test_a_click_in_the_second_of_acceptance_is_a_machines(
    sqlite_engine: Engine, workspace: Workspace, site: Site, clock: TurnedClock
) -> None:
    [message] = sent_messages(sqlite_engine)
    clock.at = SENT_AT + timedelta(seconds=1)
    site.get(click_path(sqlite_engine, workspace, message, "https://shop.example/"))
    assert verdicts(sqlite_engine) == [("click", "machine", "too_soon")]


def test_an_address_is_believed_only_from_a_trusted_proxy(tmp_path: Path, sqlite_engine: Engine) -> None:
    workspace = make_workspace(
        tmp_path / "direct",
        text="brand: {name: A, postal_address: B}\nsenders: {default: {name: A, email: a@a.example}}\n",
    )
    [message] = sent_messages(sqlite_engine)
    with served(sqlite_engine, workspace, TurnedClock(SENT_AT + timedelta(hours=1))) as site:
        site.get(f"/o/{workspace.signer().token(Purpose.OPEN, message)}.gif", ip="203.0.113.7")
    assert rows(sqlite_engine, touches, "ip") == [("127.0.0.1",)]


def test_a_flood_on_one_message_is_answered_but_not_kept(
    sqlite_engine: Engine, workspace: Workspace, site: Site
) -> None:
    [message] = sent_messages(sqlite_engine)
    path = f"/o/{workspace.signer().token(Purpose.OPEN, message)}.gif"
    assert {site.get(path).status_code for _ in range(150)} == {200}
    assert len(rows(sqlite_engine, touches, "id")) == 120


def test_a_link_of_a_message_that_is_gone_is_answered(sqlite_engine: Engine, workspace: Workspace, site: Site) -> None:
    assert site.get(click_path(sqlite_engine, workspace, 4711, "https://shop.example/")).status_code == 302
    assert rows(sqlite_engine, touches, "id") == []


def test_hits_are_recorded_on_either_database(engine: Engine, workspace: Workspace, clock: TurnedClock) -> None:
    [message] = sent_messages(engine)
    nasty = "Mozilla/5.0 (ev\u00efl) " + "x" * 2000
    with served(engine, workspace, clock) as site:
        site.get(click_path(engine, workspace, message, "https://shop.example/"), ip="203.0.113.7")
        site.get(
            f"/o/{workspace.signer().token(Purpose.OPEN, message)}.gif",
            headers={"User-Agent": nasty.encode("latin-1")},
        )
    assert rows(engine, touches, "kind", "verdict") == [("click", "human"), ("open", "human")]
    assert len(rows(engine, links, "id")) == 1


def test_the_acceptance_may_not_be_in_the_ledger_yet(sqlite_engine: Engine, workspace: Workspace, site: Site) -> None:
    [message] = sent_messages(sqlite_engine)
    with writing(sqlite_engine) as connection:
        connection.execute(update(messages).values(state="planned", sent_at=None))
    site.get(click_path(sqlite_engine, workspace, message, "https://shop.example/"))
    assert verdicts(sqlite_engine) == [("click", "unknown", "acceptance_unknown")]
    assert state_of(sqlite_engine, message) == "planned"
