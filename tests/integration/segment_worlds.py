"""Random facts of every table that segments read, as plain rows: a world to ask rules about."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Engine

from kernel.vocabulary import RFM_SEGMENTS, MessageEventKind, MessageState
from store.engine import writing
from store.tables import metadata

NOW = datetime(2026, 6, 15, 10, 30, tzinfo=UTC)
WORDS = ["", "GB", "DE", "vip", "Vip", "ab", "b", "ä_%", "x'; --", '"q"', "2026-01-10", "2025-12-31"]
DATES = ["2026-06-15", "2026-06-14", "2026-06-16T08:00:00Z", "2026-05-16", "2026-05-15", "2026-02-30", "2026-13-01"]
KEYS = ["tier", "n", "flag", "tags", "deep", "due"]
STAGES = ["lead", "offer", "won"]
PRODUCTS = ["P1", "P2", "P3", "P4", "P5"]
CAMPAIGNS = ["spring", "autumn"]
SNAPSHOTS = {"account-base": "account", "contact-base": "contact"}

FIRMS = range(1, 26)
PEOPLE = range(1, 61)

Row = dict[str, Any]
World = dict[str, list[Row]]


def random_world(rng: random.Random) -> World:
    """Return rows by table, in an order in which they can be stored."""
    world: World = {"accounts": _accounts(rng), "contacts": _contacts(rng)}
    world.update(_words(rng))
    world.update(_trade(rng))
    world["events"] = [_event(rng, n) for n in range(1, 81)]
    world.update(_deals(rng))
    world.update(_sending(rng))
    world["profiles"] = [_profile(rng, subject, n) for subject, n in _subjects() if rng.random() < 0.7]
    world.update(_stays(rng))
    return world


def store_world(engine: Engine, world: World) -> None:
    """Write the rows."""
    with writing(engine) as connection:
        for name, rows in world.items():
            if rows:
                connection.execute(metadata.tables[name].insert(), rows)


def instant(rng: random.Random) -> datetime:
    """Return an instant around NOW, often exactly at the edge of a window."""
    days = rng.choice([0, 0, 1, 1, 7, 30, rng.randint(-20, 800)])
    return NOW - timedelta(days=days, milliseconds=rng.choice([0, 0, 0, 1, -1, 40_000_000]))


def json_value(rng: random.Random) -> Any:
    """Return a value of any type JSON has."""
    return rng.choice(
        [None, True, False, 0, 1, 2, 2.5, -3, *WORDS, [], ["vip", 1], [True, "b", 2.5], {"inner": rng.choice(WORDS)}]
    )


def _document(rng: random.Random) -> Row:
    values = {key: json_value(rng) for key in KEYS if rng.random() < 0.7}
    return {**values, "due": rng.choice([*DATES, "2026", "", 20260615, None])} if rng.random() < 0.7 else values


def _subjects() -> list[tuple[str, int]]:
    return [*(("account", n) for n in FIRMS), *(("contact", n) for n in PEOPLE)]


def _accounts(rng: random.Random) -> list[Row]:
    return [
        {
            "id": n,
            "external_id": f"A{n}",
            "name": rng.choice(WORDS),
            "parent_id": rng.choice([None, rng.randint(1, n - 1), 1]) if n > 1 else None,
            "country": rng.choice([None, "GB", "DE", ""]),
            "timezone": None,
            "language": rng.choice([None, "de"]),
            "attributes": _document(rng),
            "created_at": rng.choice([None, instant(rng)]),
        }
        for n in FIRMS
    ]


def _contacts(rng: random.Random) -> list[Row]:
    return [
        {
            "id": n,
            "external_id": f"C{n}",
            "account_id": rng.choice([None, *FIRMS]),
            "email": rng.choice([None, f"{n}@a.example"]),
            "phone": None,
            "first_name": rng.choice(WORDS),
            "last_name": "",
            "role": rng.choice([None, "buyer", "owner"]),
            "timezone": None,
            "language": None,
            "attributes": _document(rng),
            "created_at": None,
        }
        for n in PEOPLE
    ]


def _words(rng: random.Random) -> World:
    said: dict[tuple[int, str, datetime, str], Row] = {}
    for n in PEOPLE:
        for channel in ("email", "sms"):
            for _ in range(rng.choice([0, 1, 2, 3])):
                at, status = instant(rng), rng.choice(["granted", "withdrawn"])
                said[n, channel, at, status] = {"contact_id": n, "channel": channel, "status": status, "at": at}
    return {"consent_events": list(said.values())}


def _trade(rng: random.Random) -> World:
    bought = [_order(rng, n) for n in range(1, 181)]
    return {
        "products": [
            {"id": n, "external_id": code, "category": rng.choice([None, "tea", "cups"])}
            for n, code in enumerate(PRODUCTS, start=1)
        ],
        "stock_levels": list(_levels(rng).values()),
        "orders": bought,
        "order_lines": [
            {
                "order_id": order["id"],
                "line": line,
                "product_id": rng.choice([None, *range(1, len(PRODUCTS) + 1)]),
                "quantity": rng.choice([1.0, 2.0, 2.5, -1.0, 0.1, 7.0]),
                "net_minor": rng.choice([0, 1000, 2500, -1000, rng.randint(-5000, 9000)]),
            }
            for order in bought
            for line in range(1, rng.choice([0, 1, 1, 2, 3]) + 1)
        ],
    }


def _levels(rng: random.Random) -> dict[tuple[int, datetime], Row]:
    levels = {}
    for product in range(1, len(PRODUCTS)):
        for _ in range(rng.randint(1, 7)):
            at = instant(rng)
            row = {"product_id": product, "at": at, "on_hand": rng.choice([0.0, 0.0, 5.0, 12.5, 40.0])}
            levels[product, at] = row
    return levels


def _order(rng: random.Random, n: int) -> Row:
    at = instant(rng)
    return {
        "id": n,
        "external_id": f"O{n}",
        "account_id": rng.choice([None, *range(1, 21)]),
        "contact_id": rng.choice([None, *range(1, 50)]),
        "ordered_at": at,
        "kind": rng.choice(["order", "order", "order", "return", "cancellation", "adjustment"]),
        "net_minor": rng.choice([0, 1000, 2500, -1000, rng.randint(-5000, 9000)]),
        "gross_minor": 0,
        "currency": rng.choice(["GBP", "GBP", "GBP", "USD"]),
        "cancelled_at": rng.choice([None, None, None, at + timedelta(days=1), NOW]),
    }


def _event(rng: random.Random, n: int) -> Row:
    worth = rng.random() < 0.5
    return {
        "id": n,
        "external_id": f"E{n}",
        "account_id": rng.choice([None, *FIRMS]),
        "contact_id": rng.choice([None, *PEOPLE]),
        "name": rng.choice(["demo", "visit"]),
        "at": instant(rng),
        "value_minor": rng.choice([0, 1000, 2500, -1000, 333]) if worth else None,
        "currency": rng.choice(["GBP", "GBP", "USD"]) if worth else None,
        "properties": _document(rng),
    }


def _deals(rng: random.Random) -> World:
    deals, stages = [], {}
    for n in range(1, 41):
        worth = rng.random() < 0.8
        deals.append(
            {
                "id": n,
                "external_id": f"D{n}",
                "account_id": rng.choice([None, *FIRMS]),
                "contact_id": rng.choice([None, *PEOPLE]),
                "stage": "lead",
                "stage_at": NOW,
                "value_minor": rng.choice([0, 1000, 100_000]) if worth else None,
                "currency": rng.choice(["GBP", "GBP", "USD"]) if worth else None,
            }
        )
        for _ in range(rng.randint(0, 4)):
            stage, at = rng.choice(STAGES), instant(rng)
            stages[n, stage, at] = {"opportunity_id": n, "stage": stage, "entered_at": at}
    rows = [{"id": number, **row} for number, row in enumerate(stages.values(), start=1)]
    return {"opportunities": deals, "opportunity_stages": rows}


def _sending(rng: random.Random) -> World:
    sent = [_message(rng, n) for n in range(1, 121)]
    return {
        "campaigns": [
            {"id": n, "name": name, "state": "active", "created_at": NOW, "updated_at": NOW}
            for n, name in enumerate(CAMPAIGNS, start=1)
        ],
        "campaign_versions": [
            {
                "id": n,
                "campaign_id": n,
                "number": 1,
                "digest": "",
                "spec": {},
                "files": {},
                "segments": {},
                "applied_at": NOW,
            }
            for n in (1, 2)
        ],
        "runs": [
            {
                "id": n,
                "campaign_id": (n + 1) // 2,
                "version_id": (n + 1) // 2,
                "scheduled_for": NOW + timedelta(days=n),
                "state": "done",
                "fired_at": NOW,
            }
            for n in (1, 2, 3, 4)
        ],
        "enrollments": _enrollments(sent),
        "messages": sent,
        "touches": [_touch(rng, n) for n in range(1, 161)],
        "message_events": [
            {
                "id": n,
                "key": str(n),
                "message_id": rng.randint(1, 120),
                "kind": rng.choice(list(MessageEventKind)),
                "at": instant(rng),
            }
            for n in range(1, 121)
        ],
    }


def _message(rng: random.Random, n: int) -> Row:
    accepted = rng.random() < 0.8
    states = ["sent", "delivered", "bounced", "complained"] if accepted else ["planned", "skipped", "failed"]
    return {
        "id": n,
        "run_id": rng.randint(1, 4),
        "step": n,
        "enrollment_id": n,
        "contact_id": rng.choice(PEOPLE),
        "channel": rng.choice(["email", "email", "sms"]),
        "lane": "relay",
        "state": MessageState(rng.choice(states)),
        "planned_for": NOW,
        "due_at": NOW,
        "sent_at": instant(rng) if accepted else None,
    }


def _enrollments(sent: list[Row]) -> list[Row]:
    # One for each message: the pair of run and contact must be unique, so the run is that of nobody's message.
    people = [{"id": row["id"], "contact_id": row["contact_id"], "segment": "x", "held_out": False} for row in sent]
    taken: set[tuple[int, int]] = set()
    kept = []
    for row, message in zip(people, sent, strict=True):
        pair = (message["run_id"], row["contact_id"])
        if pair in taken:
            message["enrollment_id"] = next(one["id"] for one in kept if (one["run_id"], one["contact_id"]) == pair)
            continue
        taken.add(pair)
        kept.append({**row, "run_id": message["run_id"]})
    return kept


def _touch(rng: random.Random, n: int) -> Row:
    return {
        "id": n,
        "message_id": rng.randint(1, 120),
        "kind": rng.choice(["open", "open", "click", "page"]),
        "at": instant(rng),
        "method": "GET",
        "ip": "203.0.113.1",
        "user_agent": "",
        "verdict": rng.choice(["human", "human", "machine", "unknown"]),
    }


def _profile(rng: random.Random, subject: str, n: int) -> Row:
    def maybe(value: Any) -> Any:
        return value if rng.random() < 0.8 else None

    return {
        "subject": subject,
        "subject_id": n,
        "scored_as": n,
        "scored_at": NOW,
        "first_order_at": instant(rng),
        "last_order_at": instant(rng),
        "orders": 1,
        "days": 1,
        "net_minor": rng.choice([0, 1000, 2500, 9999]),
        "returned_minor": 0,
        "median_gap_days": maybe(rng.choice([0.5, 7.0, 29.999999, 30.0, 1 / 3])),
        **{axis: rng.randint(1, 5) for axis in "rfm"},
        "rfm_segment": maybe(rng.choice(RFM_SEGMENTS)),
        "previous_rfm_segment": maybe(rng.choice(RFM_SEGMENTS)),
        "rfm_since": maybe(instant(rng)),
        "rfm_moved_by": maybe(rng.choice(["own_action", "time", "cutoff", "new"])),
        "cluster": maybe(rng.choice(["c1", "c2", "c3"])),
        "previous_cluster": maybe(rng.choice(["c1", "c2"])),
        "cluster_since": maybe(instant(rng)),
        "p_alive": maybe(rng.choice([0.0, 0.5, 0.25, 1.0])),
        "expected_orders": maybe(rng.choice([0.0, 1.5, 3.0])),
        "order_value_minor": maybe(rng.choice([1000, 2500])),
        "clv_minor": maybe(rng.choice([0, 1000, 2500])),
        "next_order_at": maybe(instant(rng)),
    }


def _stays(rng: random.Random) -> World:
    held = [
        {"id": n, "name": name, "subject": subject, "definition": {}, "digest": ""}
        for n, (name, subject) in enumerate(SNAPSHOTS.items(), start=1)
    ]
    stays: dict[tuple[int, int, datetime], Row] = {}
    for segment in held:
        for n in FIRMS if segment["subject"] == "account" else PEOPLE:
            for _ in range(rng.choice([0, 1, 2])):
                start = instant(rng)
                end = rng.choice([None, start + timedelta(days=rng.choice([1, 7, 30])), start + timedelta(hours=5)])
                row = {"segment_id": segment["id"], "subject_id": n, "valid_from": start, "valid_to": end}
                stays[segment["id"], n, start] = row
    return {"segments": held, "segment_members": list(stays.values())}
