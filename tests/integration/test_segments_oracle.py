"""The compiled SQL against a plain reading of the same conditions: random trees, random facts, random instants."""

from __future__ import annotations

import random
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import BigInteger, Connection, Engine, and_, false, or_, select, type_coerce

from kernel.clock import to_ms
from kernel.vocabulary import Subject
from segments.compiler import members, scope_of
from segments.conditions import LEAVES
from segments.definitions import Definition, definition_from_json, definition_to_json
from segments.scope import Clock, Surroundings
from store.engine import reading
from tests.integration.segment_oracle import Oracle
from tests.integration.segment_rules import random_leaf, random_rule
from tests.integration.segment_worlds import NOW, SNAPSHOTS, World, instant, random_world, store_world
from tests.laws import seeds

TREES = 150
ZONES = ["UTC", "Europe/London", "Pacific/Auckland"]


class Asked:
    """A world in a database, and what rules may refer to."""

    def __init__(self, rng: random.Random, engine: Engine) -> None:
        self.world: World = random_world(rng)
        store_world(engine, self.world)
        self.bases: dict[str, dict[str, Any]] = {
            name: {"any": [{"bucket": {"salt": "base", "share": "30%"}}, random_leaf(rng, subject, references=False)]}
            for name, subject in SNAPSHOTS.items()
        }
        self.subjects = {name: Subject(subject) for name, subject in SNAPSHOTS.items()}

    def definitions(self, where: dict[str, Any], subject: str, zone: str) -> dict[str, Definition]:
        rules = {**{name: (SNAPSHOTS[name], rule) for name, rule in self.bases.items()}, "asked": (subject, where)}
        return {
            name: definition_from_json({"name": name, "subject": about, "where": rule, "timezone": zone})
            for name, (about, rule) in rules.items()
        }

    def check(
        self, connection: Connection, where: dict[str, Any], subject: str, as_of: datetime, zone: str = "UTC"
    ) -> set[int]:
        """Return the members both readings agree on."""
        definitions = self.definitions(where, subject, zone)
        surroundings = Surroundings(subject=Subject(subject), segments=self.subjects)
        assert list(definitions["asked"].where.flaws(surroundings)) == []
        query = members(definitions, "asked", as_of=as_of, currency="GBP")
        found = list(connection.execute(query).scalars())
        assert len(found) == len(set(found))
        expected = Oracle(self.world, self.bases, as_of, zone).members(where, subject)
        assert set(found) == expected, (definition_to_json(definitions["asked"]), as_of, zone)
        return expected


def _moment(rng: random.Random) -> datetime:
    return rng.choice([NOW, NOW, instant(rng), NOW + timedelta(days=rng.randint(-40, 40))])


@pytest.mark.parametrize("seed", seeds(2))
def test_the_compiled_query_picks_whom_a_plain_reading_picks(engine: Engine, seed: int) -> None:
    rng = random.Random(seed)
    asked = Asked(rng, engine)
    sizes = set()
    with reading(engine) as connection:
        for _ in range(TREES):
            subject = rng.choice(["account", "contact"])
            rule = random_rule(rng, subject, rng.choice([0, 1, 2, 3, 6]))
            sizes.add(len(asked.check(connection, rule, subject, _moment(rng), rng.choice(ZONES))))
    assert len(sizes) > 15


@pytest.mark.parametrize("kind", LEAVES)
def test_each_leaf_alone_says_what_a_plain_reading_says(engine: Engine, kind: str) -> None:
    rng = random.Random(kind)
    asked = Asked(rng, engine)
    seen = set()
    with reading(engine) as connection:
        for _ in range(12 if kind in ("everyone", "never_bought", "role", "segment") else 60):
            subject = rng.choice(["account", "contact"]) if kind not in ("consent", "role") else "contact"
            rule = random_leaf(rng, subject, references=True, kind=kind)
            seen.add(frozenset(asked.check(connection, rule, subject, _moment(rng), rng.choice(ZONES))))
    assert len(seen) >= (2 if kind in ("everyone", "segment", "never_bought") else 3)


# --- the form for everybody at once, and what time alone changes ---------------------------------------------


@pytest.mark.parametrize("seed", seeds(2))
def test_one_pass_over_all_rows_says_what_asking_one_by_one_says(engine: Engine, seed: int) -> None:
    rng = random.Random(seed)
    asked = Asked(rng, engine)
    passes: dict[str, str] = {}
    with reading(engine) as connection:
        for _ in range(TREES):
            subject = rng.choice(["account", "contact"])
            rule = random_leaf(rng, subject, references=False)
            definitions = asked.definitions(rule, subject, "UTC")
            scope = scope_of(definitions, "asked", as_of=NOW, currency="GBP")
            leaf = definitions["asked"].where.leaf
            rows = leaf.rows(scope) if leaf else None
            if leaf is None or rows is None:
                continue
            query = select(leaf.test(scope)).select_from(rows.source).where(rows.where)
            nobody = connection.execute(query.where(false())).scalar_one()
            grouped = connection.execute(query.add_columns(rows.key).group_by(rows.key))
            answers = {key: answer for answer, key in grouped}
            oracle = Oracle(asked.world, asked.bases, NOW)
            owners = {row["id"]: oracle.id_of(subject, row, rows.whose) for row in asked.world[f"{subject}s"]}
            found = {one for one, owner in owners.items() if answers.get(owner, nobody)}
            assert found == oracle.members(rule, subject), rule
            text = str(select(rows.key).select_from(rows.source).where(rows.where).compile(engine))
            assert passes.setdefault(rows.name, text) == text
    assert len(passes) > 20


@pytest.mark.parametrize("seed", seeds(2))
def test_whoever_time_alone_moves_is_named_by_a_clock(engine: Engine, seed: int) -> None:
    rng = random.Random(seed)
    asked = Asked(rng, engine)
    moved = named = 0
    with reading(engine) as connection:
        for _ in range(TREES):
            subject, zone = rng.choice(["account", "contact"]), rng.choice(ZONES)
            rule = random_rule(rng, subject, rng.randint(0, 2))
            earlier = _moment(rng)
            later = earlier + rng.choice([timedelta(hours=1), timedelta(days=1), timedelta(milliseconds=1)])
            before, after = (Oracle(asked.world, asked.bases, at, zone) for at in (earlier, later))
            changed = before.members(rule, subject) ^ after.members(rule, subject)
            definitions = asked.definitions(rule, subject, zone)
            scope = scope_of(definitions, "asked", as_of=later, currency="GBP")
            woken: set[int] = set()
            for way, clock in definitions["asked"].where.clocks(scope):
                ids = _woken(connection, clock, earlier, later)
                woken |= _back(after, subject, way, clock.whose, ids)
            assert changed <= woken, (rule, earlier, later, zone)
            moved, named = moved + len(changed), named + len(woken)
    assert moved > 30
    assert named < 20 * moved


def _woken(connection: Connection, clock: Clock, earlier: datetime, later: datetime) -> set[int]:
    """Return the keys of a clock's rows that pass between two instants, a millisecond to either side."""
    at = type_coerce(clock.at, BigInteger)
    ends = [(to_ms(earlier - span) - 1, to_ms(later - span) + 1) for span in clock.after]
    passes = or_(*(and_(at >= first, at <= last) for first, last in ends))
    return set(connection.execute(select(clock.key).select_from(clock.source).where(clock.where, passes)).scalars())


def _back(oracle: Oracle, subject: str, way: tuple[str, ...], whose: str, ids: set[int]) -> set[int]:
    """Return the subjects from whom a way leads to one of the ids."""
    found = set()
    for row in oracle.world[f"{subject}s"]:
        reached = [(subject, row)]
        for relation in way:
            reached = [further for kind, one in reached for further in _related(oracle, relation, kind, one)]
        if any(oracle.id_of(kind, one, whose) in ids for kind, one in reached):
            found.add(row["id"])
    return found


def _related(oracle: Oracle, relation: str, subject: str, row: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    if relation == "account":
        return [("account", oracle.firms[row["account_id"]])] if row["account_id"] else []
    if relation in ("any_contact", "any_colleague"):
        return [("contact", one) for one in oracle.contacts(relation, subject, row)]
    return [("account", one) for one in oracle.relatives(relation, subject, row)]
