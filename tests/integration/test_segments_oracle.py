"""The compiled SQL against a plain reading of the same conditions, on random trees over random data."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from typing import Any

import pytest
from sqlalchemy import Engine

from kernel.vocabulary import RFM_SEGMENTS, Subject
from segments.compiler import members
from segments.definitions import Definition, definition_from_json, definition_to_json
from segments.scope import Surroundings
from store.engine import reading, writing
from store.tables import accounts, consents, contacts, events, orders, rfm_runs, rfm_scores

NOW = datetime(2026, 6, 15, 10, 30, tzinfo=UTC)
TREES = 150
WORDS = ["", "GB", "DE", "vip", "Vip", "ab", "b", "ä_%", "x'; --", '"q"', "2026-01-10", "2025-12-31"]
KEYS = ["tier", "n", "flag", "tags", "deep"]

World = dict[str, list[dict[str, Any]]]


def _json_value(rng: random.Random) -> Any:
    return rng.choice(
        [None, True, False, 0, 1, 2, 2.5, -3, *WORDS, [], ["vip", 1], [True, "b", 2.5], {"inner": rng.choice(WORDS)}]
    )


def _attributes(rng: random.Random) -> dict[str, Any]:
    return {key: _json_value(rng) for key in KEYS if rng.random() < 0.7}


def _instant(rng: random.Random) -> datetime:
    days = rng.choice([0, 0, 1, 1, 7, 30, rng.randint(-20, 800)])
    return NOW - timedelta(days=days, milliseconds=rng.choice([0, 0, 0, 1, -1, 40_000_000]))


def _world(rng: random.Random) -> World:
    people = range(1, 61)
    firms = range(1, 26)
    return {
        "accounts": [
            {
                "id": n,
                "external_id": f"A{n}",
                "name": rng.choice(WORDS),
                "parent_id": rng.choice([None, rng.randint(1, n - 1)]) if n > 1 else None,
                "country": rng.choice([None, "GB", "DE", ""]),
                "timezone": None,
                "language": rng.choice([None, "de"]),
                "attributes": _attributes(rng),
                "created_at": rng.choice([None, _instant(rng)]),
            }
            for n in firms
        ],
        "contacts": [
            {
                "id": n,
                "external_id": f"C{n}",
                "account_id": rng.choice([None, *firms]),
                "email": rng.choice([None, f"{n}@a.example"]),
                "phone": None,
                "first_name": rng.choice(WORDS),
                "last_name": "",
                "role": rng.choice([None, "buyer", "owner"]),
                "timezone": None,
                "language": None,
                "attributes": _attributes(rng),
                "created_at": None,
            }
            for n in people
        ],
        "consents": [
            {"contact_id": n, "channel": channel, "status": rng.choice(["granted", "withdrawn"]), "at": NOW}
            for n in people
            for channel in ("email", "sms")
            if rng.random() < 0.6
        ],
        "orders": [_order(rng, n) for n in range(160)],
        "events": [
            {
                "external_id": f"E{n}",
                "account_id": rng.choice([None, *firms]),
                "contact_id": rng.choice([None, *people]),
                "name": rng.choice(["demo", "visit"]),
                "at": _instant(rng),
            }
            for n in range(80)
        ],
        "rfm_scores": [
            {
                "subject": subject,
                "subject_id": n,
                "run_id": 1,
                **{axis: rng.randint(1, 5) for axis in "rfm"},
                "segment": rng.choice(RFM_SEGMENTS),
                "recency_days": 1,
                "frequency": 1,
                "monetary_minor": 1,
                "since": NOW,
            }
            for subject, ids in (("account", firms), ("contact", people))
            for n in ids
            if rng.random() < 0.7
        ],
    }


def _order(rng: random.Random, n: int) -> dict[str, Any]:
    at = _instant(rng)
    return {
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


def _store(engine: Engine, world: World) -> None:
    tables = {table.name: table for table in (accounts, contacts, consents, orders, events, rfm_scores)}
    with writing(engine) as connection:
        for subject in ("account", "contact"):
            run = {"subject": subject, "as_of": NOW, "computed_at": NOW, "scored": 0}
            connection.execute(rfm_runs.insert().values(options={}, cutoffs={}, warnings=[], **run))
        for name, rows in world.items():
            connection.execute(tables[name].insert(), rows)


# --- random conditions -------------------------------------------------------------------------------------


def _tree(rng: random.Random, subject: str, depth: int) -> dict[str, Any]:
    if depth and rng.random() < 0.6:
        key = rng.choice(["all", "any", "not", "any_contact"])
        if key == "not":
            return {"not": _tree(rng, subject, depth - 1)}
        if key == "any_contact":
            return {"any_contact": _tree(rng, "contact", depth - 1)}
        return {key: [_tree(rng, subject, depth - 1) for _ in range(rng.randint(1, 3))]}
    kinds = ["attribute", "attribute", "attribute", "orders", "orders", "rfm", "events", "never_bought", "everyone"]
    kinds += ["segment"] if depth else []
    kinds += ["consent", "consent"] if subject == "contact" else []
    kind = rng.choice(kinds)
    if kind in ("never_bought", "everyone"):
        return {kind: True}
    if kind == "segment":
        return {"segment": rng.choice(["account-base", "contact-base"] if subject == "contact" else ["account-base"])}
    return {kind: _LEAF_MAKERS[kind](rng, subject)}


def _borders(rng: random.Random, values: list[Any]) -> dict[str, Any]:
    operators = rng.sample(["eq", "gt", "gte", "lt", "lte"], rng.choice([1, 1, 2]))
    return {operator: rng.choice(values) for operator in operators}


def _whose(rng: random.Random, subject: str) -> dict[str, Any]:
    return rng.choice([{}, {"of": "account"}, *([{"of": "contact"}] if subject == "contact" else [])])


def _period(rng: random.Random) -> dict[str, Any]:
    return rng.choice([{}, {"within": "30d"}, {"within": "1d"}, {"between": ["2026-01-01", "2026-06-14"]}])


def _make_orders(rng: random.Random, subject: str) -> dict[str, Any]:
    measure = rng.choice(["count", "sum", "average", "min", "max", "days_since_first", "days_since_last"])
    money = measure in ("sum", "average", "min", "max")
    values: list[Any] = [0, 10, "25.00", -10, 17.5] if money else [0, 1, 2, 7, 30]
    return {"measure": measure, **_borders(rng, values), **_period(rng), **_whose(rng, subject)}


def _make_events(rng: random.Random, subject: str) -> dict[str, Any]:
    borders = rng.choice([{}, _borders(rng, [0, 1, 2])])
    return {"name": rng.choice(["demo", "visit"]), **borders, **_period(rng), **_whose(rng, subject)}


def _make_rfm(rng: random.Random, subject: str) -> dict[str, Any]:
    axes = {axis: _borders(rng, [1, 2, 3, 4, 5]) for axis in rng.sample("rfm", rng.randint(0, 2))}
    segment = {"segment": rng.sample(RFM_SEGMENTS, 3)} if not axes or rng.random() < 0.5 else {}
    return {**segment, **axes, **_whose(rng, subject)}


def _make_consent(rng: random.Random, subject: str) -> dict[str, Any]:
    return {"channel": rng.choice(["email", "sms"]), "status": rng.choice(["granted", "withdrawn", "none"])}


def _make_attribute(rng: random.Random, subject: str) -> dict[str, Any]:
    own = ["name", "country"] if subject == "account" else ["first_name", "role", "email"]
    hops = ["", "parent.", "parent.parent."] if subject == "account" else ["", "account.", "account.parent."]
    hop = rng.choice(hops)
    if hop == "account.":
        own = ["name", "country"]
    elif hop:
        own = ["name"]
    kind = rng.choice(["text", "json", "json", "relation", "instant"])
    if kind == "relation":
        return {"name": rng.choice(hops[1:]).rstrip("."), "exists": rng.choice([True, False])}
    if kind == "instant":
        return {"name": f"{hop}created_at", rng.choice(["gt", "gte", "lt", "lte"]): "2026-06-14"}
    if kind == "text":
        return {"name": hop + rng.choice(own), **_text_tests(rng)}
    path = rng.choice([*KEYS, "deep.inner", "none"])
    tests: list[dict[str, Any]] = [
        _text_tests(rng),
        {rng.choice(["eq", "ne", "contains"]): rng.choice([1, 2.5, True, False, 0])},
        {rng.choice(["gt", "gte", "lt", "lte"]): rng.choice([1, 2.5, 0, "2026-01-01"])},
        {rng.choice(["in", "not_in"]): [1, "vip", True]},
    ]
    return {"name": f"{hop}attributes.{path}", **rng.choice(tests)}


def _text_tests(rng: random.Random) -> dict[str, Any]:
    word = rng.choice([word for word in WORDS if word])
    tests: list[dict[str, Any]] = [
        {rng.choice(["eq", "ne", "contains", "starts_with", "ends_with"]): word},
        {rng.choice(["in", "not_in"]): rng.sample(WORDS, 3)},
        {"exists": rng.choice([True, False])},
    ]
    return rng.choice(tests)


_LEAF_MAKERS = {
    "attribute": _make_attribute,
    "orders": _make_orders,
    "events": _make_events,
    "rfm": _make_rfm,
    "consent": _make_consent,
}


# --- the plain reading -------------------------------------------------------------------------------------


class Oracle:
    """Reads conditions as the documentation words them, row by row."""

    def __init__(self, world: World, bases: dict[str, dict[str, Any]]) -> None:
        self.world = world
        self.bases = bases
        self.firms = {row["id"]: row for row in world["accounts"]}

    def members(self, where: dict[str, Any], subject: str) -> set[int]:
        return {row["id"] for row in self.world[f"{subject}s"] if self.holds(where, subject, row)}

    def holds(self, where: dict[str, Any], subject: str, row: dict[str, Any]) -> bool:
        ((key, value),) = where.items()
        if key == "all":
            return all(self.holds(part, subject, row) for part in value)
        if key == "any":
            return any(self.holds(part, subject, row) for part in value)
        if key == "not":
            return not self.holds(value, subject, row)
        if key == "any_contact":
            firm = self.id_of(subject, row, "account")
            mine = [one for one in self.world["contacts"] if firm and one["account_id"] == firm]
            return any(self.holds(value, "contact", one) for one in mine)
        if key == "segment":
            return self.segment(value, subject, row)
        return bool(getattr(self, f"leaf_{key}")(value, subject, row))

    def segment(self, name: str, subject: str, row: dict[str, Any]) -> bool:
        base = name.split("-")[0]
        if base == subject:
            return self.holds(self.bases[name], subject, row)
        return row["account_id"] is not None and self.holds(self.bases[name], base, self.firms[row["account_id"]])

    def id_of(self, subject: str, row: dict[str, Any], whose: str) -> int | None:
        return row["id"] if whose == subject else row["account_id"]

    def leaf_everyone(self, value: Any, subject: str, row: dict[str, Any]) -> bool:
        return True

    def leaf_never_bought(self, value: Any, subject: str, row: dict[str, Any]) -> bool:
        return not [o for o in self.standing(subject, row, subject) if o["kind"] == "order"]

    def standing(self, subject: str, row: dict[str, Any], whose: str) -> list[dict[str, Any]]:
        mine = self.id_of(subject, row, whose)
        return [
            o
            for o in self.world["orders"]
            if mine is not None
            and o[f"{whose}_id"] == mine
            and o["ordered_at"] < NOW
            and not (o["cancelled_at"] and o["cancelled_at"] < NOW)
        ]

    def in_period(self, at: datetime, leaf: dict[str, Any]) -> bool:
        if "within" in leaf:
            return NOW - timedelta(days=int(leaf["within"][:-1])) <= at < NOW
        if "between" in leaf:
            first, last = (datetime.fromisoformat(day).replace(tzinfo=UTC) for day in leaf["between"])
            return first <= at < min(last + timedelta(days=1), NOW)
        return at < NOW

    def leaf_orders(self, leaf: dict[str, Any], subject: str, row: dict[str, Any]) -> bool:
        standing = self.standing(subject, row, leaf.get("of", subject))
        mine = [o for o in standing if self.in_period(o["ordered_at"], leaf)]
        measure = leaf["measure"]
        if measure == "sum":
            return _within(leaf, sum(o["net_minor"] for o in mine if o["currency"] == "GBP"), 100)
        real = [o for o in mine if o["kind"] == "order"]
        if measure == "count":
            return _within(leaf, len(real))
        if measure.startswith("days"):
            pick = min if measure == "days_since_first" else max
            return bool(real) and _within(leaf, (NOW - pick(o["ordered_at"] for o in real)) // timedelta(days=1))
        nets = [o["net_minor"] for o in real if o["currency"] == "GBP"]
        if not nets:
            return False
        return _within(
            leaf, {"min": min(nets), "max": max(nets), "average": Fraction(sum(nets), len(nets))}[measure], 100
        )

    def leaf_events(self, leaf: dict[str, Any], subject: str, row: dict[str, Any]) -> bool:
        whose = leaf.get("of", subject)
        mine = self.id_of(subject, row, whose)
        found = [
            e
            for e in self.world["events"]
            if mine and e[f"{whose}_id"] == mine and e["name"] == leaf["name"] and self.in_period(e["at"], leaf)
        ]
        asked = any(operator in leaf for operator in _OPERATORS)
        return _within(leaf, len(found)) if asked else bool(found)

    def leaf_rfm(self, leaf: dict[str, Any], subject: str, row: dict[str, Any]) -> bool:
        whose = leaf.get("of", "account")
        mine = self.id_of(subject, row, whose)
        scores = [s for s in self.world["rfm_scores"] if s["subject"] == whose and s["subject_id"] == mine]
        return any(
            ("segment" not in leaf or s["segment"] in leaf["segment"])
            and all(_within(leaf[axis], s[axis]) for axis in "rfm" if axis in leaf)
            for s in scores
        )

    def leaf_consent(self, leaf: dict[str, Any], subject: str, row: dict[str, Any]) -> bool:
        words = [
            c["status"]
            for c in self.world["consents"]
            if c["contact_id"] == row["id"] and c["channel"] == leaf["channel"]
        ]
        return (words[0] if words else "none") == leaf["status"]

    def leaf_attribute(self, leaf: dict[str, Any], subject: str, row: dict[str, Any]) -> bool:
        value = self.attribute(leaf["name"], row)
        return all(_attribute_test(key, value, wanted) for key, wanted in leaf.items() if key != "name")

    def attribute(self, name: str, row: Any) -> Any:
        words = name.split(".")
        while words and words[0] in ("account", "parent"):
            following = row[f"{words[0]}_id"]
            words = words[1:]
            if not words or following is None:
                return following
            row = self.firms[following]
        value: Any = row
        for word in words:
            value = value.get(word) if isinstance(value, dict) else None
        return value


_OPERATORS = {
    "eq": lambda a, b: a == b,
    "gt": lambda a, b: a > b,
    "gte": lambda a, b: a >= b,
    "lt": lambda a, b: a < b,
    "lte": lambda a, b: a <= b,
}


def _within(leaf: dict[str, Any], value: Any, factor: int = 1) -> bool:
    return all(
        test(value, Fraction(leaf[operator]) * factor) for operator, test in _OPERATORS.items() if operator in leaf
    )


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "flag"
    return "number" if isinstance(value, int | float) else type(value).__name__


def _same(a: Any, b: Any) -> bool:
    return _kind(a) == _kind(b) and a == b


def _attribute_test(key: str, value: Any, wanted: Any) -> bool:
    if isinstance(value, datetime):
        day = datetime.fromisoformat(wanted).replace(tzinfo=UTC)
        edge = day + timedelta(days=1) if key in ("gt", "lte") else day
        return value >= edge if key in ("gt", "gte") else value < edge
    if key == "exists":
        return (value is not None and value != "") is wanted
    if key in ("eq", "ne"):
        return _same(value, wanted) is (key == "eq")
    if key in ("in", "not_in"):
        return any(_same(value, one) for one in wanted) is (key == "in")
    if key in _OPERATORS:
        return _kind(value) == _kind(wanted) and bool(_OPERATORS[key](value, wanted))
    if isinstance(value, list):
        return key == "contains" and any(_same(one, wanted) for one in value)
    if not isinstance(value, str) or not isinstance(wanted, str):
        return False
    return {"contains": wanted in value, "starts_with": value.startswith(wanted), "ends_with": value.endswith(wanted)}[
        key
    ]


# --- the tests ---------------------------------------------------------------------------------------------


def _definition(name: str, subject: str, where: dict[str, Any]) -> Definition:
    return definition_from_json({"name": name, "subject": subject, "where": where})


@pytest.mark.parametrize("seed", [1, 2])
def test_the_compiled_query_picks_whom_a_plain_reading_picks(engine: Engine, seed: int) -> None:
    rng = random.Random(seed)
    world = _world(rng)
    _store(engine, world)
    bases = {f"{subject}-base": _tree(rng, subject, 0) for subject in ("account", "contact")}
    oracle = Oracle(world, bases)
    base_definitions = {name: _definition(name, name.split("-")[0], where) for name, where in bases.items()}
    subjects = {name: one.subject for name, one in base_definitions.items()}
    sizes = set()
    with reading(engine) as connection:
        for _ in range(TREES):
            subject = rng.choice(["account", "contact"])
            where = _tree(rng, subject, rng.randint(0, 3))
            definition = _definition("asked", subject, where)
            surroundings = Surroundings(subject=Subject(subject), segments=subjects)
            assert list(definition.where.flaws(surroundings)) == []
            query = members({**base_definitions, "asked": definition}, "asked", as_of=NOW, currency="GBP")
            found = list(connection.execute(query).scalars())
            assert len(found) == len(set(found))
            assert set(found) == oracle.members(where, subject), definition_to_json(definition)
            sizes.add(len(found))
    assert len(sizes) > 15
