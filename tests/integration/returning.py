"""What tests of the way back share: sent messages, a clock to turn, a running web server, a look at all tables."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import requests
import uvicorn
from sqlalchemy import Engine, select, update

from kernel.settings import Workspace, load_workspace
from store.engine import reading, writing
from store.tables import (
    consent_events,
    consents,
    contacts,
    inbox,
    message_events,
    messages,
    suppression_words,
    suppressions,
    touches,
)
from tests.seeding import seed_messages
from web.app import create_app
from web.server import server_config

SENT_AT = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)
FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:133.0) Gecko/20100101 Firefox/133.0"
SAFARI = "Mozilla/5.0 (iPhone; CPU iPhone OS 18_1 like Mac OS X) AppleWebKit/605.1.15 Version/18.1 Mobile Safari/604.1"
SECRETS = {"CARILLON_SECRET_KEY": "k" * 64, "CARILLON_API_TOKEN": "api-token-of-the-tests"}
WORKSPACE_YAML = """\
brand: {name: "Acme & Co <Wholesale>", postal_address: "1 Dock Road, Leeds LS1 1AA, UK", color: "#0b6e4f"}
currency: GBP
senders:
  default: {name: Acme Wholesale, email: hello@acme.example}
gateways:
  relay: {type: smtp, host: 127.0.0.1, port: 2525, tls: none}
  text: {type: http, url: "http://127.0.0.1:1/send", form: {to: "{to}", text: "{text}"}, callback_token: gateway-secret}
  kannel: {type: kannel, url: "http://127.0.0.1:1/", username: u, password: p, callback_token: kannel-secret}
  mute: {type: http, url: "http://127.0.0.1:1/send", json_body: {to: "{to}", text: "{text}"}}
web: {trusted_proxies: ["127.0.0.1"]}
inbound: {maildirs: [bounces]}
"""


class TurnedClock:
    """A clock that stands until it is turned."""

    def __init__(self, at: datetime) -> None:
        self.at = at

    def __call__(self) -> datetime:
        return self.at

    def turn(self, seconds: float) -> None:
        self.at += timedelta(seconds=seconds)


def make_workspace(root: Path, environment: dict[str, str] | None = None, text: str = WORKSPACE_YAML) -> Workspace:
    """Return a workspace with SMS gateways and an API token."""
    root.mkdir(parents=True, exist_ok=True)
    (root / "carillon.yaml").write_text(text, encoding="utf-8")
    return load_workspace(root, SECRETS if environment is None else environment)


def sent_messages(
    engine: Engine,
    count: int = 1,
    *,
    lane: str = "relay",
    channel: str = "email",
    state: str = "sent",
    name: str = "hello",
) -> list[int]:
    """Return the ids of messages that were sent at SENT_AT, each to a contact of its own."""
    run_id = seed_messages(engine, count, lane=lane, name=name)
    with writing(engine) as connection:
        ids = list(
            connection.execute(
                select(messages.c.id).where(messages.c.run_id == run_id).order_by(messages.c.id)
            ).scalars()
        )
        column = contacts.c.phone if channel == "sms" else contacts.c.email
        address = select(column).where(contacts.c.id == messages.c.contact_id).scalar_subquery()
        connection.execute(
            update(messages)
            .where(messages.c.id.in_(ids))
            .values(state=state, channel=channel, address=address, sent_at=SENT_AT, ended_at=SENT_AT)
        )
    return ids


def state_of(engine: Engine, message_id: int) -> str:
    with reading(engine) as connection:
        return str(connection.execute(select(messages.c.state).where(messages.c.id == message_id)).scalar_one())


def rows(engine: Engine, table: Any, *columns: str) -> list[tuple[Any, ...]]:
    """Return the named columns of every row, sorted as text."""
    with reading(engine) as connection:
        found = connection.execute(select(*(table.c[name] for name in columns)))
        return sorted((tuple(row) for row in found), key=repr)


def everything(engine: Engine) -> dict[str, list[tuple[Any, ...]]]:
    """Return what the way back writes, without the ids, so that two ways to the same end can be compared."""
    left_out = {
        messages.name: set(),
        inbox.name: {"id", "processed_at"},
        touches.name: {"id"},
        message_events.name: {"id"},
        consent_events.name: {"id"},
        suppression_words.name: {"id"},
    }
    tables = (messages, message_events, touches, suppressions, suppression_words, consents, consent_events, inbox)
    return {
        table.name: rows(engine, table, *(c.name for c in table.c if c.name not in left_out.get(table.name, set())))
        for table in tables
    }


class Site:
    """A running server; requests follow no redirects and carry a person's browser unless told otherwise."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._session = requests.Session()
        self._session.trust_env = False

    def request(self, method: str, path: str, **options: Any) -> requests.Response:
        headers = {"User-Agent": FIREFOX, **options.pop("headers", {})}
        if ip := options.pop("ip", ""):
            headers["X-Forwarded-For"] = ip
        return self._session.request(
            method, self.url + path, headers=headers, allow_redirects=False, timeout=20, **options
        )

    def get(self, path: str, **options: Any) -> requests.Response:
        return self.request("GET", path, **options)

    def post(self, path: str, **options: Any) -> requests.Response:
        return self.request("POST", path, **options)

    def close(self) -> None:
        self._session.close()


@contextmanager
def served(engine: Engine, workspace: Workspace, clock: TurnedClock) -> Iterator[Site]:
    """Serve the application with a real uvicorn on a free port of 127.0.0.1."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    server = uvicorn.Server(server_config(create_app(engine, workspace, clock)))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    ends = time.monotonic() + 20
    while not server.started and thread.is_alive() and time.monotonic() < ends:
        time.sleep(0.01)
    assert server.started
    site = Site(f"http://127.0.0.1:{listener.getsockname()[1]}")
    try:
        yield site
    finally:
        site.close()
        server.should_exit = True
        thread.join(20)
        listener.close()
