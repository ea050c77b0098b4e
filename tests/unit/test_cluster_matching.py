"""Which cluster goes on as which, when a new picture is held, and who moved."""

from __future__ import annotations

import json
from itertools import permutations
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import adjusted_rand_score

from segments.cluster_matching import (
    adjusted_rand,
    compare,
    key_order,
    largest_moves,
    match,
    migration,
    migration_of_positions,
    overlap,
)

labelings = st.integers(1, 60).flatmap(
    lambda n: st.tuples(
        st.lists(st.integers(-1, 4), min_size=n, max_size=n), st.lists(st.integers(-1, 3), min_size=n, max_size=n)
    )
)
tables = st.lists(st.lists(st.integers(0, 30), min_size=4, max_size=4), min_size=4, max_size=4)
OLD = ("c1", "c2", "c3", "c4")


def ints(values: Any) -> np.ndarray[Any, np.dtype[np.int64]]:
    return np.array(values, dtype=np.int64)


@given(labelings)
def test_the_table_counts_everybody_who_is_in_both_once(pair: tuple[list[int], list[int]]) -> None:
    before, after = pair
    counts = overlap(ints(before), ints(after), 5, 4)
    for row in range(5):
        for column in range(4):
            assert counts[row, column] == sum(
                one == row and two == column for one, two in zip(before, after, strict=True)
            )


@given(labelings)
def test_agreement_is_that_of_scikit_learn(pair: tuple[list[int], list[int]]) -> None:
    both = [(one, two) for one, two in zip(*pair, strict=True) if one >= 0 and two >= 0]
    found = adjusted_rand(overlap(ints(pair[0]), ints(pair[1]), 5, 4))
    before, after = [one for one, _ in both], [two for _, two in both]
    assert found == pytest.approx(adjusted_rand_score(before, after) if both else 1.0)


def test_agreement_of_a_million_does_not_overflow() -> None:
    assert adjusted_rand(ints([[10**9, 0], [0, 10**9]])) == 1.0
    assert adjusted_rand(ints([[10**9, 10**9], [10**9, 10**9]])) == pytest.approx(0, abs=1e-6)


@given(tables, st.permutations([0, 1, 2, 3]))
def test_permuting_the_new_clusters_changes_no_key(table: list[list[int]], order: list[int]) -> None:
    # Counts made different from each other, so that one best pairing exists.
    counts = ints(table) * 10_000 + ints([[2 ** (4 * row + column) % 9973 for column in range(4)] for row in range(4)])
    one, other = match(OLD, counts, next_key=5), match(OLD, counts[:, order], next_key=5)
    kept = [key for key in one.keys if key in OLD]
    assert [key for key in (one.keys[new] for new in order) if key in OLD] == [key for key in other.keys if key in OLD]
    assert all(one.keys[new] == other.keys[place] for place, new in enumerate(order) if one.keys[new] in kept)


@given(tables)
def test_no_other_pairing_keeps_more_subjects_in_place(table: list[list[int]]) -> None:
    counts = ints(table)
    found = match(OLD, counts, next_key=5)
    stayed = sum(int(counts[OLD.index(key), new]) for new, key in enumerate(found.keys) if key in OLD)
    best = max(permutations(range(4)), key=lambda order: sum(counts[old, new] for old, new in enumerate(order)))
    kept = {key for key in found.keys if key in OLD}
    # Pairs with little in common were parted, so only what they held may be missing.
    parted = [
        int(counts[old, new]) for old, new in enumerate(best) if OLD[old] not in kept or found.keys[new] not in kept
    ]
    assert stayed + sum(parted) >= sum(counts[old, new] for old, new in enumerate(best))


@given(tables, st.integers(5, 50))
def test_keys_are_all_different_and_new_ones_never_given_before(table: list[list[int]], number: int) -> None:
    found = match(OLD, ints(table), next_key=number)
    assert len(set(found.keys)) == 4
    new = [key for key in found.keys if key not in OLD]
    assert all(int(key[1:]) >= number for key in new)
    assert found.next_key == number + len(new)


def test_swapped_numbers_keep_their_keys() -> None:
    assert match(("c1", "c2"), ints([[2, 90], [80, 3]]), next_key=3).keys == ("c2", "c1")


def test_a_cluster_of_other_people_gets_a_key_of_its_own() -> None:
    found = match(("c1", "c2"), ints([[90, 0], [85, 10]]), next_key=3)
    assert found.keys == ("c1", "c3")
    assert found.next_key == 4


def test_more_clusters_than_before_begin_new_keys_and_fewer_end_some() -> None:
    assert match(("c1", "c2"), ints([[50, 0, 40], [0, 70, 5]]), next_key=3).keys == ("c1", "c2", "c3")
    assert match(("c1", "c2", "c3"), ints([[50, 0], [40, 0], [0, 70]]), next_key=4).keys == ("c1", "c3")


def test_where_counts_tie_the_nearer_centre_pairs() -> None:
    counts = ints([[10, 10], [10, 10]])
    far = np.array([[9.0, 1.0], [1.0, 9.0]])
    assert match(("c1", "c2"), counts, next_key=3, distances=far).keys == ("c2", "c1")
    assert match(("c1", "c2"), counts, next_key=3, distances=far.T[::-1]).keys == ("c1", "c2")


def test_where_nobody_is_in_both_only_distances_can_carry_a_key_on() -> None:
    nobody = ints([[0, 0], [0, 0]])
    assert match(("c1", "c2"), nobody, next_key=3).keys == ("c3", "c4")
    near = np.array([[9.0, 1.0], [1.0, 9.0]])
    assert match(("c1", "c2"), nobody, next_key=3, distances=near).keys == ("c2", "c1")
    assert match(("c1", "c2"), nobody, next_key=3, distances=np.zeros((2, 2))).keys == ("c1", "c2")


def test_a_new_key_steps_over_names_that_are_taken() -> None:
    assert match(("c3", "gold"), ints([[0, 9], [0, 0]]), next_key=3).keys == ("c4", "c3")


def test_the_largest_move_of_a_centre_is_told_with_its_feature_and_sign() -> None:
    old, new = np.array([[0.0, 0.0], [1.0, 1.0]]), np.array([[1.2, 1.0], [0.1, -2.0]])
    moves = largest_moves(("c1", "c2"), old, ("c2", "c1"), new, ("orders", "net"))
    assert moves["c1"] == ("net", -2.0)
    assert moves["c2"] == ("orders", pytest.approx(0.2))
    assert largest_moves(("c1",), old[:1], ("c9",), new[:1], ("orders", "net")) == {}


def change(before: list[int], after: list[int], **options: Any) -> dict[str, Any]:
    names = ("c1", "c2", "c3")
    found = compare(
        options.pop("old", names),
        None if options.pop("unknown", False) else ints(before),
        options.pop("new", names),
        ints(after),
        moves=options.pop("moves", {}),
        largest_move=options.pop("largest_move", 0.5),
        **options,
    )
    assert json.loads(json.dumps(found)) == found
    return found


SAME = [0] * 40 + [1] * 40 + [2] * 40


def test_the_same_picture_is_not_held() -> None:
    found = change(SAME, SAME, moves={"c1": ("net", -0.9)})
    assert found["held"] is None
    assert found["previous"]["agreement"] == 1.0
    assert found["previous"]["moved"] == 0
    assert found["previous"]["centroid_moves"] == {"c1": {"feature": "net", "sd": -0.9}}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"after": [0, 1] * 60, "largest_move": 1.0}, "agreement with the previous clusters is -0.0"),
        ({"after": SAME[20:] + SAME[:20]}, "50% of the buyers would change their cluster, more than 49%"),
        ({"moves": {"c2": ("net", 1.01)}}, "the centre of c2 moved by +1.0 standard deviations of net"),
        ({"new": ("c1", "c2", "c4")}, "no cluster of today holds the buyers of c3"),
        ({"new": ("c1", "c2", "c3", "c4")}, "there were 3 clusters and are 4 now"),
        ({"other_features": (("a",), ("b", "c"))}, "the features or their transforms changed (then a; now b, c)"),
    ],
)
def test_each_great_change_is_held_and_said(options: dict[str, Any], words: str) -> None:
    after = options.pop("after", SAME)
    assert words in change(SAME, after, **{"largest_move": 0.49, **options})["held"]


def test_where_nobody_was_known_before_nothing_is_said_of_movers() -> None:
    previous = change(SAME, SAME, unknown=True)["previous"]
    assert previous["common"] == 0
    assert previous["moved_share"] is None
    assert previous["agreement"] is None


def test_migration_counts_who_went_where() -> None:
    before = np.array(["c1", "c1", "c2", "c10", "", None], dtype=object)
    after = np.array(["c1", "c2", "c2", None, "c2", ""], dtype=object)
    assert migration(before, after) == {
        "before": ["c1", "c2", "c10"],
        "after": ["c1", "c2"],
        "counts": [[1, 1], [0, 1], [0, 0]],
        "common": 3,
        "moved": 1,
        "moved_share": 1 / 3,
        "joined": {"c1": 0, "c2": 1},
        "left": {"c1": 0, "c2": 0, "c10": 1},
    }


@given(labelings)
def test_migration_loses_nobody(pair: tuple[list[int], list[int]]) -> None:
    before, after = pair
    words = [np.array([f"c{place + 1}" if place >= 0 else "" for place in places]) for places in pair]
    found = migration(*words)
    known = sum(one >= 0 or two >= 0 for one, two in zip(before, after, strict=True))
    assert found["common"] + sum(found["joined"].values()) + sum(found["left"].values()) == known
    assert found["moved"] == sum(0 <= one != two >= 0 for one, two in zip(before, after, strict=True))
    assert json.loads(json.dumps(found)) == found
    quick = migration_of_positions(ints(before), ints(after), [f"c{n}" for n in range(1, 6)], OLD)
    assert (quick["common"], quick["moved"]) == (found["common"], found["moved"])


def test_migration_of_nobody_is_empty() -> None:
    found = migration(np.array([], dtype=object), np.array([], dtype=object))
    assert found["counts"] == []
    assert found["moved_share"] is None


def test_keys_are_sorted_by_their_numbers() -> None:
    assert sorted(["c10", "c2", "c1"], key=key_order) == ["c1", "c2", "c10"]
