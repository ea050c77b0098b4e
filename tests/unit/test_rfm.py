"""RFM scoring: the schemes and their cut-offs, against pandas and against their definitions written out."""

from __future__ import annotations

import json
from dataclasses import replace
from random import Random

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernel.errors import ConfigError
from segments import rfm
from segments.rfm import Axes, Behaviour, Cutoffs

SCORE = range(1, 6)
FITTED = [
    ("quintiles", 5),
    ("quantiles", 2),
    ("quantiles", 4),
    ("quantiles", 10),
    ("equal_behaviour", 5),
    ("thirds", 3),
]
FITTED += [("equal_behaviour", 3)]
Row = tuple[int, int, int]


def behaviour(rows: list[Row]) -> Behaviour:
    table = np.array(rows, dtype=np.int64).reshape(-1, 3)
    return Behaviour(recency_days=table[:, 0], frequency=table[:, 1], monetary=table[:, 2])


def scored(did: Behaviour, scheme: str, scores: int = 5) -> Axes:
    cutoffs = rfm.fit(did, scheme, scores=5 if scheme == "thirds" else scores)
    assert cutoffs.scores == scores
    return rfm.apply(cutoffs, did)


def columns(axes: Axes) -> list[list[int]]:
    return [axes.r.tolist(), axes.f.tolist(), axes.m.tolist()]


rows = st.lists(st.tuples(st.integers(0, 500), st.integers(1, 6), st.integers(-500, 5000)), max_size=80)
some_rows = st.lists(st.tuples(st.integers(0, 40), st.integers(1, 6), st.integers(-500, 5000)), min_size=1, max_size=80)
every_scheme = pytest.mark.parametrize(("scheme", "scores"), FITTED)


# --- definitions ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scores", [2, 3, 5, 7, 10])
@given(data=some_rows)
def test_cutoffs_of_quantiles_give_the_rank_formula_to_whom_they_were_fitted(scores: int, data: list[Row]) -> None:
    did = behaviour(data)
    axes = scored(did, "quantiles", scores)
    for values, found in ((did.frequency, axes.f), (did.monetary, axes.m)):
        rank = pd.Series(values).rank(method="min").astype(int)
        assert found.tolist() == (1 + (rank - 1) * scores // len(data)).tolist()
    recency_rank = pd.Series(did.recency_days).rank(method="min").astype(int)
    assert axes.r.tolist() == (scores - (recency_rank - 1) * scores // len(data)).tolist()


@given(some_rows)
def test_quintiles_are_quantiles_of_five(data: list[Row]) -> None:
    did = behaviour(data)
    assert rfm.fit(did, "quintiles") == rfm.fit(did, "quantiles", scores=5)


@pytest.mark.parametrize("scores", [2, 3, 5, 10])
@given(data=some_rows)
def test_equal_behaviour_scores_by_the_share_of_the_sum_that_lies_above(scores: int, data: list[Row]) -> None:
    did = behaviour(data)
    axes = scored(did, "equal_behaviour", scores)
    for values, found in ((did.frequency, axes.f), (did.monetary, axes.m)):
        amounts = [max(value, 0) for value in values.tolist()]
        total = sum(amounts)
        above = [sum(other for other in amounts if other > amount) for amount in amounts]
        assert found.tolist() == [max(scores - part * scores // total, 1) if total else 1 for part in above]
    assert axes.r.tolist() == scored(did, "quantiles", scores).r.tolist()


def test_equal_behaviour_parts_the_money_and_not_the_heads() -> None:
    money = [100, 50, 50, *[10] * 10, *[1] * 100, *[0] * 7, -30]
    did = behaviour([(day, 1, amount) for day, amount in enumerate(money)])
    found = scored(did, "equal_behaviour", 4).m.tolist()
    assert found == [4, 3, 3, *[2] * 10, *[1] * 108]


def test_one_giant_is_the_best_and_leaves_the_others_the_lowest_score() -> None:
    did = behaviour([(1, 1, 1), (2, 1, 2), (3, 1, 3), (4, 1, 10_000)])
    assert scored(did, "equal_behaviour").m.tolist() == [1, 1, 1, 5]


@pytest.mark.parametrize("scores", [2, 5, 10])
def test_quantiles_of_different_values_hold_equally_many(scores: int) -> None:
    values = np.random.default_rng(3).permutation(scores * 70)
    axes = scored(Behaviour(recency_days=values, frequency=values + 1, monetary=values), "quantiles", scores)
    for found in (axes.r, axes.f, axes.m):
        assert np.bincount(found).tolist() == [0] + [70] * scores


def test_thirds_score_recency_by_180_and_365_days_and_the_rest_by_tertiles() -> None:
    did = behaviour([(180, 1, 10), (181, 1, 20), (365, 1, 30), (366, 2, 40), (0, 2, 50), (9000, 3, 60)])
    axes = scored(did, "thirds", 3)
    assert axes.r.tolist() == [3, 2, 2, 1, 3, 1]
    assert axes.f.tolist() == [1, 1, 1, 2, 2, 3]
    assert axes.m.tolist() == [1, 1, 2, 2, 3, 3]


def test_thirds_take_other_borders_of_recency() -> None:
    own = Cutoffs(scores=3, recency=(30, 90), frequency=(None, None), monetary=(None, None))
    did = behaviour([(30, 1, 1), (31, 2, 2), (91, 3, 3)])
    cutoffs = rfm.fit(did, "thirds", thresholds=own)
    assert rfm.apply(cutoffs, did).r.tolist() == [3, 2, 1]
    assert cutoffs.frequency == (3, 2)


def test_thresholds_give_the_border_to_the_better_score() -> None:
    borders = Cutoffs(scores=5, recency=(30, 60, 90, 180), frequency=(10, 5, 3, 2), monetary=(5000, 2000, 1000, 100))
    did = behaviour([(30, 10, 5000), (31, 9, 4999), (90, 3, 1000), (180, 2, 100), (181, 1, -5)])
    assert rfm.fit(did, "thresholds", thresholds=borders) == borders
    assert columns(rfm.apply(borders, did)) == [[5, 4, 3, 2, 1]] * 3


def test_a_score_two_borders_share_goes_to_the_better_one() -> None:
    borders = Cutoffs(scores=3, recency=(30, 30), frequency=(5, 5), monetary=(7, 7))
    assert columns(rfm.apply(borders, behaviour([(30, 5, 7), (31, 4, 6)]))) == [[3, 1]] * 3


# --- laws ----------------------------------------------------------------------------------------------------


@every_scheme
@given(data=rows)
def test_equal_values_get_equal_scores_and_better_ones_never_lower(scheme: str, scores: int, data: list[Row]) -> None:
    did = behaviour(data)
    axes = scored(did, scheme, scores)
    for values, found in ((-did.recency_days, axes.r), (did.frequency, axes.f), (did.monetary, axes.m)):
        assert set(found.tolist()) <= set(range(1, scores + 1))
        order = np.argsort(values)
        assert (np.diff(found[order]) >= 0).all()
        assert len(set(zip(values.tolist(), found.tolist(), strict=True))) == len(set(values.tolist()))


@every_scheme
@given(data=rows, random=st.randoms(use_true_random=False))
def test_permuting_the_rows_changes_nobodys_scores(scheme: str, scores: int, data: list[Row], random: Random) -> None:
    order = list(range(len(data)))
    random.shuffle(order)
    did = behaviour(data)
    shuffled = did.take(np.array(order, dtype=np.int64))
    assert columns(scored(shuffled, scheme, scores)) == columns(
        scored(did, scheme, scores).take(np.array(order, dtype=np.int64))
    )


@every_scheme
@given(data=some_rows, times=st.integers(2, 4))
def test_buyers_who_come_twice_change_nothing_by_it(scheme: str, scores: int, data: list[Row], times: int) -> None:
    assert columns(scored(behaviour(data * times), scheme, scores)) == [
        column * times for column in columns(scored(behaviour(data), scheme, scores))
    ]


@every_scheme
@settings(max_examples=30)
@given(data=rows, others=rows)
def test_cutoffs_score_a_subject_alone_as_among_others(
    scheme: str, scores: int, data: list[Row], others: list[Row]
) -> None:
    cutoffs = rfm.fit(behaviour(data), scheme, scores=5 if scheme == "thirds" else scores)
    together = rfm.apply(cutoffs, behaviour(others))
    alone = [columns(rfm.apply(cutoffs, behaviour([row]))) for row in others]
    assert columns(together) == [[one[axis][0] for one in alone] for axis in range(3)]


@every_scheme
@given(data=rows)
def test_the_cutoffs_are_the_extremes_of_whoever_has_a_score(scheme: str, scores: int, data: list[Row]) -> None:
    did = behaviour(data)
    cutoffs = rfm.fit(did, scheme, scores=5 if scheme == "thirds" else scores)
    found = rfm.borders_of(did, rfm.apply(cutoffs, did), scores)
    assert (found.frequency, found.monetary) == (cutoffs.frequency, cutoffs.monetary)
    assert scheme == "thirds" or found.recency == cutoffs.recency


@every_scheme
@given(data=rows)
def test_cutoffs_survive_json(scheme: str, scores: int, data: list[Row]) -> None:
    cutoffs = rfm.fit(behaviour(data), scheme, scores=5 if scheme == "thirds" else scores)
    assert Cutoffs.from_json(json.loads(json.dumps(cutoffs.to_json()))) == cutoffs


# --- odd data ------------------------------------------------------------------------------------------------


@every_scheme
def test_nobody_at_all_is_scored_without_fuss(scheme: str, scores: int) -> None:
    nobody = behaviour([])
    cutoffs = rfm.fit(nobody, scheme, scores=5 if scheme == "thirds" else scores)
    assert columns(rfm.apply(cutoffs, nobody)) == [[], [], []]
    assert cutoffs.frequency == (None,) * (scores - 1)
    assert rfm.apply(cutoffs, behaviour([(3, 4, 5)])).f.tolist() == [1]
    assert rfm.warnings(nobody, cutoffs, scheme, "accounts") == []


@pytest.mark.parametrize("many", [1, 7])
@pytest.mark.parametrize(
    ("scheme", "expected"), [("quintiles", (5, 1, 1)), ("equal_behaviour", (5, 5, 5)), ("thirds", (3, 1, 1))]
)
def test_one_customer_or_only_equal_ones_have_one_score(many: int, scheme: str, expected: Row) -> None:
    axes = scored(behaviour([(20, 3, 500)] * many), scheme, 3 if scheme == "thirds" else 5)
    assert columns(axes) == [[score] * many for score in expected]


def test_negative_totals_rank_below_positive_ones_and_have_no_share_in_a_sum() -> None:
    did = behaviour([(5, 1, -300), (5, 1, -20), (5, 1, 0), (5, 1, 10), (5, 1, 990)])
    assert scored(did, "quintiles").m.tolist() == [1, 2, 3, 4, 5]
    assert scored(did, "equal_behaviour").m.tolist() == [1, 1, 1, 1, 5]
    returned = behaviour([(5, 1, -300), (6, 1, -20)])
    assert scored(returned, "equal_behaviour").m.tolist() == [1, 1]


def test_values_near_the_limit_of_64_bits_are_scored_or_refused() -> None:
    did = behaviour([(1, 1, 2**61), (1, 1, 2**61), (1, 1, -(2**61)), (1, 1, 5)])
    assert scored(did, "quintiles").m.tolist() == [3, 3, 1, 2]
    with pytest.raises(ConfigError, match="more than 64 bits"):
        rfm.fit(did, "equal_behaviour")
    with pytest.raises(ConfigError, match=r"rfm\.money has a border beyond 64 bits"):
        Cutoffs(scores=2, recency=(1,), frequency=(1,), monetary=(10**30,))


@pytest.mark.parametrize(
    ("scheme", "scores", "words"),
    [
        ("deciles", 5, "rfm.scheme 'deciles' is unknown; known are quintiles, quantiles"),
        ("quintiles", 4, "rfm.scores is 4, but scheme: quintiles has 5; write scheme: quantiles"),
        ("thirds", 7, "rfm.scores is 7, but scheme: thirds has 3"),
        ("quantiles", 11, "rfm.scores must lie between 2 and 10, got 11"),
        ("quantiles", 1, "rfm.scores must lie between 2 and 10, got 1"),
        ("thresholds", 5, "needs recency_days, orders and money, 4 borders each"),
    ],
)
def test_a_scheme_that_cannot_be_is_refused_with_the_remedy(scheme: str, scores: int, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        rfm.fit(behaviour([(1, 2, 3)]), scheme, scores=scores)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"recency": (30, 60)}, r"rfm.recency_days must list 3 borders, best first, for scores from 4 to 1; got 2"),
        ({"recency": (60, 30, 90)}, r"rfm.recency_days must rise, .* score 4 to that of 2: \[60, 30, 90\]"),
        ({"frequency": (1, None, 3)}, r"rfm.orders must fall, .*: \[1, 3\]"),
        ({"monetary": (1, 2, 3)}, r"rfm.money must fall"),
    ],
)
def test_borders_that_are_none_are_refused(change: dict[str, tuple[int, ...]], words: str) -> None:
    sound = Cutoffs(scores=4, recency=(30, 60, 90), frequency=(9, None, 3), monetary=(3, 2, 1))
    with pytest.raises(ConfigError, match=words):
        replace(sound, **change)  # type: ignore[arg-type]  # wrong on purpose


def test_thresholds_for_another_number_of_scores_are_refused() -> None:
    three = Cutoffs(scores=3, recency=(30, 60), frequency=(2, 1), monetary=(2, 1))
    with pytest.raises(ConfigError, match="5 scores need 4 borders an axis, got 2"):
        rfm.fit(behaviour([]), "thresholds", thresholds=three)


def test_cutoffs_of_another_making_are_refused_and_not_guessed_at() -> None:
    with pytest.raises(ConfigError, match="cut-offs without orders, money_minor"):
        Cutoffs.from_json({"recency_days": [1, 2, 3, 4]})


# --- ties: first ---------------------------------------------------------------------------------------------


@settings(max_examples=60)
@given(
    st.lists(
        st.tuples(st.integers(0, 3000), st.integers(1, 6), st.integers(0, 10**7)),
        min_size=40,
        max_size=200,
        unique_by=(lambda row: row[0], lambda row: row[2]),
    )
)
def test_first_ranks_are_those_of_pandas(data: list[Row]) -> None:
    did = behaviour(data)
    axes = rfm.first_ranks(did)
    labels = [1, 2, 3, 4, 5]
    assert axes.r.tolist() == pd.qcut(pd.Series(did.recency_days), 5, labels=labels[::-1]).astype(int).tolist()
    assert axes.f.tolist() == pd.qcut(pd.Series(did.frequency).rank(method="first"), 5, labels=labels).tolist()
    assert axes.m.tolist() == pd.qcut(pd.Series(did.monetary), 5, labels=labels).astype(int).tolist()


def test_first_ranks_part_equals_where_quintiles_do_not() -> None:
    did = behaviour([(1, 1, 100)] * 10)
    assert set(rfm.first_ranks(did).f.tolist()) == set(SCORE)
    assert set(scored(did, "quintiles").f.tolist()) == {1}
    assert rfm.borders_of(did, rfm.first_ranks(did)).frequency == (1, 1, 1, 1)


def test_first_ranks_of_nobody_are_none() -> None:
    assert columns(rfm.first_ranks(behaviour([]))) == [[], [], []]


# --- warnings ------------------------------------------------------------------------------------------------


def told(did: Behaviour, scheme: str = "quintiles", scores: int = 5, noun: str = "accounts") -> list[str]:
    return rfm.warnings(did, rfm.fit(did, scheme, scores=scores), scheme, noun)


def test_one_crowded_value_is_told_with_the_scores_nobody_gets() -> None:
    did = behaviour([(day, 1 if day % 2 == 0 else day + 2, day) for day in range(600)])
    (warning,) = told(did)
    assert warning == (
        "frequency: the value 1 covers 50% of 600 accounts, so quintiles of it are not equal and nobody scores 2; "
        "consider scheme: thresholds"
    )


def test_a_crowded_value_is_told_of_narrow_cells_sooner() -> None:
    did = behaviour([(day, 1 if day % 7 == 0 else day + 2, day) for day in range(700)])
    assert told(did) == []
    (warning,) = told(did, "quantiles", 10)
    assert warning.startswith("frequency: the value 1 covers 14% of 700 accounts, so quantiles of it")


def test_equal_behaviour_warns_of_a_value_that_makes_up_the_sum() -> None:
    did = behaviour([(day, day + 1, 1_000_000 if day == 5 else day) for day in range(600)])
    (warning,) = told(did, "equal_behaviour")
    assert warning == (
        "monetary: the value 1000000 makes up 85% of the sum over 600 accounts, so equal buckets of it are not equal "
        "and nobody scores 2 or 3 or 4; consider scheme: thresholds"
    )


def test_thirds_say_nothing_of_recency_whose_borders_are_fixed() -> None:
    did = behaviour([(7, n + 1, n) for n in range(600)])
    assert told(did, "thirds") == []
    assert told(did)[0].startswith("recency_days: the value 7 covers 100%")


def test_thresholds_that_tell_nobody_apart_are_told() -> None:
    borders = Cutoffs(scores=3, recency=(30, 60), frequency=(900, 800), monetary=(30, 20))
    did = behaviour([(10 * n, n + 1, n) for n in range(60)])
    assert rfm.warnings(did, borders, "thresholds", "accounts") == [
        "rfm.orders: all 60 accounts score 1, so this axis tells nobody apart; move its thresholds"
    ]


@pytest.mark.parametrize(("count", "words"), [(49, "say nothing"), (50, "coarse"), (499, "coarse")])
def test_few_buyers_are_told(count: int, words: str) -> None:
    (warning,) = told(behaviour([(n, n + 1, n) for n in range(count)]), noun="contacts")
    assert words in warning
    assert f"only {count} contacts" in warning


def test_five_hundred_varied_buyers_need_no_warning() -> None:
    assert told(behaviour([(n, n + 1, n) for n in range(500)])) == []


# --- means ---------------------------------------------------------------------------------------------------


def test_group_means_are_means_of_the_groups_whatever_their_names() -> None:
    did = behaviour([(1, 10, 1000), (300, 1, -50), (4, 11, 2001)])
    means = rfm.group_means(did, np.array([2, 0, 2]), ("lost", "empty", "best"))
    assert means == {
        "lost": {"n": 1, "recency_mean": 300.0, "frequency_mean": 1.0, "monetary_mean": -50.0},
        "empty": {"n": 0, "recency_mean": None, "frequency_mean": None, "monetary_mean": None},
        "best": {"n": 2, "recency_mean": 2.5, "frequency_mean": 10.5, "monetary_mean": 1500.5},
    }


def test_the_means_of_nobody_are_none() -> None:
    nothing = {"n": 0, "recency_mean": None, "frequency_mean": None, "monetary_mean": None}
    assert rfm.group_means(behaviour([]), np.zeros(0, dtype=np.int64), ("a", "b")) == {"a": nothing, "b": nothing}
