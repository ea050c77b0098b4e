"""The segment language a second time, in plain Python, row by row, as docs/segments.md words it."""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Iterable, Iterator
from datetime import UTC, date, datetime, time, timedelta
from fractions import Fraction
from typing import Any
from zoneinfo import ZoneInfo

from tests.integration.segment_worlds import SNAPSHOTS, Row, World

UNITS = {"h": timedelta(hours=1), "d": timedelta(days=1)}
MONEY = ("sum", "average", "min", "max", "first", "last")
DAY = timedelta(days=1)
ALWAYS = datetime(1, 1, 2, tzinfo=UTC)


class Oracle:
    """Reads rules of one world at one instant; `bases` are the conditions of the segments they may refer to."""

    def __init__(self, world: World, bases: dict[str, Any], as_of: datetime, zone: str = "UTC") -> None:
        self.world = world
        self.bases = bases
        self.as_of = as_of
        self.zone = ZoneInfo(zone)
        self.firms = {row["id"]: row for row in world["accounts"]}
        self.people = {row["id"]: row for row in world["contacts"]}
        self.orders_by_id = {row["id"]: row for row in world["orders"]}
        self.messages_by_id = {row["id"]: row for row in world["messages"]}

    def members(self, where: dict[str, Any], subject: str) -> set[int]:
        return {row["id"] for row in self.world[f"{subject}s"] if self.holds(where, subject, row)}

    # --- branches ---

    def holds(self, where: dict[str, Any], subject: str, row: Row) -> bool:
        ((key, value),) = where.items()
        if key in ("all", "any", "at_least"):
            parts = value["of"] if key == "at_least" else value
            number = sum(self.holds(part, subject, row) for part in parts)
            return number >= {"all": len(parts), "any": 1, "at_least": value["n"] if key == "at_least" else 0}[key]
        if key == "not":
            return not self.holds(value, subject, row)
        if key in ("any_contact", "any_colleague"):
            return any(self.holds(value, "contact", one) for one in self.contacts(key, subject, row))
        if key in ("parent", "any_child", "any_sibling"):
            return any(self.holds(value, "account", one) for one in self.relatives(key, subject, row))
        if key == "segment":
            return self.segment(value, subject, row)
        return bool(getattr(self, f"leaf_{key}")(value, subject, row))

    def contacts(self, key: str, subject: str, row: Row) -> Iterator[Row]:
        firm = self.id_of(subject, row, "account")
        for one in self.world["contacts"]:
            if firm is not None and one["account_id"] == firm and not (key == "any_colleague" and one is row):
                yield one

    def relatives(self, key: str, subject: str, row: Row) -> Iterator[Row]:
        firm = self.firms.get(self.id_of(subject, row, "account"))
        for one in self.firms.values() if firm else ():
            related = {
                "parent": one["id"] == firm["parent_id"],
                "any_child": one["parent_id"] == firm["id"],
                "any_sibling": one is not firm
                and one["parent_id"] is not None
                and one["parent_id"] == firm["parent_id"],
            }
            if related[key]:
                yield one

    def segment(self, name: str, subject: str, row: Row) -> bool:
        base = SNAPSHOTS[name]
        if base == subject:
            return self.holds(self.bases[name], subject, row)
        return row["account_id"] is not None and self.holds(self.bases[name], base, self.firms[row["account_id"]])

    def id_of(self, subject: str, row: Row, whose: str) -> int | None:
        return row["id"] if whose == subject else row["account_id"]

    def mine(self, leaf: Row, subject: str, row: Row, table: str, default: str | None = None) -> Iterator[Row]:
        """Yield the rows of a table that name the subject, or its account where the leaf asks `of: account`."""
        whose = leaf.get("of", default or subject)
        owner = self.id_of(subject, row, whose)
        for one in self.world[table]:
            if owner is not None and one[f"{whose}_id"] == owner:
                yield one

    # --- time ---

    def ago(self, text: str) -> datetime:
        return self.as_of - self.span(text)

    def span(self, text: str) -> timedelta:
        return int(text[:-1]) * UNITS[text[-1]]

    def midnight(self, day: date) -> datetime:
        return datetime.combine(day, time(), tzinfo=self.zone)

    def in_period(self, at: datetime, leaf: Row) -> bool:
        if "within" in leaf:
            return self.ago(leaf["within"]) <= at < self.as_of
        if "between" in leaf:
            first, last = (date.fromisoformat(day) for day in leaf["between"])
            return self.midnight(first) <= at < min(self.midnight(last + DAY), self.as_of)
        return at < self.as_of

    def since(self, at: datetime | None, asked: Row) -> bool:
        if at is None or at > self.as_of:
            return False
        younger = "within" not in asked or at >= self.ago(asked["within"])
        return younger and ("older_than" not in asked or at < self.ago(asked["older_than"]))

    def days(self, leaf: Row, instants: Iterable[datetime]) -> bool:
        """Return whether the whole days since the first or last of the instants are as asked."""
        known = list(instants)
        pick = min if leaf["measure"] == "days_since_first" else max
        return bool(known) and within(leaf, (self.as_of - pick(known)) // DAY)

    # --- leaves ---

    def leaf_everyone(self, value: Any, subject: str, row: Row) -> bool:
        return True

    def leaf_role(self, value: Any, subject: str, row: Row) -> bool:
        return row["role"] in ([value] if isinstance(value, str) else value)

    def leaf_never_bought(self, value: Any, subject: str, row: Row) -> bool:
        return not any(o["kind"] == "order" and self.stands(o) for o in self.mine({}, subject, row, "orders"))

    def stands(self, order: Row, status: str = "standing") -> bool:
        cancelled = bool(order["cancelled_at"] and order["cancelled_at"] < self.as_of)
        return order["ordered_at"] < self.as_of and status in ("any", "cancelled" if cancelled else "standing")

    def lines(self, order: Row, leaf: Row) -> list[Row]:
        chosen = self.products(leaf)
        lines = [line for line in self.world["order_lines"] if line["order_id"] == order["id"]]
        return lines if chosen is None else [line for line in lines if line["product_id"] in chosen]

    def products(self, leaf: Row) -> set[int] | None:
        if "product" not in leaf and "category" not in leaf:
            return None
        return {
            p["id"]
            for p in self.world["products"]
            if ("product" not in leaf or p["external_id"] in words(leaf["product"]))
            and ("category" not in leaf or p["category"] in words(leaf["category"]))
        }

    def leaf_orders(self, leaf: Row, subject: str, row: Row) -> bool:
        measure = leaf["measure"]
        everything = ["order", "return", "cancellation", "adjustment"]
        kinds = words(leaf["kind"]) if "kind" in leaf else everything if measure in ("sum", "quantity") else ["order"]
        found = [
            o
            for o in self.mine(leaf, subject, row, "orders")
            if self.stands(o, leaf.get("status", "standing"))
            and self.in_period(o["ordered_at"], leaf)
            and o["kind"] in kinds
            and (self.products(leaf) is None or self.lines(o, leaf))
        ]
        if measure in MONEY:
            return self.money(leaf, [o for o in found if o["currency"] == "GBP"])
        if measure.startswith("days"):
            return self.days(leaf, [o["ordered_at"] for o in found])
        lines = [line for o in found for line in self.lines(o, leaf)]
        if measure == "quantity":
            return within(leaf, sum(round(Fraction(str(line["quantity"])) * 1000) for line in lines), 1000)
        if measure == "products":
            return within(leaf, len({line["product_id"] for line in lines} - {None}))
        return within(leaf, len(found))

    def money(self, leaf: Row, found: list[Row]) -> bool:
        filtered = self.products(leaf) is not None
        ordered = sorted(found, key=lambda o: (o["ordered_at"], o["id"]))
        nets = [sum(line["net_minor"] for line in self.lines(o, leaf)) if filtered else o["net_minor"] for o in ordered]
        return amounts(leaf, nets)

    def leaf_events(self, leaf: Row, subject: str, row: Row) -> bool:
        measure = leaf.get("measure", "count")
        found = [
            e
            for e in self.mine(leaf, subject, row, "events")
            if e["name"] == leaf["name"]
            and self.in_period(e["at"], leaf)
            and all(self.property(e["properties"], one) for one in leaf.get("where", ()))
        ]
        if measure.startswith("days"):
            return self.days(leaf, [e["at"] for e in found])
        if measure == "count":
            return within(leaf, len(found)) if any(op in leaf for op in OPERATORS) else bool(found)
        return amounts(leaf, [e["value_minor"] for e in found if e["currency"] == "GBP"])

    def property(self, document: Row, one: Row) -> bool:
        value = at_path(document, one["property"].split("."))
        return all(self.value_test(key, value, wanted) for key, wanted in one.items() if key != "property")

    def leaf_engagement(self, leaf: Row, subject: str, row: Row) -> bool:
        measure = leaf.get("measure", "count")
        happened = [
            (message["id"], at)
            for message in self.world["messages"]
            if self.is_for(message, leaf, subject, row)
            for at in self.what_came(message, leaf)
            if self.in_period(at, leaf)
        ]
        if measure != "count":
            return self.days(leaf, [at for _, at in happened])
        number = len({message_id for message_id, _ in happened})
        return within(leaf, number) if any(op in leaf for op in OPERATORS) else number > 0

    def is_for(self, message: Row, leaf: Row, subject: str, row: Row) -> bool:
        whose = leaf.get("of", subject)
        contact = self.people[message["contact_id"]]
        owner = contact["id"] if whose == "contact" else contact["account_id"]
        run = next(run for run in self.world["runs"] if run["id"] == message["run_id"])
        campaign = next(c["name"] for c in self.world["campaigns"] if c["id"] == run["campaign_id"])
        return (
            owner is not None
            and owner == self.id_of(subject, row, whose)
            and leaf.get("channel", message["channel"]) == message["channel"]
            and ("campaign" not in leaf or campaign in words(leaf["campaign"]))
        )

    def what_came(self, message: Row, leaf: Row) -> Iterator[datetime]:
        did = leaf["did"]
        if did in ("opened", "clicked"):
            for touch in self.world["touches"]:
                counts = leaf.get("machines") or touch["verdict"] == "human"
                if touch["message_id"] == message["id"] and counts and f"{touch['kind']}ed"[:5] == did[:5]:
                    yield touch["at"]
            return
        came = [e for e in self.world["message_events"] if e["message_id"] == message["id"]]
        back = ("bounced", "soft_bounced", "mailbox_full", "blocked", "undelivered")
        bounces = [e["at"] for e in came if e["kind"] in back]
        if did in ("sent", "delivered"):
            accepted = message["state"] in ("sent", "delivered", "bounced", "complained")
            if accepted and not (did == "delivered" and any(at < self.as_of for at in bounces)):
                yield message["sent_at"]
            return
        yield from bounces if did == "bounced" else (e["at"] for e in came if e["kind"] == did)

    def leaf_opportunities(self, leaf: Row, subject: str, row: Row) -> bool:
        found = []
        for deal in self.mine(leaf, subject, row, "opportunities"):
            known = [
                (s["entered_at"], s["id"], s["stage"])
                for s in self.world["opportunity_stages"]
                if s["opportunity_id"] == deal["id"] and s["entered_at"] < self.as_of
            ]
            if known and self.deal(leaf, deal, *max(known)[::2]):
                found.append(deal)
        if leaf.get("measure") == "sum":
            return amounts(leaf, [d["value_minor"] for d in found if d["currency"] == "GBP"])
        return within(leaf, len(found)) if any(op in leaf for op in OPERATORS) else bool(found)

    def deal(self, leaf: Row, deal: Row, entered_at: datetime, stage: str) -> bool:
        if "stage" in leaf and stage not in words(leaf["stage"]):
            return False
        if "not_stage" in leaf and stage in words(leaf["not_stage"]):
            return False
        if "days_in_stage" in leaf and not within(leaf["days_in_stage"], (self.as_of - entered_at) // DAY):
            return False
        worth = deal["value_minor"] if deal["currency"] == "GBP" else None
        return "value" not in leaf or (worth is not None and within(leaf["value"], worth, 100))

    def leaf_stock(self, leaf: Row, subject: str, row: Row) -> bool:
        bought = set()
        for order in self.mine(leaf, subject, row, "orders"):
            lately = "bought_within" not in leaf or order["ordered_at"] >= self.ago(leaf["bought_within"])
            if order["kind"] == "order" and self.stands(order) and lately:
                bought |= {line["product_id"] for line in self.lines(order, leaf)} - {None}
        number = sum(self.in_stock(leaf, product) for product in bought)
        return within(leaf, number) if any(op in leaf for op in OPERATORS) else number > 0

    def in_stock(self, leaf: Row, product: int) -> bool:
        levels = sorted(
            (level["at"], level["on_hand"])
            for level in self.world["stock_levels"]
            if level["product_id"] == product and level["at"] < self.as_of
        )
        if not levels:
            return False
        on_hand = Fraction(str(levels[-1][1]))
        stretch = self.span(leaf.get("sales_over", "90d"))
        sold = self.sold(product, stretch)
        asked = [("on_hand", on_hand), ("days_of_stock", days_of_stock(on_hand, sold, stretch))]
        positive = [Fraction(str(n)) for at, n in levels if n > 0 and at >= self.as_of - stretch]
        turned = sold * len(positive) / sum(positive) * Fraction(timedelta(days=365) / stretch) if positive else None
        asked.append(("turnover", turned))
        if any(key in leaf and (value is None or not within(leaf[key], value)) for key, value in asked):
            return False
        return "restocked_within" not in leaf or self.restocked(levels, self.ago(leaf["restocked_within"]))

    def sold(self, product: int, stretch: timedelta) -> Fraction:
        return sum(
            (
                Fraction(str(line["quantity"]))
                for line in self.world["order_lines"]
                if line["product_id"] == product
                and self.stands(self.orders_by_id[line["order_id"]])
                and self.orders_by_id[line["order_id"]]["ordered_at"] >= self.as_of - stretch
            ),
            Fraction(0),
        )

    def restocked(self, levels: list[tuple[datetime, float]], since: datetime) -> bool:
        again = None
        for (_, before), (at, now) in itertools.pairwise(levels):
            if before <= 0 < now:
                again = at
        return levels[-1][1] > 0 and again is not None and again >= since

    def figures(self, leaf: Row, subject: str, row: Row) -> Row | None:
        whose = leaf.get("of", "account")
        owner = self.id_of(subject, row, whose)
        known = (p for p in self.world["profiles"] if p["subject"] == whose and p["subject_id"] == owner)
        return next(known, None)

    def leaf_rfm(self, leaf: Row, subject: str, row: Row) -> bool:
        found = self.figures(leaf, subject, row)
        return (
            found is not None
            and found["rfm_segment"] is not None
            and ("segment" not in leaf or found["rfm_segment"] in words(leaf["segment"]))
            and ("previous" not in leaf or found["previous_rfm_segment"] in words(leaf["previous"]))
            and ("moved_by" not in leaf or found["rfm_moved_by"] in words(leaf["moved_by"]))
            and ("since" not in leaf or self.since(found["rfm_since"], leaf["since"]))
            and all(within(leaf[axis], found[axis]) for axis in "rfm" if axis in leaf)
        )

    def leaf_cluster(self, leaf: Row, subject: str, row: Row) -> bool:
        found = self.figures(leaf, subject, row)
        return (
            found is not None
            and found["cluster"] is not None
            and ("key" not in leaf or found["cluster"] in words(leaf["key"]))
            and ("previous" not in leaf or found["previous_cluster"] in words(leaf["previous"]))
            and ("since" not in leaf or self.since(found["cluster_since"], leaf["since"]))
        )

    def leaf_lifetime(self, leaf: Row, subject: str, row: Row) -> bool:
        found = self.figures(leaf, subject, row)
        if found is None:
            return False
        columns = {"clv": "clv_minor", "order_value": "order_value_minor", "historic": "net_minor"}
        for key, borders in leaf.items():
            if key == "next_order":
                at = found["next_order_at"]
                if at is None or not self.as_of <= at < self.as_of + self.span(borders["in_next"]):
                    return False
            elif key != "of":
                value = found[columns.get(key, key)]
                if value is None or not within(borders, value, 100 if key in columns else 1):
                    return False
        return True

    def leaf_cadence(self, leaf: Row, subject: str, row: Row) -> bool:
        found = self.figures(leaf, subject, row)
        if found is None or found["median_gap_days"] is None:
            return False
        since_ms = (self.as_of - found["last_order_at"]) // timedelta(milliseconds=1)
        gap_ms = found["median_gap_days"] * 86_400_000.0
        return all(test(since_ms, gap_ms * leaf[op]) for op, test in OPERATORS.items() if op in leaf)

    def leaf_consent(self, leaf: Row, subject: str, row: Row) -> bool:
        said = [
            (word["at"], word["status"] == "withdrawn", word["status"])
            for word in self.world["consent_events"]
            if word["contact_id"] == row["id"] and word["channel"] == leaf["channel"] and word["at"] < self.as_of
        ]
        return (max(said)[-1] if said else "none") == leaf["status"]

    def leaf_membership(self, leaf: Row, subject: str, row: Row) -> bool:
        held = next(s for s in self.world["segments"] if s["name"] == leaf["segment"])
        owner = self.id_of(subject, row, held["subject"])
        stays = [
            (stay["valid_from"], stay["valid_to"])
            for stay in self.world["segment_members"]
            if stay["segment_id"] == held["id"] and stay["subject_id"] == owner and stay["valid_from"] <= self.as_of
        ]
        asked = [stays_at(stays, self.as_of)] if set(leaf) == {"segment"} else []
        if "on" in leaf:
            moment = min(self.midnight(date.fromisoformat(leaf["on"]) + DAY) - timedelta(milliseconds=1), self.as_of)
            asked.append(stays_at(stays, moment))
        if "entered_within" in leaf:
            asked.append([stay for stay in stays if stay[0] >= self.ago(leaf["entered_within"])])
        if "left_within" in leaf:
            since = self.ago(leaf["left_within"])
            asked.append([stay for stay in stays if stay[1] and since <= stay[1] <= self.as_of])
        if "for_at_least" in leaf:
            present = stays_at(stays, self.as_of)
            asked.append([stay for stay in present if stay[0] <= self.ago(leaf["for_at_least"])])
        return all(asked)

    def leaf_bucket(self, leaf: Row, subject: str, row: Row) -> bool:
        owner = self.id_of(subject, row, leaf.get("of", subject))
        if owner is None:
            return False
        prime = 2147483647
        raw = hashlib.sha256(leaf["salt"].encode()).digest()
        place = 0
        for n in range(4):
            place = (place * owner + int.from_bytes(raw[8 * n : 8 * n + 8], "big")) % prime
        first = share(leaf.get("from", "0"))
        return round(first * prime) <= place < round(min(1.0, first + share(leaf["share"])) * prime)

    def leaf_attribute(self, leaf: Row, subject: str, row: Row) -> bool:
        value = self.attribute(leaf["name"], row)
        return all(self.value_test(key, value, wanted) for key, wanted in leaf.items() if key != "name")

    def attribute(self, name: str, row: Any) -> Any:
        steps = name.split(".")
        while steps and steps[0] in ("account", "parent"):
            following = row[f"{steps[0]}_id"]
            steps = steps[1:]
            if not steps or following is None:
                return following
            row = self.firms[following]
        return at_path(row, steps)

    def value_test(self, key: str, value: Any, wanted: Any) -> bool:
        if key in ("within", "older_than", "in_next"):
            return self.relative(key, value, self.span(wanted))
        if isinstance(value, datetime):
            day = self.midnight(date.fromisoformat(wanted))
            edge = day + DAY if key in ("gt", "lte") else day
            return value >= edge if key in ("gt", "gte") else value < edge
        return plain_test(key, value, wanted)

    def relative(self, key: str, value: Any, span: timedelta) -> bool:
        now, at = self.as_of, value
        if not isinstance(value, datetime):
            at = calendar_day(value)
            if at is None:
                return False
            today, then, ahead = (m.astimezone(self.zone).date() for m in (now, now - span, now + span))
            return {"within": then <= at <= today, "older_than": at < then, "in_next": today <= at <= ahead}[key]
        return {"within": now - span <= at < now, "older_than": at < now - span, "in_next": now <= at < now + span}[key]


OPERATORS = {
    "eq": lambda a, b: a == b,
    "gt": lambda a, b: a > b,
    "gte": lambda a, b: a >= b,
    "lt": lambda a, b: a < b,
    "lte": lambda a, b: a <= b,
}


def within(leaf: Row, value: Any, factor: int = 1) -> bool:
    """Return whether a number lies within the borders of a leaf, given in units of `factor`."""
    borders = ((test, leaf[op]) for op, test in OPERATORS.items() if op in leaf)
    return all(test(value, Fraction(str(border)) * factor) for test, border in borders)


def amounts(leaf: Row, nets: list[int]) -> bool:
    """Return whether a measure over amounts in minor units, in their order, is as asked."""
    if leaf["measure"] == "sum":
        return within(leaf, sum(nets), 100)
    if not nets:
        return False
    found = {"min": min(nets), "max": max(nets), "first": nets[0], "last": nets[-1]}
    return within(leaf, found.get(leaf["measure"], Fraction(sum(nets), len(nets))), 100)


def days_of_stock(on_hand: Fraction, sold: Fraction, stretch: timedelta) -> Fraction | float:
    """Return how long the stock lasts."""
    if on_hand <= 0:
        return Fraction(0)
    return on_hand * Fraction(stretch / DAY) / sold if sold > 0 else float("inf")


def stays_at(stays: list[tuple[datetime, datetime | None]], moment: datetime) -> list[tuple[Any, Any]]:
    """Return the stays that hold at a moment."""
    return [stay for stay in stays if stay[0] <= moment and (stay[1] is None or stay[1] > moment)]


def share(text: str) -> float:
    """Return a share as a number."""
    return float(text[:-1]) / 100 if text.endswith("%") else float(text)


def words(value: Any) -> list[Any]:
    """Return a single word as a list."""
    return [value] if isinstance(value, str) else value


def at_path(value: Any, steps: list[str]) -> Any:
    """Return what stands in nested objects under keys."""
    for word in steps:
        value = value.get(word) if isinstance(value, dict) else None
    return value


def calendar_day(value: Any) -> date | None:
    """Return the day a text begins with; a day its month has not counts on into the next month."""
    if not isinstance(value, str) or not re.match(r"\d{4}-\d{2}-\d{2}", value):
        return None
    year, month, day = (int(part) for part in value[:10].split("-"))
    if not (1 <= month <= 12 and 1 <= day <= 31):
        return None
    return date(year, month, 1) + timedelta(days=day - 1)


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "flag"
    return "number" if isinstance(value, int | float) else type(value).__name__


def _same(a: Any, b: Any) -> bool:
    return _kind(a) == _kind(b) and a == b


def plain_test(key: str, value: Any, wanted: Any) -> bool:
    """Return whether text or a value of JSON is as asked."""
    if key == "exists":
        return (value is not None and value != "") is wanted
    if key in ("eq", "ne"):
        return _same(value, wanted) is (key == "eq")
    if key in ("in", "not_in"):
        return any(_same(value, one) for one in wanted) is (key == "in")
    if key in OPERATORS:
        return _kind(value) == _kind(wanted) and bool(OPERATORS[key](value, wanted))
    if isinstance(value, list):
        return key == "contains" and any(_same(one, wanted) for one in value)
    if not isinstance(value, str) or not isinstance(wanted, str):
        return False
    return {"contains": wanted in value, "starts_with": value.startswith(wanted), "ends_with": value.endswith(wanted)}[
        key
    ]
