"""Segments held against each other: in time, by two, and by many."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Engine

from kernel.errors import ConfigError
from kernel.settings import Workspace
from kernel.vocabulary import Subject
from segments.comparing import diff_in_time, diff_of_two, jaccard, overlap, overlap_counts
from segments.definitions import Definition, load_segments
from store.engine import reading, writing
from store.tables import accounts, contacts, profiles, segment_members, segments

NOW = datetime(2026, 6, 15, 12, tzinfo=UTC)
DAY = timedelta(days=1)
GERMAN = "subject: account\nwhere: {attribute: {name: country, eq: DE}}\n"
NAMED = "subject: account\nwhere: {attribute: {name: name, in: [Ant, Bee, Cat]}}\n"
NOBODY = "subject: account\nwhere: {attribute: {name: country, eq: XX}}\n"
PEOPLE = "subject: contact\nwhere: {everyone: true}\n"
FIRMS = {"Ant": "DE", "Bee": "DE", "Cat": "FR", "Dog": "DE", "Eel": "GB"}


def seed(engine: Engine, workspace: Workspace) -> dict[str, Definition]:
    with writing(engine) as connection:
        for number, (name, country) in enumerate(FIRMS.items(), start=1):
            values = {"id": number, "external_id": f"A{number}", "name": name, "country": country}
            connection.execute(accounts.insert().values(values))
            connection.execute(contacts.insert().values(id=number + 100, external_id=f"C{number}", account_id=number))
    files = {"german": GERMAN, "named": NAMED, "nobody": NOBODY, "people": PEOPLE}
    for name, text in files.items():
        (workspace.root / "segments" / f"{name}.yaml").write_text(text, encoding="utf-8")
    return load_segments(workspace)


def stayed(engine: Engine, *stays: tuple[int, int, int | None], name: str = "german", subject: str = "account") -> None:
    """Store stays of a segment: subject, first day and last day before NOW (None: still a member)."""
    with writing(engine) as connection:
        values = {"name": name, "subject": subject, "definition": {}, "digest": "d", "refreshed_at": NOW, "size": 0}
        segment_id = connection.execute(segments.insert().values(values).returning(segments.c.id)).scalar_one()
        for who, start, end in stays:
            stay: dict[str, Any] = {"segment_id": segment_id, "subject_id": who, "valid_from": NOW - start * DAY}
            connection.execute(
                segment_members.insert().values(stay | {"valid_to": None if end is None else NOW - end * DAY})
            )


def profile(who: int) -> dict[str, Any]:
    values = {"subject": "account", "subject_id": who, "scored_as": who, "scored_at": NOW, "orders": 1, "days": 1}
    return values | {"first_order_at": NOW, "last_order_at": NOW, "net_minor": 1, "returned_minor": 0}


def between(engine: Engine, definitions: dict[str, Definition], start: int, end: int, **options: Any) -> Any:
    with reading(engine) as connection:
        since, until = NOW - start * DAY, NOW - end * DAY
        return diff_in_time(connection, definitions, options.pop("name", "german"), since=since, until=until, **options)


def test_who_entered_and_left_between_two_instants(engine: Engine, workspace: Workspace) -> None:
    definitions = seed(engine, workspace)
    stayed(engine, (1, 30, None), (2, 30, 5), (3, 8, None), (4, 9, 6), (5, 30, 20), (5, 7, None))
    moves = between(engine, definitions, 10, 0)
    assert (moves.entered, moves.left, moves.passed_through) == (["A3", "A5"], ["A2"], 1)
    assert (moves.size_before, moves.size_after) == (2, 3)
    assert moves.as_json()["stayed"] == 1
    assert moves.notes == []


def test_who_left_and_came_back_has_not_moved(engine: Engine, workspace: Workspace) -> None:
    definitions = seed(engine, workspace)
    stayed(engine, (1, 30, 8), (1, 4, None))
    moves = between(engine, definitions, 10, 0)
    assert (moves.entered, moves.left, moves.passed_through, moves.size_after) == ([], [], 0, 1)


def test_a_member_is_one_from_the_instant_of_entering_and_none_at_that_of_leaving(
    engine: Engine, workspace: Workspace
) -> None:
    definitions = seed(engine, workspace)
    stayed(engine, (1, 10, 5))
    assert between(engine, definitions, 10, 6).size_before == 1
    assert between(engine, definitions, 11, 10).entered == ["A1"]
    assert between(engine, definitions, 6, 5).left == ["A1"]
    assert between(engine, definitions, 5, 4).size_before == 0


def test_reasons_are_those_of_groups_changed_in_the_same_time(engine: Engine, workspace: Workspace) -> None:
    definitions = seed(engine, workspace)
    stayed(engine, (1, 3, None), (2, 3, None), (3, 3, None), (4, 3, None), (5, 30, 2))
    moved = {1: ("own_action", 4), 2: ("own_action", 4), 3: ("time", 40), 5: ("cutoff", 2)}
    with writing(engine) as connection:
        for who, (reason, days) in moved.items():
            values = {
                "subject": "account",
                "subject_id": who,
                "scored_as": who,
                "scored_at": NOW,
                "orders": 1,
                "days": 1,
            }
            values |= {"first_order_at": NOW, "last_order_at": NOW, "net_minor": 1, "returned_minor": 0}
            values |= {"rfm_since": NOW - days * DAY, "rfm_moved_by": reason}
            connection.execute(profiles.insert().values(values))
    moves = between(engine, definitions, 10, 0, by_reason=True)
    assert moves.reasons == {"entered": {"own_action": 2, "other": 2}, "left": {"cutoff": 1}}
    assert between(engine, definitions, 10, 0).reasons is None


def test_contacts_move_for_the_reasons_of_their_account(engine: Engine, workspace: Workspace) -> None:
    definitions = seed(engine, workspace)
    stayed(engine, (101, 3, None), name="people", subject="contact")
    with writing(engine) as connection:
        moved_on = {"rfm_since": NOW - 4 * DAY, "rfm_moved_by": "time"}
        connection.execute(profiles.insert().values(profile(1) | moved_on))
    moves = between(engine, definitions, 10, 0, name="people", by_reason=True)
    assert (moves.entered, moves.reasons) == (["C1"], {"entered": {"time": 1}, "left": {}})


def test_what_snapshots_cannot_tell_is_told(engine: Engine, workspace: Workspace) -> None:
    definitions = seed(engine, workspace)
    with pytest.raises(ConfigError, match=r"never refreshed.*`carillon segments refresh german`"):
        between(engine, definitions, 10, 0)
    with pytest.raises(ConfigError, match="must be before --to"):
        between(engine, definitions, 0, 10)
    stayed(engine, (1, 5, None))
    early, late = between(engine, definitions, 10, -2).notes
    assert "first member known entered at 2026-06-10 12:00 UTC" in early
    assert "last refreshed at 2026-06-15 12:00 UTC" in late
    stayed(engine, name="nobody")
    assert between(engine, definitions, 10, 0, name="nobody").notes == ["nobody has ever been in it"]
    stayed(engine, name="people", subject="account")
    with pytest.raises(ConfigError, match="was about accounts when it was last refreshed"):
        between(engine, definitions, 10, 0, name="people")


def test_two_segments_are_compared_as_they_are_now(engine: Engine, workspace: Workspace) -> None:
    definitions = seed(engine, workspace)
    with reading(engine) as connection:
        pair = diff_of_two(connection, definitions, "german", "named", now=NOW, currency="GBP")
        same = diff_of_two(connection, definitions, "german", "german", now=NOW, currency="GBP")
    assert (pair.only_first, pair.only_second, pair.both) == (["A4"], ["A3"], 2)
    said = pair.as_json()
    assert (said["size_first"], said["size_second"], said["jaccard"]) == (3, 3, 0.5)
    assert (same.only_first, same.only_second, same.both, same.as_json()["jaccard"]) == ([], [], 3, 1.0)


def test_accounts_are_not_held_against_contacts(engine: Engine, workspace: Workspace) -> None:
    definitions = seed(engine, workspace)
    with reading(engine) as connection:
        with pytest.raises(ConfigError, match="german about accounts, people about contacts"):
            diff_of_two(connection, definitions, "german", "people", now=NOW, currency="GBP")
        with pytest.raises(ConfigError, match="two segments or more"):
            overlap(connection, definitions, ["german", "german"], now=NOW, currency="GBP")


def test_an_overlap_counts_both_shares_and_jaccard(engine: Engine, workspace: Workspace) -> None:
    definitions = seed(engine, workspace)
    with reading(engine) as connection:
        found = overlap(connection, definitions, ["named", "german", "nobody"], now=NOW, currency="GBP")
    assert (found.names, found.subject, found.in_any) == (("named", "german", "nobody"), Subject.ACCOUNT, 4)
    assert found.counts == ((3, 2, 0), (2, 3, 0), (0, 0, 0))
    assert (found.share(0, 1), found.share(2, 0), found.jaccard(0, 1), found.jaccard(2, 2)) == (2 / 3, None, 0.5, None)
    said = found.as_json()
    assert (said["sizes"], said["shares"][0]) == ([3, 3, 0], [1.0, 2 / 3, 0.0])


@given(st.lists(st.sets(st.integers(-(2**62), 2**62), max_size=30), min_size=1, max_size=6))
def test_overlaps_are_those_of_sets(sets: list[set[int]]) -> None:
    arrays = [np.array(sorted(one, key=hash), dtype=np.int64) for one in sets]
    counts, in_any = overlap_counts(arrays)
    assert counts.tolist() == [[len(one & other) for other in sets] for one in sets]
    assert in_any == len(set().union(*sets))


def test_overlaps_are_exact_beyond_one_block() -> None:
    evens, threes = np.arange(0, 400_000, 2), np.arange(0, 400_000, 3)
    counts, in_any = overlap_counts([evens, threes])
    assert counts.tolist() == [[200_000, 66_667], [66_667, 133_334]]
    assert in_any == 200_000 + 133_334 - 66_667


def test_the_jaccard_index_of_nothing_is_nothing() -> None:
    assert (jaccard(0, 0, 0), jaccard(0, 3, 0), jaccard(2, 2, 2), jaccard(1, 2, 2)) == (None, 0.0, 1.0, 1 / 3)
