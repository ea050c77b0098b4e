"""Routes: lanes by weight and a lasting lot, and failing over to the gateways that are open."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Engine, literal_column, select, update

from campaigns.applying import apply
from campaigns.firing import fire_due
from campaigns.lots import LOTS, lot, lot_of
from campaigns.planning import plan
from campaigns.routing import fail_over, shares
from kernel.errors import InputError
from kernel.settings import Workspace
from store.engine import reading, writing
from store.lanes import PROBE, close_lane, hold_lane, open_lane
from store.tables import contacts, lanes, message_events, messages
from tests.integration.campaigning import NOW, SETTINGS, add_account, add_contact, make_workspace

ROUTED = (
    SETTINGS
    + """\
  relay-a: {type: smtp, host: 127.0.0.1, port: 2525, tls: none}
  relay-b: {type: smtp, host: 127.0.0.1, port: 2526, tls: none}
  relay-c: {type: smtp, host: 127.0.0.1, port: 2527, tls: none}
routes:
  main: {gateways: {relay-a: 70, relay-b: 30, relay-c: 0}, failover: 2min}
"""
)
CAMPAIGN = """\
audience: {segment: everybody}
schedule: {at: "2026-12-01 09:00"}
steps:
  - email: hello
    gateway: main
"""
PEOPLE = 60


@given(weights=st.dictionaries(st.sampled_from("abcdef"), st.integers(0, 50), min_size=1))
def test_every_lot_belongs_to_one_gateway(weights: dict[str, int]) -> None:
    parts = shares(weights)
    assert [first for _, first, _ in parts] == [0, *[until for _, _, until in parts][:-1]]
    assert parts[-1][2] == LOTS
    total = sum(weights.values())
    for name, first, until in parts:
        share = weights[name] / total if total else 1 / len(weights)
        assert abs((until - first) / LOTS - share) <= 1 / LOTS


def test_lots_are_the_same_in_sql_and_spread_evenly_and_apart(engine: Engine) -> None:
    ids = [1, 2, 999_999, 10**6, 10**9, 2**31, 2**40]
    with reading(engine) as connection:
        for number in ids:
            asked = select(lot(literal_column(str(number)), "route"))
            assert connection.execute(asked).scalar_one() == lot_of(number, "route")
    for purpose in ("route", "canary|a|1", "canary|a|2"):
        tenths = Counter(lot_of(number, purpose) // 1_000 for number in range(1, 20_001))
        assert all(1_850 < tenths[tenth] < 2_150 for tenth in range(10))
    both = sum(lot_of(n, "canary|a|1") < 1_000 and lot_of(n, "route") < 5_000 for n in range(1, 20_001))
    assert 900 < both < 1_100


def routed(tmp_path: Path, engine: Engine, people: int = PEOPLE) -> Workspace:
    made = make_workspace(tmp_path / "shop", settings=ROUTED, hello=CAMPAIGN)
    account = add_account(engine, "A1")
    for number in range(people):
        add_contact(engine, f"c{number}", account)
    apply(engine, made, None, now=NOW - timedelta(days=1))
    fire_due(engine, made, now=NOW)
    return made


def lanes_of(engine: Engine, state: str = "planned") -> Counter[str]:
    with reading(engine) as connection:
        return Counter(connection.execute(select(messages.c.lane).where(messages.c.state == state)).scalars())


def close(engine: Engine, lane: str, *, since: timedelta, until: timedelta) -> None:
    with writing(engine) as connection:
        close_lane(connection, lane, reason="421 busy", first_wait=timedelta(hours=1), longest=timedelta(hours=1))
        times = {"closed_since": NOW - since, "closed_until": NOW + until}
        connection.execute(update(lanes).where(lanes.c.name == lane).values(**times))


def test_a_run_leaves_by_the_weights_and_a_person_keeps_the_gateway(engine: Engine, tmp_path: Path) -> None:
    routed(tmp_path, engine)
    found = lanes_of(engine)
    assert found["relay-c"] == 0
    assert found["relay-a"] + found["relay-b"] == PEOPLE
    assert 28 <= found["relay-a"] <= 55
    with reading(engine) as connection:
        rows = connection.execute(select(messages.c.contact_id, messages.c.lane)).all()
    assert {lane == "relay-a" for contact, lane in rows if lot_of(contact, "route") < 7_000} == {True}


def test_what_is_planned_moves_when_its_gateway_stays_closed(engine: Engine, tmp_path: Path) -> None:
    made = routed(tmp_path, engine)
    before = lanes_of(engine)
    with writing(engine) as connection:
        first = connection.execute(select(messages.c.id).where(messages.c.lane == "relay-a").limit(4)).scalars().all()
        here = update(messages).where(messages.c.id.in_(first[:2]))
        connection.execute(here.values(state="in_doubt", address="x@y.example"))
        connection.execute(update(messages).where(messages.c.id.in_(first[2:4])).values(resends=1))
    close(engine, "relay-a", since=timedelta(minutes=1), until=timedelta(minutes=5))
    assert fail_over(engine, made.settings, now=NOW) == []
    close(engine, "relay-a", since=timedelta(minutes=2), until=timedelta(minutes=5))
    (moved,) = fail_over(engine, made.settings, now=NOW)
    assert (moved.lane, moved.messages) == ("relay-a", before["relay-a"] - 4)
    with reading(engine) as connection:
        told = connection.execute(select(message_events.c.kind, message_events.c.detail)).all()
    assert [tuple(row) for row in told] == [
        ("moved", "to relay-b, from relay-a, which stayed closed; both are ways of main")
    ] * moved.messages
    # What may be out, and what is resent out of doubt, stays.
    assert lanes_of(engine) == {"relay-b": PEOPLE - 4, "relay-a": 2}
    assert lanes_of(engine, "in_doubt") == {"relay-a": 2}
    with reading(engine) as connection:
        assert connection.execute(select(lanes.c.moved)).scalar_one() == moved.messages
        assert set(connection.execute(select(messages.c.attempts)).scalars()) == {0}
    assert fail_over(engine, made.settings, now=NOW) == []


def test_a_gateway_of_weight_nought_stands_in_when_all_others_are_closed(sqlite_engine: Engine, tmp_path: Path) -> None:
    made = routed(tmp_path, sqlite_engine)
    with writing(sqlite_engine) as connection:
        for name in ("relay-a", "relay-b"):
            hold_lane(connection, name, reason="moving")
    assert len(fail_over(sqlite_engine, made.settings, now=datetime.now(UTC) + timedelta(minutes=3))) == 2
    assert lanes_of(sqlite_engine) == {"relay-c": PEOPLE}
    with writing(sqlite_engine) as connection:
        hold_lane(connection, "relay-c", reason="moving too")
    assert fail_over(sqlite_engine, made.settings, now=datetime.now(UTC) + timedelta(minutes=9)) == []


def test_a_half_open_lane_borrows_a_few_messages_to_be_tried_with(engine: Engine, tmp_path: Path) -> None:
    made = routed(tmp_path, engine)
    close(engine, "relay-a", since=timedelta(minutes=5), until=timedelta(minutes=5))
    fail_over(engine, made.settings, now=NOW)
    later = NOW + timedelta(minutes=6)
    fail_over(engine, made.settings, now=later)
    fail_over(engine, made.settings, now=later)
    assert lanes_of(engine) == {"relay-a": PROBE, "relay-b": PEOPLE - PROBE}
    with writing(engine) as connection:
        assert open_lane(connection, "relay-a")
    assert fail_over(engine, made.settings, now=later) == []


def test_messages_of_campaigns_that_name_the_gateway_itself_stay(sqlite_engine: Engine, tmp_path: Path) -> None:
    made = make_workspace(
        tmp_path / "shop", settings=ROUTED, own=CAMPAIGN.replace("gateway: main", "gateway: relay-a"), routed=CAMPAIGN
    )
    account = add_account(sqlite_engine, "A1")
    for number in range(10):
        add_contact(sqlite_engine, f"c{number}", account)
    apply(sqlite_engine, made, None, now=NOW - timedelta(days=1))
    fire_due(sqlite_engine, made, now=NOW)
    close(sqlite_engine, "relay-a", since=timedelta(hours=1), until=timedelta(hours=1))
    fail_over(sqlite_engine, made.settings, now=NOW)
    assert lanes_of(sqlite_engine)["relay-a"] == 10


def test_a_plan_prices_a_route_by_its_weights(sqlite_engine: Engine, tmp_path: Path) -> None:
    settings = (
        SETTINGS
        + """\
  dear: {type: http, url: "http://127.0.0.1:9/send", form: {to: "{to}", text: "{text}"}, price: "0.15"}
routes:
  sms: {gateways: {texts: 3, dear: 1}}
"""
    )
    campaign = CAMPAIGN.replace("email: hello", "sms: nudge").replace("gateway: main", "gateway: sms")
    made = make_workspace(tmp_path / "shop", settings=settings, nudge=campaign)
    add_contact(sqlite_engine, "c1", add_account(sqlite_engine, "A1"), phone="+447900000001")
    with writing(sqlite_engine) as connection:
        connection.execute(update(contacts).values(phone="+447900000001"))
    (found,) = plan(sqlite_engine, made, None, now=NOW - timedelta(days=1))
    # Three quarters at 0.05 and one at 0.15: 0.075, rounded to even.
    assert found.estimate.cost == {"GBP": 8}


@pytest.mark.parametrize(
    ("routes", "problem"),
    [
        ("main: {gateways: {relay-x: 1}}", "route 'main' leads to 'relay-x', which is no gateway"),
        ("main: {gateways: {relay: 1, texts: 1}}", "route 'main' has gateways for e-mail and for SMS"),
        ("relay: {gateways: {relay: 1}}", "'relay' is the name of a gateway and of a route"),
        ("main: {gateways: {relay: 0}}", "one at least is more"),
    ],
)
def test_a_wrong_route_is_refused(tmp_path: Path, routes: str, problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        make_workspace(tmp_path / "shop", settings=f"{SETTINGS}routes:\n  {routes}\n")
