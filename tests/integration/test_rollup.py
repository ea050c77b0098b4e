"""Children are scored together with the account above them, and every order counts once."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import numpy as np
import pytest
from sqlalchemy import Engine, insert, update

from kernel.errors import ConfigError
from kernel.vocabulary import Subject
from segments.buyers import read_purchases
from segments.rollup import Level, read_families
from store.engine import reading, writing
from store.tables import accounts
from tests.purchase_facts import AS_OF, Facts, as_rows, plainly, random_facts, store

ALL = ("gaps", "margin", "products")


def grow(engine: Engine, parents: dict[int, int | None]) -> None:
    with writing(engine) as connection:
        connection.execute(insert(accounts), [{"id": one, "external_id": f"A{one}"} for one in parents])
        for one, parent in parents.items():
            connection.execute(update(accounts).where(accounts.c.id == one).values(parent_id=parent))


def head_of(facts: Facts, level: Level) -> Callable[[int], int]:
    parents = {row["id"]: row["parent_id"] for row in facts.accounts}

    def parent(one: int) -> int:
        return one if one in parents.values() else parents[one] or one

    def top(one: int) -> int:
        while parents[one] is not None:
            one = parents[one]
        return one

    return {"parent": parent, "top": top, "none": lambda one: one}[level]


@pytest.mark.parametrize("level", ["parent", "top"])
@pytest.mark.parametrize("seed", [1, 2])
def test_an_account_above_has_the_purchases_of_all_below_it(engine: Engine, level: Level, seed: int) -> None:
    facts = random_facts(seed)
    store(engine, facts)
    window, head = timedelta(days=90), head_of(facts, level)
    with reading(engine) as connection:
        found = read_purchases(connection, Subject.ACCOUNT, as_of=AS_OF, window=window, extras=ALL, rollup=level)
        apart = read_purchases(connection, Subject.ACCOUNT, as_of=AS_OF)
    assert as_rows(found) == plainly(facts, Subject.ACCOUNT, window=window, head=head)
    assert len(found) < len(apart)
    assert found.purchases.orders.sum() == apart.purchases.orders.sum()
    scored_as = found.purchases.ids[found.units].tolist()
    buyers = set(found.purchases.ids.tolist())
    everyone = [row["id"] for row in facts.accounts if head(row["id"]) in buyers]
    assert found.subject_ids.tolist() == everyone
    assert scored_as == [head(one) for one in everyone]


@pytest.mark.parametrize("level", ["parent", "top"])
def test_asking_about_a_child_answers_for_its_whole_family(engine: Engine, level: Level) -> None:
    facts = random_facts(3)
    store(engine, facts)
    head = head_of(facts, level)
    child = next(row["id"] for row in facts.accounts if head(row["id"]) != row["id"])
    with reading(engine) as connection:
        found = read_purchases(
            connection, Subject.ACCOUNT, as_of=AS_OF, extras=ALL, rollup=level, only=np.array([child])
        )
    assert as_rows(found) == {head(child): plainly(facts, Subject.ACCOUNT, head=head)[head(child)]}
    assert found.subject_ids.tolist() == [row["id"] for row in facts.accounts if head(row["id"]) == head(child)]


def test_contacts_are_not_rolled_up(engine: Engine) -> None:
    facts = random_facts(4)
    store(engine, facts)
    with reading(engine) as connection:
        found = read_purchases(connection, Subject.CONTACT, as_of=AS_OF, rollup="top")
    assert as_rows(found).keys() == plainly(facts, Subject.CONTACT).keys()


def test_scoring_by_parent_goes_up_one_step_and_never_past_an_account_with_children(engine: Engine) -> None:
    grow(engine, {1: None, 2: 1, 3: 2, 4: 1})
    with reading(engine) as connection:
        families = read_families(connection, "parent")
        assert families.head_of(np.arange(1, 6)).tolist() == [1, 2, 2, 1, 5]
        assert families.everyone_of(np.array([1])).tolist() == [1, 4]
        assert read_families(connection, "top").head_of(np.arange(1, 6)).tolist() == [1, 1, 1, 1, 5]
        assert read_families(connection, "none").head_of(np.arange(1, 6)).tolist() == [1, 2, 3, 4, 5]


def test_a_chain_of_a_thousand_accounts_has_one_top(engine: Engine) -> None:
    grow(engine, {one: one - 1 if one > 1 else None for one in range(1, 1_001)})
    with reading(engine) as connection:
        assert set(read_families(connection, "top").head_of(np.arange(1, 1_001)).tolist()) == {1}


@pytest.mark.parametrize(
    ("parents", "shown"),
    [
        (
            {1: 2, 2: 3, 3: 1, 4: 1, 5: None},
            ["'A1' → 'A2' → 'A3' → 'A1'", "'A2' → 'A3' → 'A1' → 'A2'", "'A3' → 'A1' → 'A2' → 'A3'"],
        ),
        ({1: 1, 2: 1}, ["'A1' → 'A1'"]),
        ({one: one % 50 + 1 for one in range(1, 51)}, ["→ …"]),
    ],
    ids=["three", "itself", "fifty"],
)
def test_a_circle_of_accounts_is_named_and_harms_only_scoring_by_the_top(
    engine: Engine, parents: dict[int, int | None], shown: list[str]
) -> None:
    grow(engine, parents)
    with reading(engine) as connection:
        with pytest.raises(ConfigError, match="in a circle") as refused:
            read_families(connection, "top")
        assert any(text in str(refused.value) for text in shown), refused.value
        families = read_families(connection, "parent")
    ids = np.array(list(parents))
    assert families.head_of(families.head_of(ids)).tolist() == families.head_of(ids).tolist()
