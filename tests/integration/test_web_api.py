"""The ingest API, gateway callbacks, health and figures, through a real server."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import requests
from sqlalchemy import Engine, update

from kernel.settings import Workspace
from store.engine import open_database, writing
from store.schema import migrate
from store.tables import events, inbox, messages, orders
from tests.integration.returning import (
    SECRETS,
    SENT_AT,
    WORKSPACE_YAML,
    Site,
    TurnedClock,
    make_workspace,
    rows,
    sent_messages,
    served,
)
from web.app import ROUTES
from web.verdicts import Rule
from workers.inbound.replies import STOP_WORDS

ORDER = {"order": "O-1", "account": "A-hello", "ordered_at": "2026-03-02T10:00:00Z", "amount": "120.50"}
EVENT = {"event": "E-1", "name": "demo_requested", "contact": "C-hello-1", "at": "2026-03-02T10:00:00+01:00"}
BEARER = {"Authorization": f"Bearer {SECRETS['CARILLON_API_TOKEN']}"}


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return make_workspace(tmp_path / "workspace")


@pytest.fixture
def clock() -> TurnedClock:
    return TurnedClock(SENT_AT + timedelta(hours=2))


@pytest.fixture
def site(sqlite_engine: Engine, workspace: Workspace, clock: TurnedClock) -> Iterator[Site]:
    sent_messages(sqlite_engine)
    with served(sqlite_engine, workspace, clock) as site:
        yield site


def test_orders_and_events_are_taken_once_on_either_database(
    engine: Engine, workspace: Workspace, clock: TurnedClock
) -> None:
    sent_messages(engine)
    with served(engine, workspace, clock) as site:
        first = site.post("/v1/orders", json=ORDER, headers=BEARER)
        again = site.post("/v1/orders", json=[ORDER, ORDER], headers=BEARER)
        event = site.post("/v1/events", json=EVENT, headers=BEARER)
        repeated = site.post("/v1/events", json={**EVENT, "name": "renamed"}, headers=BEARER)
    assert (first.status_code, first.json()) == (200, {"new": 1, "changed": 0, "unchanged": 0, "refused": []})
    assert again.json() == {"new": 0, "changed": 0, "unchanged": 2, "refused": []}
    assert (event.json()["new"], repeated.json()["unchanged"]) == (1, 1)
    assert rows(engine, orders, "external_id", "net_minor", "currency") == [("O-1", 12050, "GBP")]
    assert rows(engine, events, "external_id", "name") == [("E-1", "demo_requested")]


def test_bad_items_are_named_and_good_ones_kept(sqlite_engine: Engine, site: Site) -> None:
    batch: list[Any] = [
        ORDER,
        {**ORDER, "order": "O-2", "amount": "twelve"},
        {**ORDER, "order": "O-3", "account": "nobody"},
        "not an object",
        {**ORDER, "order": "O-4", "colour": "red"},
        {**ORDER, "order": "O-5"},
    ]
    answer = site.post("/v1/orders", json=batch, headers=BEARER)
    assert answer.status_code == 422
    body = answer.json()
    assert body["new"] == 2
    assert [(one["index"], one["id"]) for one in body["refused"]] == [(1, "O-2"), (2, "O-3"), (3, ""), (4, "O-4")]
    assert "amount" in body["refused"][0]["reason"]
    assert "unknown account 'nobody'" in body["refused"][1]["reason"]
    assert "colour" in body["refused"][3]["reason"]
    assert [number for (number,) in rows(sqlite_engine, orders, "external_id")] == ["O-1", "O-5"]


@pytest.mark.parametrize("text", ["a\x00b", "a\ud800b"])
def test_characters_no_database_keeps_spoil_only_their_item(
    engine: Engine, workspace: Workspace, clock: TurnedClock, text: str
) -> None:
    sent_messages(engine)
    batch = [{**EVENT, "properties": {"note": text}}, {**EVENT, "event": "E-2"}]
    with served(engine, workspace, clock) as site:
        answer = site.post("/v1/events", data=json.dumps(batch), headers=BEARER)
    assert answer.status_code == 422
    assert [one["index"] for one in answer.json()["refused"]] == [0]
    assert rows(engine, events, "external_id") == [("E-2",)]


@pytest.mark.parametrize("number", ["1e999", "-1e999", "9" * 5_000])
def test_a_number_beyond_all_bounds_spoils_only_its_item(
    engine: Engine, workspace: Workspace, clock: TurnedClock, number: str
) -> None:
    sent_messages(engine)
    events_text = json.dumps([{**EVENT, "properties": {"deep": [{"x": "?"}]}}, {**EVENT, "event": "E-2"}])
    line = {"product": "S", "quantity": "?", "amount": 1}
    orders_text = json.dumps([{**ORDER, "amount": "?"}, {**ORDER, "order": "O-2", "lines": [line]}, ORDER])
    with served(engine, workspace, clock) as site:
        about_events = site.post("/v1/events", data=events_text.replace('"?"', number), headers=BEARER)
        about_orders = site.post("/v1/orders", data=orders_text.replace('"?"', number), headers=BEARER)
    assert (about_events.status_code, about_orders.status_code) == (422, 422)
    reason = "holds a number too large to be kept, as 1e999"
    assert about_events.json()["refused"] == [{"index": 0, "id": "E-1", "reason": reason}]
    assert [(one["index"], one["id"]) for one in about_orders.json()["refused"]] == [(0, "O-1"), (1, "O-2")]
    assert rows(engine, events, "external_id") == [("E-2",)]
    assert rows(engine, orders, "external_id", "net_minor") == [("O-1", 12050)]


def test_an_item_whose_id_is_no_text_is_refused_by_its_place(site: Site) -> None:
    answer = site.post("/v1/events", data=json.dumps({**EVENT, "event": "E\ud800"}), headers=BEARER)
    assert answer.status_code == 422
    assert [(one["index"], one["id"]) for one in answer.json()["refused"]] == [(0, "E?")]


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer wrong"},
        {"Authorization": "Basic YTpi"},
        {"Authorization": f"Bearer {SECRETS['CARILLON_API_TOKEN']}x"},
        {"Authorization": "Bearer \xe9"},
    ],
)
def test_without_the_right_token_nothing_is_taken(sqlite_engine: Engine, site: Site, headers: dict[str, str]) -> None:
    answer = site.post(
        "/v1/orders", json=ORDER, headers={name: value.encode("latin-1") for name, value in headers.items()}
    )
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"].startswith("Bearer")
    assert rows(sqlite_engine, orders, "external_id") == []


def test_a_workspace_without_a_token_says_how_to_open_the_api(tmp_path: Path, sqlite_engine: Engine) -> None:
    closed = make_workspace(tmp_path / "closed", {"CARILLON_SECRET_KEY": "k" * 64})
    with served(sqlite_engine, closed, TurnedClock(SENT_AT)) as site:
        answer = site.post("/v1/orders", json=ORDER, headers={"Authorization": "Bearer "})
    assert answer.status_code == 503
    assert "CARILLON_API_TOKEN" in answer.json()["error"]


@pytest.mark.parametrize("body", [b"", b"{", b"[" * 100_000, b'{"amount": NaN}', b"\xff\xfe", b'{"a":1}{'])
def test_a_body_that_is_no_json_is_refused_in_words(site: Site, body: bytes) -> None:
    answer = site.post("/v1/orders", data=body, headers=BEARER)
    assert answer.status_code == 400
    assert "not JSON" in answer.json()["error"]


def test_bodies_are_limited(site: Site) -> None:
    assert site.post("/v1/orders", data=b"[" + b" " * 1_100_000, headers=BEARER).status_code == 413
    assert site.post("/v1/gateways/text/receipt/gateway-secret", data=b"x" * 70_000).status_code == 413
    chunked = site.post("/v1/gateways/text/receipt/gateway-secret", data=iter([b"x" * 40_000, b"y" * 40_000]))
    assert chunked.status_code == 413


def test_an_unknown_address_tells_nothing_of_what_runs_here(site: Site) -> None:
    answer = site.get("/v1/../../etc/passwd")
    assert answer.status_code == 404
    assert "Server" not in answer.headers
    assert "Traceback" not in answer.text
    assert site.get("/u/a/b").status_code == 404
    assert site.get("/").status_code == 404


def test_a_receipt_is_kept_raw_and_answered(sqlite_engine: Engine, site: Site) -> None:
    for _ in range(2):
        answer = site.post(
            "/v1/gateways/text/receipt/gateway-secret?x=1",
            data=b'{"client_ref": "r"}',
            headers={"Content-Type": "application/json"},
        )
        assert (answer.status_code, answer.content) == (200, b"")
    [(source, state, meta, body)] = rows(sqlite_engine, inbox, "source", "state", "meta", "body")
    assert (source, state, body) == ("gateway:text", "new", b'{"client_ref": "r"}')
    assert meta["kind"] == "receipt"
    assert meta["query"] == "x=1"
    assert meta["headers"]["content-type"] == "application/json"
    assert "gateway-secret" not in json.dumps(meta)


def test_kannel_calls_back_with_get(sqlite_engine: Engine, site: Site) -> None:
    assert site.get("/v1/gateways/kannel/inbound/kannel-secret?from=%2B447900000001&text=STOP").status_code == 200
    assert [meta["kind"] for (meta,) in rows(sqlite_engine, inbox, "meta")] == ["inbound"]


def test_the_same_words_said_later_are_kept_anew(sqlite_engine: Engine, site: Site, clock: TurnedClock) -> None:
    path = "/v1/gateways/kannel/inbound/kannel-secret?from=447900000001&text=STOP"
    for _ in range(3):
        site.get(path)
        clock.turn(3600)
    assert len(rows(sqlite_engine, inbox, "id")) == 3


@pytest.mark.parametrize(
    "path",
    [
        "/v1/gateways/text/receipt/wrong",
        "/v1/gateways/kannel/receipt/gateway-secret",
        "/v1/gateways/nobody/receipt/gateway-secret",
        "/v1/gateways/relay/receipt/gateway-secret",
        "/v1/gateways/mute/receipt/",
        "/v1/gateways/mute/receipt/None",
        "/v1/gateways/text/other/gateway-secret",
    ],
)
def test_a_callback_without_the_gateways_secret_is_not_found(sqlite_engine: Engine, site: Site, path: str) -> None:
    assert site.post(path, data=b"{}").status_code == 404
    assert rows(sqlite_engine, inbox, "id") == []


def test_health_tells_the_database_and_the_longest_wait(sqlite_engine: Engine, site: Site) -> None:
    answer = site.get("/healthz")
    assert answer.status_code == 200
    assert answer.json() == {
        "status": "ok",
        "database": "ok",
        "broker": "down",
        "oldest_due_s": 0.0,
        "waiting_writes": 0,
    }
    with writing(sqlite_engine) as connection:
        connection.execute(update(messages).values(state="planned", due_at=SENT_AT, ended_at=None))
    assert site.get("/healthz").json()["oldest_due_s"] > 1000


def test_health_says_so_when_the_database_is_away(tmp_path: Path, workspace: Workspace) -> None:
    empty = open_database(f"sqlite:///{tmp_path / 'empty.db'}")
    with served(empty, workspace, TurnedClock(SENT_AT)) as site:
        answer = site.get("/healthz")
        assert (answer.status_code, answer.json()["database"]) == (503, "down")
        assert "carillon_database_up 0.0" in site.get("/metrics").text
        assert site.get("/o/x.gif").status_code == 200
    empty.dispose()


def test_figures_are_told_on_either_database(engine: Engine, workspace: Workspace, clock: TurnedClock) -> None:
    sent_messages(engine)
    with served(engine, workspace, clock) as site:
        site.get("/c/x")
        text = site.get("/metrics").text
    for line in (
        "carillon_database_up 1.0",
        'carillon_messages{channel="email",state="sent"} 1.0',
        "carillon_books_balanced 1.0",
        'carillon_http_requests_total{endpoint="click",method="GET",status="404"} 1.0',
    ):
        assert line in text


def test_figures_are_for_this_machine_or_the_token(site: Site) -> None:
    assert site.get("/metrics").status_code == 200
    assert site.get("/metrics", ip="203.0.113.7").status_code == 404
    assert site.get("/metrics", ip="203.0.113.7", headers=BEARER).status_code == 200


def test_the_server_ends_well_when_told_to(tmp_path: Path) -> None:
    root = tmp_path / "served"
    workspace = make_workspace(root, text=f"{WORKSPACE_YAML}".replace("web: {", "web: {port: 0, "))
    engine = open_database(workspace.database_url)
    migrate(engine)
    engine.dispose()
    code = (
        "import pathlib, web.server, kernel.settings;"
        f"web.server.serve(kernel.settings.load_workspace(pathlib.Path({str(root)!r})))"
    )
    process = subprocess.Popen(
        [sys.executable, "-u", "-c", code], env={**os.environ, **SECRETS}, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        line = next(line for line in process.stdout if "web_ready" in line)
        port = int(line.rpartition("port=")[2].split()[0].strip("\x1b[0m"))
        url = f"http://127.0.0.1:{port}/healthz"
        ends = time.monotonic() + 20
        while time.monotonic() < ends:
            try:
                assert requests.get(url, timeout=5).status_code == 200
                break
            except requests.ConnectionError:
                continue
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


DOCS = Path(__file__).parents[2] / "docs"


def test_every_address_is_in_the_docs() -> None:
    text = (DOCS / "http-api.md").read_text(encoding="utf-8")
    assert [route.path for route in ROUTES if f"`{route.path}`" not in text] == []


def test_every_rule_for_machines_and_every_stop_word_is_in_the_docs() -> None:
    text = (DOCS / "tracking.md").read_text(encoding="utf-8")
    assert [rule for rule in Rule if f"`{rule}`" not in text] == []
    assert [word for word in sorted(STOP_WORDS) if f" {word}," not in text and f" {word}." not in text] == []
