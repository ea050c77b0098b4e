"""A real Kannel takes what the delivery core sends, splits nothing, reports, queues, restarts, and hands on replies."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine, select, update

from kernel.settings import Workspace
from store.engine import reading, writing
from store.tables import campaign_versions, contacts, inbox, lanes, message_events, messages, suppressions
from templates.sms_parts import split
from tests.integration.returning import Site, TurnedClock, everything, make_workspace, rows, served
from tests.outside.kannel import Kannel, until
from tests.seeding import SPEC, seed_messages, states
from workers.drain import Drain
from workers.inbound.process import process_inbox

YAML = """\
brand: {{name: Acme, postal_address: "1 Dock Road, Leeds"}}
senders:
  default: {{name: Acme, email: hello@acme.example}}
gateways:
  kannel: {{type: kannel, url: "{url}", username: carillon, password: secret, sender: "36180",
            callback_token: kannel-secret, timeout: 5s}}
web: {{public_url: "{public_url}"}}
"""
NUDGE = {**SPEC, "steps": [{"sms": "nudge", "gateway": "kannel"}]}
SECRETS = {"CARILLON_SECRET_KEY": "k" * 64}


@dataclass
class Stage:
    """Everything that runs, and a clock that stands at now."""

    engine: Engine
    kannel: Kannel
    site: Site
    workspace: Workspace
    drain: Drain
    now: datetime

    def plan(self, text: str, count: int = 1) -> list[int]:
        run_id = seed_messages(self.engine, count, lane="kannel", spec=NUDGE)
        with writing(self.engine) as connection:
            connection.execute(update(messages).where(messages.c.run_id == run_id).values(channel="sms"))
            connection.execute(update(campaign_versions).values(files={"nudge.txt": text}))
            query = select(messages.c.id).where(messages.c.run_id == run_id).order_by(messages.c.id)
            return list(connection.execute(query).scalars())

    def run(self) -> int:
        with writing(self.engine) as connection:
            connection.execute(update(lanes).values(closed_until=None))
        return self.drain.run("kannel", budget=timedelta(seconds=20), stopping=lambda: False)

    def read_until(self, count: int, kind: str) -> None:
        """Wait for so many rows of a kind in the inbox, and read them."""

        def there() -> bool:
            return sum(meta["kind"] == kind for (meta,) in rows(self.engine, inbox, "meta")) >= count

        until(there, f"{count} callbacks of kind {kind}")
        process_inbox(self.engine, self.workspace, now=datetime.now(UTC))


@contextmanager
def stage(engine: Engine, root: Path) -> Iterator[Stage]:
    now = datetime.now(UTC)
    there = make_workspace(root / "web", SECRETS, YAML.format(url="http://127.0.0.1:1/", public_url="http://x"))
    (root / "kannel").mkdir()
    with served(engine, there, TurnedClock(now)) as site:
        incoming = f"{site.url}/v1/gateways/kannel/inbound/kannel-secret"
        with Kannel(root / "kannel", incoming=incoming) as kannel:
            text = YAML.format(url=kannel.url, public_url=site.url)
            workspace = make_workspace(root / "shop", SECRETS, text)
            drain = Drain(engine, workspace)
            try:
                yield Stage(engine, kannel, site, workspace, drain, now)
            finally:
                drain.close()


@pytest.fixture
def kannel(engine: Engine, tmp_path: Path) -> Iterator[Stage]:
    with stage(engine, tmp_path) as made:
        yield made


def test_texts_arrive_as_they_were_written_and_receipts_come_back(kannel: Stage) -> None:
    [message] = kannel.plan("Grüße, {{ contact.first_name }}: 10 € [heute]")
    assert kannel.run() == 1
    [(sender, to, header, body)] = kannel.kannel.got(1)
    assert (sender, header, body.decode()) == ("36180", b"", "Grüße, Ann 1: 10 € [heute]")
    # Kannel tells twice: the SMSC has it (8), the telephone has it (1).
    kannel.read_until(2, "receipt")
    assert states(kannel.engine) == {"delivered": 1}
    assert rows(kannel.engine, message_events, "message_id", "kind") == [(message, "delivered")]
    assert rows(kannel.engine, messages, "address") == [(to,)]


@pytest.mark.parametrize(
    "text", ["a" * 100 + "€" * 60, "Grüße 😀" * 20, "x" * 67 + "😀" * 40], ids=["gsm", "mixed", "pairs"]
)
def test_kannel_cuts_nothing_of_what_we_have_cut(kannel: Stage, text: str) -> None:
    parts = split(text)
    kannel.plan(text)
    assert kannel.run() == 1
    got = kannel.kannel.got(len(parts.parts))
    coding = "utf-16-be" if parts.encoding == "ucs2" else "utf-8"
    assert [body.decode(coding) for _, _, _, body in got] == list(parts.parts)
    headers = [header for _, _, header, _ in got]
    assert [header[:3] + header[4:] for header in headers] == [
        bytes([5, 0, 3, len(parts.parts), number]) for number in range(1, len(parts.parts) + 1)
    ]
    assert len({header[3] for header in headers}) == 1
    assert rows(kannel.engine, messages, "parts", "state") == [(len(parts.parts), "sent")]
    kannel.read_until(2, "receipt")
    assert states(kannel.engine) == {"delivered": 1}


def test_a_stop_comes_back_and_counts(kannel: Stage) -> None:
    kannel.plan("Hello")
    assert kannel.run() == 1
    with reading(kannel.engine) as connection:
        [number] = connection.execute(select(contacts.c.phone)).scalars()
    kannel.kannel.stop("fakesmsc")
    kannel.kannel.start_smsc(f"{number} 36180 text Stop.")
    kannel.read_until(1, "inbound")
    assert rows(kannel.engine, suppressions, "address", "reason") == [(number, "stop")]
    assert ("unsubscribed",) in rows(kannel.engine, message_events, "kind")


def test_an_smsc_that_is_away_is_waited_for_by_kannel_and_nothing_is_lost_by_a_restart(kannel: Stage) -> None:
    kannel.kannel.stop("fakesmsc")
    ids = kannel.plan("Hello {{ contact.first_name }}", 5)
    assert kannel.run() == 5
    assert {reply.split(" ", 1)[1] for (reply,) in rows(kannel.engine, messages, "reply")} == {
        "3: Queued for later delivery"
    }
    # Kannel keeps its queue in a file: it survives what a sender has no power over.
    kannel.kannel.stop("smsbox", kill=True)
    kannel.kannel.stop("bearerbox", kill=True)
    kannel.kannel.start_boxes()
    kannel.kannel.start_smsc()
    got = kannel.kannel.got(5)
    assert sorted(body.decode() for _, _, _, body in got) == sorted(f"Hello Ann {number}" for number in range(1, 6))
    assert states(kannel.engine) == {"sent": len(ids)}


def test_while_kannel_is_away_the_lane_is_closed_and_nobody_is_in_doubt(kannel: Stage) -> None:
    kannel.kannel.stop("smsbox")
    kannel.plan("Hello", 5)
    assert kannel.run() == 0
    assert states(kannel.engine) == {"planned": 5}
    assert all(attempts == 0 for (attempts,) in rows(kannel.engine, messages, "attempts"))
    kannel.kannel.start_smsbox()
    assert kannel.run() == 5
    assert len(kannel.kannel.got(5)) == 5


def test_receipts_twice_out_of_order_or_about_nothing_change_nothing(kannel: Stage) -> None:
    kannel.plan("Hello", 3)
    assert kannel.run() == 3
    kannel.read_until(6, "receipt")
    assert states(kannel.engine) == {"delivered": 3}
    before = everything(kannel.engine)
    queries = [meta["query"] for (meta,) in rows(kannel.engine, inbox, "meta") if meta["kind"] == "receipt"]
    path = "/v1/gateways/kannel/receipt/kannel-secret"
    for query in [*reversed(queries), *queries]:
        assert kannel.site.get(f"{path}?{query}").status_code == 200
    assert kannel.site.get(f"{path}?ref=forged&type=1&answer=&id=77").status_code == 200
    process_inbox(kannel.engine, kannel.workspace, now=datetime.now(UTC))
    after = everything(kannel.engine)
    assert {name: part for name, part in after.items() if name != "inbox"} == {
        name: part for name, part in before.items() if name != "inbox"
    }
    assert len(after["inbox"]) == len(before["inbox"]) + 1
