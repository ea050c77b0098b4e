"""Many segments answered at once are answered as each is by its own query, of everyone and of any few."""

from __future__ import annotations

import random
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pytest
from sqlalchemy import Connection, Engine, event

from kernel.errors import ConfigError
from segments.compiler import members
from segments.definitions import Definition, definition_from_json
from segments.evaluation import evaluate
from store.engine import reading
from tests.integration.segment_rules import MAKERS, random_leaf, random_rule
from tests.integration.segment_worlds import FIRMS, NOW, PEOPLE, SNAPSHOTS, random_world, store_world
from tests.laws import seeds

Definitions = dict[str, Definition]


def define(name: str, subject: str, where: dict[str, Any]) -> Definition:
    return definition_from_json({"name": name, "subject": subject, "where": where, "timezone": "Europe/London"})


def random_definitions(rng: random.Random, count: int, depth: int = 3) -> Definitions:
    found = {name: define(name, subject, random_rule(rng, subject, 1)) for name, subject in _bases(rng)}
    for n in range(count):
        subject = rng.choice(["account", "contact"])
        found[f"s{n}"] = define(f"s{n}", subject, random_rule(rng, subject, depth))
    return found


def _bases(rng: random.Random) -> list[tuple[str, str]]:
    """The segments that rules name: rules of their own, without references, so that no circle comes about."""
    return list(SNAPSHOTS.items())


def one_by_one(connection: Connection, definitions: Definitions, names: list[str], at: datetime) -> dict[str, set[int]]:
    queries = {name: members(definitions, name, as_of=at, currency="GBP") for name in names}
    return {name: set(connection.execute(query).scalars()) for name, query in queries.items()}


def _without_references(rng: random.Random, definitions: Definitions) -> Definitions:
    bases = {name: define(name, subject, random_leaf(rng, subject, references=False)) for name, subject in _bases(rng)}
    return {**definitions, **bases}


@pytest.mark.parametrize("seed", seeds(3))
def test_together_is_one_by_one(engine: Engine, seed: int) -> None:
    rng = random.Random(seed)
    store_world(engine, random_world(rng))
    definitions = _without_references(rng, random_definitions(rng, 40))
    names = sorted(definitions)
    instants = [NOW, NOW - timedelta(days=rng.randint(1, 60), milliseconds=rng.randint(0, 3)), NOW + timedelta(days=9)]
    with reading(engine) as connection:
        for at in instants:
            found = evaluate(connection, definitions, names, as_of=at, currency="GBP")
            assert {name: set(ids.tolist()) for name, ids in found.items()} == one_by_one(
                connection, definitions, names, at
            )


@pytest.mark.parametrize("seed", seeds(2))
def test_of_a_few_is_of_everyone_cut_down_to_them(engine: Engine, seed: int) -> None:
    rng = random.Random(100 + seed)
    store_world(engine, random_world(rng))
    definitions = _without_references(rng, random_definitions(rng, 25))
    asked = {
        name: np.array(sorted(rng.sample(FIRMS if one.subject == "account" else PEOPLE, rng.choice([0, 1, 5, 20]))))
        for name, one in definitions.items()
    }
    asked = {name: ids.astype(np.int64) for name, ids in asked.items()}
    with reading(engine) as connection:
        every = evaluate(connection, definitions, list(definitions), as_of=NOW, currency="GBP")
        some = evaluate(connection, definitions, list(definitions), as_of=NOW, currency="GBP", only=asked)
    for name, ids in some.items():
        assert ids.tolist() == np.intersect1d(every[name], asked[name]).tolist(), definitions[name]


@pytest.mark.parametrize("kind", sorted(MAKERS))
def test_each_kind_of_leaf_is_answered_as_by_its_own_query(engine: Engine, kind: str) -> None:
    rng = random.Random(kind)
    store_world(engine, random_world(rng))
    definitions: Definitions = {}
    for n in range(30):
        subject = "contact" if kind in ("consent", "role") else rng.choice(["account", "contact"])
        leaf = random_leaf(rng, subject, references=False, kind=kind)
        definitions[f"s{n}"] = define(f"s{n}", subject, leaf)
    definitions = _without_references(rng, definitions)
    with reading(engine) as connection:
        found = evaluate(connection, definitions, list(definitions), as_of=NOW, currency="GBP")
        assert {name: set(ids.tolist()) for name, ids in found.items()} == one_by_one(
            connection, definitions, list(definitions), NOW
        )


def test_members_come_ascending_and_nobody_is_nobody(engine: Engine) -> None:
    store_world(engine, random_world(random.Random(1)))
    definitions = {
        "all": define("all", "contact", {"everyone": True}),
        "none": define("none", "account", {"not": {"everyone": True}}),
    }
    with reading(engine) as connection:
        found = evaluate(connection, definitions, ["all", "none"], as_of=NOW, currency="GBP")
        assert found["all"].tolist() == list(PEOPLE)
        assert found["none"].tolist() == []
        assert evaluate(connection, definitions, [], as_of=NOW, currency="GBP") == {}


def test_an_empty_database_has_no_members(engine: Engine) -> None:
    definitions = _without_references(random.Random(3), random_definitions(random.Random(3), 20))
    with reading(engine) as connection:
        found = evaluate(connection, definitions, list(definitions), as_of=NOW, currency="GBP")
    assert all(len(ids) == 0 for ids in found.values())


def test_more_questions_than_a_number_has_bits(engine: Engine) -> None:
    store_world(engine, random_world(random.Random(2)))
    definitions = {
        f"s{n}": define(f"s{n}", "account", {"orders": {"measure": "sum", "gte": n - 40}}) for n in range(130)
    }
    with reading(engine) as connection:
        found = evaluate(connection, definitions, list(definitions), as_of=NOW, currency="GBP")
        assert {name: set(ids.tolist()) for name, ids in found.items()} == one_by_one(
            connection, definitions, list(definitions), NOW
        )


def test_twenty_segments_over_orders_read_the_orders_once(sqlite_engine: Engine) -> None:
    store_world(sqlite_engine, random_world(random.Random(2)))
    definitions = {
        f"s{n}": define(f"s{n}", "account", {"all": [{"orders": {"measure": "count", "gte": n}}, {"everyone": True}]})
        for n in range(20)
    }
    asked: list[str] = []
    event.listen(sqlite_engine, "before_cursor_execute", lambda _c, _u, statement, *_rest: asked.append(statement))
    with reading(sqlite_engine) as connection:
        evaluate(connection, definitions, list(definitions), as_of=NOW, currency="GBP")
    assert sum("GROUP BY" in statement for statement in asked) == 1


def test_a_circle_of_references_is_refused(sqlite_engine: Engine) -> None:
    definitions = {
        "a": define("a", "account", {"segment": "b"}),
        "b": define("b", "account", {"not": {"segment": "a"}}),
    }
    with reading(sqlite_engine) as connection, pytest.raises(ConfigError, match="in a circle: a → b → a"):
        evaluate(connection, definitions, ["a", "b"], as_of=NOW, currency="GBP")


def test_a_segment_named_by_many_is_answered_once_whoever_asks(engine: Engine) -> None:
    store_world(engine, random_world(random.Random(5)))
    base = {"orders": {"measure": "count", "gte": 1}}
    definitions = {
        "base": define("base", "account", base),
        "firms": define("firms", "account", {"any_child": {"segment": "base"}}),
        "people": define("people", "contact", {"any": [{"segment": "base"}, {"parent": {"segment": "base"}}]}),
    }
    with reading(engine) as connection:
        found = evaluate(connection, definitions, list(definitions), as_of=NOW, currency="GBP")
        assert {name: set(ids.tolist()) for name, ids in found.items()} == one_by_one(
            connection, definitions, list(definitions), NOW
        )
