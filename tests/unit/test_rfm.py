"""RFM scoring: the grid, the schemes, against pandas where notebooks use it."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernel.vocabulary import RFM_SEGMENTS
from segments import rfm
from segments.rfm import Behaviour, Scores, Thresholds

SCORE = range(1, 6)


def behaviour(rows: list[tuple[int, int, int]]) -> Behaviour:
    table = np.array(rows, dtype=np.int64).reshape(-1, 3)
    return Behaviour(recency_days=table[:, 0], frequency=table[:, 1], monetary=table[:, 2])


rows = st.lists(st.tuples(st.integers(0, 40), st.integers(1, 6), st.integers(-500, 5000)), min_size=1, max_size=80)


def test_each_of_the_25_cells_has_exactly_one_segment_and_each_segment_a_cell() -> None:
    cells = {(r, f): rfm.segment_of(r, f) for r in SCORE for f in SCORE}
    assert len(cells) == 25
    assert set(cells.values()) == set(RFM_SEGMENTS)


@pytest.mark.parametrize(
    ("r", "f", "segment"),
    [
        ("12", "12", "hibernating"),
        ("12", "34", "at_risk"),
        ("12", "5", "cant_lose"),
        ("3", "12", "about_to_sleep"),
        ("3", "3", "need_attention"),
        ("34", "45", "loyal_customers"),
        ("4", "1", "promising"),
        ("5", "1", "new_customers"),
        ("45", "23", "potential_loyalists"),
        ("5", "45", "champions"),
    ],
)
def test_the_grid_is_the_published_one(r: str, f: str, segment: str) -> None:
    assert {rfm.segment_of(int(a), int(b)) for a in r for b in f} == {segment}


@given(rows)
def test_stable_scores_give_equals_equal_scores_and_never_rank_better_behaviour_lower(
    data: list[tuple[int, int, int]],
) -> None:
    did = behaviour(data)
    scores = rfm.by_stable_rank(did)
    for values, found in ((-did.recency_days, scores.r), (did.frequency, scores.f), (did.monetary, scores.m)):
        assert set(found.tolist()) <= set(SCORE)
        order = np.argsort(values)
        assert (np.diff(found[order]) >= 0).all()
        assert len({(value, score) for value, score in zip(values, found, strict=True)}) == len(set(values.tolist()))


@given(rows, st.randoms())
def test_stable_scores_do_not_depend_on_the_order_of_the_rows(data: list[tuple[int, int, int]], random: object) -> None:
    shuffled = list(data)
    random.shuffle(shuffled)  # type: ignore[attr-defined]  # hypothesis hands out random.Random
    scores = rfm.by_stable_rank(behaviour(data))
    again = rfm.by_stable_rank(behaviour(shuffled))
    first = dict(zip(data, zip(scores.r, scores.f, scores.m, strict=True), strict=True))
    assert first == dict(zip(shuffled, zip(again.r, again.f, again.m, strict=True), strict=True))


@given(rows)
def test_stable_scores_are_the_rank_formula_of_sql(data: list[tuple[int, int, int]]) -> None:
    did = behaviour(data)
    scores = rfm.by_stable_rank(did)
    rank = pd.Series(did.frequency).rank(method="min").astype(int)
    assert scores.f.tolist() == (1 + (rank - 1) * 5 // len(data)).tolist()
    recency_rank = pd.Series(did.recency_days).rank(method="min").astype(int)
    assert scores.r.tolist() == (5 - (recency_rank - 1) * 5 // len(data)).tolist()


@settings(max_examples=60)
@given(
    st.lists(
        st.tuples(st.integers(0, 3000), st.integers(1, 6), st.integers(0, 10**7)),
        min_size=40,
        max_size=200,
        unique_by=(lambda row: row[0], lambda row: row[2]),
    )
)
def test_first_scores_are_those_of_pandas(data: list[tuple[int, int, int]]) -> None:
    did = behaviour(data)
    scores = rfm.by_first_rank(did)
    labels = [1, 2, 3, 4, 5]
    assert scores.r.tolist() == pd.qcut(pd.Series(did.recency_days), 5, labels=labels[::-1]).astype(int).tolist()
    assert scores.f.tolist() == pd.qcut(pd.Series(did.frequency).rank(method="first"), 5, labels=labels).tolist()
    assert scores.m.tolist() == pd.qcut(pd.Series(did.monetary), 5, labels=labels).astype(int).tolist()


def test_first_scores_part_equals_where_stable_scores_do_not() -> None:
    did = behaviour([(1, 1, 100)] * 10)
    assert set(rfm.by_first_rank(did).f.tolist()) == set(SCORE)
    assert set(rfm.by_stable_rank(did).f.tolist()) == {1}


def test_thresholds_give_the_border_to_the_better_score() -> None:
    thresholds = Thresholds(recency_days=[30, 60, 90, 180], orders=[10, 5, 3, 2], money_minor=[5000, 2000, 1000, 100])
    did = behaviour([(30, 10, 5000), (31, 9, 4999), (90, 3, 1000), (180, 2, 100), (181, 1, -5)])
    scores = rfm.by_thresholds(did, thresholds)
    assert scores.r.tolist() == [5, 4, 3, 2, 1]
    assert scores.f.tolist() == [5, 4, 3, 2, 1]
    assert scores.m.tolist() == [5, 4, 3, 2, 1]


def test_cutoffs_used_as_thresholds_give_the_same_scores() -> None:
    rng = np.random.default_rng(7)
    did = Behaviour(
        recency_days=rng.integers(0, 400, 1000),
        frequency=rng.integers(1, 90, 1000),
        monetary=rng.integers(-99, 9**6, 1000),
    )
    scores = rfm.by_stable_rank(did)
    found = rfm.cutoffs(did, scores)
    days, orders, money = ([border for border in found[key] if border is not None] for key in found)
    again = rfm.by_thresholds(did, Thresholds(recency_days=days, orders=orders, money_minor=money))
    assert (again.r == scores.r).all()
    assert (again.f == scores.f).all()
    assert (again.m == scores.m).all()


def test_one_crowded_value_is_told() -> None:
    did = behaviour([(day, 1 if day % 3 == 0 else day + 2, day) for day in range(600)])
    (warning,) = rfm.quintile_warnings(did, "accounts")
    assert warning.startswith("frequency: the value 1 covers 33% of 600 accounts")
    assert "thresholds" in warning


@pytest.mark.parametrize(("count", "words"), [(49, "say nothing"), (50, "coarse"), (499, "coarse")])
def test_few_buyers_are_told(count: int, words: str) -> None:
    did = behaviour([(n, n + 1, n) for n in range(count)])
    (warning,) = rfm.quintile_warnings(did, "contacts")
    assert words in warning
    assert f"only {count} contacts" in warning


def test_five_hundred_varied_buyers_need_no_warning() -> None:
    assert rfm.quintile_warnings(behaviour([(n, n + 1, n) for n in range(500)]), "accounts") == []


def test_nobody_at_all_is_scored_without_fuss() -> None:
    nobody = behaviour([])
    for scores in (rfm.by_stable_rank(nobody), rfm.by_first_rank(nobody)):
        assert len(scores.group) == 0
        assert rfm.cutoffs(nobody, scores)["orders"] == [None] * 4
    assert rfm.quintile_warnings(nobody, "accounts") == []
    assert rfm.group_means(nobody, rfm.by_stable_rank(nobody))["champions"] == {
        "n": 0,
        "recency_mean": None,
        "frequency_mean": None,
        "monetary_mean": None,
    }


def test_group_means_are_means_of_the_groups() -> None:
    champion = RFM_SEGMENTS.index("champions")
    lost = RFM_SEGMENTS.index("hibernating")
    ones = np.ones(3, dtype=np.int64)
    scores = Scores(r=ones, f=ones, m=ones, group=np.array([champion, lost, champion]))
    means = rfm.group_means(behaviour([(1, 10, 1000), (300, 1, 50), (4, 11, 2001)]), scores)
    assert means["champions"] == {"n": 2, "recency_mean": 2.5, "frequency_mean": 10.5, "monetary_mean": 1500.5}
    assert means["hibernating"]["n"] == 1
