"""Asking only whom facts or time touched gives what asking everyone gives, whatever changes and whenever."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, Table, func, select, update

import segments.refresh as refreshing
from kernel.settings import Workspace
from kernel.vocabulary import Subject
from segments.compiler import members
from segments.definitions import load_segments
from segments.evaluation import evaluate
from segments.refresh import Refreshed, refresh
from store.changes import owners, touch, touch_owners, touch_products, touch_recipients
from store.engine import reading, writing
from store.tables import (
    accounts,
    consent_events,
    contacts,
    events,
    message_events,
    messages,
    opportunities,
    opportunity_stages,
    order_lines,
    orders,
    products,
    segment_members,
    stock_levels,
    touches,
)
from store.tables import segments as segments_table
from tests.integration.segment_rules import random_leaf, random_rule
from tests.integration.segment_worlds import FIRMS, NOW, PEOPLE, SNAPSHOTS, World, random_world, store_world
from tests.laws import seeds

DAY = timedelta(days=1)


@pytest.fixture(autouse=True)
def _always_few(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many are touched of a world as small as these, and however long ago: only they are asked."""
    monkeypatch.setattr(refreshing, "LARGEST_SHARE", 100.0)
    monkeypatch.setattr(refreshing, "LONGEST_GAP", timedelta(days=10_000))


@pytest.fixture
def shop(workspace: Workspace) -> Workspace:
    """A workspace whose models are made quickly, and never anew."""
    settings = workspace.settings
    quick = settings.model_copy(
        update={
            "rfm": settings.rfm.model_copy(update={"refit_every": "9999d"}),
            "clusters": settings.clusters.model_copy(update={"k": 2, "refit_every": "9999d"}),
        }
    )
    return Workspace(root=workspace.root, settings=quick, environment=workspace.environment)


def one_currency(world: World) -> World:
    for row in world["orders"]:
        row["currency"] = "GBP"
    return world


def start(engine: Engine, seed: int) -> random.Random:
    """Store a world without profiles and snapshots: those come of the refresh."""
    rng = random.Random(seed)
    world = one_currency(random_world(rng))
    store_world(engine, {**world, "profiles": [], "segments": [], "segment_members": []})
    return rng


def write_rules(shop: Workspace, rng: random.Random, count: int, *, without: tuple[str, ...] = ()) -> None:
    def put(name: str, subject: str, where: Any) -> None:
        path = shop.root / "segments" / f"{name}.yaml"
        path.write_text(json.dumps({"subject": subject, "where": where}), encoding="utf-8")

    def leaf(subject: str) -> Any:
        while True:
            found = random_leaf(rng, subject, references=False)
            if not any(word in json.dumps(found) for word in (*without, "membership")):
                return found

    for name, subject in SNAPSHOTS.items():
        put(name, subject, {"any": [leaf(subject), leaf(subject)]})
    made = 0
    while made < count:
        subject = rng.choice(["account", "contact"])
        rule = random_rule(rng, subject, 3)
        if not any(word in json.dumps(rule) for word in without):
            put(f"s{made}", subject, rule)
            made += 1


# --- changes, each with the note that the way in leaves ------------------------------------------------------


def _altered(connection: Connection, table: Table, row: int, **values: Any) -> None:
    before = owners(connection, table, [row])
    connection.execute(update(table).where(table.c.id == row).values(**values))
    touch_owners(connection, before, owners(connection, table, [row]))


def _inserted(connection: Connection, table: Table, **values: Any) -> int:
    number = int(connection.execute(select(func.max(table.c.id))).scalar_one() or 0) + 1
    named = {"external_id": f"X{number}"} if "external_id" in table.c else {}
    connection.execute(table.insert().values(id=number, **named, **values))
    return number


def _added(connection: Connection, table: Table, **values: Any) -> None:
    number = _inserted(connection, table, **values)
    touch_owners(connection, owners(connection, table, [number]))


def _around(rng: random.Random, now: datetime) -> datetime:
    return now - timedelta(days=rng.choice([0, 0, 1, 5, 30, 31, -1, -3]), milliseconds=rng.choice([0, 1, 7_000_000]))


def change_account(connection: Connection, rng: random.Random, now: datetime) -> None:
    row = rng.choice(FIRMS)
    above = rng.choice([None, *range(1, row)]) if row > 1 else None
    parent = connection.execute(select(accounts.c.parent_id).where(accounts.c.id == row)).scalar_one()
    _altered(connection, accounts, row, parent_id=above, country=rng.choice(["GB", "DE", None]))
    touch(connection, Subject.ACCOUNT, [parent, above])


def change_attributes(connection: Connection, rng: random.Random, now: datetime) -> None:
    table, ids = rng.choice([(accounts, FIRMS), (contacts, PEOPLE)])
    due = (now + timedelta(days=rng.randint(-2, 40))).date().isoformat()
    _altered(connection, table, rng.choice(ids), attributes={"tier": rng.choice(["vip", 1, True]), "due": due})


def change_contact(connection: Connection, rng: random.Random, now: datetime) -> None:
    values = {"account_id": rng.choice([None, *FIRMS]), "role": rng.choice(["buyer", "owner", None])}
    _altered(connection, contacts, rng.choice(PEOPLE), **values)


def add_order(connection: Connection, rng: random.Random, now: datetime) -> None:
    values = {
        "account_id": rng.choice([None, *FIRMS]),
        "contact_id": rng.choice([None, *PEOPLE]),
        "ordered_at": _around(rng, now),
        "kind": rng.choice(["order", "order", "return"]),
        "net_minor": rng.choice([1000, 2500, -700]),
        "gross_minor": 0,
        "currency": "GBP",
        "cancelled_at": rng.choice([None, None, _around(rng, now), now + DAY]),
    }
    _added(connection, orders, **values)


def change_order(connection: Connection, rng: random.Random, now: datetime) -> None:
    row = rng.randint(1, 180)
    moved = {"account_id": rng.choice([None, *FIRMS]), "contact_id": rng.choice([None, *PEOPLE])}
    _altered(connection, orders, row, **rng.choice([moved, {"cancelled_at": _around(rng, now)}, {"net_minor": 5000}]))


def change_lines(connection: Connection, rng: random.Random, now: datetime) -> None:
    row = rng.randint(1, 180)
    connection.execute(order_lines.delete().where(order_lines.c.order_id == row))
    for line in range(1, rng.randint(1, 3)):
        values = {"product_id": rng.randint(1, 5), "quantity": 2.0, "net_minor": rng.choice([0, 1500])}
        connection.execute(order_lines.insert().values(order_id=row, line=line, **values))
    touch_owners(connection, owners(connection, orders, [row]))


def change_product(connection: Connection, rng: random.Random, now: datetime) -> None:
    _altered(connection, products, rng.randint(1, 5), category=rng.choice([None, "tea", "cups"]))


def add_stock(connection: Connection, rng: random.Random, now: datetime) -> None:
    product = rng.randint(1, 5)
    at = now - timedelta(days=rng.randint(0, 3), milliseconds=rng.randint(1, 10**7))
    connection.execute(stock_levels.insert().values(product_id=product, at=at, on_hand=rng.choice([0.0, 5.0, 40.0])))
    touch_products(connection, [product])


def add_event(connection: Connection, rng: random.Random, now: datetime) -> None:
    whose = {"account_id": rng.choice([None, *FIRMS]), "contact_id": rng.choice([None, *PEOPLE])}
    worth = {"value_minor": rng.choice([None, 1000]), "currency": "GBP"}
    _added(connection, events, name=rng.choice(["demo", "visit"]), at=_around(rng, now), **whose, **worth)


def add_stage(connection: Connection, rng: random.Random, now: datetime) -> None:
    row = rng.randint(1, 40)
    at = _around(rng, now) + timedelta(milliseconds=rng.randint(1, 10**6))
    stage = {"stage": rng.choice(["lead", "offer", "won"]), "entered_at": at}
    _inserted(connection, opportunity_stages, opportunity_id=row, **stage)
    touch_owners(connection, owners(connection, opportunities, [row]))


def add_touch(connection: Connection, rng: random.Random, now: datetime) -> None:
    message = rng.randint(1, 120)
    hit = {"method": "GET", "ip": "", "user_agent": "", "verdict": rng.choice(["human", "machine"])}
    kind = rng.choice(["open", "click"])
    _inserted(connection, touches, message_id=message, kind=kind, at=_around(rng, now), **hit)
    touch_recipients(connection, [message])


def add_message_event(connection: Connection, rng: random.Random, now: datetime) -> None:
    message = rng.randint(1, 120)
    kind = rng.choice(["bounced", "unsubscribed", "replied", "complained"])
    key = f"{now}{rng.random()}"
    _inserted(connection, message_events, key=key, message_id=message, kind=kind, at=_around(rng, now))
    touch_recipients(connection, [message])


def send_message(connection: Connection, rng: random.Random, now: datetime) -> None:
    message = rng.randint(1, 120)
    sent = {"state": rng.choice(["sent", "delivered"]), "sent_at": _around(rng, now)}
    connection.execute(update(messages).where(messages.c.id == message).values(**sent))
    touch_recipients(connection, [message])


def add_consent(connection: Connection, rng: random.Random, now: datetime) -> None:
    person = rng.choice(PEOPLE)
    at = _around(rng, now) + timedelta(milliseconds=rng.randint(1, 10**6))
    word = {"channel": rng.choice(["email", "sms"]), "status": rng.choice(["granted", "withdrawn"])}
    _inserted(connection, consent_events, contact_id=person, at=at, **word)
    touch(connection, Subject.CONTACT, [person])


CHANGES: list[Callable[[Connection, random.Random, datetime], None]] = [
    change_account,
    change_attributes,
    change_contact,
    add_order,
    add_order,
    change_order,
    change_lines,
    change_product,
    add_stock,
    add_event,
    add_stage,
    add_touch,
    add_message_event,
    send_message,
    add_consent,
]


# --- the law -------------------------------------------------------------------------------------------------


def snapshots(connection: Connection) -> dict[str, set[int]]:
    stays = segment_members.c
    query = select(segments_table.c.name, stays.subject_id).join(
        segment_members, stays.segment_id == segments_table.c.id
    )
    found: dict[str, set[int]] = {name: set() for (name,) in connection.execute(select(segments_table.c.name))}
    for name, subject_id in connection.execute(query.where(stays.valid_to.is_(None))):
        found[name].add(subject_id)
    return found


def check(engine: Engine, shop: Workspace, at: datetime) -> None:
    definitions = load_segments(shop)
    with reading(engine) as connection:
        kept = snapshots(connection)
        every = evaluate(connection, definitions, list(definitions), as_of=at, currency="GBP")
        for name, definition in definitions.items():
            query = members(definitions, name, as_of=at, currency="GBP")
            asked = set(connection.execute(query).scalars())
            assert set(every[name].tolist()) == asked, (name, definition.where)
            assert kept[name] == asked, (name, definition.where, at)
        sizes = {row.name: row.size for row in connection.execute(select(segments_table))}
        assert sizes == {name: len(ids) for name, ids in kept.items()}


def changed(engine: Engine, rng: random.Random, now: datetime, most: int) -> None:
    with writing(engine) as connection:
        for _ in range(rng.randint(0, most)):
            rng.choice(CHANGES)(connection, rng, now)


def only_some(refreshed: list[Refreshed]) -> bool:
    return any(one.asked is not None for one in refreshed)


@pytest.mark.parametrize("seed", seeds(2))
def test_random_changes_at_random_instants(engine: Engine, shop: Workspace, seed: int) -> None:
    rng = start(engine, seed)
    write_rules(shop, rng, 10)
    now = NOW
    refresh(engine, shop, now=now)
    check(engine, shop, now)
    for _ in range(6):
        changed(engine, rng, now, 6)
        now += rng.choice([timedelta(0), timedelta(seconds=30), timedelta(hours=5), DAY, 9 * DAY, 40 * DAY])
        done = refresh(engine, shop, now=now)
        assert only_some(done)
        check(engine, shop, now)


@pytest.mark.parametrize("seed", seeds(2))
def test_time_alone(engine: Engine, shop: Workspace, seed: int) -> None:
    rng = start(engine, 50 + seed)
    write_rules(shop, rng, 12)
    now = NOW - 3 * DAY
    refresh(engine, shop, now=now)
    moved = 0
    for _ in range(8):
        now += rng.choice([timedelta(milliseconds=1), timedelta(minutes=1), DAY, DAY + timedelta(milliseconds=1)])
        done = refresh(engine, shop, now=now)
        moved += sum(one.joined + one.left for one in done)
        check(engine, shop, now)
    assert moved


def test_nothing_touched_asks_nobody(engine: Engine, shop: Workspace) -> None:
    rng = start(engine, 7)
    write_rules(shop, rng, 12, without=("stock", "attribute"))
    quiet = NOW + timedelta(hours=7)  # No fact of these worlds reaches an age that is asked for at this time of day.
    refresh(engine, shop, now=quiet)
    again = refresh(engine, shop, now=quiet + timedelta(milliseconds=5))
    assert sum(one.joined + one.left for one in again) == 0
    assert {one.asked is not None for one in again} == {True}


def test_a_touched_account_is_asked_and_others_are_not(engine: Engine, shop: Workspace) -> None:
    start(engine, 8)
    rule = {"subject": "account", "where": {"orders": {"measure": "count", "gte": 1, "of": "account"}}}
    (shop.root / "segments" / "buyers.yaml").write_text(json.dumps(rule), encoding="utf-8")
    refresh(engine, shop, now=NOW + 900 * DAY)
    with writing(engine) as connection:
        _added(
            connection, orders, account_id=25, ordered_at=NOW, kind="order", net_minor=1, gross_minor=1, currency="GBP"
        )
    (one,) = refresh(engine, shop, now=NOW + 900 * DAY + timedelta(seconds=1))
    assert (one.asked, one.joined) == (1, 1)


@pytest.mark.parametrize("recency", ["days", "relative"])
def test_scores_that_time_alone_lowers_follow_at_once(engine: Engine, shop: Workspace, recency: str) -> None:
    """The snapshots after refreshes of some are those of one of everyone by the same frozen models."""
    rng = start(engine, 9)
    rfm = shop.settings.rfm.model_copy(update={"recency": recency})
    shop = Workspace(
        root=shop.root, settings=shop.settings.model_copy(update={"rfm": rfm}), environment=shop.environment
    )
    for r in range(1, 6):
        rule = {"subject": "account", "where": {"rfm": {"r": {"eq": r}}}}
        (shop.root / "segments" / f"r{r}.yaml").write_text(json.dumps(rule), encoding="utf-8")
    now = NOW
    refresh(engine, shop, now=now)
    moved = 0
    for step in range(16):
        now += timedelta(hours=rng.choice([1, 5, 20]))
        if step % 5 == 0:
            changed(engine, rng, now, 2)
        done = refresh(engine, shop, now=now)
        moved += sum(one.joined for one in done)
        again = refresh(engine, shop, now=now, full=True)
        assert sum(one.joined + one.left for one in again) == 0, (step, again)
    assert moved > 3
