"""Worked examples of the segment language, leaf by leaf, and what hostile or outsized rules come to."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, select

from segments.compiler import members, scope_of
from segments.conditions import MAX_DEPTH, RELATED
from segments.definitions import Definition, definition_from_json
from segments.leaves.bucket import PRIME, place_of
from store.engine import reading
from store.tables import accounts, contacts
from tests.integration.segment_rules import random_leaf
from tests.integration.segment_worlds import NOW, World, random_world, store_world
from tests.laws import seeds

HOSTILE = [
    "x'; DROP TABLE accounts; --",
    '") OR 1=1 --',
    "%_\\",
    '$."a"[0]',
    "{{ 7 * 7 }} %(name)s :name ?",
    "\u202e\U0001f515 \u02bc\uff07\t\n",
    "x" * 20_000,
]


def who(
    engine: Engine, where: dict[str, Any], *, subject: str = "account", as_of: datetime = NOW, **others: Any
) -> set[str]:
    """Return the external ids a rule picks; `others` are segments it may refer to, of the same subject."""
    rules = {"asked": where, **others}
    definitions = {name: _definition(name, subject, rule) for name, rule in rules.items()}
    table = accounts if subject == "account" else contacts
    picked = members(definitions, "asked", as_of=as_of, currency="GBP")
    with reading(engine) as connection:
        return set(connection.execute(select(table.c.external_id).where(table.c.id.in_(picked))).scalars())


def _definition(name: str, subject: str, where: dict[str, Any]) -> Definition:
    return definition_from_json({"name": name, "subject": subject, "where": where})


def ago(days: float) -> datetime:
    return NOW - timedelta(days=days)


def _accounts(*names: str, **parents: str) -> list[dict[str, Any]]:
    ids = {name: number for number, name in enumerate(names, start=1)}
    return [
        {"id": ids[name], "external_id": name, "parent_id": ids[parents[name]] if name in parents else None}
        for name in names
    ]


def _people(**accounts_of: int | None) -> list[dict[str, Any]]:
    return [
        {"id": number, "external_id": name, "account_id": account}
        for number, (name, account) in enumerate(accounts_of.items(), start=1)
    ]


def _order(number: int, account: int, at: datetime, net: int = 1000, **more: Any) -> dict[str, Any]:
    order = {"id": number, "external_id": f"O{number}", "account_id": account, "contact_id": None, "ordered_at": at}
    money = {"kind": "order", "net_minor": net, "gross_minor": max(net, 0), "currency": "GBP", "cancelled_at": None}
    return {**order, **money, **more}


def _line(order: int, product: int, quantity: float = 1.0, net: int = 100, line: int = 1) -> dict[str, Any]:
    return {"order_id": order, "line": line, "product_id": product, "quantity": quantity, "net_minor": net}


def _products(*codes: str) -> list[dict[str, Any]]:
    return [
        {"id": number, "external_id": code, "category": code.split("-")[0]}
        for number, code in enumerate(codes, start=1)
    ]


# --- orders ------------------------------------------------------------------------------------------------


def test_bought_a_but_never_b(engine: Engine) -> None:
    world: World = {
        "accounts": _accounts("both", "only-tea", "only-cups", "cancelled-cups", "nothing"),
        "products": _products("tea-1", "cups-1", "cups-2"),
        "orders": [
            _order(1, 1, ago(9)),
            _order(2, 1, ago(8)),
            _order(3, 2, ago(700)),
            _order(4, 3, ago(3)),
            _order(5, 4, ago(9)),
            _order(6, 4, ago(8), cancelled_at=ago(7)),
        ],
        "order_lines": [_line(1, 1), _line(2, 3), _line(3, 1), _line(4, 2), _line(5, 1), _line(6, 2)],
    }
    store_world(engine, world)
    tea = {"orders": {"measure": "count", "product": "tea-1", "gte": 1}}
    no_cups = {"orders": {"measure": "count", "category": "cups", "eq": 0}}
    assert who(engine, {"all": [tea, no_cups]}) == {"only-tea", "cancelled-cups"}
    assert who(engine, {"all": [tea, no_cups]}, as_of=ago(7.5)) == {"only-tea"}
    assert who(engine, {"all": [tea, {"not": {"orders": {"measure": "count", "product": ["cups-2"], "gte": 1}}}]}) == {
        "only-tea",
        "cancelled-cups",
    }


def test_measures_of_orders(engine: Engine) -> None:
    store_world(
        engine,
        {
            "accounts": _accounts("a", "b"),
            "products": _products("tea-1", "tea-2"),
            "orders": [
                _order(1, 1, ago(30), 1000),
                _order(2, 1, ago(20), 2001),
                _order(3, 1, ago(10), 999),
                _order(4, 1, ago(5), -500, kind="return"),
                _order(5, 1, ago(4), 77_777, currency="USD"),
            ],
            "order_lines": [
                _line(1, 1, 2.5, 600),
                _line(1, 2, 1.0, 400, line=2),
                _line(2, 1, 0.1, 2001),
                _line(3, 1, 0.2, 999),
                _line(4, 1, -1.0, -500),
            ],
        },
    )

    def measured(measure: str, **more: Any) -> bool:
        return who(engine, {"orders": {"measure": measure, **more}}) == {"a"}

    assert measured("sum", eq="35.00")
    assert measured("average", gt="13.33", lt="13.34")
    assert not measured("average", eq="13.33")
    assert measured("first", eq=10)
    assert measured("last", eq="9.99")
    assert measured("last", eq="20.01", between=["2026-05-20", "2026-05-30"])
    assert measured("max", eq="20.01", product="tea-1", within="32d")
    assert measured("min", eq="6.00", product="tea-1", within="32d")
    assert measured("first", eq="6.00", product="tea-1")
    assert measured("quantity", eq=2.8)
    assert not measured("quantity", gt=2.8)
    assert measured("products", eq=2)
    assert measured("count", kind="return", eq=1)
    assert measured("sum", kind="return", eq="-5")
    assert measured("days_since_first", eq=30, product=["tea-2"])
    assert measured("days_since_last", eq=4)
    assert who(engine, {"orders": {"measure": "sum", "eq": 0}}) == {"b"}
    assert who(engine, {"not": {"orders": {"measure": "min", "gte": 0}}}) == {"b"}


def test_cancelled_orders_can_be_asked_for(engine: Engine) -> None:
    orders = [_order(1, 1, ago(9), cancelled_at=ago(5)), _order(2, 2, ago(9))]
    store_world(engine, {"accounts": _accounts("a", "b"), "orders": orders})
    cancelled = {"orders": {"measure": "count", "status": "cancelled", "gte": 1}}
    assert who(engine, cancelled) == {"a"}
    assert who(engine, cancelled, as_of=ago(6)) == set()
    assert who(engine, {"orders": {"measure": "count", "status": "any", "gte": 1}}) == {"a", "b"}
    assert who(engine, {"never_bought": True}) == {"a"}
    assert who(engine, {"never_bought": True}, as_of=ago(6)) == set()


# --- relations and branches ----------------------------------------------------------------------------------


def test_relatives_are_found_in_both_directions(engine: Engine) -> None:
    store_world(
        engine,
        {
            "accounts": _accounts("top", "left", "right", "leaf", "alone", left="top", right="top", leaf="left"),
            "contacts": _people(ann=2, bob=2, cid=3, dot=5, eve=None),
            "orders": [_order(1, 3, ago(1))],
        },
    )
    named = {"attribute": {"name": "external_id", "eq": "left"}}
    bought = {"orders": {"measure": "count", "gte": 1}}
    assert who(engine, {"parent": named}) == {"leaf"}
    assert who(engine, {"parent": {"parent": {"everyone": True}}}) == {"leaf"}
    assert who(engine, {"any_child": named}) == {"top"}
    assert who(engine, {"any_sibling": bought}) == {"left"}
    assert who(engine, {"any_child": {"any_contact": {"attribute": {"name": "external_id", "eq": "ann"}}}}) == {"top"}
    assert who(engine, {"any_sibling": bought}, subject="contact") == {"ann", "bob"}
    ann = {"attribute": {"name": "external_id", "eq": "ann"}}
    assert who(engine, {"any_colleague": ann}, subject="contact") == {"bob"}
    assert who(engine, {"any_contact": ann}, subject="contact") == {"ann", "bob"}
    assert who(engine, {"not": {"any_colleague": {"everyone": True}}}, subject="contact") == {"cid", "dot", "eve"}


def test_at_least_counts_what_holds(engine: Engine) -> None:
    store_world(engine, {"accounts": _accounts("a", "b", "c"), "orders": [_order(1, 1, ago(1)), _order(2, 2, ago(50))]})
    signs = [{"orders": {"measure": "count", "gte": 1, **more}} for more in ({}, {"within": "30d"}, {"within": "60d"})]
    assert who(engine, {"at_least": {"n": 3, "of": signs}}) == {"a"}
    assert who(engine, {"at_least": {"n": 2, "of": signs}}) == {"a", "b"}
    assert who(engine, {"not": {"at_least": {"n": 1, "of": signs}}}) == {"c"}


# --- what people did with messages ----------------------------------------------------------------------------


def _campaign_world() -> World:
    campaign = {"id": 1, "name": "spring", "state": "active", "created_at": NOW, "updated_at": NOW}
    version = {"id": 1, "campaign_id": 1, "number": 1, "digest": "", "spec": {}, "files": {}, "segments": {}}
    run = {"id": 1, "campaign_id": 1, "version_id": 1, "scheduled_for": NOW, "state": "done", "fired_at": NOW}
    people = _people(ann=1, bob=1, cid=2, dot=2)
    sent = [
        {
            "id": person["id"],
            "run_id": 1,
            "step": 1,
            "enrollment_id": person["id"],
            "contact_id": person["id"],
            "channel": "email",
            "lane": "relay",
            "state": "failed" if person["external_id"] == "dot" else "sent",
            "planned_for": NOW,
            "due_at": NOW,
            "sent_at": None if person["external_id"] == "dot" else ago(10),
        }
        for person in people
    ]
    enrolled = [
        {"id": one["id"], "run_id": 1, "contact_id": one["id"], "segment": "x", "held_out": False} for one in people
    ]
    return {
        "accounts": _accounts("a", "b"),
        "contacts": people,
        "campaigns": [campaign],
        "campaign_versions": [{**version, "applied_at": NOW}],
        "runs": [run],
        "enrollments": enrolled,
        "messages": sent,
    }


def test_engagement_is_by_people_unless_machines_are_asked_for(engine: Engine) -> None:
    world = _campaign_world()
    seen = {"method": "GET", "ip": "203.0.113.9", "user_agent": ""}
    world["touches"] = [
        {"message_id": 1, "kind": "open", "at": ago(9), "verdict": "human", **seen},
        {"message_id": 1, "kind": "open", "at": ago(8), "verdict": "human", **seen},
        {"message_id": 2, "kind": "open", "at": ago(9), "verdict": "machine", **seen},
        {"message_id": 3, "kind": "open", "at": ago(9), "verdict": "unknown", **seen},
        {"message_id": 3, "kind": "page", "at": ago(9), "verdict": "human", **seen},
    ]
    world["message_events"] = [{"key": "1", "message_id": 2, "kind": "soft_bounced", "at": ago(9.5)}]
    store_world(engine, world)

    def did(what: str, subject: str = "contact", as_of: datetime = NOW, **more: Any) -> set[str]:
        return who(engine, {"engagement": {"did": what, **more}}, subject=subject, as_of=as_of)

    assert did("sent") == {"ann", "bob", "cid"}
    assert did("sent", campaign="spring", channel="email") == {"ann", "bob", "cid"}
    assert did("sent", campaign="autumn") == did("sent", channel="sms") == set()
    assert did("delivered") == {"ann", "cid"}
    assert did("delivered", as_of=ago(9.7)) == {"ann", "bob", "cid"}
    assert did("bounced") == {"bob"}
    assert did("opened") == {"ann"}
    assert did("opened", machines=True) == {"ann", "bob", "cid"}
    assert did("opened", gte=2) == set()
    assert did("opened", measure="days_since_last", eq=8) == {"ann"}
    assert did("opened", subject="account") == {"a"}
    assert did("opened", of="account") == {"ann", "bob"}
    assert did("sent", subject="account", gte=2) == {"a"}
    assert did("clicked") == set()


def test_consent_is_the_latest_word_before_the_instant(engine: Engine) -> None:
    def word(contact: int, status: str, days: float) -> dict[str, Any]:
        return {"contact_id": contact, "channel": "email", "status": status, "at": ago(days)}

    said = [word(1, "granted", 9), word(1, "withdrawn", 5), word(2, "withdrawn", 9), word(2, "granted", 9)]
    store_world(engine, {"accounts": _accounts("a"), "contacts": _people(ann=1, bob=1, cid=1), "consent_events": said})
    asked = {status: {"consent": {"channel": "email", "status": status}} for status in ("granted", "withdrawn", "none")}
    assert who(engine, asked["withdrawn"], subject="contact") == {"ann", "bob"}
    assert who(engine, asked["granted"], subject="contact", as_of=ago(6)) == {"ann"}
    assert who(engine, asked["none"], subject="contact") == {"cid"}
    assert who(engine, {"any_contact": asked["none"]}) == {"a"}


# --- deals and stock -----------------------------------------------------------------------------------------


def test_opportunities_stand_where_they_stood_before_the_instant(engine: Engine) -> None:
    deals = [
        {
            "id": n,
            "external_id": f"D{n}",
            "account_id": account,
            "stage": "x",
            "stage_at": NOW,
            "value_minor": value,
            "currency": currency,
        }
        for n, account, value, currency in ((1, 1, 500_000, "GBP"), (2, 1, 100, "GBP"), (3, 2, 900_000, "USD"))
    ]
    entered = [(1, "lead", 30), (1, "offer", 20), (2, "offer", 3), (3, "lead", 9), (3, "won", -2)]
    stages = [{"opportunity_id": n, "stage": stage, "entered_at": ago(days)} for n, stage, days in entered]
    store_world(engine, {"accounts": _accounts("a", "b"), "opportunities": deals, "opportunity_stages": stages})

    def ask(as_of: datetime = NOW, **more: Any) -> set[str]:
        return who(engine, {"opportunities": more}, as_of=as_of)

    assert ask(stage="offer", days_in_stage={"gte": 14}) == {"a"}
    assert ask(stage="offer", days_in_stage={"gte": 21}) == set()
    assert ask(stage="lead") == {"b"}
    assert ask(stage="lead", as_of=ago(25)) == {"a"}
    assert ask(stage="won", as_of=ago(-3)) == {"b"}
    assert ask(not_stage=["lead"], gte=2) == {"a"}
    assert ask(value={"gte": 5000}) == {"a"}
    assert ask(measure="sum", eq="5001.00") == {"a"}
    assert ask(measure="sum", eq=0) == {"b"}


def test_stock_of_what_is_bought(engine: Engine) -> None:
    levels = [(1, 50, 0.0), (1, 5, 30.0), (2, 60, 400.0), (2, 2, 400.0), (3, 9, 0.0)]
    store_world(
        engine,
        {
            "accounts": _accounts("a", "b", "c"),
            "products": _products("tea-1", "tea-2", "tea-3", "tea-4"),
            "stock_levels": [{"product_id": p, "at": ago(days), "on_hand": n} for p, days, n in levels],
            "orders": [_order(n, n, ago(30)) for n in (1, 2, 3)],
            "order_lines": [_line(1, 1, 90.0), _line(2, 2, 9.0), _line(3, 3, 1.0), _line(3, 4, 1.0, line=2)],
        },
    )

    def stock(as_of: datetime = NOW, **more: Any) -> set[str]:
        return who(engine, {"stock": more}, as_of=as_of)

    assert stock(days_of_stock={"eq": 30}) == {"a"}  # 30 on hand, 90 sold in 90 days.
    assert stock(days_of_stock={"eq": 4000}) == {"b"}  # 400 on hand, 9 sold in 90 days.
    assert stock(days_of_stock={"eq": 0}) == {"c"}
    assert stock(days_of_stock={"gt": 10**9}, sales_over="10d") == {"a", "b"}  # Nothing sold: without end.
    assert stock(on_hand={"lte": 0}) == {"c"}
    assert stock(restocked_within="7d") == {"a"}
    assert stock(restocked_within="4d") == set()
    assert stock(turnover={"lt": 1}) == {"b"}  # 9 pieces in 90 days over 400: 0.09 times a year.
    assert stock(turnover={"gte": 12}) == {"a"}  # 90 over 30, four times a year and a bit.
    assert stock(on_hand={"gte": 0}, eq=1) == {"a", "b", "c"}  # The fourth product has no level.
    assert stock(on_hand={"gte": 0}, bought_within="10d") == set()
    assert stock(on_hand={"gte": 0}, product=["tea-2"]) == {"b"}
    assert stock(on_hand={"gt": 0}, as_of=ago(10)) == {"b"}


# --- membership, buckets, dates ------------------------------------------------------------------------------


def test_membership_now_then_entered_and_left(engine: Engine) -> None:
    stays = [(1, 40, None), (2, 40, 5), (3, 3, None), (2, 100, 90)]
    store_world(
        engine,
        {
            "accounts": _accounts("stays", "left", "new", "never"),
            "contacts": _people(ann=1, bob=4),
            "segments": [{"id": 7, "name": "vip", "subject": "account", "definition": {}, "digest": ""}],
            "segment_members": [
                {
                    "segment_id": 7,
                    "subject_id": n,
                    "valid_from": ago(start),
                    "valid_to": None if end is None else ago(end),
                }
                for n, start, end in stays
            ],
        },
    )
    vip = {"everyone": True}

    def ask(**more: Any) -> set[str]:
        return who(engine, {"membership": {"segment": "vip", **more}}, vip=vip)

    assert ask() == {"stays", "new"}
    assert ask(for_at_least="30d") == {"stays"}
    assert ask(entered_within="7d") == {"new"}
    assert ask(left_within="7d") == {"left"}
    assert ask(left_within="3d") == set()
    assert ask(on="2026-05-15") == {"stays", "left"}
    assert ask(on="2026-03-10") == {"left"}
    assert ask(on="2027-01-01") == {"stays", "new"}
    account_segment = _definition("vip", "account", vip)
    people = _definition("asked", "contact", {"membership": {"segment": "vip"}})
    query = members({"vip": account_segment, "asked": people}, "asked", as_of=NOW, currency="GBP")
    with reading(engine) as connection:
        assert list(connection.execute(query).scalars()) == [1]


def test_a_bucket_is_sticky_and_of_the_right_size_and_salts_are_independent(sqlite_engine: Engine) -> None:
    ids = range(1, 4001)
    store_world(sqlite_engine, {"accounts": [{"id": n, "external_id": str(n)} for n in ids]})

    def drawn(**more: Any) -> set[str]:
        return who(sqlite_engine, {"bucket": more})

    tenth, fifth = drawn(salt="spring", share="10%"), drawn(salt="spring", share="20%")
    assert tenth < fifth
    assert fifth == {str(n) for n in ids if place_of("spring", n) < round(0.2 * PRIME)}
    second = drawn(salt="spring", share="20%", **{"from": "20%"})
    assert not fifth & second
    assert drawn(salt="spring", share="100%") == {str(n) for n in ids}
    # Five standard deviations of a binomial draw; the draws are fixed, so this holds always or never.
    assert abs(len(fifth) - 800) < 5 * (4000 * 0.2 * 0.8) ** 0.5
    for salt in ("autumn", "spring ", "Spring", "1", "2"):
        both = fifth & drawn(salt=salt, share="50%")
        assert abs(len(both) - 400) < 5 * (4000 * 0.1 * 0.9) ** 0.5


def test_dates_of_attributes_are_read_by_days_of_the_workspaces_zone(engine: Engine) -> None:
    dates = {
        "today": "2026-06-15",
        "ahead": "2026-06-22T08:00",
        "past": "2026-06-08",
        "old": "2026-06-07",
        "text": "soon",
    }
    rows = [{"id": n, "external_id": k, "attributes": {"d": v}} for n, (k, v) in enumerate(dates.items(), start=1)]
    store_world(engine, {"accounts": [*rows, {"id": 9, "external_id": "none", "attributes": {}}]})

    def dated(**test: Any) -> set[str]:
        return who(engine, {"attribute": {"name": "attributes.d", **test}})

    assert dated(within="7d") == {"today", "past"}
    assert dated(older_than="7d") == {"old"}
    assert dated(in_next="7d") == {"today", "ahead"}
    assert dated(in_next="6d") == {"today"}


# --- models --------------------------------------------------------------------------------------------------


def test_what_the_models_say_can_be_asked_for(engine: Engine) -> None:
    base = {"subject": "account", "scored_at": NOW, "first_order_at": ago(400), "orders": 9, "days": 9}
    figures = {"net_minor": 90_000, "returned_minor": 0, "r": 5, "f": 4, "m": 3}
    known = {
        "last_order_at": ago(21),
        "median_gap_days": 14.0,
        "rfm_segment": "at_risk",
        "previous_rfm_segment": "champions",
        "rfm_since": ago(10),
        "rfm_moved_by": "time",
        "cluster": "c2",
        "cluster_since": ago(100),
        "p_alive": 0.5,
        "clv_minor": 500_000,
        "next_order_at": ago(-3),
    }
    bare = {**dict.fromkeys(known), "last_order_at": ago(21)}
    store_world(
        engine,
        {
            "accounts": _accounts("known", "bare", "none"),
            "contacts": _people(ann=1, bob=2),
            "profiles": [
                {**base, **figures, **more, "subject_id": n, "scored_as": n} for n, more in ((1, known), (2, bare))
            ],
        },
    )
    for rule in (
        {"rfm": {"segment": ["at_risk"], "previous": "champions", "since": {"within": "10d"}, "moved_by": "time"}},
        {"rfm": {"r": {"eq": 5}}},
        {"cluster": {"key": "c2", "since": {"older_than": "90d"}}},
        {"lifetime": {"clv": {"gte": 5000}, "p_alive": {"gt": 0.4, "lte": 0.5}, "next_order": {"in_next": "4d"}}},
        {"cadence": {"gte": 1.5, "lte": 1.5}},
    ):
        assert who(engine, rule) == {"known"}, rule
        assert who(engine, rule, subject="contact") == {"ann"}, rule
    assert who(engine, {"lifetime": {"historic": {"eq": 900}}}) == {"known", "bare"}
    assert who(engine, {"rfm": {"since": {"within": "9d"}}}) == set()


# --- hostile and outsized ------------------------------------------------------------------------------------


FREE_TEXT = {
    "attribute": {"name", "eq", "ne", "in", "not_in", "contains", "starts_with", "ends_with"},
    "role": {"role"},
    "orders": {"product", "category"},
    "events": {"name", "property", "ne", "in", "not_in", "contains", "starts_with", "ends_with"},
    "opportunities": {"stage", "not_stage"},
    "stock": {"product", "category"},
    "rfm": {"segment", "previous"},
    "cluster": {"key", "previous"},
    "bucket": {"salt"},
}
"""The keys of each leaf that take any text; what stands under others is refused when it is read."""


@pytest.mark.parametrize("kind", FREE_TEXT)
def test_hostile_text_in_every_value_is_only_text(engine: Engine, kind: str) -> None:
    rng = random.Random(kind)
    world = random_world(rng)
    store_world(engine, world)
    spoilt: set[str] = set()
    for hostile in HOSTILE:
        for _ in range(80 if kind in ("attribute", "events") else 25):
            subject = "contact" if kind == "role" else rng.choice(["account", "contact"])
            rule = random_leaf(rng, subject, references=False, kind=kind)
            who(
                engine,
                _spoilt(rule, hostile[:200] if kind == "bucket" else hostile, FREE_TEXT[kind], spoilt),
                subject=subject,
            )
    assert spoilt == FREE_TEXT[kind]
    with reading(engine) as connection:
        assert len(connection.execute(select(accounts.c.id)).all()) == len(world["accounts"])


def _spoilt(rule: Any, text: str, keys: set[str], spoilt: set[str]) -> Any:
    """Return the rule with text under the keys replaced; the keys where that was done are added to `spoilt`."""
    if isinstance(rule, list):
        return [_spoilt(one, text, keys, spoilt) for one in rule]
    if not isinstance(rule, dict):
        return rule
    changed = {}
    for key, value in rule.items():
        listed = isinstance(value, list) and any(isinstance(one, str) for one in value)
        if key in keys and (listed or isinstance(value, str)):
            spoilt.add(key)
            changed[key] = [text, "x"] if listed else text
        else:
            changed[key] = _spoilt(value, text, keys, spoilt)
    return changed


def test_hostile_text_finds_itself_and_nobody_else(engine: Engine) -> None:
    rows = [
        {"id": n, "external_id": str(n), "name": text, "attributes": {"k": text, "l": [text]}}
        for n, text in enumerate(HOSTILE)
    ]
    store_world(engine, {"accounts": rows})
    for n, text in enumerate(HOSTILE):
        for name in ("name", "attributes.k"):
            for test in ({"eq": text}, {"in": [text]}, {"contains": text}, {"starts_with": text}, {"ends_with": text}):
                assert who(engine, {"attribute": {"name": name, **test}}) == {str(n)}
        assert who(engine, {"attribute": {"name": "attributes.l", "contains": text}}) == {str(n)}


def test_a_list_of_ten_thousand_values_is_answered(engine: Engine) -> None:
    rows = [{"id": n, "external_id": str(n), "attributes": {"n": n, "code": f"c{n}"}} for n in range(1, 30)]
    store_world(engine, {"accounts": rows})
    codes, numbers = [f"c{n}" for n in range(5, 10_005)], list(range(5, 10_005))
    lists = [
        {"attribute": {"name": "attributes.code", "in": codes}},
        {"attribute": {"name": "attributes.n", "in": numbers}},
        {"attribute": {"name": "external_id", "in": [str(n) for n in numbers]}},
        {"attribute": {"name": "attributes.code", "not_in": [*codes[10:], *codes[:10]]}},
    ]
    assert who(engine, {"all": lists[:3]}) == {str(n) for n in range(5, 30)}
    assert who(engine, {"any": lists}) == {str(n) for n in range(1, 30)}
    # Together far more values than a statement may have parameters.
    assert who(engine, {"all": [{"any": lists}] * 10}) == {str(n) for n in range(1, 30)}


@pytest.mark.parametrize("seed", seeds(3))
def test_the_deepest_rules_are_answered(engine: Engine, seed: int) -> None:
    """Random towers of the greatest height; SQLite's parser gives up long before unless they are cut into parts."""
    rng = random.Random(seed)
    store_world(engine, random_world(rng))
    for height in (5, 9, 17, MAX_DEPTH - 1):
        subject = rng.choice(["account", "contact"])
        rule = random_leaf(rng, subject, references=False, kind=rng.choice(["orders", "stock", "attribute", "events"]))
        for _ in range(height):
            rule, subject = _wrapped(rng, rule, subject)
        who(engine, rule, subject=subject)


def _wrapped(rng: random.Random, rule: dict[str, Any], subject: str) -> tuple[dict[str, Any], str]:
    beside = {"orders": {"measure": "average", "product": "P1", "gte": rng.randint(1, 30), "within": "90d"}}
    relation = rng.choice([one for one in RELATED if ("cont" in one or "coll" in one) == (subject == "contact")])
    kind = rng.choice(["all", "any", "not", "at_least", "relation", "relation"])
    if kind == "not":
        return {"not": rule}, subject
    if kind == "relation":
        outer = "contact" if relation == "any_colleague" else rng.choice(["account", "contact"])
        return {relation: rule}, outer
    parts = [beside, rule]
    return ({"at_least": {"n": 1, "of": parts}} if kind == "at_least" else {kind: parts}), subject


def test_without_any_fact_every_leaf_has_an_answer(engine: Engine) -> None:
    rng = random.Random(5)
    for subject in ("account", "contact"):
        for _ in range(60):
            rule = random_leaf(rng, subject, references=False)
            others = {name: {"everyone": True} for name in ("account-base", "contact-base")}
            assert who(engine, rule, subject=subject, **others) == set()
    scope = scope_of({"x": _definition("x", "account", {"everyone": True})}, "x", as_of=NOW, currency="GBP")
    assert scope.as_of.astimezone(UTC) == NOW
